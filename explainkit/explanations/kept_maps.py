"""Explanations with fewer maps, whose sums and saliency still hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve

from explainkit.explanations.counts import check_count
from explainkit.explanations.factored_maps import take_units
from explainkit.explanations.spatial import distribute_sum

if TYPE_CHECKING:
    from explainkit.explanations.batch import Explanations


def keep_strongest_maps(explanations: Explanations, count: int) -> Explanations:
    """`Explanations.keep_maps`."""
    count = check_count("the number of units that keep their maps", count, 0)
    maps = explanations.maps
    if maps is None or count >= maps.shape[1]:
        return explanations
    if explanations.map_units is not None:
        return _keep_fewer(explanations, count)
    chosen = explanations.top(count).unit
    rows = torch.arange(len(chosen), device=chosen.device)[:, None]
    strongest = _with_maps(explanations, maps=maps[rows, chosen], map_units=chosen)
    if explanations.boxes is None:
        is_chosen = torch.zeros_like(explanations.contributions, dtype=torch.bool).scatter(1, chosen, True)
        others = explanations.contributions.masked_fill(is_chosen, 0)
        remainder_map = distribute_sum(others, maps, explanations.units.pooling)
    else:  # what lies in boxes is distributed over the image, a pixel a cell
        remainder_map = explanations.saliency() - strongest.saliency()
    return evolve(strongest, remainder_map=remainder_map)


def without_maps(explanations: Explanations) -> Explanations:
    """`Explanations.without_maps`."""
    return _with_maps(explanations, maps=None, map_units=None, remainder_map=None)


def _keep_fewer(explanations: Explanations, count: int) -> Explanations:
    """Of explanations that have lost maps already: these are in order of strength."""
    assert explanations.maps is not None and explanations.map_units is not None
    whole = explanations.saliency()
    fewer = _with_maps(
        explanations, maps=take_units(explanations.maps, slice(count)),
        map_units=explanations.map_units[:, :count], remainder_map=None,
    )  # fmt: skip
    return evolve(fewer, remainder_map=whole - fewer.saliency())


def _with_maps(explanations: Explanations, **columns: Any) -> Explanations:
    """With other maps, which the decomposition of all classes does without."""
    decomposition = explanations.decomposition
    if decomposition is not None:
        decomposition = evolve(decomposition, maps=None)
    return evolve(explanations, decomposition=decomposition, **columns)
