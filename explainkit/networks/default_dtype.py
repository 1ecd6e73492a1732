"""Results that do not depend on `torch.set_default_dtype`, which is a setting of the whole process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_any

_DRAWING = {torch.rand, torch.randn, torch.normal}


def float32_by_default() -> AbstractContextManager[object]:
    """A context in which tensors without a dtype are float32 in this thread, whatever the default is.

    Examples
    --------
    >>> torch.set_default_dtype(torch.float64)
    >>> with float32_by_default():
    ...     print(torch.tensor([0.5]).dtype, (torch.tensor(1) / 2).dtype)
    torch.float32 torch.float32
    >>> torch.set_default_dtype(torch.float32)
    """
    return nullcontext() if torch.get_default_dtype() == torch.float32 else _Float32ByDefault()


class _Float32ByDefault(TorchFunctionMode):
    """Casts what is float64 by default alone; what is drawn is drawn as float32, since it differs."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        default = torch.get_default_dtype()
        if func is Tensor.double or options.get("dtype") is not None or _has(default, (args, options)):
            return func(*args, **options)
        if func in _DRAWING and not _has_tensor((args, options)):
            options["dtype"] = torch.float32
        result = func(*args, **options)
        return result.float() if isinstance(result, Tensor) and result.dtype == default else result


def _has_tensor(values: Any) -> bool:
    return tree_any(lambda value: isinstance(value, Tensor), values)


def _has(dtype: torch.dtype, values: Any) -> bool:
    """Whether `values` hold a tensor, an array or a name of that type."""
    return tree_any(lambda value: value is dtype or str(getattr(value, "dtype", "")) in _NAMES[dtype], values)


_NAMES = {
    dtype: (str(dtype), str(dtype).removeprefix("torch."))
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float32)
}
