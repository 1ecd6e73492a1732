"""How cells join regions: a soft assignment by distance from each region's center, and a region's feature.

Section 3.2 of the paper. A region k has a center ``D_k``, a row of the dictionary, and a smoothing factor
``sigma_k`` in (0, sqrt(1/2)), which is kept as ``beta_k = 2 sigma_k ** 2 = sigmoid(s_k)``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_MASS = 1e-5
"""Cells' worth of assignment up to which a region counts as absent from an image."""


def squared_distances(features: Tensor, centers: Tensor) -> Tensor:
    """The squared distance of each cell's feature from each center, never negative: (N, K, h, w).

    As ``|X|^2 + |D_k|^2 - 2 D_k . X``, so that nothing of size N x K x C x h x w exists.

    Parameters
    ----------
    features : Tensor, (N, C, h, w)
    centers : Tensor, (K, C)
    """
    products = F.conv2d(features, centers[:, :, None, None])
    lengths = features.square().sum(1, keepdim=True)
    return (lengths + centers.square().sum(1)[:, None, None] - 2 * products).clamp(min=0)


def assignment(features: Tensor, centers: Tensor, beta: Tensor) -> Tensor:
    """To which share each cell belongs to each region, equation 1: (N, K, h, w), summing to 1 over regions.

    Parameters
    ----------
    beta : Tensor, (K,)
        Twice the squared smoothing factor of each region, above 0.
    """
    return (-squared_distances(features, centers) / beta[:, None, None]).softmax(1)


def region_features(features: Tensor, shares: Tensor, centers: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """A feature of length 1 for each region, equations 2 and 3: (N, K, C); and the regions' masses (N, K).

    The mean offset of a region's cells from its center, in units of its smoothing factor, brought to length
    1. A region without cells has the feature 0: its offset would be that of the center alone.

    Parameters
    ----------
    features : Tensor, (N, C, h, w)
    shares : Tensor, (N, K, h, w)
        As `assignment` gives them.
    """
    mass = shares.sum((2, 3))
    pooled = torch.einsum("nkhw,nchw->nkc", shares, features) / mass.clamp(min=MIN_MASS)[..., None]
    offsets = (pooled - centers) / (beta / 2).sqrt()[:, None]
    is_present = mass > MIN_MASS
    return torch.where(is_present[..., None], F.normalize(offsets, dim=2), 0.0), mass
