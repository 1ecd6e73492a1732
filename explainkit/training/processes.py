"""Work shared among the processes of a run: each takes its share, and all come to know the whole."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from torch import distributed

Item = TypeVar("Item")


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
