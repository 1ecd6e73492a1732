"""Small networks with a class-specific gate."""

import torch
from plugin_cases import draw_norm_statistics, uniform
from torch import nn

import explainkit as ek
from explainkit.data.types import ArraySplit
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


class Told(ek.Backbone):
    """Filter k is 1 in images of class k mod C, and 0 in others; the class is what the pixels say."""

    stride, receptive_field, first_pixel = 1, 1, 0

    def __init__(self, filters, classes):
        super().__init__()
        self.channels = filters
        self.register_buffer("owner", torch.arange(filters) % classes)
        self.anchor = nn.Parameter(torch.ones(()))

    def forward(self, images):
        label = (images[:, :1] * 255).round()
        return (label == self.owner[:, None, None]) * self.anchor


def oracle(filters=12, classes=4):
    """A network each of whose filters is on for one class alone, which its gate says."""
    network = CSGCNNNetwork(Told(filters, classes), classes)
    owners = torch.nn.functional.one_hot(network.backbone.owner, classes).float()
    with torch.no_grad():
        network.gate.copy_(owners)
        network.head.weight.copy_(owners.T)
        network.head.bias.zero_()
    return network.eval()


def oracle_explainer(bias=(0.0, 0.0, 0.0, 0.0), gate_order=(0, 1, 2, 3)):
    """An explainer of `oracle` with this bias, and with the columns of its gate in this order."""
    network = oracle()
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor(bias))
        network.gate.copy_(network.gate[:, list(gate_order)])
    return ek.explainer("csg-cnn", network=network, size=(4, 4))


def oracle_dataset(count=40, classes=4, labels=None):
    """Images that say their classes, as many of each, or of these labels."""
    labels = torch.arange(count) % classes if labels is None else torch.tensor(labels, dtype=torch.long)
    images = labels.byte()[:, None, None, None].expand(-1, 3, 4, 4).clone()
    split = ArraySplit(images=images, labels=labels)
    return ek.ImageDataset(
        name="oracle", classes=[f"class {c}" for c in range(classes)], size=(4, 4),
        splits={"train": split, "validation": split, "test": split},
    )  # fmt: skip
