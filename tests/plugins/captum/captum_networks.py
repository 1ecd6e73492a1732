"""Small networks, what they may return, and explainers of them."""

from collections import OrderedDict
from types import SimpleNamespace

import torch
from plugin_cases import FLOAT32
from torch import nn
from torch.nn import functional as F

import explainkit as ek
from explainkit import registry

SMALL = {
    "gradient-shap": {"n_samples": 3, "stdevs": 0.1},
    "kernel-shap": {"n_samples": 20, "patches": 3},
    "layer-gradient-shap": {"n_samples": 3, "stdevs": 0.1},
    "lime": {"n_samples": 20, "patches": 3, "alpha": 1e-6},
    "noise-tunnel": {"n_samples": 3},
    "shapley-value-sampling": {"n_samples": 2, "patches": 3},
}
"""Settings that keep the tests quick."""

SURROGATES = ("kernel-shap", "lime")
LEAST_SQUARES = 1e-3
"""How far fits of `SURROGATES` may lie apart, as a share of their size.

Captum fits them in float32. Kernel SHAP weighs the full and the empty image 1e6 to 1, which multiplies
rounding by up to 1e3; the lasso of LIME stops at a small gap rather than at its minimum.
"""

METHODS = [name.partition("/")[2] for name in registry.offers("explainers") if name.startswith("captum/")]
ONE_PASS = [
    *("saliency", "input-x-gradient", "guided-backprop", "deconvolution", "layer-grad-cam"),
    "layer-gradient-x-activation",
]
COMPLETE = [
    *("integrated-gradients", "gradient-shap", "deep-lift", "deep-lift-shap", "lrp", "kernel-shap"),
    *("shapley-value-sampling", "layer-integrated-gradients", "layer-conductance", "layer-deep-lift"),
    *("layer-deep-lift-shap", "layer-gradient-shap", "layer-lrp"),
]
AT_LEAST = {"layer-gradient-shap": 6}
"""What the network sees at once where `batch_size` is less: samples, and their baselines with them."""


class Plain(nn.Module):
    """Convolutions and a linear layer, all ReLUs modules."""

    def __init__(self, inplace=False):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace))
        self.deep = nn.Conv2d(8, 12, 3, 2, 1)
        self.rectify = nn.ReLU(inplace)
        self.head = nn.Linear(12, 4)

    def forward(self, images):
        return self.head(self.rectify(self.deep(self.stem(images))).mean((2, 3)))


class Functional(Plain):
    def forward(self, images):
        features = self.stem[1](self.stem[0](images))
        return self.head(torch.relu(self.deep(F.relu(features))).mean((2, 3)))


class Returning(nn.Module):
    """What `form` makes of the logits of another network."""

    def __init__(self, inner, form):
        super().__init__()
        self.inner, self.form = inner, form

    def forward(self, images):
        return self.form(self.inner(images))


FORMS = {
    "a tuple": lambda logits: (logits, logits.mean()),
    "a tuple with maps first": lambda logits: (logits[:, :, None, None], logits),
    "a list": lambda logits: [logits],
    "a mapping": lambda logits: {"loss": logits * 2, "logits": logits},
    "a mapping without the key": lambda logits: OrderedDict(loss=logits.mean(), out=logits, aux=logits * 2),
    "an object": lambda logits: SimpleNamespace(logits=logits, loss=None),
}


def seeded_network(kind=Plain, seed=0, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = kind(**settings).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.bias.data.normal_()
    return network


def captum_explainer(method, network, /, **settings):
    return ek.explainer(f"captum/{method}", network=network, **{**SMALL.get(method, {}), **settings})


def tolerance_of(method):
    """How far attributions in another order of sums may lie apart, as a share of their size."""
    return LEAST_SQUARES if method in SURROGATES else FLOAT32


def random_images(count=3, size=24, seed=1):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def hook_count(network):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in network.modules() for kind in kinds)
