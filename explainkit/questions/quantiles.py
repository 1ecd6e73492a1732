"""Quantiles of streams, many at once, in memory that does not grow with what was seen."""

from collections.abc import Sequence

import torch
from torch import Tensor

BUDGET = 3 * 2**24
"""Bytes of all histograms together, unless another budget is given."""

MOST_BINS, FEWEST_BINS = 256, 8

CHUNK = 2**19
"""Bins that are worked on at once."""


class Quantiles:
    """Histograms of G x K streams of numbers, each on a scale of its own that grows as it must.

    A scale doubles by joining neighboring bins, so that nothing is seen twice. A quantile is off by less
    than one bin. Few streams have 256 bins, around the middle of their first batch: at most
    ``4 / (bins - 2)``, 1.6 %, of the largest distance from it, which is no more than the range.

    More than ``budget / 512`` streams have as many bins as fit the budget, a multiple of 4, and 8 at least;
    these move along with the numbers, so that a bin is at most ``2 / (bins - 2)`` of the range: 20 % for the
    12 bins of 1,000 x 2,048 streams within the default of 48 MiB, 9 % for 24 within 96 MiB. The least and the
    largest number are exact, and bound every quantile.

    Parameters
    ----------
    groups, columns : int
        G and K.
    bins : int or None
        A multiple of 4; as many as fit the budget unless given.
    budget : int
        Bytes of the histograms. Another 18 for each stream hold its scale, 34 where there are so few that
        these are float64; and a group that is given more than 32,767 times makes counts twice as large.
    """

    def __init__(self, groups: int, columns: int, bins: int | None = None, *, budget: int = BUDGET) -> None:
        cells = groups * columns
        self.shape, self.bins = (groups, columns), bins or _bins_within(budget, cells)
        self.counts = torch.zeros(cells, self.bins, dtype=torch.int16)
        self.totals = torch.zeros(groups, dtype=torch.long)
        dtype = torch.float64 if cells * MOST_BINS * 2 <= budget else torch.float32
        self.center = torch.full((cells,), torch.nan, dtype=dtype)
        self.width = torch.ones(cells, dtype=dtype)
        self.first = torch.full((cells,), -(self.bins // 2), dtype=torch.int16)  # bin, from the center
        self.low = torch.full((cells,), torch.inf, dtype=dtype)
        self.high = torch.full((cells,), -torch.inf, dtype=dtype)

    def add(self, values: Tensor, groups: Tensor) -> None:
        """Count `values` (N, K) in the streams of their `groups` (N,)."""
        if not len(groups):
            return
        groups, columns = groups.cpu(), torch.arange(self.shape[1])
        self._make_room(groups)
        cell = (groups[:, None] * len(columns) + columns).flatten()
        limit = torch.finfo(self.low.dtype)
        numbers = values.detach().cpu().double().flatten().clamp(limit.min, limit.max).to(self.low.dtype)
        self.low.scatter_reduce_(0, cell, numbers, "amin")
        self.high.scatter_reduce_(0, cell, numbers, "amax")
        present = (groups.unique()[:, None] * len(columns) + columns).flatten()
        self._center_new_streams(present)
        self._widen_bins(present)
        index = ((numbers - self.center[cell]) / self.width[cell]).floor().long() - self.first[cell]
        flat = cell * self.bins + index.clamp(0, self.bins - 1)
        self.counts.view(-1).scatter_add_(0, flat, torch.ones_like(flat, dtype=self.counts.dtype))

    def at(self, shares: Sequence[float]) -> Tensor:
        """The quantiles at `shares` in [0, 1]: (Q, G, K) float32; NaN where nothing was counted."""
        quantiles = torch.empty(len(shares), len(self.counts))
        for cells in torch.arange(len(self.counts)).split(max(1, CHUNK // self.bins)):
            quantiles[:, cells] = self._quantiles_of(cells, shares)
        return quantiles.view(-1, *self.shape)

    def _quantiles_of(self, cells: Tensor, shares: Sequence[float]) -> Tensor:
        """The quantiles of some streams, (Q, n)."""
        counts = self.counts[cells].double()
        below = counts.cumsum(1)
        total = below[:, -1:]
        rank = torch.tensor(shares, dtype=torch.float64)[None] * total  # (n, Q)
        index = torch.searchsorted(below, rank.clamp(min=1e-9)).clamp(max=self.bins - 1)
        inside = counts.gather(1, index)
        before = below.gather(1, index) - inside
        fraction = ((rank - before) / inside.clamp(min=1e-9)).clamp(0, 1)
        center, width = self.center[cells, None].double(), self.width[cells, None].double()
        quantiles = center + (self.first[cells, None] + index + fraction) * width
        quantiles = torch.minimum(torch.maximum(quantiles, self.low[cells, None]), self.high[cells, None])
        return torch.where(total > 0, quantiles, torch.nan).T.float()

    def _make_room(self, groups: Tensor) -> None:
        """Count the groups, and count in larger integers before one overflows."""
        self.totals += torch.bincount(groups, minlength=len(self.totals))
        most = int(self.totals.max())
        for dtype in (torch.int16, torch.int32):
            if self.counts.dtype == dtype and most > torch.iinfo(dtype).max:
                self.counts = self.counts.to(torch.int32 if dtype == torch.int16 else torch.int64)

    def _center_new_streams(self, present: Tensor) -> None:
        """Give each stream that begins a center, amid its first numbers, and a scale that is too fine."""
        new = present[self.center[present].isnan()]
        center = self.low[new] / 2 + self.high[new] / 2
        self.center[new] = center
        self.width[new] = (center.abs() * 2.0**-40).clamp(min=2.0**-60)

    def _widen_bins(self, present: Tensor) -> None:
        """Double scales until all fits: bins that come to lie in one are joined."""
        for cells in present.split(max(1, CHUNK // self.bins)):
            steps, first = self._window_in_place(cells) if self.bins == MOST_BINS else self._window(cells)
            is_changed = (steps > 0) | (first != self.first[cells])
            changed, steps, first = cells[is_changed], steps[is_changed], first[is_changed]
            old = self.first[changed, None] + torch.arange(self.bins)
            index = (old / 2.0 ** steps[:, None]).floor().long() - first[:, None]
            counts = torch.zeros(len(changed), self.bins, dtype=self.counts.dtype)
            counts.scatter_add_(1, index.clamp_(0, self.bins - 1), self.counts[changed])
            self.counts[changed], self.first[changed] = counts, first
            self.width[changed] *= 2.0**steps

    def _window_in_place(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """How often scales double, for as many bins below the center as above; the first bins."""
        center = self.center[cells]
        reach = torch.maximum(self.high[cells] - center, center - self.low[cells])
        widths = reach / ((self.bins // 2 - 1) * self.width[cells])
        return torch.where(widths >= 1, torch.log2(widths).floor() + 1, 0), self.first[cells]

    def _window(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """The same for bins that lie evenly around the numbers, where these leave the old ones."""
        center, width, old = self.center[cells], self.width[cells], self.first[cells]
        low, high = ((end[cells] - center) / width for end in (self.low, self.high))
        is_inside = (low.floor() >= old) & (high.floor() < old + self.bins)
        widths = ((high - low) / (self.bins - 2)).clamp(min=1).masked_fill(is_inside, 1)
        steps = torch.log2(widths).ceil()
        low, high = (low / 2.0**steps).floor(), (high / 2.0**steps).floor()
        first = low - ((self.bins - (high - low + 1)) / 2).floor()
        return steps, torch.where(is_inside, old, first.to(old.dtype))


def _bins_within(budget: int, cells: int) -> int:
    """The largest multiple of 4 of bins, of two bytes each, that fits."""
    return min(MOST_BINS, max(FEWEST_BINS, budget // (8 * max(1, cells)) * 4))
