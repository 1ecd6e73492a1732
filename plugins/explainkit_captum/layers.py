"""Layers by dotted name, and what a forward pass shows of each: what it returns, how often it is run."""

from collections.abc import Mapping
from contextlib import ExitStack
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from explainkit.errors import BindError, UnknownNameError
from explainkit_captum.logits import described

Outputs = Mapping[str, Any]
"""What each module returned, in the order in which they were done: a shape, or words for anything else."""


def layer_name(network: nn.Module, layer: str | nn.Module) -> str:
    """The dotted name of `layer` in `network`.

    Raises
    ------
    UnknownNameError
        For a name that no module bears; the message offers the nearest.
    BindError
        For a module that is not in the network.
    """
    names = {name: module for name, module in network.named_modules(remove_duplicate=False) if name}
    if isinstance(layer, nn.Module):
        for name, module in names.items():
            if module is layer:
                return name
        raise BindError(
            f"Expected a layer of {type(network).__name__}; got a {type(layer).__name__} that is not in it."
        )
    if layer not in names:
        close = get_close_matches(layer, names, n=3)
        hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"There are: {_some(names)}."
        raise UnknownNameError(f"{type(network).__name__} has no layer {layer!r}. {hint}")
    return layer


def outputs(network: nn.Module, image: Tensor) -> Outputs:
    """What each module of `network` returns for `image`; no hook stays behind."""
    seen: dict[str, Any] = {}

    def record(name: str, module: nn.Module, given: Any, output: Any) -> None:
        seen.pop(name, None)
        seen[name] = tuple(output.shape) if isinstance(output, Tensor) else described(output)

    with ExitStack() as hooks, torch.no_grad():
        for name, module in network.named_modules():
            if name:
                hooks.enter_context(module.register_forward_hook(partial(record, name)))
        network(image)
    return seen


def runs(network: nn.Module, image: Tensor) -> dict[str, int]:
    """How often each module without children is run for `image`; no hook stays behind."""
    counts = {name: 0 for name, module in network.named_modules() if not any(module.children())}

    def count(name: str, module: nn.Module, given: Any) -> None:
        counts[name] += 1

    with ExitStack() as hooks, torch.no_grad():
        for name in counts:
            hook = network.get_submodule(name).register_forward_pre_hook(partial(count, name))
            hooks.enter_context(hook)
        network(image)
    return counts


def rectifiers(network: nn.Module, image: Tensor) -> tuple[int, int]:
    """How often a forward pass runs an ``nn.ReLU``, and how many ReLUs its logits depend on."""
    calls = runs(network, image)
    reached = sum(count for name, count in calls.items() if isinstance(network.get_submodule(name), nn.ReLU))
    with torch.enable_grad():
        logits = network(image.detach().requires_grad_())
    waiting, seen, found = [logits.grad_fn], set(), 0
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found += node.name().startswith("Relu")
            waiting += [following for following, _ in node.next_functions]
    return reached, found


def is_grid(shape: Any, cells: int = 1) -> bool:
    """Whether an output is (N, D, h, w), of at least so many cells."""
    return isinstance(shape, tuple) and len(shape) == 4 and shape[2] * shape[3] >= cells


def last_grid(seen: Outputs) -> str:
    """The last module that returned (N, D, h, w) with more than one cell.

    Raises
    ------
    BindError
        Where none did.
    """
    grids = [name for name, shape in seen.items() if is_grid(shape, cells=2)]
    if not grids:
        raise BindError(
            f"Expected a layer that returns (N, D, h, w) with more than one cell; of {len(seen)} none does. "
            "Methods that go back to the pixels, as 'captum/integrated-gradients', need none."
        )
    return grids[-1]


def check_grid(seen: Outputs, layer: str) -> None:
    """Refuse a layer that does not return (N, D, h, w).

    Raises
    ------
    BindError
        Saying what it returns, and which layers will do.
    """
    if is_grid(seen.get(layer)):
        return
    grids = [name for name, shape in seen.items() if is_grid(shape, cells=2)]
    hint = f" Layers that do, the last ones first: {_some(grids[::-1])}." if grids else ""
    returned = f"returns {seen[layer]}" if layer in seen else "was not run on its own"
    raise BindError(f"Expected a layer that returns (N, D, h, w); {layer!r} {returned}.{hint}")


def _some(names: Any, count: int = 6) -> str:
    listed = list(names)
    return ", ".join(map(repr, listed[:count])) + (", …" if len(listed) > count else "")
