"""Templates: how a map looks that fires at one place alone, one a place; and the masks made of them.

Section 3 of the paper. The template of a place has at each cell the value ``max(1 - beta d / n, -1)``: d is
the L1 distance of the cell from the place, in cells, and n the side of the grid. So it is 1 at the place, 0
at distance ``n / beta``, and -1 from twice that on. One further template, -1 everywhere, stands for images
without the filter's part. The paper multiplies all of them by ``0.5 / n ** 2``; here they are as they are:
with that factor a mask would make activations ``2 n ** 2`` times smaller, and the loss has a gain of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from explainkit.explanations.spatial import best_cells


def positive_templates(grid: Sequence[int], beta: float = 4.0, like: Tensor | None = None) -> Tensor:
    """The template of each place of a grid (h, w), counted along rows: (h w, h w).

    Parameters
    ----------
    beta : float
        How fast a template falls off; of a grid that is no square, n is the geometric mean of its sides.
    like : Tensor or None
        Whose device and precision they have.

    Examples
    --------
    >>> positive_templates((1, 4), beta=1.0)[0]
    tensor([ 1.0000,  0.5000,  0.0000, -0.5000])
    """
    height, width = grid
    reference = torch.empty(0) if like is None else like
    rows = torch.arange(height, device=reference.device, dtype=reference.dtype)
    columns = torch.arange(width, device=reference.device, dtype=reference.dtype)
    down, along = (rows[:, None] - rows).abs(), (columns[:, None] - columns).abs()
    distance = down[:, None, :, None] + along[None, :, None, :]  # (h, w, h, w)
    side = (height * width) ** 0.5
    return (1 - beta / side * distance).clamp(min=-1).flatten(2).flatten(0, 1)


def templates(grid: Sequence[int], beta: float = 4.0, like: Tensor | None = None) -> Tensor:
    """`positive_templates` and after them the negative one: (h w + 1, h w).

    All are equally probable a priori: that of a place has ``alpha / n ** 2``, the negative one ``1 - alpha``,
    with ``alpha = n ** 2 / (n ** 2 + 1)``.
    """
    positive = positive_templates(grid, beta, like)
    return torch.cat([positive, -torch.ones_like(positive[:1])])


def templates_at_peaks(maps: Tensor, beta: float = 4.0) -> Tensor:
    """The template of each map's strongest cell, in [-1, 1], (N, K, h w); no gradient goes through it."""
    height, width = maps.shape[2:]
    cells = best_cells(maps)[..., None]  # (N, K, 1)
    down = (torch.arange(height, device=maps.device) - cells // width).abs()  # (N, K, h)
    along = (torch.arange(width, device=maps.device) - cells % width).abs()  # (N, K, w)
    distance = (down[..., None] + along[:, :, None]).flatten(2).to(maps.dtype)
    return (1 - beta / (height * width) ** 0.5 * distance).clamp(min=-1)


def masked_maps(maps: Tensor, beta: float = 4.0) -> Tensor:
    """Maps (N, K, h, w) times the positive part of the template of their strongest cell.

    From ``n / beta`` cells away from that cell on all becomes 0; that cell stays as it is, and the strongest.
    """
    return maps * templates_at_peaks(maps, beta).clamp(min=0).unflatten(2, maps.shape[2:])
