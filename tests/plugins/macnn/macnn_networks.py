"""Small MA-CNN networks whose parts look somewhere, and maps by hand."""

import copy
from functools import cache

import torch
from plugin_cases import draw_norm_statistics
from torch import nn

import explainkit as ek
from explainkit.testing import tiny_dataset
from explainkit_macnn.model import MACNNNetwork

CLASSES = ["crow", "finch", "heron", "wren"]


def small_network(parts=3, classes=4, seed=0, dtype=torch.float32, is_grouped=True, **settings):
    """An untrained network whose norms have seen data, and whose grouping differs between images."""
    torch.manual_seed(seed)
    network = MACNNNetwork(ek.backbone("tiny"), classes, parts, 8, **settings)
    draw_norm_statistics(network)
    for parameter in network.grouping.parameters():
        nn.init.normal_(parameter)
    network.is_grouped.fill_(is_grouped)
    return network.to(dtype).eval()


def explainer(**settings):
    """An explainer of `small_network`."""
    return ek.explainer("ma-cnn", network=small_network(**settings), size=(32, 32), classes=CLASSES)


@cache
def fitted_explainer():
    return ek.explainer("ma-cnn", preset="tiny").fit(tiny_dataset(), device="cpu", progress=False)


def fitted_network():
    """A copy of the fitted network, which a test may change."""
    return copy.deepcopy(fitted_explainer().network)


def one_hot_maps(cells, height=4, width=5):
    """Maps (1, P, h, w) in double precision, each 1 at its cell (row, column)."""
    maps = torch.zeros(1, len(cells), height, width, dtype=torch.float64)
    for part, (row, column) in enumerate(cells):
        maps[0, part, row, column] = 1
    return maps
