"""How much memory a saved file may make torch allocate: known before any is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from explainkit.errors import FormatError

ROOM = 2**29
"""Bytes that building a network may take whatever the file: trying out a backbone on an image takes some."""

SHARE = 8
"""Bytes that it may take beyond for each one of the file: half precision becomes full, layouts change."""

MIN_BYTES = 2**16
"""Bytes that a tensor counts for at least, since what is around it in Python takes memory and time too."""


def build_for(build: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> nn.Module:
    """The network that `build` makes, once its form is found to be that of `state`; without its numbers yet.

    It is built on the meta device first, which has shapes and no memory, and takes the state there. One that
    cannot be, because it reads numbers out of tensors as it is built, is built once, and its tensors are
    counted as they are made.

    Raises
    ------
    FormatError
        For a network that takes memory out of proportion to the state.
    RuntimeError
        For names or shapes that do not fit, as `load_state_dict` says.
    """
    size = sum(value.nbytes for value in state.values())
    with torch.device("meta"), MemoryLimit(size):
        try:
            form = build()
        except (NotImplementedError, RuntimeError):  # torch has both for numbers that are not there
            form = None
        if form is not None:
            form.load_state_dict({name: value.to("meta") for name, value in state.items()}, assign=True)
    if form is not None:
        return build()
    with MemoryLimit(size):
        return build()


class MemoryLimit(TorchDispatchMode):
    """In this context a network is built that must not be much larger than `size` bytes.

    Tensors are counted as soon as they are made, before anything is written to them.

    Raises
    ------
    FormatError
        When the tensors that were made would be out of proportion.
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
        outputs = function(*args, **(kwargs or {}))
        if all(result.alias_info is None for result in function._schema.returns):  # no view, not in place
            tensors = [value for value in tree_leaves(outputs) if isinstance(value, Tensor)]
            self.remaining -= sum(max(MIN_BYTES, value.nbytes) for value in tensors)
        if self.remaining < 0:
            raise FormatError("its settings ask for a network far larger than the file holds")
        return outputs
