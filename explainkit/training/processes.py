"""Work shared among the processes of a run: each takes its share, and all come to know the whole."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import torch
from torch import distributed

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
    there = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if not there.get(kind) or (number and not number.isdigit()):
        found = ", ".join(name for name, present in there.items() if present)
        raise InputError(f"Expected a device of this machine ({found}); got {str(device)!r}.")
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise InputError(f"Expected one of {torch.cuda.device_count()} CUDA devices; got {str(device)!r}.")
    return kind, int(number) if number and kind == "cuda" else None


def shared(items: Iterable[Item]) -> Iterator[Item]:
    """Every W-th of `items`, beginning at this process's rank; all of them where there is one process."""
    if not _several():
        return iter(items)
    return islice(items, distributed.get_rank(), None, distributed.get_world_size())


def gathered(found: Item) -> list[Item]:
    """What each process found, in order of rank, for all of them."""
    if not _several():
        return [found]
    everyone: list[Item | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, found)
    return [item for item in everyone if item is not None]


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
