"""The algebra: a logit as a sum of what the network found, and that sum poured over the image.

logit[n,c] = base[n,c] + sum_k weight[n,c,k] * (score[n,k] - reference[k]) + residual[n,c]
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from attrs import field, frozen
from torch import Tensor

Pooling = Literal["mean", "sum", "max", "coupled", "none"]
"""How a map became its score. ``coupled``: the score was read at the map's places, but is no pooling of it
(attention); ``none``: the unit has no place."""

Weigh = Callable[[Tensor, Tensor], Tensor]
"""(rows (M,), targets (M,)) to weights (M, K): what units are worth to that class in that image."""


@frozen(eq=False, kw_only=True)
class Decomposition:
    """All that one forward pass knows of N images, C classes and K units; it never validates.

    Attributes
    ----------
    logits : Tensor, (N, C)
    bias : Tensor, (C,) or (N, C)
    scores : Tensor, (N, K)
        How much of each unit is in the image.
    weights : Tensor (C, K), or callable
        What one unit of score is worth to a class; where that depends on the image, a function
        ``(rows (M,), targets (M,)) -> (M, K)``, so that nothing of size N x C x K need exist.
    maps : Tensor or None, (N, K, h, w)
        Where the score came from, at the network's own resolution; never negative.
    boxes : Tensor or None, (N, G, 4)
        x0, y0, x1, y1 in pixels of the image: where the maps of group g lie. ``None``: the whole image.
    """

    logits: Tensor
    bias: Tensor
    scores: Tensor
    weights: Tensor | Weigh = field(repr=False)
    maps: Tensor | None = field(default=None, repr=False)
    boxes: Tensor | None = field(default=None, repr=False)

    def weights_for(self, targets: Tensor) -> Tensor:
        """What each unit is worth to class ``targets[n]`` in image n, (N, K)."""
        return self.weights_for_rows(torch.arange(len(targets), device=targets.device), targets)

    def weights_for_rows(self, rows: Tensor, targets: Tensor) -> Tensor:
        """What each unit is worth to class ``targets[m]`` in image ``rows[m]``, (M, K)."""
        if isinstance(self.weights, Tensor):
            return self.weights[targets]
        return self.weights(rows, targets)

    def bias_for(self, targets: Tensor) -> Tensor:
        """The bias of class ``targets[n]`` in image n, (N,)."""
        if self.bias.ndim == 1:
            return self.bias[targets]
        return self.bias.gather(1, targets[:, None])[:, 0]

    def rows(self, index: Tensor) -> "Decomposition":
        """The same for the images of `index` (n,), in that order."""
        weights = self.weights
        return Decomposition(
            logits=self.logits[index],
            bias=self.bias if self.bias.ndim == 1 else self.bias[index],
            scores=self.scores[index],
            weights=weights if isinstance(weights, Tensor) else _reindexed(weights, index),
            maps=None if self.maps is None else self.maps[index],
            boxes=None if self.boxes is None else self.boxes[index],
        )

    def detach(self) -> "Decomposition":
        """The same values, cut from the graph, and from parameters that may learn on."""
        weights = self.weights
        return Decomposition(
            logits=self.logits.detach(),
            bias=self.bias.detach().clone(),
            scores=self.scores.detach(),
            weights=weights.detach().clone() if isinstance(weights, Tensor) else _detached(weights),
            maps=None if self.maps is None else self.maps.detach(),
            boxes=None if self.boxes is None else self.boxes.detach(),
        )


def join(parts: Sequence[Decomposition], maps: Tensor | None) -> Decomposition:
    """Decompositions by one network, one after the other; `maps` are theirs, joined already."""
    first = parts[0]
    weighs = [part.weights for part in parts if not isinstance(part.weights, Tensor)]
    boxes = [part.boxes for part in parts if part.boxes is not None]
    return Decomposition(
        logits=torch.cat([part.logits for part in parts]),
        bias=first.bias if first.bias.ndim == 1 else torch.cat([part.bias for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
        weights=_one_after_another(weighs, [len(part.logits) for part in parts]) if weighs else first.weights,
        maps=maps,
        boxes=torch.cat(boxes) if boxes else None,
    )


def full_precision(values: Tensor) -> Tensor:
    """`values` in float32 where autocast made them less; float64 stays. Heads sum in this."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


FAINTEST = 1e-30
"""A map whose peak is below this counts as zero: dividing by it would leave the range of float32."""


def placed(maps: Tensor) -> Tensor:
    """Which units have a place at all, (N, K): those whose map (N, K, h, w) is not zero everywhere."""
    return maps.flatten(2).amax(2) > FAINTEST


def pour(contributions: Tensor, maps: Tensor, pooling: Pooling) -> Tensor:
    """Spread each contribution over its own map, cell by cell: (N, K, h, w), summing to the contribution.

    In proportion to the map for ``mean``, ``sum`` and ``coupled``; onto the best cell alone for ``max``,
    since all the evidence came from there. Units with a map of zeros have no place and receive nothing.
    """
    return contributions[:, :, None, None] * shares(maps, pooling)


def pour_total(contributions: Tensor, maps: Tensor, pooling: Pooling) -> Tensor:
    """`pour`, summed over units without building them: (N, K) to (N, h, w), or (N, G, K) to (N, G, h, w)."""
    if pooling == "max":
        return torch.einsum("n...k,nkhw->n...hw", contributions, shares(maps, pooling))
    mass, somewhere = maps.flatten(2).sum(2), placed(maps)
    per_mass = torch.where(somewhere, 1 / mass.where(somewhere, torch.ones_like(mass)), 0)  # (N, K)
    scaled = contributions * (per_mass if contributions.ndim == 2 else per_mass[:, None])
    return torch.einsum("n...k,nkhw->n...hw", scaled, maps)


def shares(maps: Tensor, pooling: Pooling) -> Tensor:
    """Each map (N, K, h, w) as shares of its unit's contribution, summing to 1, or 0 without a place."""
    flat, somewhere = maps.flatten(2), placed(maps)[:, :, None]
    if pooling == "max":
        best = flat.argmax(2, keepdim=True)
        share = torch.zeros_like(flat).scatter(2, best, 1.0) * somewhere
    else:
        mass = flat.sum(2, keepdim=True)
        share = torch.where(somewhere, flat / mass.where(somewhere, torch.ones_like(mass)), 0)
    return share.view_as(maps)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (..., h, w) on another grid (..., H, W), each with the same sum.

    Enlarging is bilinear interpolation (pixel centres, as ``align_corners=False``) with every cell's share
    brought to exactly 1; shrinking adds cells up. Both are linear, so that signed maps keep their sum too.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    rows = _spread(maps.shape[-2], size[0], maps)
    columns = _spread(maps.shape[-1], size[1], maps)
    return rows @ maps @ columns.T


def place(maps: Tensor, boxes: Tensor, image_size: Sequence[int], size: Sequence[int]) -> Tensor:
    """Maps (N, G, h, w) that lie in `boxes` (N, G, 4) of an image, on one grid over all of it: (N, H, W).

    Boxes lie inside the image; then every map keeps its sum.
    """
    fine = resize(maps, [max(cells, pixels) for cells, pixels in zip(maps.shape[-2:], size, strict=True)])
    rows = _overlap(boxes[..., 1], boxes[..., 3], fine.shape[-2], image_size[0], size[0])  # (N, G, H, h)
    columns = _overlap(boxes[..., 0], boxes[..., 2], fine.shape[-1], image_size[1], size[1])
    return (rows @ fine @ columns.mT).sum(1)


def spread_out(
    contributions: Tensor,
    maps: Tensor,
    pooling: Pooling,
    size: Sequence[int],
    *,
    image_size: Sequence[int],
    boxes: Tensor | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """Contributions (N, K) poured over their maps (N, K, h, w), summed over units, on a grid: (N, H, W).

    Parameters
    ----------
    size : (int, int)
        Of the grid, which lies over the whole image.
    boxes : Tensor or None, (N, G, 4)
        Where the maps of each group lie in an image of `image_size`.
    group : Tensor or None, (K,) or (N, K)
        The units' groups, 0 unless given.
    """
    if boxes is None:
        return resize(pour_total(contributions, maps, pooling), size)
    member = torch.zeros_like(contributions, dtype=torch.long) + (0 if group is None else group)
    within = member[:, None] == torch.arange(boxes.shape[1], device=member.device)[:, None]  # (N, G, K)
    poured = pour_total(contributions[:, None] * within, maps, pooling)
    return place(poured, boxes.to(poured.dtype), image_size, size)


def _reindexed(weigh: Weigh, index: Tensor) -> Weigh:
    return lambda rows, targets: weigh(index[rows], targets)


def _detached(weigh: Weigh) -> Weigh:
    return lambda rows, targets: weigh(rows, targets).detach()


def _one_after_another(weighs: Sequence[Weigh], counts: Sequence[int]) -> Weigh:
    def weigh(rows: Tensor, targets: Tensor) -> Tensor:
        found, where, start = [], [], 0
        for part, count in zip(weighs, counts, strict=True):
            inside = ((rows >= start) & (rows < start + count)).nonzero()[:, 0]
            found.append(part(rows[inside] - start, targets[inside]))
            where.append(inside)
            start += count
        return torch.cat(found)[torch.cat(where).argsort()]

    return weigh


def _spread(cells: int, pixels: int, like: Tensor) -> Tensor:
    """How much of each of `cells` falls on each of `pixels`: (pixels, cells), columns summing to 1."""
    ends = torch.arange(pixels + 1, device=like.device, dtype=torch.float64) * cells / pixels
    if pixels <= cells:
        start = torch.arange(cells, device=like.device, dtype=torch.float64)
        share = (torch.minimum(ends[1:, None], start + 1) - torch.maximum(ends[:-1, None], start)).clamp(
            min=0
        )
    else:
        centres = ((ends[1:] + ends[:-1]) / 2 - 0.5).clamp(0, cells - 1)
        share = (1 - (centres[:, None] - torch.arange(cells, device=like.device)).abs()).clamp(min=0)
    return (share / share.sum(0, keepdim=True)).to(like.dtype)


def _overlap(start: Tensor, stop: Tensor, cells: int, extent: int, pixels: int) -> Tensor:
    """Shares (N, G, pixels, cells) of cells dividing [start, stop) among pixels dividing [0, extent)."""
    steps = torch.arange(cells + 1, device=start.device, dtype=start.dtype) / cells
    edges = start[..., None] + (stop - start)[..., None] * steps  # (N, G, cells + 1)
    ends = torch.arange(pixels + 1, device=start.device, dtype=start.dtype) * extent / pixels
    common = torch.minimum(ends[1:, None], edges[..., None, 1:]) - torch.maximum(
        ends[:-1, None], edges[..., None, :-1]
    )
    share = common.clamp(min=0)
    return share / share.sum(-2, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
