"""Finds by trial which pixels reach a cell: NaN stays NaN through every layer that it enters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from explainkit.explanations.receptive_field import ReceptiveField


@torch.no_grad()
def find_receptive_field(features: Callable[[Tensor], Tensor], image: Tensor) -> ReceptiveField | None:
    """Which pixels can change a cell of a grid, in eval mode; ``None`` where `image` shows no bound.

    The image is made NaN from one side on, so far that the middle cell just becomes NaN too: there its field
    begins. Whatever the weights are, NaN passes convolutions, rectifiers, norms and poolings.

    Parameters
    ----------
    features : callable
        Images (N, D, H, W) to a grid (N, K, h, w), which shifts with the image. It is not modified.
    image : Tensor, (1, D, H, W)
        Of the size to try it on. What a cell sees is found where it ends inside.
    """
    grid = features(image.clone()).shape[2:]
    if len(grid) != 2 or min(grid) < 3:
        return None
    fields = []
    for axis, cells in enumerate(grid):
        middle = cells // 2
        firsts = [_first_seen(features, image, axis, cell) for cell in (middle, middle + 1)]
        last = _first_seen(features, image, axis, middle, from_end=True)
        if None in (*firsts, last):
            return None
        first, following = firsts
        stride = following - first
        fields.append((first - stride * middle, last - stride * middle, stride))
    starts, ends, strides = zip(*fields, strict=True)
    if len(set(strides)) > 1 or strides[0] < 1:
        return None
    start = min(starts)
    return ReceptiveField(size=max(ends) - start + 1, stride=strides[0], first_pixel=start)


def _first_seen(
    features: Callable[[Tensor], Tensor], image: Tensor, axis: int, cell: int, *, from_end: bool = False
) -> Any:
    """The first line (row, or column along `axis` 1) that cell number `cell` sees, or the last.

    ``None`` where it sees the border, or nothing at all.
    """
    lines = image.shape[2 + axis]

    def reaches(count: int) -> bool:
        spoiled = image.clone()
        spoiled.narrow(2 + axis, lines - count if from_end else 0, count).fill_(torch.nan)
        grid = features(spoiled)[0]
        middle = grid.shape[2 - axis] // 2
        return bool(grid.select(1 + axis, cell).select(1, middle).isnan().any())

    low, high = 1, lines  # `low` lines do not reach the cell, `high` do
    if reaches(low) or not reaches(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return lines - high if from_end else high - 1
