"""Networks that write to their images are explained as their twins that do not, and the images stay."""

import operator

import pytest
import torch
from captum_networks import METHODS, Plain, captum_explainer, random_images, seeded_network
from torch import nn
from torch.nn import functional as F

import explainkit as ek

MEAN, STD = torch.full((3, 1, 1), 0.4), torch.full((3, 1, 1), 0.25)


class Writing(Plain):
    def forward(self, images):
        images.sub_(MEAN)
        images.div_(STD)
        images[:, 0] = images[:, 0] * 0.5
        images.clamp_(-1, 1)
        return super().forward(images)


class Reading(Plain):
    def forward(self, images):
        normalized = (images - MEAN) / STD
        halved = torch.cat([normalized[:, :1] * 0.5, normalized[:, 1:]], 1)
        return super().forward(halved.clamp(-1, 1))


class Rectifying(Plain):
    def __init__(self, inplace=True):
        super().__init__()
        self.first = nn.ReLU(inplace)

    def forward(self, images):
        return super().forward(self.first(images))


TWINS = {
    "normalizes, assigns and clamps": (Writing, Reading),
    "rectifies": (Rectifying, lambda: Rectifying(inplace=False)),
}


@pytest.mark.parametrize("kind", TWINS)
@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_writes_to_its_images_is_explained_as_one_that_does_not(method, kind):
    writing, clean = (seeded_network(network) for network in TWINS[kind])
    images = random_images(2, size=12)
    before = images.clone()
    settings = {"n_steps": 4} if hasattr(captum_explainer(method, clean), "n_steps") else {}

    explainer = captum_explainer(method, writing, **settings)
    explanations, logits = explainer.explain(images), explainer.predict(images)

    assert torch.equal(images, before)
    expected = captum_explainer(method, clean, **settings).explain(before.clone())
    assert torch.equal(explanations.logits, expected.logits)
    assert torch.equal(explanations.maps, expected.maps)
    assert torch.equal(explanations.base, expected.base)
    assert torch.equal(logits, clean(before.clone()).detach()) and torch.equal(images, before)


@pytest.mark.parametrize("kind", TWINS)
@pytest.mark.parametrize(
    "normalization", [{}, {"mean": (0.1,) * 3, "std": (0.9,) * 3}], ids=["plain", "mean"]
)
def test_cam_of_a_network_that_writes_to_its_images_is_that_of_one_that_does_not(kind, normalization):
    writing, clean = (seeded_network(network) for network in TWINS[kind])
    images = random_images()
    before = images.clone()

    cam = ek.explainer("cam", network=writing, size=(24, 24), **normalization)
    explanations, logits = cam.explain(images), cam.predict(images)

    expected = ek.explainer("cam", network=clean, size=(24, 24), **normalization)
    assert torch.equal(explanations.maps, expected.explain(before.clone()).maps)
    assert torch.equal(logits, expected.predict(before.clone())) and torch.equal(images, before)


class Pooled(Plain):
    """Writes to its features between their layer and the pooling, by statements."""

    def forward(self, images):
        features = self.deep(self.stem(images))
        self.rectify(features)
        F.relu_(features)
        features.mul_(2)
        operator.setitem(features, (slice(None), 0), 0.5)
        return self.head(features.mean((2, 3)))


def test_cam_follows_what_is_written_to_features_before_they_are_pooled():
    network, images = seeded_network(lambda: Pooled(inplace=True)), random_images()

    explanations = ek.explainer("cam", network=network, size=(24, 24)).explain(images)

    assert torch.equal(explanations.logits, network(images).detach())
    assert (explanations.maps[:, 0] == 0.5).all()


def test_a_network_that_reads_only_is_given_the_images_themselves():
    seen = []

    class Seeing(Plain):
        def forward(self, images):
            seen.append(images.data_ptr())
            return super().forward(images)

    explainer, images = captum_explainer("occlusion", seeded_network(Seeing)), random_images()
    explainer.explain(images)
    seen.clear()

    explainer.predict(images)

    assert explainer.network.__class__ is Seeing and seen == [images.data_ptr()]
