"""The state of a network: left as it was, and its digest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from explainkit.explanations.serialization import tensors_digest


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """`network` in eval mode, outside inference mode; then modes, gradients and random state as before."""
    modules = list(network.modules())  # walked once: this is a good part of what explaining adds
    in_training = [module for module in modules if module.training]
    parameters = [value for module in modules for value in module._parameters.values() if value is not None]
    gradients = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    devices = {parameter.device for parameter in parameters if parameter.device.type == "cuda"}
    for module in in_training:
        module.training = False
    for parameter, _ in gradients:  # not added to, but set aside
        parameter.grad = None
    try:
        with torch.inference_mode(False), torch.random.fork_rng(devices=list(devices)):
            yield
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
