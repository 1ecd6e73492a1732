"""Work shared among the processes of a run: each takes its share, and all come to know the whole."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import distributed, nn

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
        strategy=DDPStrategy(find_unused_parameters=True) if processes > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def broadcast_buffers(network: nn.Module, fabric: Fabric) -> None:
    """The first process's buffers for all, so that all see the same validation."""
    if fabric.world_size > 1:
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)


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
