"""Class statistics: means of sums, recomputed image by image; decisive units; linearity; contrasts."""

from itertools import combinations

import pytest
import torch
from class_cases import close, each_additive, each_architecture, explained_classes, explainer_named
from toys import FAR, Cells, Varying, batch_of, noise, toy

from explainkit.errors import InputError
from explainkit.questions.class_statistics import decisive_units


@each_additive
def test_base_and_mean_contributions_make_the_mean_logit(name):
    _, _, labels, explanations, class_explanations = explained_classes(name)
    residual = explanations.residual

    for row, label in enumerate(class_explanations.index.tolist()):
        in_class = labels == label
        assert close(class_explanations.logits[row], explanations.logits[in_class].mean(0))
        assert close(class_explanations.base[row], explanations.base[in_class].mean())
        assert close(class_explanations.contributions[row], explanations.contributions[in_class].mean(0))
        assert close(class_explanations.scores[row], explanations.scores[in_class].mean(0))
        mean_logit = class_explanations.logits[row, label]
        scale = explanations.contributions[in_class].abs().sum(1).mean().item()
        sums = (
            class_explanations.base[row]
            + class_explanations.contributions[row].sum()
            + residual[in_class].mean()
        )
        assert close(sums, mean_logit, scale)
        assert class_explanations[label].explained_output == pytest.approx(mean_logit.item())
        assert class_explanations[label].residual == pytest.approx(
            class_explanations.residual[row].item(), abs=1e-5 * scale
        )
    if explanations.additivity == "exact":
        assert class_explanations.check_additivity() is class_explanations


@each_additive
def test_std_sign_agreement_and_counts_are_those_of_a_loop(name):
    _, _, labels, explanations, class_explanations = explained_classes(name)

    for row, label in enumerate(class_explanations.index.tolist()):
        contributions = explanations.contributions[labels == label].double()
        mean = contributions.mean(0)
        assert class_explanations.counts[row] == len(contributions)
        assert close(class_explanations.std[row], contributions.std(0, correction=0))
        same = (contributions.sign() == mean.sign()).double().mean(0)
        assert torch.allclose(class_explanations.sign_agreement[row].double(), same)
        predicted = explanations.logits[labels == label].argmax(1).tolist()
        assert class_explanations.confusion[row].tolist() == [predicted.count(c) for c in range(3)]
        assert class_explanations[label].accuracy == pytest.approx(
            predicted.count(label) / len(contributions)
        )


@each_additive
def test_quantiles_are_near_the_true_ones(name):
    _, _, labels, explanations, class_explanations = explained_classes(name)

    for row, label in enumerate(class_explanations.index.tolist()):
        contributions = explanations.contributions[labels == label].double()
        bin = (
            4 / 256 * (contributions.amax(0) - contributions.amin(0))
            + 1e-6 * contributions.abs().amax(0)
            + 1e-12
        )
        for position, share in enumerate((0.05, 0.5, 0.95)):
            below = contributions.quantile(share, dim=0, interpolation="lower") - bin
            above = contributions.quantile(share, dim=0, interpolation="higher") + bin
            quantile = class_explanations.quantiles[position, row]
            assert ((quantile >= below) & (quantile <= above)).all()


def test_a_unit_that_is_mostly_silent_agrees_as_often_whichever_sign_it_has():
    network = Cells(classes=2, units=2)
    with torch.no_grad():
        network.cells.weight[:] = 0.1
        network.cells.bias[:] = -2.0
        network.head.weight[:] = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    bright = torch.ones(10, 3, 32, 32)
    bright[3:] = 0  # silent in seven of ten

    class_explanations = toy(network, classes=("ant", "bee")).explain_class(
        [batch_of(bright, torch.zeros(10).long())]
    )

    assert class_explanations.sign_agreement[0].tolist() == pytest.approx([0.3, 0.3])


# decisive units


def fewest_by_brute_force(added, margin):
    """The size of the smallest set of units without which the margin is gone."""
    sizes = [
        size for size in range(len(added) + 1) for units in combinations(range(len(added)), size)
        if margin - sum(added[k] for k in units) <= 0
    ]  # fmt: skip
    return min(sizes, default=None)


@pytest.mark.parametrize("name", ["cells", "cells with a reference", "weights of each image", "senn", "ccnn"])
def test_decisive_units_are_as_few_as_brute_force_finds(name):
    _, _, labels, explanations, _ = explained_classes(name)
    if name.startswith("cells"):  # the labels of half of them as the network has it
        labels = labels.where(torch.arange(len(labels)) % 2 == 0, explanations.logits.argmax(1))
        explanations = explainer_named(name).explain(explanations.images, labels)
    units = decisive_units(explanations)
    reference = 0 if explanations.units.reference is None else explanations.units.reference
    num_decided = 0

    for n in range(len(explanations)):
        others = explanations.logits[n].clone()
        others[labels[n]] = -torch.inf
        runner_up = others.argmax()
        margin = (explanations.logits[n, labels[n]] - explanations.logits[n, runner_up]).item()
        row = torch.tensor([n])
        weights = explanations.decomposition.weights_at(row, labels[n][None])
        weights = weights - explanations.decomposition.weights_at(row, runner_up[None])
        added = (weights[0] * (explanations.scores[n] - reference)).tolist()
        fewest = None if margin <= 0 else fewest_by_brute_force(added, margin)
        assert int(units[n].sum()) == (fewest or 0)
        if fewest:
            assert margin - sum(added[k] for k in units[n].nonzero()[:, 0].tolist()) <= 1e-6
            num_decided += 1
    assert num_decided


@each_architecture
def test_decisive_rate_is_the_share_of_rightly_classified_images(name):
    _, _, labels, explanations, class_explanations = explained_classes(name)
    right = explanations.logits.argmax(1) == labels
    units = decisive_units(explanations).double()

    assert not units[~right].any()
    for row, label in enumerate(class_explanations.index.tolist()):
        right_in_class = right & (labels == label)
        expected = units[right_in_class].mean(0) if right_in_class.any() else torch.zeros(units.shape[1])
        assert close(class_explanations.decisive_rate[row], expected)


# linearity


@each_architecture
def test_linear_r2_is_how_much_mean_weights_explain(name):
    _, _, labels, explanations, class_explanations = explained_classes(name)
    reference = 0 if explanations.units.reference is None else explanations.units.reference

    for row, label in enumerate(class_explanations.index.tolist()):
        in_class = labels == label
        scores = (explanations.scores[in_class] - reference).double()
        logits = (explanations.explained_output - explanations.base)[in_class].double()
        error = (logits - scores @ explanations.weights[in_class].double().mean(0)).square().mean()
        assert class_explanations.linear_r2[row].item() == pytest.approx(
            1 - (error / logits.var(correction=0)).item(), abs=1e-3
        )


def test_a_class_of_one_image_is_linear():
    images = noise(3)

    class_explanations = toy(Varying()).explain_class([batch_of(images, torch.arange(3))])

    assert class_explanations.linear_r2.tolist() == pytest.approx([1.0] * 3, abs=1e-3)


# contrasts


@each_architecture
def test_a_contrast_is_the_mean_of_contrasts_and_sums_to_the_mean_margin(name):
    explainer, images, labels, explanations, class_explanations = explained_classes(name)

    for label in class_explanations.index.tolist():
        in_class = labels == label
        for foil in {0, 1, 2} - {label}:
            contrast = class_explanations[label].contrast(foil)
            single = explainer.explain(images[in_class], label, foils=foil)
            scale = single.contributions.abs().sum(1).mean().item()
            assert close(contrast.contributions, single.contributions.mean(0), scale)
            assert contrast.base == pytest.approx(single.base.mean().item(), abs=FAR * scale)
            margin = (
                (explanations.logits[in_class, label] - explanations.logits[in_class, foil]).mean().item()
            )
            assert contrast.explained_output == pytest.approx(margin, abs=FAR * max(scale, abs(margin)))
            assert abs(contrast.residual) <= 1e-4 * max(scale, explanations.logits.abs().max().item())
            assert contrast.foil_name == explainer.classes[foil]
            assert explainer.classes[foil] in contrast.sentence()


def test_the_default_foil_is_the_class_most_often_taken_for():
    _, _, labels, explanations, class_explanations = explained_classes("cells")

    for label in range(3):
        predicted = explanations.logits[labels == label].argmax(1)
        wrong = torch.bincount(predicted, minlength=3)
        wrong[label] = -1
        mean = explanations.logits[labels == label].mean(0)
        mean[label] = -torch.inf
        foil = int(wrong.argmax()) if wrong.max() > 0 else int(mean.argmax())
        assert class_explanations[label].rival == class_explanations[label].contrast().foil == foil


@pytest.mark.parametrize("name", ["captum/integrated-gradients", "captum/layer-integrated-gradients"])
def test_a_post_hoc_sum_is_averaged_and_its_contrast_refused_in_words(name):
    *_, class_explanations = explained_classes(name)

    assert (
        class_explanations.decisive_rate is None
        and class_explanations.linear_r2 is None
        and class_explanations.all_class_contributions is None
    )
    with pytest.raises(InputError, match="contributions to all classes"):
        class_explanations[0].contrast(1)
    assert all(item.decisive_rate is None for item in class_explanations[0].evidence)
