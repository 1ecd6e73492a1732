"""Where points and boxes lie once a crop of a picture has become the whole image.

Positions are continuous: a pixel in column 3 is 3 … 4 wide, and its middle is at 3.5.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def crop_points(points: Tensor, crops: Tensor, size: Sequence[int]) -> Tensor:
    """Points (n, P, 3) of pictures in their `crops` (n, 4), resized to `size`; what is not seen is all 0."""
    positions = (points[..., :2] - crops[:, None, :2]) * _scale(crops, size)[:, None]
    points = mark_visible(positions, points[..., 2], size)
    return torch.where(points[..., 2:] > 0, points, 0)


def crop_boxes(boxes: Tensor, crops: Tensor, size: Sequence[int]) -> Tensor:
    """Boxes (n, 4) of pictures in their `crops` (n, 4), resized to `size` and cut at its border."""
    corners = (boxes.view(-1, 2, 2) - crops[:, None, :2]) * _scale(crops, size)[:, None]
    return torch.minimum(corners.clamp(min=0), corners.new_tensor([size[1], size[0]])).flatten(1)


def mark_visible(positions: Tensor, visible: Tensor, size: Sequence[int]) -> Tensor:
    """(…, 3): positions (…, 2), and 1 where they were visible and still lie in the image."""
    x, y = positions.unbind(-1)
    inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
    return torch.cat([positions, (visible * inside)[..., None]], -1)


def _scale(crops: Tensor, size: Sequence[int]) -> Tensor:
    """By how much each crop is enlarged, (n, 2): across and down."""
    return crops.new_tensor([size[1], size[0]]) / (crops[:, 2:] - crops[:, :2])
