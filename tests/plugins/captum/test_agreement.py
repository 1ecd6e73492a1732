"""The attributions are those that Captum gives when it is called by hand."""

import pytest
import torch
from captum import attr
from captum_by_hand import attribute_by_hand
from captum_networks import (
    METHODS,
    ONE_PASS,
    Plain,
    captum_explainer,
    random_images,
    seeded_network,
    tolerance_of,
)
from plugin_cases import assert_near

import explainkit as ek


def test_every_method_of_captum_that_explains_an_image_classifier_is_offered():
    left_out = {
        "LayerActivation",  # says nothing of a class
        "FeaturePermutation", "LayerFeaturePermutation",  # what is said of an image depends on the others
        "ShapleyValues",  # n! orders
        "LimeBase", "DataLoaderAttribution", "LLMAttribution", "LLMGradientAttribution",
        "RemoteLLMAttribution",
    }  # fmt: skip
    methods_of_captum = {
        name
        for name in attr.__all__
        if hasattr(getattr(attr, name), "attribute") and not name.startswith("Neuron")
    }

    offered = {name.replace("-", "") for name in METHODS}

    assert {name.lower() for name in methods_of_captum - left_out} == offered


@pytest.mark.parametrize("kind", [Plain, lambda: Plain(inplace=True)], ids=["plain", "inplace"])
@pytest.mark.parametrize("method", METHODS)
def test_it_says_what_captum_says_by_hand(method, kind):
    network, images = seeded_network(kind), random_images()

    explanations = captum_explainer(method, network).explain(images)

    expected = attribute_by_hand(method, network, images, explanations.targets)
    assert torch.equal(explanations.targets, network(images).argmax(1))
    saliency, tolerance = explanations.saliency(expected.shape[-2:]), tolerance_of(method)
    assert_near(saliency, expected.to(saliency), tolerance)
    sums, terms = expected.sum((1, 2)), expected.abs().sum((1, 2))
    assert_near(explanations.scores.sum(1), sums, tolerance, scale=terms)
    assert (explanations.scores[:, 0] >= 0).all() and (explanations.scores[:, 1] <= 0).all()


@pytest.mark.parametrize("method", sorted({*ONE_PASS} - {"layer-gradient-x-activation"}))
def test_gradients_are_those_of_captum_to_the_bit(method):
    network, images = seeded_network(), random_images()

    explanations = captum_explainer(method, network).explain(images, [3, 1, 0])

    expected = attribute_by_hand(method, network, images, torch.tensor([3, 1, 0]))
    for_less_against = explanations.maps[:, 0] - explanations.maps[:, 1]
    assert torch.equal(for_less_against, expected)  # the same operations on the same batch


def test_grad_cam_before_pooling_and_one_linear_layer_is_cam():
    network = ek.explainer("cam", backbone="tiny").build(ek.Task(classes=4)).eval()
    images = random_images(size=32)

    cam = ek.explainer("cam", network=network, classes=list("abcd")).explain(images, 1)
    grad = captum_explainer("layer-grad-cam", network, layer="backbone").explain(images, 1)

    assert_near(grad.saliency(), cam.saliency())


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_says_what_captum_says_by_hand(kind):
    network, image = seeded_network(), random_images(1)
    torch.manual_seed(5)
    expected = attr.NoiseTunnel(attr.InputXGradient(network)).attribute(
        image.clone().requires_grad_(), nt_type=kind, nt_samples=6, stdevs=0.2, target=1
    )

    explanations = captum_explainer(
        "noise-tunnel", network, method="input-x-gradient", kind=kind, n_samples=6, stdev=0.2, seed=5
    ).explain(image, 1, batch_size=4)

    assert_near(explanations.saliency(), expected.detach().sum(1))
