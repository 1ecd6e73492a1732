"""Small networks with a class-specific gate."""

import torch
from plugin_cases import draw_norm_statistics, uniform
from torch import nn

import explainkit as ek
from explainkit_csgcnn.model import CSGCNNNetwork, projected


def small_network(classes=4, seed=0, dtype=torch.float32):
    """A network of random weights, whose gate has one or several classes in each row."""
    torch.manual_seed(seed)
    network = CSGCNNNetwork(ek.backbone("tiny"), classes)
    draw_norm_statistics(network)
    with torch.no_grad():
        network.gate.copy_(projected(uniform(*network.gate.shape, seed=seed) ** 3 - 0.1))
    return network.to(dtype).eval()


def explainer(dtype=torch.float32, **settings):
    """An explainer of `small_network`."""
    return ek.explainer("csg-cnn", network=small_network(dtype=dtype, **settings), size=(32, 32))


class Given(ek.Backbone):
    """Features that are the images themselves, as if a filter each channel."""

    stride, receptive_field, first_pixel = 1, 1, 0

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.anchor = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return images * self.anchor


def oracle(filters=12, classes=4):
    """A network each of whose filters is on for one class alone: filter k for class k mod C."""
    network = CSGCNNNetwork(Given(filters), classes)
    owners = torch.nn.functional.one_hot(torch.arange(filters) % classes, classes).float()
    with torch.no_grad():
        network.gate.copy_(owners)
        network.head.weight.copy_(owners.T)
        network.head.bias.zero_()
    return network.eval()


def oracle_images(labels, filters=12, classes=4):
    """Images (N, K, 4, 4) of which the filters of their class are 1, and all others 0."""
    of_class = (torch.arange(filters) % classes)[None] == labels[:, None]
    return of_class.float()[:, :, None, None].expand(-1, -1, 4, 4).clone()
