"""The algebra: a logit as a sum over units.

logit[n,c] = base[n,c] + sum_k weight[n,c,k] * (score[n,k] - reference[k]) + residual[n,c]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from attrs import field, frozen
from torch import Tensor

Additivity = Literal["exact", "approximate", "none"]
"""Whether contributions add up to the logit: by construction, up to a residual shown, or not at all."""

Pooling = Literal["mean", "sum", "max", "coupled", "none"]
"""How a map became its score. ``coupled``: the score was read at the map's places, but is no pooling of it
(attention); ``none``: the unit has no place."""

WeightFn = Callable[[Tensor, Tensor], Tensor]
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
    weights: Tensor | WeightFn = field(repr=False)
    maps: Tensor | None = field(default=None, repr=False)
    boxes: Tensor | None = field(default=None, repr=False)

    def weights_for(self, targets: Tensor) -> Tensor:
        """What each unit is worth to class ``targets[n]`` in image n, (N, K)."""
        return self.weights_at(torch.arange(len(targets), device=targets.device), targets)

    def weights_at(self, rows: Tensor, targets: Tensor) -> Tensor:
        """What each unit is worth to class ``targets[m]`` in image ``rows[m]``, (M, K)."""
        if isinstance(self.weights, Tensor):
            return self.weights[targets]
        return self.weights(rows, targets)

    def bias_for(self, targets: Tensor) -> Tensor:
        """The bias of class ``targets[n]`` in image n, (N,)."""
        if self.bias.ndim == 1:
            return self.bias[targets]
        return self.bias.gather(1, targets[:, None])[:, 0]

    def select(self, index: Tensor) -> Decomposition:
        """The same for the images of `index` (n,), in that order."""
        weights = self.weights
        return Decomposition(
            logits=self.logits[index],
            bias=self.bias if self.bias.ndim == 1 else self.bias[index],
            scores=self.scores[index],
            weights=weights if isinstance(weights, Tensor) else _reindex_weight_fn(weights, index),
            maps=None if self.maps is None else self.maps[index],
            boxes=None if self.boxes is None else self.boxes[index],
        )

    def detach(self) -> Decomposition:
        """The same values, cut from the graph, and from parameters that may learn on."""
        weights = self.weights
        return Decomposition(
            logits=self.logits.detach(),
            bias=self.bias.detach().clone(),
            scores=self.scores.detach(),
            weights=weights.detach().clone() if isinstance(weights, Tensor) else _detach_weight_fn(weights),
            maps=None if self.maps is None else self.maps.detach(),
            boxes=None if self.boxes is None else self.boxes.detach(),
        )


def concat(decompositions: Sequence[Decomposition], maps: Tensor | None) -> Decomposition:
    """Decompositions by one network, one after the other; `maps` are theirs, joined already."""
    first = decompositions[0]
    weight_fns = [item.weights for item in decompositions if not isinstance(item.weights, Tensor)]
    counts = [len(item.logits) for item in decompositions]
    boxes = [item.boxes for item in decompositions if item.boxes is not None]
    return Decomposition(
        logits=torch.cat([item.logits for item in decompositions]),
        bias=first.bias if first.bias.ndim == 1 else torch.cat([item.bias for item in decompositions]),
        scores=torch.cat([item.scores for item in decompositions]),
        weights=_concat_weight_fns(weight_fns, counts) if weight_fns else first.weights,
        maps=maps,
        boxes=torch.cat(boxes) if boxes else None,
    )


def _reindex_weight_fn(weight_fn: WeightFn, index: Tensor) -> WeightFn:
    return lambda rows, targets: weight_fn(index[rows], targets)


def _detach_weight_fn(weight_fn: WeightFn) -> WeightFn:
    return lambda rows, targets: weight_fn(rows, targets).detach()


def _concat_weight_fns(weight_fns: Sequence[WeightFn], counts: Sequence[int]) -> WeightFn:
    def concatenated(rows: Tensor, targets: Tensor) -> Tensor:
        weights, positions, start = [], [], 0
        for weight_fn, count in zip(weight_fns, counts, strict=True):
            inside = ((rows >= start) & (rows < start + count)).nonzero()[:, 0]
            weights.append(weight_fn(rows[inside] - start, targets[inside]))
            positions.append(inside)
            start += count
        return torch.cat(weights)[torch.cat(positions).argsort()]

    return concatenated
