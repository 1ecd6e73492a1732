"""Which filters make a part: those whose peaks lie at the same place, image after image.

Section 3.1 of the paper describes each filter by the positions of its peaks over the training images, and
clusters these. A filter that does not respond in an image has a strongest cell there too, which means
nothing; so each filter counts in those images alone in which it responds strongly for its own standards.
"""

from __future__ import annotations

import torch
from torch import Tensor

QUANTILE = 0.7
"""Share of images whose responses a filter has to exceed for its peak to count."""

ITERATIONS = 100
"""Most rounds of k-means; it stops as soon as no filter changes its group."""


def confident(strength: Tensor, quantile: float = QUANTILE) -> Tensor:
    """In which images the peak of each filter counts, (n, D), bool, by how high it is, `strength` (n, D).

    Where it is above the filter's own `quantile` over images; one that is the same in all counts nowhere.

    Examples
    --------
    >>> confident(torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]), 0.5).tolist()
    [[False, False], [False, False], [True, False]]
    """
    return strength > strength.double().quantile(quantile, dim=0).to(strength)


def group_channels(points: Tensor, weights: Tensor, groups: int, min_size: int = 1) -> Tensor:
    """Which of `groups` groups each of D filters belongs to, (D,); -1 for those that are in none.

    These are filters that count nowhere, and those that move with too few others to make a group.

    K-means on the filters' peaks over n images with a weight for each peak: distances and centers go by what
    counts alone. It begins with the filters that leave the least distance, found one after the other, so that
    there is no chance in it, and the order of filters has no say.

    Parameters
    ----------
    points : Tensor, (n, D, 2)
        x and y of each filter's peak in each image, in any one unit.
    weights : Tensor, (n, D)
        Never negative, such as `confident`.
    groups : int
        At most as many as there are filters that count; of more, some stay empty.
    min_size : int
        Filters of smaller groups are left out, and the others are grouped anew, as long as there are enough
        of them.
    """
    points, weights = points.double(), weights.double()
    is_counted = weights.sum(0) > 0
    assigned = torch.full((points.shape[1],), -1, dtype=torch.long, device=points.device)
    while is_counted.any():
        assigned.fill_(-1)
        assigned[is_counted] = _k_means(points[:, is_counted], weights[:, is_counted], groups)
        sizes = torch.bincount(assigned[is_counted], minlength=groups)
        is_outlier = is_counted & (sizes < min_size)[assigned]
        if not is_outlier.any() or int((is_counted & ~is_outlier).sum()) < groups * min_size:
            break
        is_counted &= ~is_outlier
    return assigned


def _k_means(points: Tensor, weights: Tensor, groups: int) -> Tensor:
    """`group_channels` where every filter counts somewhere."""
    middle = _centers(points, weights, torch.ones_like(weights[:1]).T, torch.zeros_like(points[:, :1]))
    alone = torch.eye(points.shape[1], dtype=points.dtype, device=points.device)
    distance = _distances(points, weights, _centers(points, weights, alone, middle))  # (D, D)
    nearest = torch.full_like(distance[:, 0], torch.inf)
    seeds: list[int] = []
    for _ in range(min(groups, len(distance))):
        left = torch.minimum(nearest[:, None], distance)
        seeds.append(int(left.sum(0).argmin()))
        nearest = left[:, seeds[-1]]
    assigned = distance[:, seeds].argmin(1)
    for _ in range(ITERATIONS):
        membership = (assigned[:, None] == torch.arange(len(seeds), device=assigned.device)).to(points)
        centers = _centers(points, weights, membership, middle)
        moved = _distances(points, weights, centers).argmin(1)
        if torch.equal(moved, assigned):
            break
        assigned = moved
    return assigned


def _centers(points: Tensor, weights: Tensor, membership: Tensor, otherwise: Tensor) -> Tensor:
    """The weighted mean of each group's peaks in each image, (n, G, 2), of filters in it (D, G).

    `otherwise` (n, 1, 2) in images where no filter of the group counts.
    """
    mass = weights @ membership  # (n, G)
    sums = torch.einsum("ndx,nd,dg->ngx", points, weights, membership)
    means = sums / mass.where(mass > 0, 1)[..., None]
    return torch.where((mass > 0)[..., None], means, otherwise)


def _distances(points: Tensor, weights: Tensor, centers: Tensor) -> Tensor:
    """The weighted mean square distance of each filter's peaks from each center (n, G, 2): (D, G)."""
    square = (weights * points.square().sum(2)).sum(0)[:, None]
    cross = torch.einsum("nd,ndx,ngx->dg", weights, points, centers)
    centered = weights.T @ centers.square().sum(2)
    return (square - 2 * cross + centered).clamp(min=0) / weights.sum(0)[:, None]
