"""The algebra: a logit as a sum over units.

logit[n,c] = base[n,c] + sum_k weight[n,c,k] * (score[n,k] - reference[k]) + residual[n,c]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.factored_maps import UnitMaps
from explainkit.explanations.json_values import JsonValue

LARGEST_WEIGHTS = 4_000_000
"""Weights that differ by image are kept for all classes up to so many; beyond, there are no contrasts."""

Additivity = Literal["exact", "approximate", "none"]
"""Whether contributions add up to the logit: by construction, up to a residual shown, or not at all."""

Pooling = Literal["mean", "sum", "max", "coupled", "none"]
"""How a map became its score. ``coupled``: the score was read at the map's places, but is no pooling of it
(attention); ``none``: the unit has no place."""

Poolings = Pooling | tuple[Pooling, ...]
"""One for all units, or one for each of K."""

WeightFn = Callable[[Tensor, Tensor], Tensor]
"""(rows (M,), targets (M,)) to weights (M, K): what units are worth to that class in that image.

A module-level class or function, such as `PerImageWeights`, so that a decomposition can be pickled."""

RescoreFn = Callable[[Tensor, Tensor], Tensor]
"""(rows (M,), scores (M, K)) to logits (M, C): those of the network for image ``rows[m]`` with these scores.

Where scores are coupled, as in a soft decision tree, the sum with weights held still says something else. It
should hold copies of parameters, ``value.detach().clone()``: a stored explanation outlives training."""


@frozen(eq=False)
class PerImageWeights:
    """A `WeightFn` of weights (N, C, K) that are all there."""

    weights: Tensor

    def __call__(self, rows: Tensor, targets: Tensor) -> Tensor:
        """Weights (M, K)."""
        return self.weights[rows, targets]


@frozen(eq=False, kw_only=True)
class Decomposition(JsonValue):
    """What one forward pass in eval mode knows of N images, C classes and K units; it never validates.

    A plain value: no architecture subclasses it, and every operation carries all of it. What an architecture
    knows beside goes into `extras`; what its losses need are outputs of its network.

    Attributes
    ----------
    logits : Tensor, (N, C)
    bias : Tensor, (C,) or (N, C)
    scores : Tensor, (N, K)
        How much of each unit is in the image.
    weights : Tensor (C, K), or callable
        What one unit of score is worth to a class; where that depends on the image, a function
        ``(rows (M,), targets (M,)) -> (M, K)``, so that nothing of size N x C x K need exist.
    maps : Tensor, FactoredMaps or None, (N, K, h, w)
        Where the score came from, at the network's own resolution; never negative.
    boxes : Tensor or None, (N, G, 4)
        x0, y0, x1, y1 in pixels of the image: where the maps of group g lie. ``None``: the whole image.
    extras : mapping of str to Tensor, (N, ...)
        Further numbers about each image, by name.
    rescore : callable or None
        ``(rows (M,), scores (M, K)) -> logits (M, C)``, where the logits are no sum of scores with the
        weights held still. ``None``: they are.
    """

    logits: Tensor
    bias: Tensor
    scores: Tensor
    weights: Tensor | WeightFn = field(repr=False)
    maps: UnitMaps | None = field(default=None, repr=False)
    boxes: Tensor | None = field(default=None, repr=False)
    extras: Mapping[str, Tensor] = field(factory=dict, repr=False)
    rescore: RescoreFn | None = field(default=None, repr=False)

    def weights_for(self, targets: Tensor) -> Tensor:
        """What each unit is worth to class ``targets[n]`` in image n, (N, K)."""
        return self.weights_at(torch.arange(targets.shape[0], device=targets.device), targets)

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

    def logits_at(self, rows: Tensor, scores: Tensor) -> Tensor:
        """What the network would say of image ``rows[m]`` with `scores` (M, K): logits (M, C).

        By `rescore` where there is one, else by the sum.
        """
        if self.rescore is not None:
            return self.rescore(rows, scores)
        bias = self.bias if self.bias.ndim == 1 else self.bias[rows]
        if isinstance(self.weights, Tensor):
            return scores @ self.weights.T + bias
        targets = torch.arange(self.logits.shape[1], device=rows.device)
        pairs = rows.repeat_interleave(len(targets)), targets.repeat(len(rows))
        weights = self.weights(*pairs).unflatten(0, (len(rows), len(targets)))
        return torch.einsum("mk,mck->mc", scores, weights) + bias

    def all_weights(self, largest: int = LARGEST_WEIGHTS) -> Tensor | None:
        """Those of all classes: (C, K), or (N, C, K) where they differ by image and are at most `largest`."""
        if isinstance(self.weights, Tensor):
            return self.weights
        (images, classes), units = self.logits.shape, self.scores.shape[1]
        if images * classes * units > largest:
            return None
        rows = torch.arange(images, device=self.logits.device).repeat_interleave(classes)
        targets = torch.arange(classes, device=self.logits.device).repeat(images)
        return self.weights(rows, targets).view(images, classes, units)

    def _written_instead(self) -> Mapping[str, Any]:
        weights = self.all_weights()
        if weights is None:
            raise InputError(
                f"Expected at most {LARGEST_WEIGHTS:,} weights in JSON; these differ by image and are more. "
                "Call select(index) for fewer images."
            )
        return {"weights": weights, "rescore": None}  # which is the network's

    @classmethod
    def _made_of(cls, columns: Mapping[str, Any], size: int) -> Self:
        read = super()._made_of(columns, size)
        _check_shapes(read)
        return evolve(read, weights=weight_fn(read.weights)) if isinstance(read.weights, Tensor) else read

    def select(self, index: Tensor) -> Decomposition:
        """The same for the images of `index` (n,), in that order."""
        weights = self.weights
        return Decomposition(
            logits=self.logits[index],
            bias=self.bias if self.bias.ndim == 1 else self.bias[index],
            scores=self.scores[index],
            weights=weights if isinstance(weights, Tensor) else _Selected(weights, index),
            maps=None if self.maps is None else self.maps[index],
            boxes=None if self.boxes is None else self.boxes[index],
            extras={name: value[index] for name, value in self.extras.items()},
            rescore=None if self.rescore is None else _Selected(self.rescore, index),
        )

    def detach(self) -> Decomposition:
        """The same values, cut from the graph, and from parameters that may learn on."""
        weights = self.weights
        return Decomposition(
            logits=self.logits.detach(),
            bias=self.bias.detach().clone(),
            scores=self.scores.detach(),
            weights=weights.detach().clone() if isinstance(weights, Tensor) else _Detached(weights),
            maps=None if self.maps is None else self.maps.detach(),
            boxes=None if self.boxes is None else self.boxes.detach(),
            extras={name: value.detach() for name, value in self.extras.items()},
            rescore=None if self.rescore is None else _Detached(self.rescore),
        )


def weight_fn(weights: Tensor) -> Tensor | WeightFn:
    """Weights (C, K) as they are, weights (N, C, K) as a function."""
    return weights if weights.ndim == 2 else PerImageWeights(weights)


def _check_shapes(decomposition: Decomposition) -> None:
    """Refuse tensors that disagree about images, classes or units."""
    logits, bias, weights = decomposition.logits, decomposition.bias, decomposition.weights
    (images, classes), units = logits.shape, decomposition.scores.shape[1]
    columns: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "scores": (tuple(decomposition.scores.shape), (images, units)),
        "bias": (tuple(bias.shape), (images, classes)[-bias.ndim :]),
    }
    if isinstance(weights, Tensor):
        expected = (images, classes, units)[-max(weights.ndim, 2) :]
        columns["weights"] = (tuple(weights.shape), expected)
    if decomposition.maps is not None:
        columns["maps"] = (tuple(decomposition.maps.shape[:2]), (images, units))
    for name, value in {"boxes": decomposition.boxes, **decomposition.extras}.items():
        if value is not None:
            columns[name] = (tuple(value.shape[:1]), (images,))
    for name, (found, expected) in columns.items():
        if found != expected:
            raise InputError(f"Expected {name} of {expected}; got {found}.")


def concat(decompositions: Sequence[Decomposition], maps: UnitMaps | None) -> Decomposition:
    """Decompositions by one network, one after the other; `maps` are theirs, joined already."""
    first = decompositions[0]
    counts = tuple(len(item.logits) for item in decompositions)
    weight_fns = tuple(item.weights for item in decompositions if not isinstance(item.weights, Tensor))
    rescore_fns = tuple(item.rescore for item in decompositions if item.rescore is not None)
    boxes = [item.boxes for item in decompositions if item.boxes is not None]
    return Decomposition(
        logits=torch.cat([item.logits for item in decompositions]),
        bias=first.bias if first.bias.ndim == 1 else torch.cat([item.bias for item in decompositions]),
        scores=torch.cat([item.scores for item in decompositions]),
        weights=_Concatenated(weight_fns, counts) if weight_fns else first.weights,
        maps=maps,
        boxes=torch.cat(boxes) if boxes else None,
        extras={name: torch.cat([item.extras[name] for item in decompositions]) for name in first.extras},
        rescore=_Concatenated(rescore_fns, counts) if rescore_fns else None,
    )


RowFn = Callable[[Tensor, Tensor], Tensor]
"""A `WeightFn` or a `RescoreFn`: (rows (M,), one value for each of them) to (M, ...)."""


@frozen(eq=False)
class _Selected:
    """A function of rows, for a selection of them."""

    function: RowFn
    index: Tensor

    def __call__(self, rows: Tensor, values: Tensor) -> Tensor:
        return self.function(self.index[rows], values)


@frozen(eq=False)
class _Detached:
    """A function of rows, cut from the graph."""

    function: RowFn

    def __call__(self, rows: Tensor, values: Tensor) -> Tensor:
        return self.function(rows, values).detach()


@frozen(eq=False)
class _Concatenated:
    """Functions of rows: the first of ``counts[0]`` rows, the second of the ``counts[1]`` after them."""

    functions: Sequence[RowFn]
    counts: Sequence[int]

    def __call__(self, rows: Tensor, values: Tensor) -> Tensor:
        results, positions, start = [], [], 0
        for function, count in zip(self.functions, self.counts, strict=True):
            inside = ((rows >= start) & (rows < start + count)).nonzero()[:, 0]
            results.append(function(rows[inside] - start, values[inside]))
            positions.append(inside)
            start += count
        return torch.cat(results)[torch.cat(positions).argsort()]
