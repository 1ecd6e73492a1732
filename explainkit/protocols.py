"""Structural types: what explainers, splits, metrics and loggers are to the rest of explainkit.

Whatever has these methods can stand in their place; nothing needs to be inherited. The types of layers above
are imported for type checkers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from PIL.Image import Image
from torch import Tensor, nn

if TYPE_CHECKING:
    import torch

    from explainkit.data.types import Batch, ImageDataset
    from explainkit.explainers.card import Card
    from explainkit.explainers.inputs import InputSpec
    from explainkit.explanations.batch import Explanations
    from explainkit.explanations.decisions import Decision
    from explainkit.explanations.units import Units
    from explainkit.metrics.context import ExplainerOutput
    from explainkit.metrics.results import Score
    from explainkit.training.phases import Epoch

Readable: TypeAlias = str | Path | Image | np.ndarray[Any, Any] | Tensor
"""A file, a PIL image, a tensor (3, H, W), or an array (H, W), (H, W, 3), (H, W, 4) of bytes or of [0, 1]."""

Images: TypeAlias = "Tensor | Batch | Readable | Sequence[Readable]"
"""A tensor (N, 3, H, W) in [0, 1], a `Batch`, or files, PIL images and arrays: one, or a sequence of them."""

Targets: TypeAlias = Tensor | Sequence[int | str] | int | str
"""Classes by name or index: one an image, or one for all."""


class Explainer(Protocol):
    """What classifies images and explains its classes, as questions and metrics see it."""

    @property
    def card(self) -> Card:
        """What it is and claims."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """C names."""
        ...

    @property
    def input_spec(self) -> InputSpec:
        """What the network takes."""
        ...

    @property
    def decision(self) -> Decision:
        """How the network's outputs become an answer."""
        ...

    @property
    def network(self) -> nn.Module:
        """The classifier: images (N, 3, H, W) to logits (N, C)."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        ...

    def read_images(self, images: Images) -> Tensor:
        """`images` as a valid tensor on the network's device, in its precision."""
        ...

    def predict(self, images: Images, *, batch_size: int = ...) -> Tensor:
        """Logits (N, C)."""
        ...

    def check_classes(self, dataset: ImageDataset) -> None:
        """Refuse a data set of other classes."""
        ...

    def explain(
        self,
        images: Images,
        targets: Targets | None = None,
        *,
        foils: Targets | None = None,
        batch_size: int = ...,
    ) -> Explanations:
        """Why each image gets the logit of its target."""
        ...


class InterpretableExplainer(Explainer, Protocol):
    """An explainer whose network decides by its units."""

    units: Units | None

    def score_ranges(self, dataset: ImageDataset | Batch) -> Tensor:
        """Which scores are plausible for images of each class, (2, C, K)."""
        ...


class Split(Protocol):
    """Images that can be fetched by id, in any order: the seam of every data set."""

    @property
    def labels(self) -> Tensor:
        """(N,), int64, for ids 0 … N - 1, known without loading an image."""
        ...

    def __len__(self) -> int: ...

    def batch(self, ids: Tensor) -> Batch:
        """The images of `ids` (n,), in that order; the same id always gives the same values."""
        ...


@runtime_checkable
class Intervenable(Protocol):
    """A split that can show the same scenes with other parts: ground truth for what parts are worth."""

    def part_presence(self, ids: Tensor) -> Tensor:
        """Which parts the scenes of `ids` (n,) have, (n, P), bool."""
        ...

    def with_parts(self, ids: Tensor, parts: Tensor) -> Batch:
        """The scenes of `ids` (n,) again, each with only those of its `parts` (n, P), bool.

        All else the same.
        """
        ...

    def object_masks(self, ids: Tensor) -> Tensor:
        """Where the whole object is seen in the images of `ids` (n,): (n, H, W), bool."""
        ...


@runtime_checkable
class Redrawable(Protocol):
    """A split that can draw other scenes whose object stands where it does in a given one."""

    def redraw(self, ids: Tensor, *, same_class: bool, seed: int) -> Batch:
        """For each of `ids` (n,) another scene, its object in the same place and pose; all else drawn anew.

        The object is of the same class, or of another, drawn by `seed` like all else.
        """
        ...


@runtime_checkable
class BackgroundEditable(Protocol):
    """A split that can show the same scenes without one of the objects in their background."""

    def background_objects(self, ids: Tensor) -> Tensor:
        """Which background objects are in the scenes of `ids` (n,): (n, B), bool."""
        ...

    def background_masks(self, ids: Tensor) -> Tensor:
        """Where each of them is seen in the images of `ids` (n,): (n, B, H, W), bool."""
        ...

    def without_background_object(self, ids: Tensor, objects: Tensor) -> Batch:
        """The scenes of `ids` (n,) again, each without background object number `objects` (n,)."""
        ...


@runtime_checkable
class PartCoded(Protocol):
    """A data set whose classes are defined by their parts."""

    @property
    def shared_parts(self) -> Tensor:
        """Which parts two classes have in common, (C, C, P), bool."""
        ...


@runtime_checkable
class Observable(Protocol):
    """A split whose scenes are known so well that an ideal classifier of them can be written down."""

    def ideal_observer(self, ids: Tensor) -> Explainer:
        """The explainer that decides by what is in the scenes of `ids` (n,)."""
        ...


class Metric(Protocol):
    """What the hook ``explainkit_metrics`` targets: the output of an explainer to a score."""

    def __call__(self, output: ExplainerOutput) -> Score:
        """How good `output` is."""
        ...


class Logger(Protocol):
    """Where training is recorded."""

    def log(self, epoch: Epoch) -> None:
        """Record an epoch."""
        ...

    def close(self) -> None:
        """Write what is still to be written."""
        ...
