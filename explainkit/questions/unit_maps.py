"""How active each unit is on a grid over many images, a few units at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from explainkit.data.types import Batch
from explainkit.explanations.batch import Explanations
from explainkit.explanations.factored_maps import dense_maps, take_units
from explainkit.explanations.spatial import paste, resize

KEPT = 25 * 2**20
"""Most numbers of maps, 100 MiB, that are kept of one pass over the images: those of 100 units of 1,000
images on a 16 x 16 grid."""

RESIZED = 2**22
"""Most numbers of maps, 16 MiB, that are on the grid at once."""

EXPLAINED = 2**22
"""Most numbers of maps that the images explained at once have."""


def images_at_once(first: Explanations, most: int = 64) -> int:
    """How many images, like the one in `first`, are explained at once."""
    numbers = 1 if first.maps is None else first.maps.shape[1:].numel()
    return max(1, min(most, EXPLAINED // max(1, numbers)))


def unit_maps(
    explain: Callable[[Batch], Explanations],
    batches: Callable[[], Iterable[Batch]],
    count: int,
    first: Explanations,
    grid: tuple[int, int],
) -> Iterator[Tensor]:
    """The maps of all units, in order: (N, f, h, w) for f of them at a time.

    Images are explained anew for each `KEPT` numbers, so that 2,048 units of 1,000 images with maps of 7 x 7
    take four passes, and 16 x 16 take 21. Memory is bounded by that time, and results are those of one pass.

    Parameters
    ----------
    explain : callable
        One explanation an image, with all maps.
    batches : callable
        The same N images, from the first, each time it is called.
    count : int
        N.
    first : Explanations
        One of them.
    """
    shape = _kept(first, torch.arange(1), grid).shape[2:]
    units, numbers = torch.arange(len(first.units)), count * shape.numel()
    for part in units.split(max(1, KEPT // numbers)):
        maps, start = torch.empty(count, len(part), *shape), 0
        for batch in batches():
            kept = _kept(explain(batch), part, grid)
            maps[start : start + len(kept)] = kept
            start += len(kept)
        for few in torch.arange(len(part)).split(max(1, RESIZED // (count * grid[0] * grid[1]))):
            yield _on_grid(maps[:, few], grid)


def _kept(explanations: Explanations, units: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps (n, f, h, w) of some units: as they are where the grid has as many cells or more, else on it."""
    scores = explanations.scores.detach().float().cpu()[:, units]
    if explanations.units.phrasing.absent_scores == "high":  # as of distances: most of it is the nearest
        scores = -scores
    if grid == (1, 1) or explanations.maps is None:
        return scores[..., None, None]
    chosen = take_units(explanations.maps.detach(), units.to(explanations.maps.device))
    maps = dense_maps(chosen).float().cpu()
    if explanations.boxes is None:
        return maps if maps[0, 0].numel() <= grid[0] * grid[1] else resize(maps, grid)
    n, k = scores.shape
    unit_group = explanations.units.group
    group = torch.zeros(k, dtype=torch.long) if unit_group is None else unit_group.cpu()[units]
    boxes = explanations.boxes.detach().float().cpu()[:, group].flatten(0, 1)[:, None]
    laid = paste(maps.flatten(0, 1)[:, None], boxes, explanations.images.shape[-2:], grid)
    return laid.unflatten(0, (n, k))


def _on_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps as `_kept` gives them, on the grid: density is kept where cells are divided."""
    cells = maps.shape[2] * maps.shape[3] / (grid[0] * grid[1])
    return resize(maps, grid).div_(cells) if cells < 1 else resize(maps, grid)
