"""Work shared among the processes of a run: each takes its share, and all come to know the whole."""

import atexit
import os
from collections.abc import Iterable, Iterator
from inspect import signature
from itertools import islice
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from explainkit.errors import InputError

Item = TypeVar("Item")


def accelerator(device: torch.device | str) -> tuple[str, int | None]:
    """The kind of a device that is there, ``"auto"`` included, and its number where one is given.

    Raises
    ------
    InputError
        For a name that is no device's, and for a device that this machine lacks.
    """
    kind, _, number = str(device).partition(":")
    is_present = {
        "auto": True,
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.mps.is_available(),
    }
    if not is_present.get(kind) or (number and not number.isdigit()):
        devices = ", ".join(name for name, present in is_present.items() if present)
        raise InputError(f"Expected a device of this machine ({devices}); got {str(device)!r}.")
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise InputError(f"Expected one of {torch.cuda.device_count()} CUDA devices; got {str(device)!r}.")
    return kind, int(number) if number and kind == "cuda" else None


def launch_fabric(device: str, precision: str) -> Fabric:
    """A Lightning Fabric for `device`, joined to the processes that ``torchrun`` started, if it did."""
    kind, index = accelerator(device)
    processes, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    fabric = Fabric(
        accelerator=kind,
        devices=[index] if index is not None else local,
        num_nodes=processes // local,
        strategy=_ddp() if processes > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]
    )
    is_first = processes > 1 and not _is_distributed()
    fabric.launch()
    if is_first:  # a second group in one process may wait for addresses of the first one, for ever
        atexit.register(distributed.destroy_process_group)
    return fabric


def _ddp() -> DDPStrategy:
    """Buffers are not overwritten by those of the first process: `BufferAverage` takes their mean."""
    parameters = signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    options: dict[str, Any] = {name: False, "find_unused_parameters": True}
    return DDPStrategy(**options)


class BufferAverage:
    """Makes buffers that a step changed agree over processes: the mean, for those that are no whole numbers.

    Such as the running statistics of batch norms, each of which has seen its process's images alone.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._last = self._copies()

    def update(self) -> None:
        """Average what has changed, in any process, since the last time."""
        buffers = dict(self._network.named_buffers())
        if not (_is_distributed() and buffers):
            return
        changed = torch.tensor([self._has_changed(*item) for item in buffers.items()], dtype=torch.int32)
        changed = changed.to(next(iter(buffers.values())).device)
        distributed.all_reduce(changed, distributed.ReduceOp.MAX)
        for buffer, has_changed in zip(buffers.values(), changed.tolist(), strict=True):
            if has_changed and buffer.is_floating_point():
                distributed.all_reduce(buffer)
                buffer /= distributed.get_world_size()
            elif has_changed:
                distributed.broadcast(buffer, 0)
        self._last = self._copies()

    def _has_changed(self, name: str, value: Tensor) -> bool:
        """By value: batch norms change theirs without a trace in the tensor's version."""
        return name not in self._last or not torch.equal(self._last[name], value)

    def _copies(self) -> dict[str, Tensor]:
        if not _is_distributed():
            return {}
        return {name: value.clone() for name, value in self._network.named_buffers()}


def shard(items: Iterable[Item]) -> Iterator[Item]:
    """Every W-th of `items`, beginning at this process's rank; all of them where there is one process."""
    if not _is_distributed():
        return iter(items)
    return islice(items, distributed.get_rank(), None, distributed.get_world_size())


def all_gather(item: Item) -> list[Item]:
    """The `item` of each process, in order of rank, for all of them."""
    if not _is_distributed():
        return [item]
    items: list[Item | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(items, item)
    return [each for each in items if each is not None]


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
