"""Networks without gradients or hooks: what cannot explain them says so, and names what can."""

import pytest
import torch
from captum_networks import METHODS, Plain, captum_explainer, random_images, seeded_network, tolerance_of
from plugin_cases import assert_near
from torch import nn

from explainkit.errors import UnsupportedNetworkError

BY_LOGITS = ["feature-ablation", "kernel-shap", "lime", "occlusion", "shapley-value-sampling"]
BY_HOOKS = ["layer-feature-ablation"]
BY_PIXEL_GRADIENTS = [
    *("saliency", "input-x-gradient", "integrated-gradients", "gradient-shap", "noise-tunnel")
]


class WithoutGrad(Plain):
    @torch.no_grad()
    def forward(self, images):
        return super().forward(images)


class Inferring(Plain):
    @torch.inference_mode()
    def forward(self, images):
        return super().forward(images)


class Detaching(Plain):
    def forward(self, images):
        return self.head(self.rectify(self.deep(self.stem(images))).mean((2, 3)).detach())


@pytest.mark.parametrize("kind", [WithoutGrad, Inferring, Detaching])
@pytest.mark.parametrize("method", METHODS)
def test_a_network_without_gradients_is_explained_by_its_logits_alone(method, kind):
    network, images = seeded_network(kind), random_images()
    if method in BY_LOGITS + BY_HOOKS:
        explanations = captum_explainer(method, network).explain(images)

        expected = captum_explainer(method, seeded_network()).explain(images)
        assert_near(explanations.saliency(), expected.saliency(), tolerance_of(method))
        assert not explanations.logits.is_inference()
    else:
        with pytest.raises(UnsupportedNetworkError, match="'captum/occlusion'"):
            captum_explainer(method, network).explain(images)


@pytest.mark.parametrize("method", ["saliency", "layer-grad-cam"])
def test_gradients_that_are_missing_are_noticed_before_there_are_images(method):
    with pytest.raises(
        UnsupportedNetworkError, match=r"no_grad.*'captum/feature-ablation'.*'captum/kernel-shap'"
    ):
        captum_explainer(method, seeded_network(WithoutGrad))


def test_a_layer_behind_the_place_that_detaches_has_gradients():
    class DetachingImages(Plain):
        def forward(self, images):
            return super().forward(images.detach())

    network, images = seeded_network(DetachingImages), random_images()

    explanations = captum_explainer("layer-grad-cam", network).explain(images)

    assert torch.equal(
        explanations.maps, captum_explainer("layer-grad-cam", seeded_network()).explain(images).maps
    )
    with pytest.raises(UnsupportedNetworkError, match="detaches the image"):
        captum_explainer("saliency", network)


def in_integers():
    network = seeded_network()
    return torch.ao.quantization.quantize_dynamic(network, {nn.Linear})


@pytest.mark.parametrize("method", [*BY_LOGITS, "saliency", "lrp", "deep-lift"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_network_in_integers_is_explained_by_its_logits_alone(method):
    network, images = in_integers(), random_images()
    if method in BY_LOGITS:
        assert captum_explainer(method, network).explain(images).maps.isfinite().all()
    else:
        with pytest.raises(UnsupportedNetworkError, match="'captum/occlusion'"):
            captum_explainer(method, network).explain(images)


def scripted():
    return torch.jit.script(seeded_network())


def exported():
    return torch.export.export(seeded_network(), (random_images(),)).module()


@pytest.mark.parametrize("form", [scripted, exported])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_network_without_python_modules_is_explained_by_methods_without_hooks(method, form):
    network, images = form(), random_images()
    if method in BY_LOGITS + BY_PIXEL_GRADIENTS:
        explanations = captum_explainer(method, network).explain(images[:2])

        expected = captum_explainer(method, seeded_network()).explain(images[:2])
        assert_near(explanations.saliency(), expected.saliency(), tolerance_of(method))
    else:
        with pytest.raises(UnsupportedNetworkError, match="'captum/occlusion'"):
            captum_explainer(method, network).explain(images)


def test_what_is_no_module_is_refused_in_words():
    program = torch.export.export(seeded_network(), (random_images(),))

    with pytest.raises(UnsupportedNetworkError, match=r"got ExportedProgram.*module\(\)"):
        captum_explainer("occlusion", program)
