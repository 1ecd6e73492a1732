"""What stands in for all that lies outside of a place: scenes drawn again, or other images of the split."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from explainkit.data.random_keys import random_keys, uniform
from explainkit.data.types import Batch
from explainkit.explanations.leak import Replacement
from explainkit.protocols import Redrawable, Split

_KINDS = (True, False)
"""Of the same class, of another: in the order of `explainkit.explanations.leak.KINDS`."""


def replacement_of(source: Split) -> Replacement:
    """What `replacements` of a split are."""
    return "redrawn" if isinstance(source, Redrawable) else "swapped"


def replacements(source: Split, ids: Tensor, seed: int) -> tuple[list[Batch], Tensor]:
    """For each of `ids` (n,) an image of the same class and one of another, and (2, n) whether there is one.

    Scenes are drawn again where the split can do that, with the object in the same pose. Else other images
    of the split are taken, which depend on `seed` and the image alone.
    """
    if isinstance(source, Redrawable):
        batches = [source.redraw(ids, same_class=same, seed=seed) for same in _KINDS]
        return batches, torch.ones(2, len(ids), dtype=torch.bool)
    chosen = torch.stack([donors(source.labels, ids, same_class=same, seed=seed) for same in _KINDS])
    return [source.batch(row.clamp(min=0)) for row in chosen], chosen >= 0


def donors(labels: Tensor, ids: Tensor, *, same_class: bool, seed: int) -> Tensor:
    """For each of `ids` (n,) another id, drawn evenly from those of its label, or from those of others.

    Parameters
    ----------
    labels : Tensor, (N,) or (N, C)
        Of all images; with several labels an image, those of another class differ in one at least.

    Returns
    -------
    Tensor, (n,), int64
        -1 where there is none.
    """
    classes = torch.unique(labels.cpu(), dim=0, return_inverse=True)[1]  # (N,)
    order = classes.argsort(stable=True)
    counts = torch.bincount(classes)
    starts = counts.cumsum(0) - counts
    rank = order.argsort() - starts[classes]  # of each image in its class
    ids = ids.cpu()
    of_ids = classes[ids]
    count, start = counts[of_ids], starts[of_ids]
    candidates = count - 1 if same_class else len(classes) - count
    chance = torch.from_numpy(uniform(random_keys(seed, int(same_class), np.asarray(ids)), 1)[:, 0]).double()
    drawn = torch.minimum((chance * candidates).long(), candidates - 1)
    if same_class:
        position = start + drawn + (drawn >= rank[ids]).long()  # all but the image itself
    else:
        position = drawn + torch.where(drawn >= start, count, 0)  # all but its class
    return torch.where(candidates > 0, order[position.clamp(0, len(order) - 1)], -1)
