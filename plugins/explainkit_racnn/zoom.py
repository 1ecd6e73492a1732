"""Boxes within boxes, and what is seen in them: a crop whose gradient is the true one.

A square is (N, 3): x and y of its center and half its side, as shares of what it lies in. One convention
holds everywhere: x goes right and comes first.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

WHOLE = (0.5, 0.5, 0.5)
"""The square that is all there is."""


def bounded(raw: Tensor, min_half_size: float, max_half_size: float) -> Tensor:
    """Any numbers (N, 3) as squares that lie inside, half their side within the two bounds.

    There is nothing to clamp, so that no gradient dies at a border.
    """
    x, y, size = raw.sigmoid().unbind(1)
    half = min_half_size + (max_half_size - min_half_size) * size
    return torch.stack([half + (1 - 2 * half) * x, half + (1 - 2 * half) * y, half], 1)


def within(outer: Tensor, inner: Tensor) -> Tensor:
    """Squares `inner` (N, 3) in the squares `outer` (N, 3), as shares of what those lie in."""
    center = outer[:, :2] + (2 * inner[:, :2] - 1) * outer[:, 2:]
    return torch.cat([center, 2 * outer[:, 2:] * inner[:, 2:]], 1)


def pixel_boxes(squares: Tensor, size: Sequence[int]) -> Tensor:
    """Squares (N, 3) in images of `size` (H, W) as x0, y0, x1, y1 in pixels: (N, 4)."""
    center, half = squares[:, :2], squares[:, 2:]
    ends = torch.cat([center - half, center + half], 1).clamp(0, 1)
    return ends * ends.new_tensor([size[1], size[0], size[1], size[0]])


def crop(images: Tensor, squares: Tensor, crop_size: int, max_half_size: float = 0.5) -> Tensor:
    """What is in the squares `squares` (N, 3) of `images` (N, 3, H, W): (N, 3, crop_size, crop_size).

    Bilinear, with the gradient in squares and pixels alike. Where a square can have more pixels than the
    crop, it is sampled more finely and averaged, so that nothing is skipped.

    Parameters
    ----------
    max_half_size : float
        Half a square's side at most, as a share of the image.
    """
    if images.shape[0] == 0:  # a grid of none is refused below
        return images.new_zeros(0, images.shape[1], crop_size, crop_size)
    finer = max(1, math.ceil(2 * max_half_size * max(images.shape[2:]) / crop_size))
    x, y, half = squares.unbind(1)
    zero = torch.zeros_like(x)
    transform = torch.stack([2 * half, zero, 2 * x - 1, zero, 2 * half, 2 * y - 1], 1).view(-1, 2, 3)
    grid = F.affine_grid(
        transform,
        [images.shape[0], images.shape[1], crop_size * finer, crop_size * finer],
        align_corners=False,
    )
    crops = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return F.avg_pool2d(crops, finer) if finer > 1 else crops


class Surrogate(torch.autograd.Function):
    """`crop` with the paper's gradient in squares: towards borders where the loss reacts, whatever its sign.

    The square is moved, and grown, by the size of the loss's gradient on its edges, and shrunk by that inside
    (section 3.1; the authors' layer AttentionCrop). Each image's push is divided by its sum, since the paper
    gives no scale. Pixels have no gradient.
    """

    @staticmethod
    def forward(
        context: Any, images: Tensor, squares: Tensor, crop_size: int, max_half_size: float
    ) -> Tensor:
        """The same crop."""
        return crop(images, squares, crop_size, max_half_size)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        """How squares are pushed."""
        pull = gradient.abs().sum(1)  # (N, crop_size, crop_size)
        pull = pull / pull.sum((1, 2), keepdim=True).clamp(min=1e-12)
        strip = max(1, pull.shape[1] // 8)
        left, right = pull[:, :, :strip].sum((1, 2)), pull[:, :, -strip:].sum((1, 2))
        top, bottom = pull[:, :strip].sum((1, 2)), pull[:, -strip:].sum((1, 2))
        inside = pull[:, strip:-strip, strip:-strip].sum((1, 2))
        grow = left + right + top + bottom - inside
        return None, -torch.stack([right - left, bottom - top, grow], 1), None, None


def crop_by(images: Tensor, squares: Tensor, crop_size: int, max_half_size: float, gradient: str) -> Tensor:
    """`crop`, with its ``"true"`` gradient or the paper's ``"surrogate"`` one."""
    if gradient == "true":
        return crop(images, squares, crop_size, max_half_size)
    return Surrogate.apply(images, squares, crop_size, max_half_size)
