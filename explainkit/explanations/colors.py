"""Images of any number of channels as pictures of three."""

import torch
from torch import Tensor

NOTE = "first three of {} channels"
"""What is said beside the picture of an image that has more channels than colors."""


def as_rgb(images: Tensor) -> Tensor:
    """Images (..., D, H, W) as (..., 3, H, W): one channel as gray, more than three by the first three.

    Examples
    --------
    >>> as_rgb(torch.rand(2, 1, 4, 4)).shape, as_rgb(torch.rand(5, 4, 4)).shape
    (torch.Size([2, 3, 4, 4]), torch.Size([3, 4, 4]))
    """
    channels = images.shape[-3]
    if channels == 3:
        return images
    if channels == 1:
        return images.expand(*images.shape[:-3], 3, *images.shape[-2:])
    if channels == 2:
        images = torch.cat([images, torch.zeros_like(images[..., :1, :, :])], -3)
    return images[..., :3, :, :]


def channels_note(channels: int) -> str:
    """What to say beside the picture of an image of so many channels; nothing for gray and color."""
    if channels in (1, 3):
        return ""
    return NOTE.format(channels) if channels > 3 else "two channels, as red and green"
