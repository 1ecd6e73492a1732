"""The prior of how often a region occurs, and how far a batch is from it, in one dimension.

Section 3.2 of the paper: how strongly a region occurs in an image is the largest assignment that any cell
has to it, once smoothed. Over images, that number should be distributed as a Beta distribution; the loss is
the earth mover's distance between the two, which in one dimension is the mean difference of sorted values.

The paper draws a prior with two peaks: a region is there, or it is not. Both published settings are
alpha = 1 and beta = 0.001 instead, whose quantiles at shares q are ``1 - (1 - q) ** 1000``: 1 for all but
about a thousandth of the images. Of batches of 64 the least of them is 0.9996. So what was published says
that every region occurs in every image, and the loss is ``-mean(log max_p Q_k(p))`` in effect. Two peaks need
alpha and beta below 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from scipy.special import betaincinv
from torch import Tensor
from torch.nn import functional as F

from explainkit.errors import InputError

BLUR = 0.4
"""Standard deviation of the Gaussian that smooths assignments, in cells."""

EPSILON = 1e-5
"""What is added before logarithms are taken."""


def prior_quantiles(count: int, alpha: float, beta: float) -> Tensor:
    """The quantiles of a Beta distribution at ``(2 i - 1) / (2 N)``, ascending: (N,), float64, in [0, 1].

    In closed form where alpha or beta is 1, so that those of the published prior have all their digits.

    Examples
    --------
    >>> prior_quantiles(2, 1.0, 1.0)
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    return _quantiles(count, float(alpha), float(beta)).clone()


@lru_cache(maxsize=32)
def _quantiles(count: int, alpha: float, beta: float) -> Tensor:
    """`prior_quantiles`, kept: nobody writes to it."""
    shares = (2 * torch.arange(1, count + 1, dtype=torch.float64) - 1) / (2 * count)
    if alpha == 1:
        return -torch.expm1(torch.log1p(-shares) / beta)
    if beta == 1:
        return shares ** (1 / alpha)
    return torch.from_numpy(betaincinv(alpha, beta, shares.numpy()))


def gaussian_kernel(radius: int, sigma: float = BLUR) -> Tensor:
    """A Gaussian along one axis, (2 radius + 1,), float64, summing to 1."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = (-0.5 * (offsets / sigma).square()).exp()
    return weights / weights.sum()


def blurred(maps: Tensor, radius: int) -> Tensor:
    """Maps (N, K, h, w) smoothed by a Gaussian without padding: (N, K, h - 2 radius, w - 2 radius).

    So the cells at the border of the image count through their neighbors alone, as in the authors' code.

    Raises
    ------
    InputError
        For a grid that no kernel fits into.
    """
    if radius == 0:
        return maps
    if min(maps.shape[2:]) <= 2 * radius:
        side = 2 * radius + 1
        raise InputError(
            f"Expected a grid of {side} x {side} cells at least for blur_radius={radius}; got "
            f"{maps.shape[2]} x {maps.shape[3]}. Set blur_radius=0, or take a backbone of smaller stride."
        )
    kernel = gaussian_kernel(radius).to(maps)
    flat = maps.flatten(0, 1)[:, None]
    smooth = F.conv2d(F.conv2d(flat, kernel[None, None, :, None]), kernel[None, None, None])
    return smooth.unflatten(0, maps.shape[:2])[:, :, 0]


def occurrence(shares: Tensor, radius: int = 2) -> Tensor:
    """How strongly each region occurs in each image, in [0, 1]: (N, K); equation 4."""
    return blurred(shares, radius).amax((2, 3))


def occurrence_distance(
    occurrences: Tensor, prior: Sequence[float] = (1.0, 0.001), *, is_log: bool | None = None
) -> Tensor:
    """The earth mover's distance of occurrences (N, K) over images from the prior, in the mean over regions.

    Equation 5: both sorted, the mean of ``|log(t + 1e-5) - log(u + 1e-5)|``.

    Parameters
    ----------
    prior : (float, float)
        Alpha and beta, above 0.
    is_log : bool or None
        Whether logarithms are compared, as the paper does for stability; without them this is the
        1-Wasserstein distance. ``None``: where alpha is 1 or more. With less, logarithms of quantiles near 0
        would outweigh all else.
    """
    alpha, beta = prior
    quantiles = _quantiles(len(occurrences), float(alpha), float(beta)).to(occurrences)[:, None]
    ordered = occurrences.sort(dim=0).values
    if alpha >= 1 if is_log is None else is_log:
        ordered, quantiles = (ordered + EPSILON).log(), (quantiles + EPSILON).log()
    return (ordered - quantiles).abs().mean()
