"""How much memory a saved file may make torch allocate: checked before it is allocated."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from explainkit.errors import FormatError

ROOM = 2**29
"""Bytes that building a network may take whatever the file: trying out a backbone on an image takes some."""

SHARE = 8
"""Bytes that it may take beyond for each one of the file: half precision becomes full, layouts change."""

MIN_BYTES = 4096
"""Bytes that a tensor counts for at least, since what is around it in Python takes memory and time too."""


class MemoryLimit(TorchDispatchMode):
    """In this context, a network is built for a file of `size` bytes, which cannot hold a much larger one.

    Each operation of torch is first carried out on the meta device, which has shapes and no memory, to see
    how large a tensor it would make.

    Raises
    ------
    FormatError
        Before memory is taken that is out of proportion to the file.
    """

    def __init__(self, size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.remaining = ROOM + SHARE * size

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if all(result.alias_info is None for result in function._schema.returns):  # no view, not in place
            self.remaining -= _output_bytes(function, args, kwargs)
        if self.remaining < 0:
            raise FormatError("its settings ask for a network far larger than the file holds")
        return function(*args, **kwargs)


def _output_bytes(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Bytes of the tensors that an operation would make; 0 where these depend on values."""
    args, kwargs = tree_map_only(Tensor, _on_meta, (args, kwargs))
    if any(argument.name == "device" for argument in function._schema.arguments):
        kwargs = {**kwargs, "device": "meta"}
    try:
        outputs = tree_leaves(function(*args, **kwargs))
    except RuntimeError:  # an index that is searched, a number that is read
        return 0
    return sum(max(MIN_BYTES, output.nbytes) for output in outputs if isinstance(output, Tensor))


def _on_meta(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
