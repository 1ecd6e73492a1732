"""The image that counts as empty: what a method compares with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from explainkit.errors import InputError

Baseline = float | Sequence[float] | Tensor
"""One value for all pixels, one a colour, or an image (3, H, W)."""


def baseline_for(images: Tensor, baseline: Baseline) -> Tensor:
    """`baseline` as an image (1, 3, H, W) like `images`.

    Raises
    ------
    InputError
    """
    values = torch.as_tensor(baseline).detach().to(images)
    if values.shape == (3,):
        values = values[:, None, None]
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    wanted = images.shape[1:]
    if values.ndim not in (0, 3) or any(
        have not in (1, want) for have, want in zip(values.shape, wanted, strict=False)
    ):
        raise InputError(
            f"Expected baseline as a number, one a colour, or an image {tuple(wanted)}; "
            f"got {tuple(values.shape)}. It is the same for all images."
        )
    return values.expand(1, *wanted)


def told(baseline: Baseline) -> object:
    """`baseline` as a setting that can be written down."""
    if isinstance(baseline, Tensor):
        return baseline.tolist() if baseline.numel() <= 3 else f"an image {tuple(baseline.shape)}"
    return list(baseline) if isinstance(baseline, Sequence) else baseline
