"""Quantiles of streams, many at once, in memory that does not grow with what was seen."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Quantiles:
    """Histograms of G x K streams of numbers, each on a scale of its own that grows as it must.

    A scale doubles by joining neighboring bins, so that nothing is seen twice. A quantile is off by less
    than one bin: at most 4 / `bins` of the largest distance from the middle of the first batch.

    Parameters
    ----------
    groups, columns : int
        G and K.
    bins : int
        A multiple of 4.
    """

    def __init__(self, groups: int, columns: int, bins: int = 256) -> None:
        cells = groups * columns
        self.shape, self.bins = (groups, columns), bins
        self.counts = torch.zeros(cells, bins)
        self.center = torch.full((cells,), torch.nan, dtype=torch.float64)
        self.width = torch.ones(cells, dtype=torch.float64)
        self.low = torch.full((cells,), torch.inf, dtype=torch.float64)
        self.high = torch.full((cells,), -torch.inf, dtype=torch.float64)

    def add(self, values: Tensor, groups: Tensor) -> None:
        """Count `values` (N, K) in the streams of their `groups` (N,)."""
        columns = self.shape[1]
        cell = (groups.cpu()[:, None] * columns + torch.arange(columns)).flatten()
        numbers = values.detach().cpu().double().flatten()
        self.low.scatter_reduce_(0, cell, numbers, "amin")
        self.high.scatter_reduce_(0, cell, numbers, "amax")
        self._center_new_streams()
        self._widen_bins()
        index = ((numbers - self.center[cell]) / self.width[cell]).floor().long() + self.bins // 2
        flat = cell * self.bins + index.clamp(0, self.bins - 1)
        self.counts.view(-1).scatter_add_(0, flat, torch.ones(len(flat)))

    def at(self, shares: Sequence[float]) -> Tensor:
        """The quantiles at `shares` in [0, 1]: (Q, G, K) float32; NaN where nothing was counted."""
        below = self.counts.double().cumsum(1)
        total = below[:, -1:]
        rank = torch.tensor(shares, dtype=torch.float64)[None] * total  # (cells, Q)
        index = torch.searchsorted(below, rank.clamp(min=1e-9)).clamp(max=self.bins - 1)
        inside = self.counts.double().gather(1, index)
        before = below.gather(1, index) - inside
        fraction = ((rank - before) / inside.clamp(min=1e-9)).clamp(0, 1)
        quantiles = self.center[:, None] + (index - self.bins // 2 + fraction) * self.width[:, None]
        quantiles = torch.minimum(torch.maximum(quantiles, self.low[:, None]), self.high[:, None])
        return torch.where(total > 0, quantiles, torch.nan).T.reshape(-1, *self.shape).float()

    def _center_new_streams(self) -> None:
        """Give each stream that begins a center, amid its first numbers, and a scale that is too fine."""
        new = self.center.isnan() & self.low.isfinite()
        self.center[new] = (self.low[new] + self.high[new]) / 2
        self.width[new] = (self.center[new].abs() * 2.0**-40).clamp(min=2.0**-60)

    def _widen_bins(self) -> None:
        """Double scales until all fits: bins that come to lie in one are joined."""
        reach = torch.maximum(self.high - self.center, self.center - self.low).nan_to_num(0, 0, 0)
        short = (reach >= (self.bins // 2 - 1) * self.width).nonzero()[:, 0]
        if not len(short):
            return
        steps = torch.log2(reach[short] / ((self.bins // 2 - 1) * self.width[short])).floor() + 1
        old = torch.arange(self.bins) - self.bins // 2
        index = (old / 2.0 ** steps[:, None]).floor().long() + self.bins // 2
        counts = torch.zeros(len(short), self.bins).scatter_add_(1, index, self.counts[short])
        self.counts[short] = counts
        self.width[short] *= 2.0**steps
