"""Layer-wise relevance propagation."""

import pytest
from captum_networks import Plain, captum_explainer, random_images, seeded_network
from plugin_cases import assert_near
from torch import nn

from explainkit.errors import UnsupportedNetworkError


@pytest.mark.parametrize("method", ["lrp", "layer-lrp"])
def test_relevance_of_a_margin_is_that_of_the_one_class_less_that_of_the_other(method):
    explainer, images = captum_explainer(method, seeded_network()), random_images()

    contrast = explainer.explain(images, 0, foils=2)

    fact, foil = (explainer.explain(images, target).saliency() for target in (0, 2))
    assert_near(contrast.saliency(), fact - foil, scale=fact)


class Normed(Plain):
    """With a layer that Captum has no rule for."""

    def __init__(self):
        super().__init__()
        self.normed = nn.GroupNorm(2, 12)

    def forward(self, images):
        return self.head(self.normed(self.rectify(self.deep(self.stem(images)))).mean((2, 3)))


@pytest.mark.parametrize("method", ["lrp", "layer-lrp"])
def test_relevance_refuses_a_layer_without_a_rule(method):
    with pytest.raises(UnsupportedNetworkError, match=r"Captum has none for GroupNorm \('normed'\)"):
        captum_explainer(method, seeded_network(Normed)).explain(random_images())


@pytest.mark.parametrize("method", ["lrp", "layer-lrp"])
def test_relevance_refuses_a_layer_that_is_run_twice(method):
    class Twice(Plain):
        def __init__(self):
            super().__init__()
            self.deep = nn.Conv2d(8, 8, 3, 1, 1)
            self.head = nn.Linear(8, 4)

        def forward(self, images):
            return self.head(self.rectify(self.deep(self.deep(self.stem(images)))).mean((2, 3)))

    with pytest.raises(UnsupportedNetworkError, match="runs 'deep' more often"):
        captum_explainer(method, seeded_network(Twice)).explain(random_images())


def test_relevance_goes_through_modules_that_only_hand_on():
    class Handing(Plain):
        def __init__(self):
            super().__init__()
            self.same, self.flat = nn.Identity(), nn.Flatten()

        def forward(self, images):
            features = self.same(self.rectify(self.deep(self.stem(images))))
            return self.head(self.flat(features.mean((2, 3))))

    plain, handing = seeded_network(Plain), seeded_network(Handing)
    handing.load_state_dict(plain.state_dict())

    explanations, expected = (
        captum_explainer("lrp", network).explain(random_images(), 0) for network in (handing, plain)
    )

    assert_near(explanations.saliency(), expected.saliency())
    assert not any(hasattr(module, "rule") for module in handing.modules())


def test_relevance_goes_through_padding_with_zeros_as_through_a_padded_convolution():
    class Padding(Plain):
        def __init__(self):
            super().__init__()
            self.deep = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(8, 12, 3, 2))

    plain, padding = seeded_network(Plain), seeded_network(Padding)
    padding.load_state_dict(
        {name.replace("deep.", "deep.1."): value for name, value in plain.state_dict().items()}
    )

    explanations, expected = (
        captum_explainer("lrp", network).explain(random_images(), 0) for network in (padding, plain)
    )

    assert_near(explanations.logits, expected.logits)
    assert_near(explanations.saliency(), expected.saliency())


def test_relevance_at_a_layer_wants_one_that_keeps_it():
    with pytest.raises(
        UnsupportedNetworkError, match=r"'rectify' is a ReLU\. The last that will do is 'deep'"
    ):
        captum_explainer("layer-lrp", seeded_network(), layer="rectify").explain(random_images())
