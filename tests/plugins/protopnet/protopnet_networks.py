"""Small ProtoPNet networks, a fitted explainer, patches, and images in double precision."""

import copy
from functools import cache

import torch
from attrs import evolve
from plugin_cases import draw_norm_statistics

import explainkit as ek
from explainkit.data.types import ArraySplit
from explainkit.testing import tiny_dataset
from explainkit_protopnet.model import ProtoPNetNetwork

EPSILON = 1e-4


def small_network(classes=3, prototypes_per_class=2, depth=16, seed=0, **settings):
    torch.manual_seed(seed)
    network = ProtoPNetNetwork(ek.backbone("tiny"), classes, prototypes_per_class, depth, **settings)
    draw_norm_statistics(network)
    return network.eval()


def small_explainer(**settings):
    return ek.explainer("protopnet", network=small_network(**settings), classes=tiny_dataset().classes)


@cache
def fitted_explainer():
    return ek.explainer("protopnet", preset="tiny").fit(tiny_dataset(), device="cpu", progress=False)


def fitted_network():
    """A copy of the fitted network, which a test may change."""
    return copy.deepcopy(fitted_explainer().network)


def patches_of(network, images):
    """(N, h w, D), with the network's own rounding."""
    with torch.no_grad():
        return network.latent(images).flatten(2).mT


class InDouble(ArraySplit):
    def batch(self, ids):
        batch = super().batch(ids)
        return evolve(batch, images=batch.images.double())


def doubled(dataset):
    """The data set with images in double precision, so that no rounding decides which patch is nearest."""
    return evolve(
        dataset,
        splits={
            name: InDouble(images=split.images, labels=split.labels) for name, split in dataset.splits.items()
        },
    )
