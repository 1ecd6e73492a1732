"""Any method, averaged over noisy copies of the image."""

import pytest
import torch
from captum_networks import METHODS, SMALL, captum_explainer, random_images, seeded_network, tolerance_of
from plugin_cases import assert_near


@pytest.mark.parametrize("method", sorted({*METHODS} - {"noise-tunnel"}))
def test_any_method_goes_through_noise(method):
    network, images = seeded_network(), random_images()
    settings = {"method": method, "options": SMALL.get(method, {})}

    noisy = captum_explainer("noise-tunnel", network, **settings, n_samples=4, stdev=0.1).explain(images)
    noiseless = captum_explainer("noise-tunnel", network, **settings, stdev=0.0).explain(images)

    plain = captum_explainer(method, network).explain(images)
    assert_near(noiseless.saliency(), plain.saliency(), tolerance_of(method))
    if method not in ("deconvolution", "internal-influence"):  # here they do not depend on the image
        assert not torch.allclose(noisy.saliency(), plain.saliency(), rtol=1e-3)
    assert noisy.additivity == "none"
