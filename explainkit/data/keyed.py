"""Chance without a generator: numbers that are a pure function of what they are for (seed, epoch, id …)."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explainkit.errors import InputError

Keys = NDArray[np.uint64]
Item = TypeVar("Item")

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keyed(*words: ArrayLike) -> Keys:
    """One key for each combination of integers; they broadcast, and their order matters."""
    key: Keys = np.zeros((), np.uint64)
    for word in words:
        key = _mixed(key ^ _mixed(np.asarray(word).astype(np.int64).astype(np.uint64)))
    return key


def uniforms(keys: Keys, count: int) -> NDArray[np.float32]:
    """(N, count) numbers in [0, 1) for keys (N,)."""
    with np.errstate(over="ignore"):
        steps = keys[:, None] + np.arange(count, dtype=np.uint64) * _GOLDEN
    return (_mixed(steps) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def dealt(items: Sequence[Item], ends: Sequence[float], seed: int) -> list[list[Item]]:
    """`items` in one part more than there are `ends`, drawn by `seed`; each part in the order of `items`.

    Parameters
    ----------
    ends : sequence of float
        Where in [0, 1] each part but the last ends. Where there are as many items as parts, none is empty.
    """
    order = keyed(seed, 0, np.arange(len(items))).argsort().tolist()
    places = [0]
    for number, end in enumerate(ends):
        fewest, most = places[-1] + 1, len(items) - len(ends) + number
        places.append(min(max(fewest, round(len(items) * end)), most))
    parts = zip(places, [*places[1:], len(items)], strict=True)
    return [[items[index] for index in sorted(order[start:end])] for start, end in parts]


def held_out(groups: Mapping[str, Sequence[Item]], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """What remains of each group, and the `share` of it that is drawn by `seed`, at least one of each.

    Raises
    ------
    InputError
        For a share that is none, and for a group of less than two.
    """
    if not 0 < share < 1:
        raise InputError(f"Expected a validation share between 0 and 1; got {share!r}.")
    few = [name for name, items in groups.items() if len(items) < 2]
    if few:
        raise InputError(
            f"Expected at least two training images of a class, one of them for validation; {few[0]!r} has "
            f"{len(groups[few[0]])}."
        )
    parts = [dealt(items, (1 - share,), seed) for items in groups.values()]
    return [item for kept, _ in parts for item in kept], [item for _, drawn in parts for item in drawn]


def _mixed(values: Keys) -> Keys:
    """Splitmix64: Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014."""
    with np.errstate(over="ignore"):
        bits = values + _GOLDEN
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
