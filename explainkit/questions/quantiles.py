"""Quantiles of streams, many at once, in memory that does not grow with what was seen."""

from collections.abc import Sequence

import torch
from torch import Tensor

BUDGET = 2**26
"""Bytes of all histograms together, unless another budget is given."""

MOST_BINS, FEWEST_BINS = 256, 8

CHUNK = 2**20
"""Bins that are worked on at once."""


class Quantiles:
    """Histograms of G x K streams of numbers, each on a scale of its own that grows as it must.

    A scale doubles by joining neighboring bins, so that nothing is seen twice. A quantile is off by less
    than one bin: at most ``4 / (bins - 2)`` of the largest distance from the middle of the first batch of
    its stream, which is no more than the range of its numbers.

    Few streams have 256 bins (an error of at most 1.6 % of that distance). More than ``budget / 512`` have
    the power of 2 that fits the budget, 8 at least: 1,000 x 2,048 streams have 16 bins within the default of
    64 MiB (at most 29 %), and 32 within 128 MiB (at most 13 %). Their least and largest numbers are exact,
    and bound every quantile.

    Parameters
    ----------
    groups, columns : int
        G and K.
    bins : int or None
        A multiple of 4; as many as fit the budget unless given.
    budget : int
        Bytes of the histograms. Another 16 for each stream hold its scale, 32 where there are so few that
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
        index = ((numbers - self.center[cell]) / self.width[cell]).floor().long() + self.bins // 2
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
        quantiles = center + (index - self.bins // 2 + fraction) * width
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
        center = self.center[present]
        reach = torch.maximum(self.high[present] - center, center - self.low[present])
        is_short = reach >= (self.bins // 2 - 1) * self.width[present]
        old = torch.arange(self.bins) - self.bins // 2
        size = max(1, CHUNK // self.bins)
        for short, far in zip(present[is_short].split(size), reach[is_short].split(size), strict=True):
            steps = torch.log2(far / ((self.bins // 2 - 1) * self.width[short])).floor() + 1
            index = (old / 2.0 ** steps[:, None]).floor().long() + self.bins // 2
            counts = torch.zeros(len(short), self.bins, dtype=self.counts.dtype)
            self.counts[short] = counts.scatter_add_(1, index, self.counts[short])
            self.width[short] *= 2.0**steps


def _bins_within(budget: int, cells: int) -> int:
    """The largest power of 2 of bins, of two bytes each, that fits."""
    bins = MOST_BINS
    while bins > FEWEST_BINS and cells * bins * 2 > budget:
        bins //= 2
    return bins
