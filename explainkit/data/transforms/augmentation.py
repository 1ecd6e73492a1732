"""Changed images to train on, and with them their masks, key points and boxes.

What happens to an image is decided by (seed, epoch, id) alone, never by its place in a batch or by the state
of a generator.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor
from torchvision import tv_tensors

from explainkit.data.geometry import mark_visible
from explainkit.data.random_keys import random_keys, uniform
from explainkit.data.types import Batch
from explainkit.errors import InputError


@frozen(kw_only=True)
class FlipShiftBrightness:
    """Mirror half of the images, shift all by a few pixels, change their light: for whole batches at once.

    Attributes
    ----------
    mirror : float
        How often.
    shift : int
        Pixels at most in each direction; the border is repeated.
    contrast, brightness : float
        Images are multiplied by 1 ± `contrast`, and each channel moves by ± `brightness` at most.
    """

    mirror: float = 0.5
    shift: int = 4
    contrast: float = 0.15
    brightness: float = 0.06

    def __call__(self, batch: Batch, seed: int, epoch: int) -> Batch:
        """`batch`, changed."""
        chance = torch.from_numpy(uniform(random_keys(seed, epoch, batch.ids.cpu().numpy()), 7)).to(
            batch.images.device
        )
        mirrored = chance[:, 0] < self.mirror
        right, down = ((chance[:, 1:3] * (2 * self.shift + 1)).long() - self.shift).unbind(1)
        contrast = 1 + self.contrast * (2 * chance[:, 3] - 1)
        brightness = self.brightness * (2 * chance[:, 4:] - 1)
        images = _shift(batch.images, mirrored, right, down, repeat=True)
        images = images * contrast[:, None, None, None] + brightness[:, :, None, None]
        masks = batch.masks
        if masks is not None:
            masks = _shift(masks, mirrored, right, down, repeat=False)
        height, width = batch.images.shape[-2:]
        return evolve(
            batch,
            images=images.clamp_(0, 1),
            masks=masks,
            key_points=_shift_points(batch.key_points, mirrored, right, down, (height, width)),
            boxes=_shift_boxes(batch.boxes, mirrored, right, down, (height, width)),
        )


@frozen
class PerSample:
    """Any transform of ``torchvision.transforms.v2``, one image at a time, under a generator keyed by its id.

    Masks, boxes and key points go along as ``TVTensors``. The caller's random state is left as it was. One
    image at a time is some eight times slower than `FlipShiftBrightness`: for small data and special wishes.

    Attributes
    ----------
    transform : torchvision.transforms.v2.Transform
        It must keep the size of the image.
    """

    transform: Callable[..., Any]

    def __call__(self, batch: Batch, seed: int, epoch: int) -> Batch:
        """`batch`, changed."""
        keys = (random_keys(seed, epoch, batch.ids.cpu().numpy()) >> np.uint64(1)).tolist()
        with torch.random.fork_rng(devices=[]):
            rows = [self._transform_row(batch, row, key) for row, key in enumerate(keys)]
        columns = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        if columns["images"].shape != batch.images.shape:
            raise InputError(
                f"Expected images of {tuple(batch.images.shape)} from {self.transform!r}; "
                f"got {tuple(columns['images'].shape)}. Use a transform that keeps the size."
            )
        return evolve(batch, **columns)  # type: ignore[arg-type]

    def _transform_row(self, batch: Batch, row: int, key: int) -> dict[str, Tensor]:
        torch.manual_seed(key)
        size = tuple(batch.images.shape[-2:])
        inputs: dict[str, Tensor] = {"images": tv_tensors.Image(batch.images[row])}
        if batch.masks is not None:
            inputs["masks"] = tv_tensors.Mask(batch.masks[row])
        if batch.boxes is not None:
            boxes = batch.boxes[row : row + 1]
            inputs["boxes"] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)
        if batch.key_points is not None:
            inputs["key_points"] = tv_tensors.KeyPoints(batch.key_points[row, :, :2], canvas_size=size)
        outputs = self.transform(inputs)
        tensors = {name: value.as_subclass(Tensor) for name, value in outputs.items()}
        if batch.boxes is not None:
            tensors["boxes"] = tensors["boxes"][0]
        if batch.key_points is not None:
            tensors["key_points"] = mark_visible(tensors["key_points"], batch.key_points[row, :, 2], size)
        return tensors


def _shift(images: Tensor, mirrored: Tensor, right: Tensor, down: Tensor, *, repeat: bool) -> Tensor:
    """Images (N, C, H, W), mirrored and then shifted by whole pixels; the border is repeated or 0."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - down[:, None]
    columns = torch.arange(width, device=images.device) - right[:, None]
    near_rows, near_columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    inside = (rows == near_rows)[:, None, :, None] & (columns == near_columns)[:, None, None]
    near_columns = torch.where(mirrored[:, None], width - 1 - near_columns, near_columns)
    images = images.gather(2, near_rows[:, None, :, None].expand_as(images))
    images = images.gather(3, near_columns[:, None, None].expand_as(images))
    return images if repeat else images * inside


def _shift_points(
    points: Tensor | None, mirrored: Tensor, right: Tensor, down: Tensor, size: tuple[int, int]
) -> Tensor | None:
    if points is None:
        return None
    x = torch.where(mirrored[:, None], size[1] - points[..., 0], points[..., 0]) + right[:, None]
    return mark_visible(torch.stack([x, points[..., 1] + down[:, None]], -1), points[..., 2], size)


def _shift_boxes(
    boxes: Tensor | None, mirrored: Tensor, right: Tensor, down: Tensor, size: tuple[int, int]
) -> Tensor | None:
    if boxes is None:
        return None
    left, top, end, bottom = boxes.unbind(1)
    left, end = torch.where(mirrored, size[1] - end, left), torch.where(mirrored, size[1] - left, end)
    x = (torch.stack([left, end], 1) + right[:, None]).clamp(0, size[1])
    y = (torch.stack([top, bottom], 1) + down[:, None]).clamp(0, size[0])
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)
