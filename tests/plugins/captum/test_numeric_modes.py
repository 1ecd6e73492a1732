"""Half precision, autocast and torch's default dtype."""

import pytest
import torch
from captum_networks import METHODS, captum_explainer, random_images, seeded_network, tolerance_of
from plugin_cases import assert_near

import explainkit as ek

FULL_PRECISION = [
    *("occlusion", "feature-ablation", "shapley-value-sampling", "kernel-shap", "lime"),
    *("layer-feature-ablation", "lrp", "layer-lrp"),
]
"""Methods whose results autocast would round away."""


def float_dtypes(explanations):
    columns = (explanations.logits, explanations.base, explanations.scores, explanations.weights)
    return {values.dtype for values in (*columns, explanations.maps, explanations.contributions)}


@pytest.mark.parametrize("method", METHODS)
def test_explanations_under_autocast_are_in_float32_and_come_back_from_a_file(method, tmp_path):
    explainer, images = captum_explainer(method, seeded_network()), random_images()

    with torch.autocast("cpu", torch.bfloat16):
        explanations = explainer.explain(images, 1)

    assert float_dtypes(explanations) == {torch.float32}
    loaded = ek.Explanations.load(explanations.save(tmp_path / "explanations.safetensors"))
    assert torch.equal(loaded.contributions, explanations.contributions)
    assert loaded.provenance.explainer == f"captum/{method}"


@pytest.mark.parametrize("method", FULL_PRECISION)
def test_differences_of_logits_are_taken_in_float32_under_autocast(method):
    explainer, images = captum_explainer(method, seeded_network()), random_images()
    expected = explainer.explain(images, 1)

    with torch.autocast("cpu", torch.bfloat16):
        explanations = explainer.explain(images, 1)

    assert torch.equal(explanations.maps, expected.maps)
    assert torch.equal(explanations.logits, expected.logits)


def test_noise_around_differences_is_in_float32_under_autocast():
    network, images = seeded_network(), random_images()
    explainer = captum_explainer("noise-tunnel", network, method="occlusion", n_samples=2)
    expected = explainer.explain(images, 1)

    with torch.autocast("cpu", torch.bfloat16):
        explanations = explainer.explain(images, 1)

    assert torch.equal(explanations.maps, expected.maps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_a_half_network_is_explained_with_its_weights_in_float32(method, dtype, tmp_path):
    network = seeded_network().to(dtype)
    images = random_images().to(dtype)

    explanations = captum_explainer(method, network).explain(images, 1)

    expected = captum_explainer(method, seeded_network().to(dtype).float()).explain(images.float(), 1)
    assert float_dtypes(explanations) == {torch.float32}
    assert_near(explanations.saliency(), expected.saliency(), tolerance_of(method))
    assert ek.Explanations.load(explanations.save(tmp_path / "explanations.safetensors")) is not None
    assert {parameter.dtype for parameter in network.parameters()} == {dtype}


@pytest.mark.parametrize("method", METHODS)
def test_the_default_dtype_changes_nothing(method, double_by_default):
    network, images = seeded_network(), random_images()
    expected = captum_explainer(method, network).explain(images)

    with double_by_default():
        explanations = captum_explainer(method, network).explain(images)
        saliency = explanations.saliency()

    assert torch.equal(explanations.maps, expected.maps) and torch.equal(saliency, expected.saliency())
    assert float_dtypes(explanations) == {torch.float32}
