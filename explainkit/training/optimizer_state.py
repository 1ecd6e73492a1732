"""What an optimizer remembers of each parameter, as numbers and tensors for a file, and for another round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from explainkit.errors import TrainingError

Memory = Mapping[int, Mapping[str, Any]]
"""``optimizer.state_dict()["state"]``: what it remembers, by the number of the parameter and by name."""


def split_memory(memory: Memory) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """Its numbers, and its tensors by ``index.name``."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, entry in memory.items():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    return numbers, tensors


def join_memory(
    numbers: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Tensor]
) -> dict[int, dict[str, Any]]:
    """What `split_memory` took apart."""
    memory: dict[int, dict[str, Any]] = {int(index): dict(entry) for index, entry in numbers.items()}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        memory.setdefault(int(index), {})[name] = value
    return memory


def remember(optimizer: Optimizer, memory: Memory, phase: str) -> None:
    """Give `optimizer` the memory of another one of its kind over the same parameters.

    Each tensor is laid out as its parameter is, so that sums round alike.

    Raises
    ------
    TrainingError
        For parameters of other shapes, such as after pruning.
    """
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    laid_out: dict[int, dict[str, Any]] = {}
    for index, entry in memory.items():
        like = parameters[index]
        for name, value in entry.items():
            if isinstance(value, Tensor) and value.ndim:
                if value.shape != like.shape:
                    raise TrainingError(
                        f"Phase {phase!r} keeps its optimizer, which remembers a parameter of "
                        f"{tuple(value.shape)}; it has {tuple(like.shape)} now. Set "
                        "keep_optimizers=False where shapes change between rounds."
                    )
                value = torch.empty_like(like).copy_(value).detach()
            laid_out.setdefault(index, {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": laid_out, "param_groups": groups})
