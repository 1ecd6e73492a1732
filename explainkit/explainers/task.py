"""What a network is built for."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

from explainkit.data.types import ImageDataset
from explainkit.explanations.units import Units


def _class_names(classes: int | Sequence[str]) -> tuple[str, ...]:
    return tuple(f"class {c}" for c in range(classes)) if isinstance(classes, int) else tuple(classes)


def _sides(size: int | Sequence[int]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)


@frozen(kw_only=True)
class Task:
    """What a network is built for.

    Attributes
    ----------
    classes : tuple of str
        Or how many.
    size : (int, int) or (int,)
        Height and width of the images, one number for both; or (F,), the columns of a table.
    dataset : ImageDataset or None
        What the network will learn from; ``None`` where a saved one is built anew.
    units : Units or None
        Those of the saved network.
    channels : int
        Of the images.
    """

    classes: tuple[str, ...] = field(converter=_class_names)
    size: tuple[int, ...] = field(converter=_sides, default=64)
    channels: int = 3
    dataset: ImageDataset | None = field(default=None, repr=False, eq=False)
    units: Units | None = field(default=None, repr=False, eq=False)
