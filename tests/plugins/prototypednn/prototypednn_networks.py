"""Networks and explainers of PrototypeDNN, untrained and trained for a moment."""

import torch

import explainkit as ek
from explainkit.testing import tiny_dataset
from explainkit_prototypednn.model import PrototypeDNNNetwork


def network(classes=3, prototypes=6, size=(12, 12), seed=0, dtype=torch.float32, **settings):
    """An untrained network whose weights differ in sign, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        settings = {"width": 8, "latent_channels": 3, "layers": 2, **settings}
        made = PrototypeDNNNetwork(classes, prototypes, size, **settings)
        torch.nn.init.normal_(made.head.weight)
        for convolution in made.encoder.layers[::2]:  # alive, and different from image to image
            torch.nn.init.normal_(convolution.weight, std=0.3)
            torch.nn.init.uniform_(convolution.bias, 0, 0.5)
        made.reference.uniform_(1, 3)
    return made.to(dtype).eval()


def fitted(**settings):
    settings = {"preset": "tiny", **settings}
    return ek.explainer("prototype-dnn", **settings).fit(tiny_dataset(), seed=0, device="cpu", progress=False)
