"""What the tests of several plugins share: tolerances, seeded tensors, networks between their phases."""

import copy
import warnings

import torch
from torch import nn

import explainkit as ek
from explainkit.training import Trainer
from explainkit.training.steps import Step

FLOAT32 = 1000 * torch.finfo(torch.float32).eps
"""How far sums of hundreds of terms may lie apart in another order, as a share of their size: 1.2e-4."""


def assert_near(values, expected, tolerance=FLOAT32, scale=None):
    """`values` are `expected` but for a share `tolerance` of the largest term.

    `scale` holds the terms where the values are differences, or sums of both signs.
    """
    scale = expected if scale is None else scale
    largest = scale.detach().abs().max().item()
    torch.testing.assert_close(values, expected, rtol=0, atol=tolerance * largest)


def alone(batch):
    """The first step of a phase, in one process that has all of `batch`."""
    return Step(batch_size=len(batch))


def uniform(*shape, seed=0, dtype=torch.float32):
    """Numbers in [0, 1) that depend on `seed` alone."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def draw_norm_statistics(network):
    """Statistics of batch norms as if they had seen data."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)


def whole_split(dataset, split="train"):
    """All images of a split as one batch."""
    return dataset.split(split).batch(torch.arange(len(dataset.split(split))))


def networks_by_phase(model, dataset):
    """The network before the first phase, and after each one, by the phase's name."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = model.build(ek.Task(classes=dataset.classes, size=dataset.size, dataset=dataset))
    yield None, copy.deepcopy(network)
    for phase in model.phases():
        Trainer(device="cpu", progress=False).run(network, dataset, [phase])
        yield phase.name, copy.deepcopy(network)
