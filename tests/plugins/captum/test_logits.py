"""Where the logits are in what a network returns."""

from types import SimpleNamespace

import pytest
import torch
from captum_networks import FORMS, METHODS, Returning, captum_explainer, random_images, seeded_network
from plugin_cases import assert_near
from torch import nn

import explainkit as ek
from explainkit.errors import UnsupportedNetworkError

NOT_LOGITS = {
    "maps": (lambda logits: logits[:, :, None, None], r"a tensor \(1, 4, 1, 1\)"),
    "one number an image": (lambda logits: logits[:, 0], r"a tensor \(1,\)"),
    "a mapping without logits": (lambda logits: {"loss": logits.mean()}, r"dict of 'loss': a tensor \(\)"),
    "an empty tuple": (lambda logits: (), "tuple of nothing"),
    "a string": (lambda logits: "cat", "str"),
    "an object with other logits": (lambda logits: SimpleNamespace(logits=logits[0]), "with .logits"),
    "classes": (lambda logits: logits.long(), "torch.int64"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_it_finds_the_logits_in(method, form):
    network, images = seeded_network(), random_images()
    wrapped = Returning(network, FORMS[form]).eval()

    explainer = captum_explainer(method, wrapped)

    explanations = explainer.explain(images, foils=1)
    expected = captum_explainer(method, network).explain(images, foils=1)
    assert torch.equal(explanations.contributions, expected.contributions)
    assert_near(explanations.logits, network(images).detach())
    assert_near(explainer.predict(images), network(images).detach())
    assert explainer.classes == ("class 0", "class 1", "class 2", "class 3")


@pytest.mark.parametrize("output", NOT_LOGITS)
def test_it_refuses_and_says_what_came_out_for(output):
    form, words = NOT_LOGITS[output]

    with pytest.raises(UnsupportedNetworkError, match=words):
        captum_explainer("saliency", Returning(seeded_network(), form))


def test_a_network_that_returns_logits_is_kept_as_it_is():
    network = seeded_network()

    assert captum_explainer("occlusion", network).network is network


def test_classes_are_counted_off_the_logits_not_off_a_linear_layer():
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    assert len(captum_explainer("saliency", network).classes) == 5
    with pytest.raises(UnsupportedNetworkError, match="Expected 5 class names, one a logit; got 2"):
        captum_explainer("saliency", network, classes=["a", "b"])


@pytest.mark.parametrize("form", [lambda logits: logits, *FORMS.values()])
def test_a_network_for_one_odd_size_is_decided_by_the_first_images(form):
    network = Returning(nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 20, 6)), form)
    images = random_images(size=20)

    explainer = captum_explainer("input-x-gradient", network)

    assert explainer.classes == ()
    assert explainer.explain(images, "class 5").targets.tolist() == [5, 5, 5]
    assert_near(explainer.predict(images), network.inner(images).detach())
    with pytest.raises(UnsupportedNetworkError, match="Expected 6 class names"):
        captum_explainer("saliency", network, classes=["a"]).explain(images)


def test_a_network_without_numbers_is_refused_before_anything_is_fitted():
    network = seeded_network()
    network.head.bias.data[0] = float("nan")

    with pytest.raises(ek.InputError, match="Expected finite logits"):
        captum_explainer("kernel-shap", network).explain(random_images())
