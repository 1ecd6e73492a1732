"""The images that count as empty: what a method compares with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explainers.inputs import InputSpec

Baseline = float | Sequence[float] | Tensor
"""One value for all pixels or one a channel, from 0 for black to 1 for white; or an image (D, H, W).

An image has the values of the images that are explained; numbers are brought to their range.
"""

Baselines = Sequence[float] | Tensor
"""Several: one value for all pixels of each, from 0 to 1; or images (B, D, H, W), as of training."""

GRAYS = (0.0, 0.5, 1.0)
"""Black, gray and white: what nobody has to choose."""


def baseline_for(images: Tensor, baseline: Baseline, spec: InputSpec) -> Tensor:
    """`baseline` as an image (1, D, H, W) like `images`, which `spec` describes.

    Raises
    ------
    InputError
    """
    values = _tensor(baseline, images)
    if not isinstance(baseline, Tensor):
        values = spec.from_unit(values)
    if values.shape == (images.shape[1],):
        values = values[:, None, None]
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    shape = images.shape[1:]
    if values.ndim not in (0, 3) or not _expands(values.shape, shape):
        raise InputError(
            f"Expected baseline as a number, one a color, or an image {tuple(shape)}; "
            f"got {tuple(values.shape)}. It is the same for all images."
        )
    return values.expand(1, *shape)


def baselines_for(images: Tensor, baselines: Baselines, spec: InputSpec) -> Tensor:
    """`baselines` as images (B, D, H, W) like `images`, which `spec` describes; two of them at least.

    Raises
    ------
    InputError
    """
    values = _tensor(baselines, images)
    if not isinstance(baselines, Tensor):
        values = spec.from_unit(values)
    if values.ndim == 1:
        values = values[:, None, None, None]
    shape = images.shape[1:]
    if values.ndim != 4 or not _expands(values.shape[1:], shape):
        raise InputError(
            f"Expected baselines as numbers (B,) or images (B, {', '.join(map(str, shape))}); "
            f"got {tuple(values.shape)}. They are the same for all images."
        )
    if len(values) < 2:
        raise InputError("Expected two baselines or more, which the method takes the mean over; got one.")
    return values.expand(-1, *shape)


def baseline_setting(baseline: Baseline) -> object:
    """`baseline` as a setting that can be written down."""
    if isinstance(baseline, Tensor):
        return baseline.tolist() if baseline.numel() <= 3 else f"images {tuple(baseline.shape)}"
    return list(baseline) if isinstance(baseline, Sequence) else baseline


def _expands(shape: Sequence[int], target: Sequence[int]) -> bool:
    """Whether a tensor of `shape` expands to the `target` shape, axis by axis."""
    return all(side in (1, wide) for side, wide in zip(shape, target, strict=False))


def _tensor(values: Baseline, like: Tensor) -> Tensor:
    """`values` on the device and in the precision of `like`, finite."""
    try:
        tensor = torch.as_tensor(values).detach().to(like)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"Expected numbers or images to compare with; got {values!r}.") from None
    if not tensor.isfinite().all():
        raise InputError("Expected finite numbers to compare with; got some that are not.")
    return tensor
