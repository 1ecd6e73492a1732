"""Random numbers of the whole process: one thread at a time draws them, and puts the states back."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

PROCESS_LOCK = threading.RLock()
"""Held by what changes state that all threads share: random states, and networks that have no shadow."""


def _cuda_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


@frozen(eq=False)
class RandomState:
    """Where Python's, NumPy's and torch's generators are."""

    python: Any = field(factory=random.getstate)
    numpy: Any = field(factory=np.random.get_state)
    torch: Tensor = field(factory=torch.get_rng_state)
    cuda: list[Tensor] = field(factory=_cuda_states)

    def is_current(self) -> bool:
        """Whether nothing has been drawn since."""
        now = RandomState()
        numpy_keys = zip(self.numpy, now.numpy, strict=True)
        return (
            self.python == now.python
            and all(np.array_equal(before, after) for before, after in numpy_keys)
            and torch.equal(self.torch, now.torch)
            and len(self.cuda) == len(now.cuda)
            and all(torch.equal(before, after) for before, after in zip(self.cuda, now.cuda, strict=True))
        )

    def restore(self) -> None:
        """Go on from here."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


@contextmanager
def kept_random_state() -> Iterator[RandomState]:
    """A context that may draw random numbers: the process-wide lock is held, and the states are put back."""
    with PROCESS_LOCK:
        state = RandomState()
        try:
            yield state
        finally:
            state.restore()
