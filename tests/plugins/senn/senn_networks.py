"""Small SENN networks in double precision, and fitted explainers."""

import copy
from functools import cache

import pytest
import torch
from plugin_cases import draw_norm_statistics, uniform

import explainkit as ek
from explainkit.networks.backbones import SmallBackbone
from explainkit.testing import tiny_dataset
from explainkit_senn.concepts import ConvConceptizer, IdentityConceptizer
from explainkit_senn.model import ImageParametrizer, SENNNetwork, Standardize, TableParametrizer


def doubles(*shape, seed=0):
    return uniform(*shape, seed=seed, dtype=torch.float64)


def image_network(concepts=4, classes=3, channels=3, constant=False, dropout=0.0, seed=0, **settings):
    """For images of 16 pixels, batch norms at rest, in double precision."""
    torch.manual_seed(seed)
    backbone = SmallBackbone(widths=(6, 8), strides=(1, 2))
    parametrizer = ImageParametrizer(backbone, concepts + constant, classes, dropout=dropout)
    draw_norm_statistics(parametrizer)
    network = SENNNetwork(
        ConvConceptizer(concepts, channels, (16, 16), width=6), parametrizer, concepts, classes, (16, 16),
        channels=channels, constant=constant, **settings,
    )  # fmt: skip
    network.fold_batch_norms()
    with torch.no_grad():  # as if it had been grounded
        network.grounds.std.uniform_(0.5, 2)
    return network.double().eval()


def table_network(features=5, classes=3, constant=False, dropout=0.0, seed=0, **settings):
    torch.manual_seed(seed)
    preprocess = Standardize(torch.randn(features), torch.rand(features) + 0.5)
    parametrizer = TableParametrizer(features, features + constant, classes, widths=(7, 6), dropout=dropout)
    network = SENNNetwork(
        IdentityConceptizer(), parametrizer, features, classes, (features,), preprocess=preprocess,
        constant=constant, **settings,
    )  # fmt: skip
    return network.double().eval()


NETWORKS = {
    "images": lambda **settings: (image_network(**settings), doubles(3, 3, 16, 16)),
    "gray images": lambda **settings: (image_network(channels=1, **settings), doubles(3, 3, 16, 16)),
    "images, a constant": lambda **settings: (
        image_network(constant=True, **settings),
        doubles(3, 3, 16, 16),
    ),
    "rows": lambda **settings: (table_network(**settings), 3 * doubles(6, 5)),
    "rows, a constant": lambda **settings: (
        table_network(constant=True, **settings),
        3 * doubles(6, 5),
    ),
}
for_each_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


@cache
def fitted_explainer():
    return ek.explainer("senn", preset="tiny").fit(tiny_dataset(), device="cpu", progress=False)


@cache
def wine_explainer():
    pytest.importorskip("sklearn")
    dataset = ek.dataset("wine")
    explainer = ek.explainer("senn", preset="table", settle_epochs=30)
    return explainer.fit(dataset, device="cpu", progress=False), dataset


def fitted_network():
    """A copy of the fitted network, which a test may change."""
    return copy.deepcopy(fitted_explainer().network)
