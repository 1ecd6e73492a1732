"""Images as bytes again, and images that explanations do without: NaN of their shape, which take no memory.

Everything about an explanation but its picture holds without its image: numbers, sentences, and where
evidence is. NaN cannot be taken for an image, and `explain` refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def absent_images(shape: Sequence[int], like: Tensor) -> Tensor:
    """NaN of `shape` (N, ...), one number in memory, of the kind and on the device of `like`."""
    return torch.full((), torch.nan, dtype=like.dtype, device=like.device).expand(*shape)


def are_absent(images: Tensor) -> bool:
    """Whether images (N, ...) are left out; of no image at all, none is."""
    return images.numel() > 0 and bool(images[(0,) * images.ndim].isnan())


def select_images(images: Tensor, rows: Tensor) -> Tensor:
    """``images[rows]``, without memory for what is absent."""
    return absent_images((len(rows), *images.shape[1:]), images) if are_absent(images) else images[rows]


def move_images(images: Tensor, device: torch.device | str) -> Tensor:
    """``images.to(device)``, without memory for what is absent."""
    if not are_absent(images):
        return images.to(device)
    return absent_images(images.shape, torch.empty(0, dtype=images.dtype, device=device))


def concat_images(parts: Sequence[Tensor]) -> Tensor:
    """``torch.cat(parts)``, without memory for what is absent."""
    if not any(are_absent(part) for part in parts):
        return torch.cat(list(parts))
    return absent_images((sum(len(part) for part in parts), *parts[0].shape[1:]), parts[0])


def as_levels(images: Tensor) -> Tensor:
    """Images that came from bytes as bytes again, others as they are: either way without loss."""
    levels = (images * 255).round().clamp(0, 255).to(torch.uint8)
    return levels if torch.equal(levels.to(images.dtype) / 255, images) else images


def from_levels(images: Tensor, dtype: torch.dtype) -> Tensor:
    """What `as_levels` made bytes of."""
    return images.to(dtype) / 255 if images.dtype == torch.uint8 else images
