"""What perturbation methods cover at once: squares of a grid, superpixels, or regions of the user's own."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from explainkit.errors import InputError, MissingPackageError

Patches = int | tuple[int, int] | Literal["superpixels"] | Tensor
"""Rows and columns of a grid, one number for both; ``"superpixels"``; or (H, W), a number for every pixel."""

SUPERPIXELS = 64
"""As many as a grid of 8 x 8 has squares."""


def patch_mask(images: Tensor, patches: Patches) -> Tensor:
    """Which patch each pixel of images (N, 3, H, W) is in: (N or 1, 1, H, W), int64, counted from 0.

    Raises
    ------
    InputError
        For a grid finer than the pixels, and for a mask of another size.
    MissingPackageError
        For superpixels without scikit-image: ``pip install 'explainkit-sdk[superpixels]'``.
    """
    size = (images.shape[2], images.shape[3])
    if isinstance(patches, Tensor):
        if tuple(patches.shape) != size or patches.is_floating_point():
            raise InputError(
                f"Expected patches as whole numbers {size}, one a pixel; got {patches.dtype} "
                f"{tuple(patches.shape)}."
            )
        numbers = patches.unique(return_inverse=True)[1]
        return numbers.view(1, 1, *size).to(images.device)
    if patches == "superpixels":
        return _superpixels(images)
    if isinstance(patches, str):
        raise InputError(f"Expected patches as a number, a pair, 'superpixels' or a mask; got {patches!r}.")
    rows, columns = (patches, patches) if isinstance(patches, int) else patches
    if not (1 <= rows <= size[0] and 1 <= columns <= size[1]):
        raise InputError(f"Expected a grid of 1 … {size} patches; got {(rows, columns)}.")
    row, column = (
        torch.arange(pixels, device=images.device) * cells // pixels
        for pixels, cells in zip(size, (rows, columns), strict=True)
    )
    return (row[:, None] * columns + column)[None, None]


def divide_by_patch(values: Tensor, mask: Tensor) -> Tensor:
    """Captum's values (N, D, H, W), equal all over a patch, as shares (N, D, H, W) that sum to one of them.

    So a patch's evidence counts once, however large the patch, and sums are in logits.
    """
    flat = mask.flatten(1)
    counts = flat.new_zeros(len(flat), int(flat.max()) + 1).scatter_add_(1, flat, torch.ones_like(flat))
    return values / (counts.gather(1, flat).view_as(mask) * values.shape[1])


def patches_setting(patches: Patches) -> object:
    """`patches` as a setting that can be written down."""
    if isinstance(patches, Tensor):
        return f"{int(patches.max()) + 1} patches of the user's" if patches.numel() else "no patches"
    return list(patches) if isinstance(patches, tuple) else patches


def _superpixels(images: Tensor) -> Tensor:
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise MissingPackageError(
            "Superpixels come from scikit-image: pip install 'explainkit-sdk[superpixels]'."
        ) from error
    pictures = images.detach().cpu().float().permute(0, 2, 3, 1).numpy()
    masks = [slic(picture, SUPERPIXELS, start_label=0, channel_axis=-1) for picture in pictures]
    numbered = [np.unique(mask, return_inverse=True)[1].reshape(mask.shape) for mask in masks]
    return torch.from_numpy(np.stack(numbered)[:, None]).to(images.device)
