"""Chance that Captum draws, from a seed of ours; the caller's random state is as it was."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from explainkit.networks.random_state import kept_random_state


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within, torch, NumPy and Python draw from `seed`; afterwards they go on where they were.

    Captum draws from the generators of the process, so that one thread at a time does.
    """
    with kept_random_state():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        yield
