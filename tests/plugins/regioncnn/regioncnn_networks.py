"""Small networks of regions, and an explainer that was fitted for long enough to be right."""

from functools import cache

import torch
from plugin_cases import draw_norm_statistics
from torch import nn

import explainkit as ek
from explainkit.testing import tiny_dataset
from explainkit_regioncnn.model import RegionCNNNetwork


def small_network(classes=4, regions=5, seed=0, dtype=torch.float32, **settings):
    """A network of random weights: batch norms have statistics, and blocks are no mere shortcuts."""
    torch.manual_seed(seed)
    settings = {"head_channels": 24} | settings
    network = RegionCNNNetwork(ek.backbone("tiny"), classes, regions, **settings)
    draw_norm_statistics(network)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.05)
                module.running_var.uniform_(0.1, 0.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
        network.smoothing.normal_()
    return network.to(dtype).eval()


def explainer(dtype=torch.float32, **settings):
    """An explainer of `small_network`."""
    return ek.explainer("region-cnn", network=small_network(dtype=dtype, **settings), size=(32, 32))


@cache
def fitted():
    """One that is right about most images of `tiny_dataset`."""
    model = ek.explainer("region-cnn", preset="tiny", warm_epochs=3, epochs=12, batch_size=16)
    return model.fit(tiny_dataset(), seed=0, device="cpu", progress=False)
