"""Small networks of each pooling and head, and an oracle whose cells see one quadrant alone."""

import torch
from plugin_cases import draw_norm_statistics, uniform
from torch import nn

import explainkit as ek
from explainkit_cigc.model import CIGCNetwork

KINDS = [("mean", None), ("max", None), ("mean", 5), ("max", 5)]
"""Pooling, and the width of the hidden layer."""


def small_network(pooling="mean", hidden_width=None, classes=4, seed=0):
    torch.manual_seed(seed)
    network = CIGCNetwork(ek.backbone("tiny"), classes, pooling, hidden_width)
    draw_norm_statistics(network)
    return network.eval()


def explainer(pooling="mean", hidden_width=None, dtype=torch.float32, **settings):
    network = small_network(pooling, hidden_width, **settings).to(dtype)
    return ek.explainer("ci-gc", network=network, size=(32, 32))


class Patches(ek.Backbone):
    """Mean colors of squares of 4 pixels: no cell sees beyond its quadrant."""

    channels, stride, receptive_field, first_pixel = 3, 4, 4, 0

    def forward(self, images):
        return nn.functional.avg_pool2d(images, 4)


class Odd(Patches):
    """One row more than there are squares."""

    def forward(self, images):
        return nn.functional.pad(super().forward(images), (0, 0, 0, 1))


def color_network(pooling="mean", backbone=Patches):
    """Says of a color that it is there, and of its class nothing else."""
    network = CIGCNetwork(backbone(), 3, pooling)
    with torch.no_grad():
        network.head.weight.copy_(torch.eye(3))
        network.head.bias.zero_()
    return network.eval()


def color_batch(count=9, size=16, seed=0):
    """Images of one color each, at places that differ, (N, 3, S, S); the color is the class."""
    labels = torch.arange(count) % 3
    images = uniform(count, 1, size, size, seed=seed) * nn.functional.one_hot(labels, 3)[:, :, None, None]
    return ek.Batch(images=images, labels=labels, ids=torch.arange(count) + 10)
