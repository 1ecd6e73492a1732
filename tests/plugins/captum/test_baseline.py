"""Baselines of all forms."""

import pytest
import torch
from captum_networks import COMPLETE, captum_explainer, random_images, seeded_network, tolerance_of
from plugin_cases import assert_near

import explainkit as ek


@pytest.mark.parametrize("baseline", [0.5, (0.1, 0.2, 0.3), random_images(1)[0], torch.tensor(0.5)])
@pytest.mark.parametrize(
    "method",
    [
        *("integrated-gradients", "occlusion", "deep-lift", "feature-ablation", "shapley-value-sampling"),
        *("kernel-shap", "lime", "layer-conductance", "layer-integrated-gradients", "layer-deep-lift"),
        "internal-influence",
    ],
)
def test_the_baseline_is_a_number_a_color_or_an_image(method, baseline, tmp_path):
    network, images = seeded_network(), random_images()
    image = torch.as_tensor(baseline)
    image = (image[:, None, None] if image.ndim == 1 else image).expand(3, 24, 24)[None]

    explanations = captum_explainer(method, network, baseline=baseline).explain(images)

    expected = captum_explainer(method, network, baseline=image).explain(images)
    assert_near(explanations.contributions, expected.contributions, tolerance_of(method))
    with torch.no_grad():
        base = network(image)[0][explanations.targets] * (method in COMPLETE)
    assert_near(explanations.base, base)
    assert len(ek.Explanations.load(explanations.save(tmp_path / "explanations.safetensors"))) == 3
