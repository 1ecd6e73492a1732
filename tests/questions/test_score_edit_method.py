"""Counterfactual search: score edits hold in the network's own head and are as small as brute force finds."""

from itertools import combinations

import pytest
import torch
from attrs import evolve
from counterfactual_cases import MARGIN, counterfactual_case, each_explainer
from scipy.optimize import linprog
from toys import Cells, Varying, balanced, batch_of, dataset_of, noise, toy

import explainkit as ek
from explainkit.errors import InputError, NotFittedError, UnknownNameError
from explainkit.testing import fitted_example, tiny_dataset


def all_weights(counterfactuals):
    """(N, C, K), row by row."""
    decomposition, count = counterfactuals.explanations.decomposition, len(counterfactuals.classes)
    return torch.stack([
        torch.stack([decomposition.weights_at(torch.tensor([n]), torch.tensor([c]))[0] for c in range(count)])
        for n in range(len(counterfactuals))
    ]).double()  # fmt: skip


# in the evidence


@pytest.mark.parametrize("norm", ["l0", "l1", "l2"])
@each_explainer
def test_a_feasible_edit_makes_the_target_win_by_the_margin(name, norm):
    *_, counterfactuals = counterfactual_case(name, norm, MARGIN)
    edits, weights = counterfactuals.edits["score-edit"], all_weights(counterfactuals)
    after = counterfactuals.explanations.logits.double() + torch.einsum(
        "nck,nk->nc", weights, edits.after.double() - edits.before.double()
    )

    assert edits.feasible.any()
    for n in edits.feasible.nonzero()[:, 0].tolist():
        others = after[n].clone()
        others[counterfactuals.targets[n]] = -torch.inf
        assert after[n, counterfactuals.targets[n]] - others.max() >= MARGIN - 1e-5
        assert edits.size[n] > 0
    assert torch.equal(edits.after[~edits.feasible], edits.before[~edits.feasible])
    assert torch.allclose(edits.logits.double()[edits.feasible], after[edits.feasible], atol=1e-5)


@each_explainer
def test_edits_stay_within_the_ranges_of_the_target(name):
    explainer, distractors, _, counterfactuals = counterfactual_case(name)
    low, high = target_ranges(explainer, distractors, counterfactuals)
    edits = counterfactuals.edits["score-edit"]
    is_changed = edits.before != edits.after

    assert (edits.after >= torch.minimum(low, edits.before))[is_changed].all()
    assert (edits.after <= torch.maximum(high, edits.before))[is_changed].all()


def target_ranges(explainer, distractors, counterfactuals):
    """Ends of the score ranges of each image's target, (2, N, K)."""
    ranges = counterfactuals.explanations.units.score_range
    return (explainer.score_ranges(distractors) if ranges is None else ranges)[:, counterfactuals.targets]


def fewest_by_linear_programs(counterfactuals, n, low, high, margin):
    """The size of the smallest set of units that can move so that the target wins."""
    weights, logits = all_weights(counterfactuals)[n], counterfactuals.explanations.logits[n].double()
    target = int(counterfactuals.targets[n])
    foils = [c for c in range(len(logits)) if c != target]
    before = counterfactuals.edits["score-edit"].before[n].double()
    for size in range(len(before) + 1):
        for units in combinations(range(len(before)), size):
            rows = [[(weights[c, k] - weights[target, k]).item() for k in units] for c in foils]
            gaps = [(logits[target] - logits[c]).item() - margin for c in foils]
            ends = [
                (min(0.0, (low[n, k] - before[k]).item()), max(0.0, (high[n, k] - before[k]).item()))
                for k in units
            ]
            if not units and min(gaps) >= 0:
                return 0
            if units and linprog([0.0] * size, A_ub=rows, b_ub=gaps, bounds=ends).status == 0:
                return size
    return None


@pytest.mark.parametrize("name", ["cells", "varying", "senn", "ccnn", "protopnet"])
def test_sizes_are_those_of_brute_force(name):
    explainer, distractors, _, counterfactuals = counterfactual_case(name, margin=0.05, prove=True)
    low, high = target_ranges(explainer, distractors, counterfactuals).double()
    edits = counterfactuals.edits["score-edit"]

    for n in range(len(counterfactuals)):
        fewest = fewest_by_linear_programs(counterfactuals, n, low, high, 0.05)
        assert bool(edits.feasible[n]) == (fewest is not None)
        if fewest is not None:
            assert edits.exact[n] and edits.size[n] == fewest


@each_explainer
def test_gains_are_what_each_change_closes_of_the_gap(name):
    *_, counterfactuals = counterfactual_case(name)
    weights = all_weights(counterfactuals)

    for n in range(len(counterfactuals)):
        towards = weights[n, counterfactuals.targets[n]] - weights[n, counterfactuals.predictions[n]]
        for change in counterfactuals[n].changes:
            closed = towards[change.unit] * (change.after - change.before)
            assert change.gain == pytest.approx(closed.item(), rel=1e-3, abs=1e-6)
            assert change.name == counterfactuals.explanations.units.names[change.unit]
        gains = [change.gain for change in counterfactuals[n].changes]
        assert gains == sorted(gains, reverse=True)


def test_a_change_that_rounding_would_swallow_is_the_next_number_that_there_is():
    network = Varying(classes=2, units=1, own_weights=False)
    with torch.no_grad():
        network.scores.weight[:], network.scores.bias[:] = 0.0, 3000.0
        network.weights.weight[:], network.weights.bias[:] = 0.0, torch.tensor([10.0, 9.0])
        network.bias.weight[:], network.bias.bias[:] = 0.0, torch.tensor([-30000.0, -27000.0])
    explainer = toy(network, classes=("ant", "bee"))
    ends = torch.tensor([0.0, 9000.0])[:, None, None].expand(2, 2, 1).contiguous()
    explainer.units = evolve(explainer.describe_units(network), score_range=ends)
    counterfactuals = explainer.counterfactual(
        noise(1), "bee", distractors=batch_of(noise(2), torch.arange(2)), margin=0, norm="l1"
    )

    assert counterfactuals.edits["score-edit"].feasible.all() and counterfactuals[0].changes[0].after < 3000
    assert "from 3000 to 2999.9" in counterfactuals[0].sentence()


def test_the_default_target_is_the_runner_up():
    explainer, distractors, images, counterfactuals = counterfactual_case("cells")
    second = explainer.predict(images).topk(2, 1).indices[:, 1]

    assert torch.equal(counterfactuals.targets, second)
    named = explainer.counterfactual(
        images, [explainer.classes[c] for c in second.tolist()], distractors=distractors
    )
    assert torch.equal(named.edits["region-swap"].images, counterfactuals.edits["region-swap"].images)


# refusals


@pytest.mark.parametrize("norm", ["most", "", None, 1])
def test_unknown_norms_are_refused_in_words(norm):
    explainer, distractors, images, _ = counterfactual_case("cells")

    with pytest.raises(InputError, match="norm"):
        explainer.counterfactual(images, distractors=distractors, norm=norm)


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_invalid_margins_are_refused_in_words(margin):
    explainer, distractors, images, _ = counterfactual_case("cells")

    with pytest.raises(InputError, match="margin"):
        explainer.counterfactual(images, distractors=distractors, margin=margin)


def test_no_images_at_once_are_refused_in_words():
    explainer, distractors, images, _ = counterfactual_case("cells")

    with pytest.raises(InputError, match="batch_size"):
        explainer.counterfactual(images, distractors=distractors, batch_size=0)


def test_counterfactuals_of_post_hoc_methods_are_refused_in_words():
    for name in ("captum/saliency", "captum/integrated-gradients"):
        with pytest.raises(InputError, match="no scores"):
            fitted_example(name).counterfactual(
                tiny_dataset().test.batch(torch.arange(2)), distractors=tiny_dataset()
            )


def test_what_cannot_be_answered_is_refused_in_words():
    explainer, distractors, images, _ = counterfactual_case("cells")

    with pytest.raises(UnknownNameError, match="Did you mean 'bee'"):
        explainer.counterfactual(images, "beee", distractors=distractors)
    with pytest.raises(InputError):
        explainer.counterfactual(images, 3, distractors=distractors)
    with pytest.raises(NotFittedError, match="no network yet"):
        ek.explainer("cam").counterfactual(images, distractors=distractors)
    number = toy(Cells(classes=1), classes=("age",), decision="identity")
    with pytest.raises(InputError, match="none can be flipped"):
        number.counterfactual(images, distractors=batch_of(images, torch.zeros(10).long()))


# score ranges


@pytest.mark.parametrize("name", ["cells", "varying", "cam", "senn", "protopnet"])
def test_ranges_are_near_the_true_quantiles(name):
    explainer = balanced(name)
    images, labels = noise(200, seed=2), torch.arange(200) % 3
    low, high = explainer.score_ranges(batch_of(images, labels))
    scores = explainer.explain(images, labels).scores

    for label in range(3):
        of_class = scores[labels == label]
        bin = 4 / 256 * (of_class.amax(0) - of_class.amin(0)) + 1e-6
        for end, share in ((low[label], 0.05), (high[label], 0.95)):
            assert (end >= of_class.quantile(share, dim=0, interpolation="lower") - bin).all()
            assert (end <= of_class.quantile(share, dim=0, interpolation="higher") + bin).all()
    assert (low <= high).all()


def test_ranges_of_many_pairs_are_near_the_true_quantiles(monkeypatch):
    monkeypatch.setattr("explainkit.explainers.interpretable.RANGE_BUDGET", 1000)  # of 3 x 6 pairs: 24 bins
    monkeypatch.setattr("explainkit.explainers.interpretable.RANGE_CHUNK", 50)
    explainer, images, labels = balanced("cells"), noise(200, seed=2), torch.arange(200) % 3

    low, high = explainer.score_ranges(batch_of(images, labels))

    scores = explainer.explain(images, labels).scores
    for label in range(3):
        of_class = scores[labels == label]
        bin = 2 / 22 * (of_class.amax(0) - of_class.amin(0)) + 1e-6
        for end, share in ((low[label], 0.05), (high[label], 0.95)):
            assert (end >= of_class.quantile(share, dim=0, interpolation="lower") - bin).all()
            assert (end <= of_class.quantile(share, dim=0, interpolation="higher") + bin).all()


def test_a_class_without_images_has_the_range_of_all_others():
    explainer = balanced("cells")
    low, high = explainer.score_ranges(batch_of(noise(40), torch.arange(40) % 2))

    assert torch.equal(low[2], low[:2].amin(0)) and torch.equal(high[2], high[:2].amax(0))


def test_ranges_of_a_dataset_are_those_of_their_training_images():
    explainer = balanced("cells")
    images, labels = noise(300), torch.arange(300) % 3
    dataset = dataset_of(images, labels)

    expected = explainer.score_ranges(dataset.train.batch(torch.arange(300)))
    assert torch.allclose(explainer.score_ranges(dataset), expected, atol=2e-2 * float(expected.max()))
    with torch.inference_mode():
        assert torch.equal(explainer.score_ranges(dataset), explainer.score_ranges(dataset))


@pytest.mark.parametrize("name", ["cam", "protopnet", "senn", "ccnn", "ra-cnn"])
def test_a_loaded_explainer_answers_the_same_with_distractors(name, tmp_path):
    explainer, images = fitted_example(name), tiny_dataset().test.batch(torch.arange(4))
    loaded = ek.load(ek.save(explainer, tmp_path / "saved"))

    with pytest.raises(InputError, match="distractors=dataset"):
        loaded.counterfactual(images)
    assert torch.equal(loaded.units.score_range, explainer.units.score_range)
    counterfactuals = explainer.counterfactual(images)
    again = loaded.counterfactual(images, distractors=tiny_dataset())
    assert torch.equal(counterfactuals.edits["region-swap"].images, again.edits["region-swap"].images)
    assert [item.sentence() for item in counterfactuals] == [item.sentence() for item in again]
