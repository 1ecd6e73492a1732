"""Guided backpropagation reaches ReLU modules only, and warns of the others."""

import warnings

import pytest
import torch
from captum_networks import METHODS, Functional, Plain, captum_explainer, random_images, seeded_network
from torch.nn import functional as F

from explainkit_captum.guided import UnguidedWarning


def test_guided_backprop_warns_once_that_it_reaches_no_relu():
    network, images = seeded_network(Functional), random_images()
    explainer = captum_explainer("guided-backprop", network)

    with pytest.warns(UnguidedWarning, match="no ReLU module.*all 2 ReLUs are functional.*plain gradients"):
        explanations = explainer.explain(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explainer.explain(images, batch_size=1)

    plain = captum_explainer("saliency", network, abs=False).explain(images)
    assert torch.equal(explanations.contributions, plain.contributions)


def test_guided_backprop_warns_of_the_relus_that_it_misses():
    class Half(Plain):
        def forward(self, images):
            return self.head(F.relu(self.deep(self.stem(images))).mean((2, 3)))

    with pytest.warns(UnguidedWarning, match="reaches 1 of 2 ReLUs"):
        captum_explainer("guided-backprop", seeded_network(Half)).explain(random_images())


@pytest.mark.parametrize("method", METHODS)
def test_no_method_warns_of_a_network_that_it_reaches(method):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captum_explainer(method, seeded_network(Plain, inplace=True)).explain(random_images(), batch_size=2)
