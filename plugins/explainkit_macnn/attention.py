"""Attention maps of parts, made of what grouped filters respond at each cell; and where they peak.

A map (h, w) is never negative and sums to 1, whichever way it is normalized.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.explanations.spatial import best_cells

Norm = Literal["softmax", "sigmoid", "powered"]
"""How responses become a map, see `attention_maps`."""

SMALLEST = 1e-12
"""Added to the variance of responses: those that are alike everywhere give the uniform map."""

POWERED_SCALE = 0.1
"""What the released network multiplies mean responses by before it powers them."""


def attention_maps(responses: Tensor, norm: Norm, sharpness: float = 2.5, channels: int = 1) -> Tensor:
    """Responses (N, P, h, w) as maps (N, P, h, w) that sum to 1.

    Parameters
    ----------
    responses : Tensor
        ``sum_j d_ij A_j`` over the `channels` filters.
    norm : {"softmax", "sigmoid", "powered"}
        ``"softmax"``: of standardized responses, ``softmax_p(sharpness (z - mean z) / std z)``, so that the
        scale of the features has no say. ``"sigmoid"``: ``sigmoid(z)`` over its sum (section 3.1 of the
        paper); its largest value is at most twice its smallest one where z is never negative.
        ``"powered"``: of ``z' = 0.1 z / channels`` the fourth power of ``log(1 + exp(tanh z'))`` over its
        sum, as in the network that the authors released; at most 12.9 times.

    Examples
    --------
    >>> attention_maps(torch.tensor([[[[0.0, 1.0]]]]), "softmax", sharpness=0.5)
    tensor([[[[0.2689, 0.7311]]]])
    """
    flat = responses.flatten(2)
    if norm == "softmax":
        centered = flat - flat.mean(2, keepdim=True)
        deviation = (centered.square().mean(2, keepdim=True) + SMALLEST).sqrt()
        weights = (sharpness * centered / deviation).softmax(2)
    else:
        height = flat.sigmoid() if norm == "sigmoid" else _powered(flat / channels)
        weights = height / height.sum(2, keepdim=True)
    return weights.unflatten(2, responses.shape[2:])


def _powered(responses: Tensor) -> Tensor:
    return F.softplus((POWERED_SCALE * responses).tanh()) ** 4


def peak_points(maps: Tensor, refine: bool = False) -> Tensor:
    """Where each map (N, K, h, w) peaks, x and y in cells from the left upper corner: (N, K, 2).

    Parameters
    ----------
    refine : bool
        The center of mass of the three by three cells around the peak, instead of the middle of its cell.

    Examples
    --------
    >>> maps = torch.tensor([[[[0.0, 0.5, 0.5, 0.0]]]])
    >>> peak_points(maps), peak_points(maps, refine=True)
    (tensor([[[1.5000, 0.5000]]]), tensor([[[2.0000, 0.5000]]]))
    """
    cells, (height, width) = best_cells(maps)[..., None], maps.shape[2:]
    rows, columns = cells // width, cells % width  # (N, K, 1)
    if not refine:
        return torch.cat([columns, rows], 2).to(maps.dtype) + 0.5
    steps = torch.arange(-1, 2, device=maps.device)
    down, along = steps.repeat_interleave(3), steps.repeat(3)  # (9,)
    rows, columns = rows + down, columns + along  # (N, K, 9)
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    weights = torch.where(is_inside, maps.detach().flatten(2).gather(2, index), 0)
    weights = weights / weights.sum(2, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return torch.stack([(weights * columns).sum(2), (weights * rows).sum(2)], 2) + 0.5


def on_image(points: Tensor, grid: torch.Size, image_size: torch.Size) -> Tensor:
    """Points (..., 2) in cells of a grid (h, w) as points in pixels of an image (H, W)."""
    return points * points.new_tensor([image_size[1] / grid[1], image_size[0] / grid[0]])
