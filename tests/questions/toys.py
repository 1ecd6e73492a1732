"""Networks small enough to be understood, and explainers of them."""

import copy
from functools import cache

import torch
from attrs import define, field
from torch import nn

import explainkit as ek
from explainkit.data.types import ArraySplit, Batch, ImageDataset
from explainkit.testing import fitted_example

FAR = 1e-4
"""How far float32 sums in another order may lie apart, relatively."""


class Cells(nn.Module):
    """Every cell of `side` pixels on its own: ReLU of a linear map, the mean over cells, a linear head."""

    def __init__(self, classes=3, units=6, side=4, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.cells = nn.Conv2d(3, units, side, side)
            self.head = nn.Linear(units, classes)
        with torch.no_grad():  # so that cells differ by more than biases do
            self.cells.weight *= 6
            self.head.weight *= 4
            self.head.bias *= 0.2
            self.cells.bias[:] = -0.5 * self.cells.weight.sum((1, 2, 3))

    def forward(self, images):
        return self.decompose(images).logits

    def decompose(self, images):
        maps = self.cells(images).relu()
        scores = maps.mean((2, 3))
        return ek.Decomposition(
            logits=self.head(scores), bias=self.head.bias, scores=scores, weights=self.head.weight, maps=maps
        )


class Varying(nn.Module):
    """Weights and biases that depend on the image; scores of colors, without a place."""

    def __init__(self, classes=3, units=5, seed=0, own_weights=True):
        super().__init__()
        self.own_weights = own_weights
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.scores = nn.Linear(3, units)
            self.weights = nn.Linear(3, classes * units)
            self.bias = nn.Linear(3, classes)

    def forward(self, images):
        return self.decompose(images).logits

    def decompose(self, images):
        colors = images.mean((2, 3))
        scores, bias = self.scores(colors).relu(), self.bias(colors)
        theta = self.weights(colors if self.own_weights else colors * 0 + 0.5)
        theta = theta.view(len(images), -1, scores.shape[1])  # (N, C, K)
        return ek.Decomposition(
            logits=bias + torch.einsum("nck,nk->nc", theta, scores), bias=bias, scores=scores,
            weights=(lambda rows, targets: theta[rows, targets]) if self.own_weights else theta[0],
        )  # fmt: skip


@define(eq=False, kw_only=True)
class Toy(ek.InterpretableExplainer):
    """An explainer of either; `reference` is the score that says nothing."""

    card = ek.Card(
        title="Toy", citation="none", additivity="exact", unit_kind="filters", learns_from="training images"
    )
    reference: float = field(default=0.0)

    def build(self, task):
        return Cells(len(task.classes))

    def phases(self):
        return ()

    def describe_units(self, network):
        count = network.cells.out_channels if isinstance(network, Cells) else network.scores.out_features
        return ek.Units(
            kind="filter", names=[f"filter {unit}" for unit in range(count)],
            pooling="mean" if isinstance(network, Cells) else "none",
            reference=torch.full((count,), self.reference) if self.reference else None,
        )  # fmt: skip


def toy(network=None, classes=("ant", "bee", "cat"), **settings):
    return Toy.from_network((network or Cells(len(classes))).eval(), classes=classes, **settings)


def noise(count=60, size=32, seed=0):
    """Tinted images of blocks, so that images and cells differ by much."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(count, 3, 8, 8, generator=generator)
    fine = torch.rand(count, 3, size, size, generator=generator)
    tints = torch.rand(count, 3, 1, 1, generator=generator)
    return 0.4 * nn.functional.interpolate(blocks, size=(size, size)) + 0.2 * fine + 0.4 * tints


def batch_of(images, labels, start=0):
    return Batch(images=images, labels=labels, ids=torch.arange(start, start + len(images)))


def dataset_of(images, labels, classes=("ant", "bee", "cat"), **more):
    split = ArraySplit(images=(images * 255).round().byte(), labels=labels)
    return ImageDataset(
        name="made", classes=classes, size=tuple(images.shape[-2:]),
        splits=dict.fromkeys(("train", "validation", "test"), split), **more,
    )  # fmt: skip


def labeled(explainer, images):
    """Images with the labels that the network gives them."""
    return batch_of(images, explainer.predict(images).argmax(1))


@cache
def balanced(name, reference=0.0):
    """A toy or a fitted_example whose biases are such that no class has all images."""
    if name in ("cells", "varying"):
        explainer = toy(Cells() if name == "cells" else Varying(), reference=reference)
    else:
        explainer = copy.deepcopy(fitted_example(name))
    logits = explainer.predict(noise(60)).mean(0)
    for module in explainer.network.modules():
        if isinstance(module, nn.Linear) and module.out_features == 3 and module.bias is not None:
            module.bias.data -= logits
    return explainer


@cache
def wine():
    dataset = ek.dataset("wine")
    return ek.explainer("senn", preset="table", settle_epochs=15).fit(
        dataset, device="cpu", progress=False
    ), dataset
