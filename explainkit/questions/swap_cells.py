"""The cells of an image, or the columns of a row, that are swapped for those of another."""

from __future__ import annotations

import torch
from attrs import field, frozen
from torch import Tensor
from torch.nn import functional as F

GRID = (8, 8)
"""Cells of an image."""

SHIFT = 2
"""By how many cells another image may be shifted, up to, along either side."""


@frozen(eq=False)
class ImageCells:
    """Cells of images (…, D, H, W).

    Attributes
    ----------
    grid : (int, int)
        Rows and columns of cells, P in all.
    has_mirrors : bool
        Whether the mirror of another image may be laid over too.
    shifts : Tensor, (S, 2)
        Down and right, in cells, by which another image may be moved before.
    """

    grid: tuple[int, int] = GRID
    has_mirrors: bool = True
    shifts: Tensor = field(init=False)

    @shifts.default
    def _all_shifts(self) -> Tensor:
        steps = torch.arange(-SHIFT, SHIFT + 1)
        return torch.cartesian_prod(steps, steps)

    def shift(self, inputs: Tensor, moves: Tensor) -> Tensor:
        """Images (N, Q, D, H, W), each moved by `moves` (N, Q, 2) cells.

        What is uncovered takes the values of the nearest edge.
        """
        (n, q), size = inputs.shape[:2], inputs.shape[-2:]
        indices = []
        for axis in range(2):
            step = (moves[..., axis] * size[axis] / self.grid[axis]).round().long()
            along = torch.arange(size[axis], device=inputs.device) - step[..., None]
            indices.append(along.clamp(0, size[axis] - 1))
        image = torch.arange(n * q, device=inputs.device).view(n * q, 1, 1)
        y, x = indices[0].view(n * q, -1, 1), indices[1].view(n * q, 1, -1)
        shifted = inputs.flatten(0, 1).permute(0, 2, 3, 1)[image, y, x]
        return shifted.permute(0, 3, 1, 2).unflatten(0, (n, q))

    def swap(self, inputs: Tensor, sources: Tensor, regions: Tensor) -> Tensor:
        """Images (M, D, H, W) with the cells `regions` (M, P), bool, of `sources` laid over."""
        cells = regions.view(-1, 1, *self.grid).float()
        mask = F.interpolate(cells, inputs.shape[-2:], mode="nearest") > 0
        return torch.where(mask, sources, inputs)

    def total(self, values: Tensor) -> Tensor:
        """Values (N, E, D, H, W) of pixels, summed in each cell: (N, E, P)."""
        pooled = F.adaptive_avg_pool2d(values.sum(2), self.grid).flatten(2)
        return pooled * (values[0, 0, 0].numel() / pooled.shape[2])


@frozen(eq=False)
class Columns:
    """Columns of rows (…, F), as `ImageCells`: each is a cell, none can be shifted."""

    grid: tuple[int, int]
    has_mirrors: bool = False
    shifts: Tensor = field(init=False, factory=lambda: torch.zeros(1, 2, dtype=torch.long))

    def shift(self, inputs: Tensor, moves: Tensor) -> Tensor:
        """Rows (N, Q, F), as they are."""
        return inputs

    def swap(self, inputs: Tensor, sources: Tensor, regions: Tensor) -> Tensor:
        """Rows (M, F) with the columns `regions` (M, F), bool, of `sources`."""
        return torch.where(regions, sources, inputs)

    def total(self, values: Tensor) -> Tensor:
        """Values (N, E, F), each of a column."""
        return values


def cells_of(inputs: Tensor) -> ImageCells | Columns:
    """How `inputs`, images (N, D, H, W) or rows (N, F), are cut."""
    return Columns(grid=(1, inputs.shape[1])) if inputs.ndim == 2 else ImageCells()
