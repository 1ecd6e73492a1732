"""Where points and boxes lie once a frame of a picture has become the whole image.

Places are continuous: a pixel in column 3 is 3 … 4 wide, and its middle is at 3.5.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def framed_points(points: Tensor, frames: Tensor, size: Sequence[int]) -> Tensor:
    """Points (n, P, 3) of pictures in their `frames` (n, 4), resized to `size`; what is not seen is all 0."""
    places = (points[..., :2] - frames[:, None, :2]) * _scale(frames, size)[:, None]
    told = flagged(places, points[..., 2], size)
    return torch.where(told[..., 2:] > 0, told, 0)


def framed_boxes(boxes: Tensor, frames: Tensor, size: Sequence[int]) -> Tensor:
    """Boxes (n, 4) of pictures in their `frames` (n, 4), resized to `size` and cut at its border."""
    corners = (boxes.view(-1, 2, 2) - frames[:, None, :2]) * _scale(frames, size)[:, None]
    return torch.minimum(corners.clamp(min=0), corners.new_tensor([size[1], size[0]])).flatten(1)


def flagged(places: Tensor, visible: Tensor, size: Sequence[int]) -> Tensor:
    """(…, 3): places (…, 2) that were visible and still lie in the image."""
    x, y = places.unbind(-1)
    inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
    return torch.cat([places, (visible * inside)[..., None]], -1)


def _scale(frames: Tensor, size: Sequence[int]) -> Tensor:
    """By how much each frame is enlarged, (n, 2): across and down."""
    return frames.new_tensor([size[1], size[0]]) / (frames[:, 2:] - frames[:, :2])
