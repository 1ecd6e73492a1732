"""Eval mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def is_in_training(network: nn.Module) -> bool:
    """Whether any module of `network` is in training mode; quicker than going through ``modules()``."""
    waiting = [network]
    while waiting:
        module = waiting.pop()
        if module.training:
            return True
        waiting += [child for child in module._modules.values() if child is not None]
    return False


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """`network` in eval mode within this context; afterwards each of its modules is in the mode it was in.

    Examples
    --------
    >>> network = nn.Sequential(nn.BatchNorm1d(2).eval(), nn.Dropout()).train(True)
    >>> with eval_mode(network):
    ...     network.training
    False
    >>> network.training
    True
    """
    in_training = [module for module in network.modules() if module.training]
    for module in in_training:
        module.training = False
    try:
        yield
    finally:
        for module in in_training:
            module.training = True
