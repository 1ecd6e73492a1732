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
    largest number are exact, and bound every quantile. A bin is never finer than 1e-18 where scales are
    float32 (see `budget`), and where the first batch of a stream is zeros alone; else than 1e-60.

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
        self.is_new = torch.ones(groups, dtype=torch.bool)
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
        groups = groups.cpu()
        self._make_room(groups)
        cell = groups[:, None] * self.shape[1] + torch.arange(self.shape[1])
        limit = torch.finfo(self.low.dtype)
        numbers = values.detach().cpu().double().clamp(limit.min, limit.max).to(self.low.dtype)
        self.low.scatter_reduce_(0, cell.flatten(), numbers.flatten(), "amin")
        self.high.scatter_reduce_(0, cell.flatten(), numbers.flatten(), "amax")
        present = groups.unique()
        self._center_new_streams(present)
        self._widen_bins(present)
        index = ((numbers - self._rows(self.center, groups)) / self._rows(self.width, groups)).floor_().long()
        index = index.sub_(self._rows(self.first, groups)).clamp_(0, self.bins - 1)
        flat = index.add_(cell.mul_(self.bins)).flatten()
        self.counts.view(-1).scatter_add_(0, flat, torch.ones_like(flat, dtype=self.counts.dtype))
        self.is_new[present] = False

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

    def _rows(self, values: Tensor, groups: Tensor) -> Tensor:
        """The values of all streams of some groups, (n, K)."""
        return values.view(self.shape).index_select(0, groups)

    def _center_new_streams(self, present: Tensor) -> None:
        """Give each stream that begins a center, amid its first numbers, and a scale that is too fine."""
        new = present[self.is_new[present]]
        if len(new):
            center = self._rows(self.low, new) / 2 + self._rows(self.high, new) / 2
            self.center.view(self.shape)[new] = center
            self.width.view(self.shape)[new] = torch.maximum(center.abs() * 2.0**-40, self._finest(new))

    def _finest(self, groups: Tensor) -> Tensor:
        """The least width of the bins of streams that begin: finer for numbers that are tiny, (n, K)."""
        size = torch.maximum(self._rows(self.low, groups).abs(), self._rows(self.high, groups).abs())
        usual = torch.full_like(size, 2.0**-60)
        if size.dtype != torch.float64:  # whose range does not do for bins of any width
            return usual
        return usual.where(size == 0, (size * 2.0**-20).clamp(2.0**-200, 2.0**-60))

    def _widen_bins(self, present: Tensor) -> None:
        """Double scales until all fits: bins that come to lie in one are joined."""
        find_windows = self._windows_in_place if self.bins == MOST_BINS else self._windows
        for groups in present.split(max(1, CHUNK // (self.bins * self.shape[1]))):
            changed, steps, first = find_windows(groups)
            if len(changed):
                self._join_bins(changed, steps, first)
                self.first[changed] = first.to(self.first.dtype)
                self.width[changed] *= 2.0**steps

    def _join_bins(self, cells: Tensor, steps: Tensor, first: Tensor) -> None:
        """Move the counts of streams to bins that begin at `first`, once scales have doubled."""
        is_filled = ~self.is_new[torch.div(cells, self.shape[1], rounding_mode="floor")]
        cells, steps, first = cells[is_filled], steps[is_filled], first[is_filled]
        if len(cells):
            old = self.first[cells, None] + torch.arange(self.bins)
            index = (old / 2.0 ** steps[:, None]).floor().long() - first[:, None]
            counts = torch.zeros(len(cells), self.bins, dtype=self.counts.dtype)
            self.counts[cells] = counts.scatter_add_(1, index.clamp_(0, self.bins - 1), self.counts[cells])

    def _windows_in_place(self, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Streams that numbers leave; how often scales double, as many bins below as above; first bins."""
        center, width = self._rows(self.center, groups), self._rows(self.width, groups)
        low, high = self._rows(self.low, groups), self._rows(self.high, groups)
        widths = torch.maximum(high - center, center - low).div_(width.mul_(self.bins // 2 - 1))
        row, column = (widths >= 1).nonzero(as_tuple=True)
        changed = groups[row] * self.shape[1] + column
        return changed, torch.log2(widths[row, column]).floor() + 1, self.first[changed]

    def _windows(self, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same for bins that lie evenly around the numbers, where these leave the old ones."""
        center, width = self._rows(self.center, groups), self._rows(self.width, groups)
        low, high = ((self._rows(end, groups) - center).div_(width) for end in (self.low, self.high))
        old = self._rows(self.first, groups)
        row, column = ((low.floor() < old) | (high.floor() >= old + self.bins)).nonzero(as_tuple=True)
        low, high = low[row, column], high[row, column]
        steps = torch.log2(((high - low) / (self.bins - 2)).clamp(min=1)).ceil()
        low, high = (low / 2.0**steps).floor(), (high / 2.0**steps).floor()
        first = (low - ((self.bins - (high - low + 1)) / 2).floor()).long()
        return groups[row] * self.shape[1] + column, steps, first


def _bins_within(budget: int, cells: int) -> int:
    """The largest multiple of 4 of bins, of two bytes each, that fits."""
    return min(MOST_BINS, max(FEWEST_BINS, budget // (8 * max(1, cells)) * 4))
