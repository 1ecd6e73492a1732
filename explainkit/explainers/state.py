"""The state of a network: left as it was, and its digest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from explainkit.explanations.serialization import tensors_digest
from explainkit.networks.default_dtype import float32_by_default
from explainkit.networks.modes import is_in_training
from explainkit.networks.random_state import PROCESS_LOCK
from explainkit.networks.shadows import is_uncopyable, mark_uncopyable, shadow


@contextmanager
def undisturbed(
    network: nn.Module, *, isolate: bool = False, dtype: torch.dtype | None = None
) -> Iterator[nn.Module]:
    """The network to run in place of `network`, in eval mode, outside inference mode.

    That is `network` itself where it is in eval mode already, else a shadow of it. Nothing of `network` is
    changed, so that several threads may run it at once. A network that cannot be copied is run itself, by one
    thread at a time, and put back.

    Parameters
    ----------
    isolate : bool
        Whether modules are hooked or changed, or gradients are written: then it is a shadow in any case.
    dtype : torch.dtype or None
        Of the shadow, where it shall be another than that of the network.
    """
    needs_copy = isolate or dtype is not None or is_in_training(network)
    with torch.inference_mode(False), float32_by_default():
        # the mode was read first: who puts an uncopyable network into eval mode has marked it before
        twin = shadow(network, dtype) if needs_copy and not is_uncopyable(network) else None
        if twin is not None:
            yield twin
            return
        if needs_copy:
            mark_uncopyable(network)
        if not is_uncopyable(network):
            yield network
            return
        with in_place(network):
            yield network


@contextmanager
def in_place(network: nn.Module) -> Iterator[nn.Module]:
    """`network` itself in eval mode, in one thread at a time; modes and gradients are put back."""
    with PROCESS_LOCK, torch.inference_mode(False):
        modules = list(network.modules())
        in_training = [module for module in modules if module.training]
        parameters = list(network.parameters())
        gradients = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
        for module in in_training:
            module.training = False
        for parameter, _ in gradients:  # not added to, but set aside
            parameter.grad = None
        try:
            yield network
        finally:
            for module in in_training:
                module.training = True
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad = None
            for parameter, gradient in gradients:
                parameter.grad = gradient


def state_digest(network: nn.Module) -> str:
    """SHA-256 of a network's state."""
    return tensors_digest(network.state_dict())
