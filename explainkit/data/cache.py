"""Rows of bytes that are read by threads when first asked for, and cached while there is room."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from attrs import define, field
from torch import Tensor

MEMORY = 2 * 2**30
"""Bytes that a split caches; a split that is larger is read again each time."""


@define(eq=False, kw_only=True)
class CachedRows:
    """What the images of a split are as bytes, decoded once.

    Attributes
    ----------
    count : int
        How many rows there are.
    shape : tuple of int
        Of one row.
    read : callable
        A row number to its bytes, a uint8 tensor of `shape`; called by several threads.
    """

    count: int
    shape: tuple[int, ...]
    read: Callable[[int], Tensor] = field(repr=False)
    _cache: Tensor | None = field(default=None, init=False, repr=False)
    _is_cached: Tensor | None = field(default=None, init=False, repr=False)

    def rows(self, ids: Tensor) -> Tensor:
        """The rows of `ids` (n,), in that order: (n, *shape), uint8."""
        if self._cache is None or self._is_cached is None:
            if torch.Size(self.shape).numel() * self.count > MEMORY:
                return self._read(ids)
            self._cache = torch.empty(self.count, *self.shape, dtype=torch.uint8)
            self._is_cached = torch.zeros(self.count, dtype=torch.bool)
        missing = ids[~self._is_cached[ids]].unique()
        if len(missing):
            self._cache[missing] = self._read(missing)
            self._is_cached[missing] = True
        return self._cache[ids]

    def _read(self, ids: Tensor) -> Tensor:
        if not len(ids):
            return torch.empty(0, *self.shape, dtype=torch.uint8)
        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter
            return torch.stack(list(pool.map(self.read, ids.tolist())))
