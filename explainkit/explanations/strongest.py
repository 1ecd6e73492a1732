"""The strongest units of each image, and what all others add."""

from __future__ import annotations

from attrs import frozen
from torch import Tensor


@frozen(eq=False, kw_only=True)
class Top:
    """The k strongest units of each image, and what all others add, so that sums still hold.

    Attributes
    ----------
    unit : Tensor, (N, k), int64
    contribution : Tensor, (N, k)
    remainder : Tensor, (N,)
    """

    unit: Tensor
    contribution: Tensor
    remainder: Tensor


def strongest(contributions: Tensor, count: int) -> Top:
    """`Explanations.top`, of contributions (N, K)."""
    count = min(max(count, 0), contributions.shape[1])
    unit = contributions.abs().topk(count, dim=1).indices
    contribution = contributions.gather(1, unit)
    remainder = contributions.sum(1) - contribution.sum(1)
    return Top(unit=unit, contribution=contribution, remainder=remainder)
