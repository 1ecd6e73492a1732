"""Random splits of items that depend on their number and on a seed alone."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from explainkit.data.random_keys import random_keys
from explainkit.errors import InputError

Item = TypeVar("Item")


def partition(items: Sequence[Item], ends: Sequence[float], seed: int) -> list[list[Item]]:
    """`items` in one part more than there are `ends`, drawn by `seed`; each part in the order of `items`.

    Parameters
    ----------
    ends : sequence of float
        Where in [0, 1] each part but the last ends. Where there are as many items as parts, none is empty.

    Examples
    --------
    >>> partition(["a", "b", "c", "d"], (0.5,), seed=0)
    [['c', 'd'], ['a', 'b']]
    """
    order = random_keys(seed, 0, np.arange(len(items))).argsort().tolist()
    boundaries = [0]
    for number, end in enumerate(ends):
        lowest, highest = boundaries[-1] + 1, len(items) - len(ends) + number
        boundaries.append(min(max(lowest, round(len(items) * end)), highest))
    intervals = zip(boundaries, [*boundaries[1:], len(items)], strict=True)
    return [[items[index] for index in sorted(order[start:end])] for start, end in intervals]


def hold_out(groups: Mapping[str, Sequence[Item]], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """What remains of each group, and the `share` of it that is drawn by `seed`, at least one of each.

    Raises
    ------
    InputError
        For a share that is none, and for a group of less than two.
    """
    if not 0 < share < 1:
        raise InputError(f"Expected a validation share between 0 and 1; got {share!r}.")
    too_small = [name for name, items in groups.items() if len(items) < 2]
    if too_small:
        raise InputError(
            "Expected at least two training images of a class, one of them for validation; "
            f"{too_small[0]!r} has {len(groups[too_small[0]])}."
        )
    pairs = [partition(items, (1 - share,), seed) for items in groups.values()]
    remaining = [item for first, _ in pairs for item in first]
    return remaining, [item for _, second in pairs for item in second]


def spread_ids(length: int, count: int) -> Tensor:
    """At most `count` ids of a split of `length` images, in order and evenly spread over it, int64.

    Examples
    --------
    >>> spread_ids(11, 3)
    tensor([ 0,  5, 10])
    """
    return torch.linspace(0, length - 1, min(count, length), dtype=torch.float64).round().long()
