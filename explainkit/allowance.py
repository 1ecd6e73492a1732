"""How much memory may be asked for on the word of a file: weighed before it is taken."""

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

LEAST = 4096
"""Bytes that a tensor counts for at least, since what is around it in Python takes memory and time too."""


class Allowance(TorchDispatchMode):
    """In this context, a network is built for a file of `size` bytes, which cannot hold a much larger one.

    Each operation of torch is first carried out on the meta device, which knows shapes and has no memory, to
    see how large a tensor it would make.

    Raises
    ------
    FormatError
        Before memory is taken that is out of proportion to the file.
    """

    def __init__(self, size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left = ROOM + SHARE * size

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if all(result.alias_info is None for result in function._schema.returns):  # no view, not in place
            self.left -= _weight(function, args, kwargs)
        if self.left < 0:
            raise FormatError("its settings ask for a network far larger than the file holds")
        return function(*args, **kwargs)


def _weight(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Bytes of the tensors that an operation would make; 0 where only its values tell."""
    args, kwargs = tree_map_only(Tensor, _outline, (args, kwargs))
    if any(argument.name == "device" for argument in function._schema.arguments):
        kwargs = {**kwargs, "device": "meta"}
    try:
        made = tree_leaves(function(*args, **kwargs))
    except RuntimeError:  # an index that is searched, a number that is read
        return 0
    return sum(max(LEAST, item.nbytes) for item in made if isinstance(item, Tensor))


def _outline(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
