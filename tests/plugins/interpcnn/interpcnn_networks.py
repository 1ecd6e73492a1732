"""Small InterpCNN networks, fitted explainers, and maps by hand."""

from functools import cache

import torch
from plugin_cases import draw_norm_statistics

import explainkit as ek
from explainkit.testing import tiny_dataset
from explainkit_interpcnn.model import InterpCNNNetwork


def small_network(classes=3, seed=0, backbone="tiny", **settings):
    torch.manual_seed(seed)
    network = InterpCNNNetwork(ek.backbone(backbone), classes, **settings)
    draw_norm_statistics(network)
    return network.eval()


def explainer_of(network):
    return ek.explainer("interp-cnn", network=network, size=(32, 32))


class Fixed(ek.Backbone):
    """Returns the same features for any image."""

    channels, stride, receptive_field = 6, 4, 4

    def __init__(self, features):
        super().__init__()
        self.register_buffer("features", features)

    def forward(self, images):
        return self.features.expand(len(images), -1, -1, -1)


def fixed_network(features, classes=3):
    torch.manual_seed(0)
    return InterpCNNNetwork(Fixed(features), classes).eval()


@cache
def fitted_explainer(**settings):
    explainer = ek.explainer("interp-cnn", preset="tiny", **settings)
    return explainer.fit(tiny_dataset(), device="cpu", progress=False)


def peaked_maps(images=12, filters=3, side=6, seed=0, strength=1.0):
    """Maps that are 0 but for one cell each, at random."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.zeros(images, filters, side * side, dtype=torch.float64)
    cells = torch.randint(side * side, (images, filters, 1), generator=generator)
    return maps.scatter(2, cells, strength).unflatten(2, (side, side))
