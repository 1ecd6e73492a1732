"""The gaps that an edit of scores has to close."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor


@frozen(eq=False, kw_only=True)
class Gaps:
    """The gaps that edits have to close, in float64, for n images: rows are images.

    Attributes
    ----------
    gaps : Tensor, (n, C)
        By how much each class is ahead of the target, and the margin; -inf for the target itself.
    gains : Tensor, (n, C, K)
        ``weight_t - weight_c``.
    low, high : Tensor, (n, K)
        By how much a score may change: at most 0, at least 0.
    """

    gaps: Tensor
    gains: Tensor
    low: Tensor
    high: Tensor

    @property
    def size(self) -> int:
        """How many numbers `gains` has."""
        return self.gains.numel()

    def select(self, index: Tensor) -> Gaps:
        """The gaps of the images of `index`, numbers or a mask; of all in order, these."""
        is_mask = index.dtype == torch.bool  # of two images, (False, True) equals (0, 1) to torch
        if not is_mask and torch.equal(index, torch.arange(len(self.gaps))):
            return self
        return Gaps(
            gaps=self.gaps[index], gains=self.gains[index], low=self.low[index], high=self.high[index]
        )

    def of_classes(self, index: Tensor) -> Gaps:
        """The gaps to the classes of `index` alone."""
        return Gaps(gaps=self.gaps[:, index], gains=self.gains[:, index], low=self.low, high=self.high)

    def remaining(self, moved: Tensor) -> Tensor:
        """The gaps once scores have moved by (n, K): (n, C)."""
        return self.gaps - torch.einsum("nck,nk->nc", self.gains, moved)

    def largest_gains(self) -> Tensor:
        """The most by which each unit can close each gap, (n, C, K)."""
        largest = self.gains * self.high[:, None]
        return torch.maximum(largest, self.gains * self.low[:, None], out=largest)

    def moves_against(self, foil: Tensor) -> Tensor:
        """The move of each unit that closes the gap to the class `foil` (n,) most: (n, K)."""
        gains = self.gains[torch.arange(len(foil)), foil]
        return torch.where(gains > 0, self.high, self.low) * (gains != 0)


def fewest_moves_per_class(problem: Gaps) -> tuple[Tensor, Tensor]:
    """How many moves the gap to each class alone needs, (n, C), and the order of units against the hardest.

    K + 1 where all units do not close it. The order is (n, K), the largest gain first.
    """
    gains, order = problem.largest_gains().sort(2, descending=True)
    is_closed = gains.cumsum_(2) >= problem.gaps[..., None]
    num_units = problem.low.shape[1]
    count = torch.where(is_closed.any(2), is_closed.byte().argmax(2) + 1, num_units + 1)
    count = torch.where(problem.gaps <= 0, 0, count)
    return count, order[torch.arange(len(count)), count.max(1).indices]
