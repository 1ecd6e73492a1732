"""How much of what a place is said to hold came from elsewhere, as measured on images."""

from __future__ import annotations

from typing import Literal

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.display import markup
from explainkit.explanations.json_values import JsonValue
from explainkit.explanations.receptive_field import ReceptiveField
from explainkit.explanations.units import Units
from explainkit.explanations.validation import as_names

Replacement = Literal["redrawn", "swapped"]
"""The scene drawn again around its object's pose, or another image of the split."""

KINDS = ("same class", "other class")
"""Where what replaces the outside is from: the first axis of `Leak.region` and `Leak.cell`."""

ROWS = 12
"""Of a table, at most."""


@frozen(eq=False, kw_only=True)
class Leak(JsonValue):
    """How much scores and cells change though no pixel of the place that is shown for them does.

    Attributes
    ----------
    explainer, dataset, split : str
    names : tuple of str, K
        Of the explainer's units.
    ids : Tensor, (N,), int64
        The images.
    unit : Tensor, (N, k), int64
        Whose regions were measured in each image: the strongest units that have a place there.
    region : Tensor or None, (2, N, k)
        Region leak, as a share of the unit's score; first with replacements of the same class, then of
        another. NaN where there is none: a score of 0, a unit without a place, no image to swap in.
    cell : Tensor or None, (2, N, c)
        Cell leak, as a share of what all maps hold at the cell.
    cells : Tensor or None, (N, c, 2), int64
        Rows and columns of those cells.
    region_reason, cell_reason : str or None
        Why there is no `region`, or no `cell`.
    receptive_field : ReceptiveField or None
        What one cell can see, by the explainer's claim.
    replacement : {"redrawn", "swapped"}
        What stands in the outside's place.
    passes : int
        How often the network was run for each image.
    seed : int

    Raises
    ------
    InputError
        On construction, for both or neither of a leak and a reason, and for shapes that disagree.
    """

    explainer: str
    dataset: str
    split: str
    names: tuple[str, ...] = field(converter=as_names, repr=lambda names: f"<{len(names)} names>")
    ids: Tensor = field(repr=False)
    unit: Tensor = field(repr=False)
    region: Tensor | None = field(default=None, repr=False)
    cell: Tensor | None = field(default=None, repr=False)
    cells: Tensor | None = field(default=None, repr=False)
    region_reason: str | None = None
    cell_reason: str | None = None
    receptive_field: ReceptiveField | None = None
    replacement: Replacement = "redrawn"
    passes: int = 0
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        for name in ("region", "cell"):
            if (getattr(self, name) is None) == (getattr(self, f"{name}_reason") is None):
                raise InputError(
                    f"Expected a {name} leak or a reason why there is none; got both or neither."
                )
        images = len(self.ids)
        expected = {"region": (2, *self.unit.shape), "cells": None, "cell": None}
        if self.cell is not None and self.cells is not None:
            expected["cell"], expected["cells"] = (2, *self.cells.shape[:2]), (images, self.cell.shape[-1], 2)
        if self.unit.ndim != 2 or len(self.unit) != images or (self.cell is None) != (self.cells is None):
            raise InputError(f"Expected the units and cells of {images} images; got {self!r}.")
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise InputError(f"Expected {name} of {shape}; got {tuple(value.shape)}.")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def region_leak(self) -> Tensor | None:
        """Region leak of each image, (N,): the mean over its units, then of both kinds of replacement."""
        return None if self.region is None else self.region.nanmean(2).mean(0)

    @property
    def cell_leak(self) -> Tensor | None:
        """Cell leak of each image, (N,): the mean over its cells, then of both kinds of replacement."""
        return None if self.cell is None else self.cell.nanmean(2).mean(0)

    @property
    def counts(self) -> Tensor:
        """In how many images the region of each unit was measured, (K,), int64."""
        return self._sums()[1].long()

    @property
    def by_unit(self) -> Tensor:
        """Region leak of each unit in the mean over images and both kinds, (K,); NaN where never measured."""
        sums, counts = self._sums()
        return torch.where(counts > 0, sums / counts, torch.nan)

    def apply(self, units: Units) -> Units:
        """`units` with what was measured as their `Units.leak`; as they are where nothing was.

        Raises
        ------
        InputError
            For other units.
        """
        if self.region is None:
            return units
        if units.names != self.names:
            raise InputError(
                f"Expected the {len(self.names)} units that were measured; got {len(units)} units, "
                "or others by name."
            )
        return evolve(units, leak=self.by_unit.float())

    def table(self) -> str:
        """Both leaks by kind of replacement, and the units that were measured most, as text."""
        lines = [f"{'':<24} {KINDS[0]:>12} {KINDS[1]:>12}"]
        for name, values, reason in (
            ("region leak", self.region, self.region_reason), ("cell leak", self.cell, self.cell_reason),
        ):  # fmt: skip
            if values is None:
                lines.append(f"{name:<24} {reason}")
            else:
                same, other = values.nanmean(2).nanmean(1).tolist()
                lines.append(f"{name:<24} {same:12.3f} {other:12.3f}")
        by_unit, counts = self.by_unit, self.counts
        for unit in counts.argsort(descending=True, stable=True)[:ROWS].tolist():
            if counts[unit]:
                lines.append(f"{self.names[unit]:<24} {by_unit[unit]:12.3f} in {counts[unit]} images")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return markup(self.table())

    def _sums(self) -> tuple[Tensor, Tensor]:
        """Of each unit the sum of what was measured with both kinds in an image, and in how many, (K,)."""
        sums, counts = torch.zeros(2, len(self.names), dtype=torch.float64)
        if self.region is not None:
            of_images = self.region.double().mean(0).flatten()  # NaN where one kind is
            measured = ~of_images.isnan()
            units = self.unit.flatten()[measured]
            sums.index_add_(0, units, of_images[measured])
            counts.index_add_(0, units, torch.ones_like(of_images[measured]))
        return sums, counts
