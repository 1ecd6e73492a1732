"""Diagnostics, saving and settings."""

import pytest
import torch
from macnn_networks import explainer, fitted_explainer
from plugin_cases import assert_near, uniform
from torch import nn

import explainkit as ek
from explainkit.data.types import ArraySplit
from explainkit.errors import InputError, UnsupportedNetworkError
from explainkit.testing import check_explainer, tiny_dataset, tiny_images
from explainkit_macnn.explainer import MACNN


@pytest.mark.parametrize("parts", [1, 6])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_contributions_keep_their_sum_on_the_image_for_one_part_and_for_six(parts, size):
    model = explainer(parts=parts)

    explanations = model.explain(uniform(3, 3, *size), 1).check_additivity()

    total, terms = explanations.contributions.sum(1), explanations.contributions.abs().sum(1)
    for grid in ((8, 8), size):
        assert_near(explanations.saliency(grid).sum((1, 2)), total, scale=terms)


def test_diagnostics_say_how_sure_and_how_right_each_part_alone_is():
    model, images = fitted_explainer(), tiny_images()

    explanations = model.explain(images, 2)

    with torch.no_grad():
        outputs = model.network.outputs(images)
    for i, name in enumerate(("part 1", "part 2")):
        sure = outputs.part_logits[:, i].softmax(1)[:, 2]
        assert_near(explanations.diagnostics[f"p by {name}"], sure)
        accuracy = model.network.part_accuracy[i].expand(6)
        assert_near(explanations.diagnostics[f"accuracy of {name}"], accuracy)


def test_parts_that_are_right_by_themselves_are_asked_without_the_scale():
    model = explainer(scale=1 / 3)

    explanations = model.explain(uniform(2, 3, 32, 32), 1)

    outputs = model.network.outputs(uniform(2, 3, 32, 32))
    sure = (3 * outputs.part_logits[:, 0]).softmax(1)[:, 1]
    assert_near(explanations.diagnostics["p by part 1"], sure.detach())


def test_units_are_filters_at_parts():
    units = fitted_explainer().units

    assert len(units) == 64 and units.parents == ("part 1", "part 2") and units.pooling == "sum"
    assert units.names[37] == "filter 5 of part 2" and units.parent[37] == 1
    assert units.receptive_field is None  # attention goes by the whole image


def test_a_loaded_explainer_says_the_same(tmp_path):
    model, images = fitted_explainer(), tiny_images()

    loaded = ek.load(ek.save(model, tmp_path / "model"))

    expected, explanations = model.explain(images), loaded.explain(images)
    assert bool(loaded.network.is_grouped) and torch.equal(loaded.network.groups, model.network.groups)
    assert torch.equal(explanations.contributions, expected.contributions)
    assert torch.equal(explanations.saliency(), expected.saliency())


def test_setting_a_score_moves_the_logit_by_what_it_is_worth_with_attention_as_it_was():
    model, images = explainer(), uniform(2, 3, 32, 32)
    before = model.explain(images, 0)

    after = model.intervene(images, {"filter 4 of part 3": 2.0, "filter 4 of part 1": "off"}, 0)

    unit = 2 * 32 + 4
    moved = before.weights[:, unit] * (2.0 - before.scores[:, unit]) - before.contributions[:, 4]
    assert_near(after.explained_output - before.explained_output, moved, scale=before.contributions)
    assert after.additivity == "exact"


def test_labels_that_hold_or_not_are_learned_and_explained():
    dataset = tiny_dataset()
    several = ek.ImageDataset(
        name="labels", classes=["a", "b"], size=(32, 32), decision="sigmoid",
        splits={
            name: ArraySplit(
                images=split.images, labels=torch.stack([split.labels == 0, split.labels != 2], 1)
            )
            for name, split in dataset.splits.items()
        },
    )  # fmt: skip
    model = ek.explainer("ma-cnn", preset="tiny").fit(several, device="cpu", progress=False)

    check_explainer(model, tiny_images())


def test_networks_without_parts_are_refused():
    with pytest.raises(UnsupportedNetworkError, match="Expected a MACNNNetwork for MA-CNN; got Linear"):
        ek.explainer("ma-cnn", network=nn.Linear(3, 3), classes=["a", "b", "c"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"parts": 0}, "parts of MA-CNN as 1 or more; got 0"),
        ({"grouping_width": 0}, "grouping_width"),
        ({"group_images": 1}, "group_images of MA-CNN as 2 or more"),
        ({"membership_epochs": 0}, "membership_epochs of MA-CNN as 1 or more"),
        ({"rounds": -1}, "rounds"),
        ({"norm": "sparsemax"}, "one of 'softmax', 'sigmoid', 'powered'; got 'sparsemax'"),
        ({"part_loss": "sum"}, "one of 'joint', 'each'; got 'sum'"),
        ({"sharpness": 0.0}, "sharpness of MA-CNN above 0"),
        ({"sharpness": float("nan")}, "sharpness"),
        ({"margin": -1.0}, "margin of MA-CNN as 0 or more"),
        ({"quantile": 1.0}, r"quantile of MA-CNN in \[0, 1\)"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"parts": 2.5}, "parts"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_words(settings, words):
    with pytest.raises(InputError, match=f"Expected .*{words}"):
        MACNN(**settings)


def test_more_parts_than_filters_are_refused():
    with pytest.raises(InputError, match="at most 32 parts, as many as 'tiny' has filters; got 33"):
        ek.explainer("ma-cnn", preset="tiny", parts=33).fit(tiny_dataset(), device="cpu", progress=False)
