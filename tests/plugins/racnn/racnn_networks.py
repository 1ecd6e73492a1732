"""Small RA-CNN networks, images that change slowly, and squares."""

import copy
from functools import cache

import torch
from plugin_cases import draw_norm_statistics
from torch import nn

import explainkit as ek
from explainkit.testing import tiny_dataset
from explainkit_racnn.model import RACNNNetwork


def smooth(height, width, count=1):
    """Images (N, 3, H, W) in double precision that change slowly."""
    y, x = torch.meshgrid(
        torch.linspace(0, 3, height).double(), torch.linspace(0, 4, width).double(), indexing="ij"
    )
    waves = [0.5 + 0.4 * torch.sin(a * x + b * y + c) for a, b, c in ((1, 0.5, 0), (0.4, 1.3, 1), (2, 1, 2))]
    return torch.stack(waves)[None] * torch.linspace(0.6, 1, count).double().view(-1, 1, 1, 1)


def small_network(classes=3, scales=3, seed=0, crop_size=16, **settings):
    """An untrained network whose norms have seen data and whose proposals differ between images."""
    torch.manual_seed(seed)
    network = RACNNNetwork(lambda: ek.backbone("tiny"), classes, crop_size, scales=scales, **settings)
    draw_norm_statistics(network)
    for proposal in network.proposals:
        nn.init.normal_(proposal.out.weight, std=0.5)
    return network.eval()


@cache
def fitted_explainer():
    return ek.explainer("ra-cnn", preset="tiny").fit(tiny_dataset(), device="cpu", progress=False)


def fitted_network():
    """A copy of the fitted network, which a test may change."""
    return copy.deepcopy(fitted_explainer().network)


def squares(*rows, dtype=torch.float32):
    """Middles and half sides (N, 3), as shares of the image."""
    return torch.tensor(rows, dtype=dtype)
