"""Random numbers without a generator: a pure function of what they are for (seed, epoch, id …)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Keys = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def random_keys(*words: ArrayLike) -> Keys:
    """One key for each combination of integers; they broadcast, and their order matters.

    Examples
    --------
    >>> random_keys(7, [0, 1, 2]).shape
    (3,)
    """
    keys: Keys = np.zeros((), np.uint64)
    for word in words:
        keys = _splitmix(keys ^ _splitmix(np.asarray(word).astype(np.int64).astype(np.uint64)))
    return keys


def uniform(keys: Keys, count: int) -> NDArray[np.float32]:
    """(N, count) numbers in [0, 1) for keys (N,).

    Examples
    --------
    >>> uniform(random_keys([0, 1]), 3).shape
    (2, 3)
    """
    with np.errstate(over="ignore"):
        steps = keys[:, None] + np.arange(count, dtype=np.uint64) * _GOLDEN
    return (_splitmix(steps) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _splitmix(values: Keys) -> Keys:
    """Splitmix64: Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014."""
    with np.errstate(over="ignore"):
        bits = values + _GOLDEN
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
