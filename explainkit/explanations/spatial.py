"""Where evidence lies: contributions distributed over maps, maps on other grids, maps as regions.

A map (h, w) is enlarged to the image by bilinear interpolation (pixel centers, ``align_corners=False``), and
its region is where it reaches `threshold` times its own maximum. Of the connected components (eight
neighbors), the one with the peak is kept; CAM's paper keeps the largest. The box is the tightest one around
the region, half-open, x0, y0, x1, y1 in pixels. A map without a peak (zero or constant) has the whole image
as its region.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from explainkit.explanations.decomposition import Pooling, Poolings
from explainkit.explanations.factored_maps import (
    FactoredMaps,
    UnitMaps,
    dense_maps,
    map_blocks,
    no_autocast,
    take_units,
)

SHOWN_FROM, SHOWN_FROM_PEAK = 0.5, 0.85
"""From which share of its maximum on a map is shown as a region; and where a unit is its best cell alone."""

FAINTEST = 1e-30
"""A map whose peak is at most this counts as zero: dividing by it would leave the range of float32."""

TOUCH = 1e-6
"""Which share of a cell's height or width may be on a pixel by rounding alone."""


def is_localized(maps: UnitMaps) -> Tensor:
    """Which units have a place at all, (N, K): those whose map (N, K, h, w) is not zero everywhere."""
    if isinstance(maps, FactoredMaps):
        return maps.has_peak_above(FAINTEST)
    return maps.flatten(2).amax(2) > FAINTEST


def best_cells(maps: UnitMaps) -> Tensor:
    """The largest cell of each map (N, K, h, w), counted along rows, (N, K); of equal ones the first."""
    return torch.cat([block.flatten(2).argmax(2) for _, block in map_blocks(maps)], 1)


def is_pooled_by(poolings: Sequence[Pooling], *names: Pooling) -> Tensor:
    """Which of K units are pooled by one of `names`, (K,)."""
    return torch.tensor([pooling in names for pooling in poolings], dtype=torch.bool)


def distribute(
    contributions: Tensor, maps: UnitMaps, pooling: Poolings, map_units: Tensor | None = None
) -> Tensor:
    """Spread each contribution over its own map, cell by cell: (N, K, h, w), summing to the contribution.

    In proportion to the map for ``mean``, ``sum`` and ``coupled``; onto the best cell alone for ``max``,
    since all the evidence came from there. Units with a map of zeros have no place and receive nothing.

    Parameters
    ----------
    map_units : Tensor or None, (N, k)
        Which units the maps (N, k, h, w) belong to, where `pooling` is one for each of all units.
    """
    return contributions[:, :, None, None] * distribution(maps, pooling, map_units)


def distribute_sum(
    contributions: Tensor, maps: UnitMaps, pooling: Poolings, map_units: Tensor | None = None
) -> Tensor:
    """`distribute`, summed over units without building them: (N, h, w).

    Contributions (N, G, K) give (N, G, h, w).
    """
    if isinstance(pooling, str):
        return _add_peaks(contributions, maps) if pooling == "max" else _add_shares(contributions, maps)
    from_best = _is_from_best_cell(pooling, map_units, maps.device)  # (K,) or (N, k)
    units = (from_best if from_best.ndim == 1 else from_best.any(0)).nonzero()[:, 0]
    mask = from_best[:, None] if from_best.ndim == 2 and contributions.ndim == 3 else from_best
    peaks = _add_peaks((contributions * mask)[..., units], take_units(maps, units))
    return _add_shares(contributions * ~mask, maps) + peaks


def _add_shares(contributions: Tensor, maps: UnitMaps) -> Tensor:
    """Contributions (N, ..., K) in proportion to their maps, summed over units: (N, ..., h, w)."""
    has_place = is_localized(maps)
    mass = maps.masses() if isinstance(maps, FactoredMaps) else maps.flatten(2).sum(2)
    per_mass = torch.where(has_place, 1 / mass.where(has_place, torch.ones_like(mass)), 0)  # (N, K)
    scaled = contributions * (per_mass if contributions.ndim == 2 else per_mass[:, None])
    if isinstance(maps, FactoredMaps):
        return maps.weighted_sum(scaled)
    with no_autocast(maps.device):
        return torch.einsum("n...k,nkhw->n...hw", scaled, maps)


def _add_peaks(contributions: Tensor, maps: UnitMaps) -> Tensor:
    """Contributions (N, ..., K) on the best cells of their maps, summed over units: (N, ..., h, w)."""
    with no_autocast(maps.device):
        sums = [
            torch.einsum("n...k,nkhw->n...hw", contributions[..., units], distribution(block, "max"))
            for units, block in map_blocks(maps)
        ]
    return sum(sums[1:], sums[0])


def distribution(maps: UnitMaps, pooling: Poolings, map_units: Tensor | None = None) -> Tensor:
    """Each map (N, K, h, w) as shares of its unit's contribution, summing to 1, or 0 without a place."""
    maps = dense_maps(maps)
    if not isinstance(pooling, str):
        from_best = _is_from_best_cell(pooling, map_units, maps.device)[..., None, None]
        return torch.where(from_best, distribution(maps, "max"), distribution(maps, "sum"))
    flat, has_place = maps.flatten(2), is_localized(maps)[:, :, None]
    if pooling == "max":
        best = flat.argmax(2, keepdim=True)
        share = torch.zeros_like(flat).scatter(2, best, 1.0) * has_place
    else:
        mass = flat.sum(2, keepdim=True)
        share = torch.where(has_place, flat / mass.where(has_place, torch.ones_like(mass)), 0)
    return share.view_as(maps)


def _is_from_best_cell(poolings: Sequence[Pooling], map_units: Tensor | None, device: torch.device) -> Tensor:
    """Which maps give all of their contribution to one cell, (K,); or (N, k), those of `map_units`."""
    is_max = is_pooled_by(poolings, "max").to(device)
    return is_max if map_units is None else is_max[map_units]


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (..., h, w) on another grid (..., H, W), each with the same sum.

    Enlarging is bilinear interpolation (pixel centers, as ``align_corners=False``) with every cell's share
    brought to exactly 1; shrinking adds cells up. Both are linear, so that signed maps keep their sum too.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    rows = _resize_matrix(maps.shape[-2], size[0], maps)
    columns = _resize_matrix(maps.shape[-1], size[1], maps)
    with no_autocast(maps.device):
        return rows @ maps @ columns.T


def paste(maps: Tensor, boxes: Tensor, image_size: Sequence[int], size: Sequence[int]) -> Tensor:
    """Maps (N, G, h, w) that lie in `boxes` (N, G, 4) of an image, on one grid over all of it: (N, H, W).

    Boxes lie inside the image; then every map keeps its sum.
    """
    fine = resize(maps, [max(cells, pixels) for cells, pixels in zip(maps.shape[-2:], size, strict=True)])
    rows = _paste_matrix(boxes[..., 1], boxes[..., 3], fine.shape[-2], image_size[0], size[0])  # (N, G, H, h)
    columns = _paste_matrix(boxes[..., 0], boxes[..., 2], fine.shape[-1], image_size[1], size[1])
    with no_autocast(maps.device):
        return (rows @ fine @ columns.mT).sum(1)


def paint(maps: Tensor, boxes: Tensor, image_size: Sequence[int]) -> Tensor:
    """Maps (..., h, w), each in its box (..., 4), every cell spread evenly over its pixels: (..., H, W).

    Every map keeps its sum, as with `paste`, which smooths them beside.
    """
    rows, columns = _cell_pixels(boxes.to(maps.dtype), maps.shape[-2:], image_size)
    with no_autocast(maps.device):
        return rows @ maps @ columns.mT


def touched_pixels(cells: Tensor, boxes: Tensor, image_size: Sequence[int]) -> Tensor:
    """Which pixels lie in one of the `cells` (..., h, w) of maps in boxes (..., 4): (..., H, W), bool.

    To where a cell that divides pixels begins or ends, they count as its own.
    """
    rows, columns = _cell_pixels(boxes.double(), cells.shape[-2:], image_size)
    touches_row, touches_column = ((share > TOUCH).double() for share in (rows, columns))
    with no_autocast(cells.device):
        return touches_row @ cells.double() @ touches_column.mT > 0


def _cell_pixels(boxes: Tensor, grid: Sequence[int], image_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Shares of rows of cells on rows of pixels, (..., H, h), and of columns, (..., W, w)."""
    (height, width), (x0, y0, x1, y1) = image_size, boxes.unbind(-1)
    rows = _paste_matrix(y0, y1, grid[0], height, height)
    return rows, _paste_matrix(x0, x1, grid[1], width, width)


def saliency_grid(
    contributions: Tensor,
    maps: UnitMaps,
    pooling: Poolings,
    size: Sequence[int],
    *,
    image_size: Sequence[int],
    boxes: Tensor | None = None,
    group: Tensor | None = None,
    map_units: Tensor | None = None,
) -> Tensor:
    """Contributions (N, K) distributed over their maps (N, K, h, w), summed over units, on a grid: (N, H, W).

    Parameters
    ----------
    size : (int, int)
        Of the grid, which lies over the whole image.
    boxes : Tensor or None, (N, G, 4)
        Where the maps of each group lie in an image of `image_size`.
    group : Tensor or None, (K,) or (N, K)
        The units' groups, 0 unless given.
    map_units : Tensor or None, (N, k)
        As in `distribute`.
    """
    if boxes is None:
        return resize(distribute_sum(contributions, maps, pooling, map_units), size)
    member = torch.zeros_like(contributions, dtype=torch.long) + (0 if group is None else group)
    within = member[:, None] == torch.arange(boxes.shape[1], device=member.device)[:, None]  # (N, G, K)
    distributed = distribute_sum(contributions[:, None] * within, maps, pooling, map_units)
    return paste(distributed, boxes.to(distributed.dtype), image_size, size)


def _resize_matrix(cells: int, pixels: int, like: Tensor) -> Tensor:
    """How much of each of `cells` falls on each of `pixels`: (pixels, cells), columns summing to 1."""
    ends = torch.arange(pixels + 1, device=like.device, dtype=torch.float64) * cells / pixels
    if pixels <= cells:
        start = torch.arange(cells, device=like.device, dtype=torch.float64)
        share = (torch.minimum(ends[1:, None], start + 1) - torch.maximum(ends[:-1, None], start)).clamp(
            min=0
        )
    else:
        centers = ((ends[1:] + ends[:-1]) / 2 - 0.5).clamp(0, cells - 1)
        share = (1 - (centers[:, None] - torch.arange(cells, device=like.device)).abs()).clamp(min=0)
    return (share / share.sum(0, keepdim=True)).to(like.dtype)


def _paste_matrix(start: Tensor, stop: Tensor, cells: int, extent: int, pixels: int) -> Tensor:
    """Shares (N, G, pixels, cells) of cells dividing [start, stop) among pixels dividing [0, extent)."""
    steps = torch.arange(cells + 1, device=start.device, dtype=start.dtype) / cells
    edges = start[..., None] + (stop - start)[..., None] * steps  # (N, G, cells + 1)
    ends = torch.arange(pixels + 1, device=start.device, dtype=start.dtype) * extent / pixels
    common = torch.minimum(ends[1:, None], edges[..., None, 1:]) - torch.maximum(
        ends[:-1, None], edges[..., None, :-1]
    )
    share = common.clamp(min=0)
    return share / share.sum(-2, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)


Keep = Literal["peak", "largest", "all"]


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (..., h, w) at image `size` (H, W), values kept rather than sums: for looking, not for adding."""
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    enlarged = F.interpolate(flat, size=tuple(size), mode="bilinear", align_corners=False)
    return enlarged.view(*maps.shape[:-2], *size)


def activation_regions(
    maps: Tensor, size: Sequence[int], threshold: float | Tensor = 0.5, keep: Keep = "peak"
) -> Tensor:
    """Where each map (..., h, w) is at least `threshold` of its maximum: (..., H, W), bool.

    Parameters
    ----------
    maps : Tensor
        Only the positive part of signed maps can belong to a region.
    threshold : float or Tensor (...), in (0, 1]
        One for all maps or one a map. The paper of CAM takes 0.2 (Zhou et al., CVPR 2016, 3.2); coarse
        grids want more.
    keep : {"peak", "largest", "all"}
        Which connected components to keep.
    """
    enlarged = upsample(maps.detach().float().cpu(), size).reshape(-1, *size)
    peak = enlarged.flatten(1).amax(1)
    is_flat = (peak <= 0) | (enlarged.flatten(1).amin(1) == peak)
    cutoff = torch.as_tensor(threshold, dtype=peak.dtype, device=peak.device).flatten() * peak
    mask = (enlarged >= cutoff[:, None, None]) | is_flat[:, None, None]
    if keep != "all" and len(mask):
        mask = _one_component(mask, enlarged, keep)
    return mask.view(*maps.shape[:-2], *size).to(maps.device)


def bounding_boxes(masks: Tensor) -> Tensor:
    """The tightest box around each region (..., H, W): (..., 4) as x0, y0, x1, y1, half-open; int64.

    An empty region has the whole image as its box.
    """
    rows, columns = masks.any(-1), masks.any(-2)
    empty = ~rows.any(-1)
    rows, columns = rows | empty[..., None], columns | empty[..., None]

    def ends(line: Tensor) -> tuple[Tensor, Tensor]:
        return line.int().argmax(-1), line.shape[-1] - line.flip(-1).int().argmax(-1)

    (x0, x1), (y0, y1) = ends(columns), ends(rows)
    return torch.stack([x0, y0, x1, y1], -1)


def _one_component(masks: Tensor, maps: Tensor, keep: Keep) -> Tensor:
    """The component of each mask (M, H, W) with the peak of `maps`, or the largest; all in one labeling."""
    within_a_map = np.zeros((3, 3, 3), dtype=int)
    within_a_map[1] = 1
    labels = torch.from_numpy(ndimage.label(masks.numpy(), structure=within_a_map)[0]).long()  # (M, H, W)
    flat = labels.flatten(1)
    if keep == "peak":
        chosen = flat.gather(1, maps.flatten(1).argmax(1, keepdim=True))
    else:
        areas = torch.bincount(flat.flatten())
        areas[0] = 0
        chosen = flat.gather(1, areas[flat].argmax(1, keepdim=True))
    return labels == chosen[:, :, None]
