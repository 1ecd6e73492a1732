"""Elastic distortion of training images: for whole batches at once, keyed by image."""

from __future__ import annotations

from typing import Literal

import torch
from attrs import evolve, frozen
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.random_keys import random_keys, uniform
from explainkit.data.types import Batch

TRUNCATE = 4.0
"""Deviations after which the Gaussian ends, as in SciPy's filter."""


@frozen(kw_only=True)
class ElasticDistortion:
    """Move each pixel by a smooth random field, another one for each image and epoch.

    Two fields of independent numbers in [-1, 1), smoothed by a Gaussian and scaled, say how far down and
    right from itself each pixel is read, bilinearly. Masks go along; key points and boxes are left out, since
    the move has no inverse in closed form.

    Attributes
    ----------
    alpha : float
        Scale of the fields, in pixels; with a `sigma` of 4, moves of 20 have a deviation of half a pixel.
    sigma : float
        Deviation of the Gaussian in pixels; outside of the image the fields are 0.
    padding : {"zeros", "border"}
        What is read outside of the image: black, or its border.

    References
    ----------
    Simard, Steinkraus and Platt, ICDAR 2003; the numbers are those of the published code of Li et al.
    """

    alpha: float = 20.0
    sigma: float = 4.0
    padding: Literal["zeros", "border"] = "zeros"

    def __call__(self, batch: Batch, seed: int, epoch: int) -> Batch:
        """`batch`, changed."""
        grid = self._grid(self.displacements(batch, seed, epoch))
        images = F.grid_sample(batch.images, grid, padding_mode=self.padding, align_corners=True)
        masks = batch.masks
        if masks is not None:
            masks = F.grid_sample(masks.float(), grid, mode="nearest", align_corners=True) > 0.5
        return evolve(batch, images=images.clamp_(0, 1), masks=masks, key_points=None, boxes=None)

    def displacements(self, batch: Batch, seed: int, epoch: int) -> Tensor:
        """How far down and right of itself each pixel is read, in pixels: (N, 2, H, W)."""
        height, width = batch.images.shape[-2:]
        keys = random_keys(seed, epoch, batch.ids.cpu().numpy())
        noise = torch.from_numpy(uniform(keys, 2 * height * width)).to(batch.images)
        fields = 2 * noise.view(-1, 2, height, width) - 1
        return self.alpha * _smoothed(fields, self.sigma)

    def _grid(self, displacements: Tensor) -> Tensor:
        """Where each pixel is read, (N, H, W, 2), as `grid_sample` counts with its corners aligned."""
        height, width = displacements.shape[-2:]
        rows = torch.arange(height, device=displacements.device, dtype=displacements.dtype)
        columns = torch.arange(width, device=displacements.device, dtype=displacements.dtype)
        down, right = displacements.unbind(1)
        y = 2 * (rows[:, None] + down) / max(height - 1, 1) - 1
        x = 2 * (columns + right) / max(width - 1, 1) - 1
        return torch.stack([x, y], 3)


def _smoothed(fields: Tensor, sigma: float) -> Tensor:
    """Fields (N, 2, H, W) under a Gaussian of deviation `sigma`, one axis after the other, 0 outside."""
    radius = int(TRUNCATE * sigma + 0.5)
    steps = torch.arange(-radius, radius + 1, device=fields.device, dtype=fields.dtype)
    kernel = (-0.5 * (steps / sigma).square()).exp()
    kernel = kernel / kernel.sum()
    flat = fields.flatten(0, 1)[:, None]
    flat = F.conv2d(flat, kernel.view(1, 1, -1, 1), padding=(radius, 0))
    flat = F.conv2d(flat, kernel.view(1, 1, 1, -1), padding=(0, radius))
    return flat.view_as(fields)
