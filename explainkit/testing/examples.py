"""What is checked, and on what: a small data set, and explainers that are fitted to it."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from explainkit import registry
from explainkit.data.types import (
    ArraySplit,
    Caption,
    ImageDataset,
)
from explainkit.explainers.interface import Explainer
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explainers.posthoc import PostHocExplainer
from explainkit.registry.catalog import explainer as explainer_by_name

_ORDER = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "last")


def architectures() -> tuple[str, ...]:
    """Names of the architectures that are installed: explainers that their plugin's name alone stands for."""
    return tuple(name for name in registry.offers("explainers") if "/" not in name)


@cache
def tiny_dataset(size: int = 32, classes: int = 3) -> ImageDataset:
    """A data set for tests that is learned in seconds: a colored square at a place that tells the class.

    Captions tell its color, and of every other image its place.
    """
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> ArraySplit:
        labels = torch.arange(count) % classes
        images = torch.randint(0, 90, (count, 3, size, size), generator=generator, dtype=torch.uint8)
        step = size // classes
        for label in range(classes):
            start = label * step
            of_class = labels == label
            images[of_class, label % 3, start : start + step, start : start + step] = 230
        colors = ("red", "green", "blue")
        captions = tuple(
            Caption(
                text=f"A picture with a {colors[label % 3]} square"
                + (f" and a {_ORDER[label]} corner." if index // classes % 2 else ".")
            )
            for index, label in enumerate(labels.tolist())
        )
        return ArraySplit(images=images, labels=labels, captions=captions)

    return ImageDataset(
        name="tiny",
        classes=[f"square {label}" for label in range(classes)],
        size=(size, size),
        splits={"train": split(96), "validation": split(24), "test": split(24)},
    )


def tiny_images() -> Tensor:
    """Six images of `tiny_dataset`, (6, 3, 32, 32)."""
    return tiny_dataset().test.batch(torch.arange(6)).images


@cache
def fitted_example(name: str) -> Explainer:
    """The registered explainer called `name`, with its preset ``"tiny"`` if it has one, for `tiny_dataset`.

    One that learns is fitted; a post-hoc one is made from a network with ReLU modules and a linear end. What
    learns from concept examples learns the classes of the data set as concepts.
    """
    factory = registry.find("explainers", name)
    preset = "tiny" if "tiny" in getattr(factory, "presets", {}) else None
    if isinstance(factory, type) and issubclass(factory, InterpretableExplainer):
        explainer = explainer_by_name(name, preset=preset)
        if isinstance(explainer, InterpretableExplainer):
            return explainer.fit(tiny_dataset(), seed=0, device="cpu", progress=False)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    ).eval()  # fmt: skip
    posthoc = explainer_by_name(name, preset=preset, network=network, classes=tiny_dataset().classes)
    if isinstance(posthoc, PostHocExplainer) and posthoc.card.learns_from is not None:
        posthoc.fit(tiny_dataset())
    return posthoc
