"""Rules that tensors of a value keep; each refuses, as InputError, naming field, rule and value."""

from collections.abc import Mapping

import torch
from torch import Tensor

from explainkit.errors import InputError

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_shape(name: str, values: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse another shape."""
    if tuple(values.shape) != shape:
        raise InputError(f"Expected {name} of {shape}; got {tuple(values.shape)}.")


def check_floats(columns: Mapping[str, Tensor | None]) -> None:
    """Refuse what is no float, or one of the short kinds that torch stores and does not add."""
    for name, values in columns.items():
        if values is not None and values.dtype not in FLOATS:
            raise InputError(f"Expected {name} as floats; got {values.dtype}.")


def check_finite(columns: Mapping[str, Tensor | None]) -> None:
    """One question for all columns, since each waits for the device; a sum that overflows asks each value."""
    found = {name: values for name, values in columns.items() if values is not None}
    if not found or sum(values.sum() for values in found.values()).isfinite():  # type: ignore[union-attr]
        return
    for name, values in found.items():
        if not values.isfinite().all():
            where = tuple((~values.isfinite()).nonzero()[0].tolist())
            raise InputError(f"Expected finite {name}; got {values[where].item()} at {where}.")


def check_indices(name: str, values: Tensor | None, count: int) -> None:
    """Refuse what is no index below `count`."""
    if values is None:
        return
    if values.dtype != torch.int64:
        raise InputError(f"Expected {name} of int64; got {values.dtype}.")
    if not values.numel():
        return
    low, high = (int(end) for end in values.aminmax())
    if low < 0 or high >= count:
        raise InputError(f"Expected {name} in 0 … {count - 1}; got {low if low < 0 else high}.")
