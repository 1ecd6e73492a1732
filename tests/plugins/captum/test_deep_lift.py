"""DeepLIFT needs every nonlinear module once a pass."""

import pytest
import torch
from captum_networks import Functional, Plain, captum_explainer, random_images, seeded_network
from plugin_cases import assert_near

from explainkit.errors import UnsupportedNetworkError


@pytest.mark.parametrize("method", ["deep-lift", "deep-lift-shap", "layer-deep-lift", "layer-deep-lift-shap"])
def test_deep_lift_refuses_a_module_that_is_run_twice(method):
    class Twice(Plain):
        def forward(self, images):
            return self.head(self.rectify(self.deep(self.rectify(self.stem(images)))).mean((2, 3)))

    with pytest.raises(
        UnsupportedNetworkError, match=r"every nonlinear module to be run once a pass; Twice runs 'rectify'"
    ):
        captum_explainer(method, seeded_network(Twice)).explain(random_images())


@pytest.mark.parametrize("method", ["deep-lift", "deep-lift-shap", "layer-deep-lift"])
def test_the_residual_shows_the_functions_that_deep_lift_does_not_see(method):
    explainers = [
        captum_explainer(method, seeded_network(kind), **({"layer": layer} if "layer" in method else {}))
        for kind, layer in ((Plain, "stem"), (Functional, "stem.1"))
    ]

    modules, functions = (explainer.explain(random_images(), 0) for explainer in explainers)

    assert_near(functions.logits, modules.logits)
    assert_near(modules.residual, torch.zeros(3), scale=modules.logits)
    assert functions.residual.abs().max() > 1e-2 * functions.logits.abs().max()
