"""Sums on the image, diagnostics, saving and settings."""

import math

import pytest
import torch
from plugin_cases import assert_near, uniform
from racnn_networks import fitted_explainer, small_network
from torch import nn

import explainkit as ek
from explainkit.errors import InputError, UnsupportedNetworkError
from explainkit.testing import tiny_dataset, tiny_images
from explainkit_racnn.explainer import RACNN


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_contributions_add_up_and_keep_their_sum_on_the_image(fused, size):
    network, images = small_network(), uniform(3, 3, *size)
    network.fused.fill_(fused)
    model = ek.explainer("ra-cnn", network=network, classes=tiny_dataset().classes)

    explanations = model.explain(images, 1).check_additivity()

    total, terms = explanations.contributions.sum(1), explanations.contributions.abs().sum(1)
    assert_near(explanations.base + total, explanations.logits[:, 1], scale=terms)
    assert_near(explanations.maps.mean((2, 3)), explanations.scores)
    for grid in ((8, 8), size):
        distributed = explanations.saliency(grid).sum((1, 2)) + explanations.nonspatial
        assert_near(distributed, total, scale=terms)


def test_the_evidence_of_a_scale_lies_in_its_box():
    network, images = small_network(), uniform(2, 3, 32, 32)
    with torch.no_grad():
        for head in network.heads[:2]:
            head.weight.zero_()
    model = ek.explainer("ra-cnn", network=network, classes=tiny_dataset().classes)

    explanations = model.explain(images)

    for image in range(2):
        x0, y0, x1, y1 = explanations.boxes[image, 2].tolist()
        saliency = explanations.saliency((32, 32))[image]
        inside = saliency[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)]
        assert saliency.any()
        assert_near(saliency.abs().sum(), inside.abs().sum())


def test_diagnostics_say_how_sure_each_scale_alone_is_of_the_target():
    model, images = fitted_explainer(), tiny_images()

    explanations = model.explain(images, 2)

    by_scale = model.network.outputs(images).by_scale
    assert list(explanations.diagnostics) == ["p by whole image", "p by closer", "p by closest"]
    for values, logits in zip(explanations.diagnostics.values(), by_scale, strict=True):
        assert_near(values, logits.softmax(1)[:, 2])


def test_diagnostics_are_selected_with_their_images():
    explanations = fitted_explainer().explain(tiny_images())

    closer, closest = (explanations.diagnostics[name] for name in ("p by closer", "p by closest"))
    assert torch.equal(explanations[[2, 0]].diagnostics["p by closer"], closer[[2, 0]])
    assert explanations[1].diagnostics["p by closest"] == pytest.approx(closest[1].item())


def test_what_each_look_adds_is_the_sum_over_its_filters():
    explanations = fitted_explainer().explain(tiny_images())

    by_scale = explanations.parent_contributions

    channels = fitted_explainer().network.channels
    for scale in range(3):
        contributions = explanations.contributions[:, scale * channels : (scale + 1) * channels]
        assert_near(by_scale[:, scale], contributions.sum(1), scale=contributions.abs().sum(1))
        assert explanations.units.names[scale * channels].startswith("filter 0 (")
    terms = explanations.contributions.abs().sum(1)
    assert_near(by_scale.sum(1) + explanations.base, explanations.explained_output, scale=terms)
    assert list(explanations[0].parent_contributions) == ["whole image", "closer", "closest"]


def test_a_loaded_explainer_says_the_same(tmp_path):
    model, images = fitted_explainer(), tiny_images()

    loaded = ek.load(ek.save(model, tmp_path / "model"))

    expected, explanations = model.explain(images), loaded.explain(images)
    assert bool(loaded.network.fused)
    for name in ("contributions", "boxes"):
        assert torch.equal(getattr(explanations, name), getattr(expected, name))
    assert torch.equal(explanations.saliency(), expected.saliency())
    for name, values in expected.diagnostics.items():
        assert torch.equal(explanations.diagnostics[name], values)


def test_networks_that_look_once_are_refused():
    with pytest.raises(UnsupportedNetworkError, match="Expected a RACNNNetwork for RA-CNN; got Linear"):
        ek.explainer("ra-cnn", network=nn.Linear(3, 3), classes=["a", "b", "c"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_half_size": 0.0}, "0 < min_half_size < max_half_size < 0.5"),
        ({"max_half_size": 0.5}, "0 < min_half_size < max_half_size < 0.5"),
        ({"min_half_size": 0.4, "max_half_size": 0.3}, "0 < min_half_size < max_half_size < 0.5"),
        ({"min_half_size": math.nan}, "min_half_size"),
        ({"init_half_size": 0.1}, "init_half_size in"),
        ({"init_half_size": 0.46}, "init_half_size in"),
        ({"gradient": "real"}, "one of 'true', 'surrogate'; got 'real'"),
        ({"crop_size": 4}, "crop_size of RA-CNN as 8 or more"),
        ({"rounds": -1}, "rounds of RA-CNN as 0 or more"),
        ({"margin": -0.1}, "margin of RA-CNN in"),
        ({"label_smoothing": 1.0}, "smoothing of RA-CNN in"),
        ({"crop_size": 48.5}, "crop_size"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_words(settings, words):
    with pytest.raises(InputError, match=f"Expected .*{words}"):
        RACNN(**settings)
