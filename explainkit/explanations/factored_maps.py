"""Maps that are products of two factors, as of parts and filters: they are added up without being built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import torch
from attrs import frozen
from torch import Tensor

FACTORS = ("attention", "features", "part", "channel")
"""The fields of `FactoredMaps`."""

LARGEST_BLOCK = 2**20
"""Numbers of factored maps that are built at once, where maps are looked at one by one."""


@frozen(eq=False, kw_only=True, repr=False)
class FactoredMaps:
    """The maps of units each of which is a channel seen through the attention of a part; never negative.

    The map of unit k is ``attention[:, part[k]] * features[:, channel[k]]``. Of 4 parts and 512 filters,
    2,048 units, 516 maps are kept. It stands wherever the maps of a `Decomposition` or of `Explanations` do,
    and has the `shape`, `dtype` and `device` of the tensor that `dense` builds. A plain value: it never
    validates, so that a network that returns it can be exported.

    Sums over cells or units take memory in proportion to P x D, so most pairs should be units.

    Attributes
    ----------
    attention : Tensor, (N, P, h, w)
        Never negative. A unit without a place has a part whose attention is zero everywhere.
    features : Tensor, (N, D, h, w)
        Never negative.
    part, channel : Tensor, (K,), int64
        Which of the P and of the D each unit is made of; the same for all images.

    Examples
    --------
    >>> attention, features = torch.rand(2, 4, 7, 7), torch.rand(2, 16, 7, 7)
    >>> part, channel = torch.cartesian_prod(torch.arange(4), torch.arange(16)).unbind(1)
    >>> maps = FactoredMaps(attention=attention, features=features, part=part, channel=channel)
    >>> maps.shape
    torch.Size([2, 64, 7, 7])
    >>> bool((maps[1, 17] == attention[1, 1] * features[1, 1]).all())
    True
    """

    attention: Tensor
    features: Tensor
    part: Tensor
    channel: Tensor

    @property
    def shape(self) -> torch.Size:
        """(N, K, h, w)."""
        return torch.Size((self.features.shape[0], self.part.shape[0], *self.features.shape[2:]))

    @property
    def dtype(self) -> torch.dtype:
        """Of both factors."""
        return self.features.dtype

    @property
    def device(self) -> torch.device:
        """Of all four tensors."""
        return self.features.device

    def __repr__(self) -> str:
        return f"<factored maps of {tuple(self.shape)}>"

    def __len__(self) -> int:
        return len(self.features)

    @overload
    def __getitem__(self, index: slice | list[int] | Tensor) -> FactoredMaps: ...
    @overload
    def __getitem__(self, index: tuple[int | Tensor, int | Tensor]) -> Tensor: ...
    def __getitem__(
        self, index: slice | list[int] | Tensor | tuple[int | Tensor, int | Tensor]
    ) -> FactoredMaps | Tensor:
        """The same of some images, ``maps[rows]``; or the maps of pairs, ``maps[rows, units]``: (..., h, w).

        Rows and units broadcast, as in a tensor. For any other index see `dense`.
        """
        if isinstance(index, tuple):
            rows, units = index
            return self.attention[rows, self.part[units]] * self.features[rows, self.channel[units]]
        return FactoredMaps(
            attention=self.attention[index],
            features=self.features[index],
            part=self.part,
            channel=self.channel,
        )

    def dense(self) -> Tensor:
        """All maps, (N, K, h, w)."""
        return self.attention[:, self.part] * self.features[:, self.channel]

    def take_units(self, units: Tensor | slice) -> FactoredMaps:
        """The maps of `units` (k,) alone, in that order."""
        return FactoredMaps(
            attention=self.attention,
            features=self.features,
            part=self.part[units],
            channel=self.channel[units],
        )

    def detach(self) -> FactoredMaps:
        """The same values, cut from the graph."""
        return FactoredMaps(**{name: getattr(self, name).detach() for name in FACTORS})

    def to(self, device: torch.device | str) -> FactoredMaps:
        """The same on `device`."""
        return FactoredMaps(**{name: getattr(self, name).to(device) for name in FACTORS})

    def masses(self) -> Tensor:
        """The sum of each map over its cells, (N, K)."""
        with no_autocast(self.device):
            of_pairs = torch.einsum("nphw,ndhw->npd", self.attention, self.features)
        return of_pairs[:, self.part, self.channel]

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """The maps times `weights` (N, ..., K), summed over units: (N, ..., h, w)."""
        parts, channels = self.attention.shape[1], self.features.shape[1]
        pairs = weights.new_zeros(*weights.shape[:-1], parts * channels)
        of_pairs = pairs.index_add(-1, self.part * channels + self.channel, weights)
        by_part = of_pairs.unflatten(-1, (parts, channels))
        with no_autocast(self.device):
            of_parts = torch.einsum("n...pd,ndhw->n...phw", by_part, self.features)
            return torch.einsum("n...phw,nphw->n...hw", of_parts, self.attention)

    def has_peak_above(self, level: float) -> Tensor:
        """Which maps have a cell above `level`, (N, K): those with masses near it are built to see."""
        masses, cells = self.masses(), self.shape[2] * self.shape[3]
        is_above = masses > 2 * cells * level  # so is the mean, whatever rounding does to the sum
        rows, units = ((masses > level / 2) & ~is_above).nonzero(as_tuple=True)
        for some in torch.arange(len(rows), device=rows.device).split(max(1, LARGEST_BLOCK // cells)):
            peaks = self[rows[some], units[some]].flatten(1).amax(1)
            is_above[rows[some], units[some]] = peaks > level
        return is_above


UnitMaps = Tensor | FactoredMaps
"""The maps of all units, (N, K, h, w): one by one, or as products of factors."""


def dense_maps(maps: UnitMaps) -> Tensor:
    """Maps as a tensor (N, K, h, w), built where they are factored."""
    return maps.dense() if isinstance(maps, FactoredMaps) else maps


def take_units(maps: UnitMaps, units: Tensor | slice) -> UnitMaps:
    """The maps of `units` (k,) alone, in that order."""
    return maps.take_units(units) if isinstance(maps, FactoredMaps) else maps[:, units]


def map_blocks(maps: UnitMaps) -> Iterator[tuple[slice, Tensor]]:
    """Units, and their maps (N, k, h, w): all at once where they are there, else a few at a time."""
    if not isinstance(maps, FactoredMaps):
        yield slice(None), maps
        return
    images, count, height, width = maps.shape
    size = max(1, LARGEST_BLOCK // max(1, images * height * width))
    for start in range(0, max(1, count), size):
        units = slice(start, start + size)
        yield units, maps.take_units(units).dense()


def concat_maps(parts: Sequence[UnitMaps]) -> UnitMaps:
    """Maps of the same units in several batches, one after the other; factored where all are, and alike."""
    factored = [maps for maps in parts if isinstance(maps, FactoredMaps)]
    if len(factored) < len(parts) or not all(_is_alike(maps, factored[0]) for maps in factored):
        return torch.cat([dense_maps(maps) for maps in parts])
    first = factored[0]
    return FactoredMaps(
        attention=torch.cat([maps.attention for maps in factored]),
        features=torch.cat([maps.features for maps in factored]),
        part=first.part,
        channel=first.channel,
    )


def no_autocast(device: torch.device) -> torch.autocast:
    """A context in which sums keep the precision of their terms, whatever the caller's autocast is."""
    return torch.autocast(device.type, enabled=False)


def _is_alike(one: FactoredMaps, other: FactoredMaps) -> bool:
    """Whether the units of both are made of the same factors."""
    return (
        one.attention.shape[1:] == other.attention.shape[1:]
        and one.features.shape[1:] == other.features.shape[1:]
        and torch.equal(one.part, other.part)
        and torch.equal(one.channel, other.channel)
    )
