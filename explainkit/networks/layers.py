"""Layers by dotted name, and what a forward pass shows of each: what it returns, how often it runs."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from explainkit.errors import UnknownNameError, UnsupportedNetworkError

OutputShapes = Mapping[str, tuple[int, ...] | str]
"""What each module returned, in the order in which they finished: a shape, or words for anything else."""


def layer_name(network: nn.Module, layer: str | nn.Module) -> str:
    """The dotted name of `layer` in `network`.

    Raises
    ------
    UnknownNameError
        For a name that no module bears; the message offers the nearest.
    UnsupportedNetworkError
        For a module that is not in the network.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> layer_name(network, network[1])
    '1'
    """
    names = {name: module for name, module in network.named_modules(remove_duplicate=False) if name}
    if isinstance(layer, nn.Module):
        for name, module in names.items():
            if module is layer:
                return name
        raise UnsupportedNetworkError(
            f"Expected a layer of {type(network).__name__}; got a {type(layer).__name__} that is not in it."
        )
    if layer not in names:
        close = get_close_matches(layer, names, n=3)
        hint = f"There are: {_first_names(names)}."
        if close:
            hint = f"Did you mean {' or '.join(map(repr, close))}?"
        raise UnknownNameError(f"{type(network).__name__} has no layer {layer!r}. {hint}")
    return layer


def output_shapes(network: nn.Module, image: Tensor) -> OutputShapes:
    """What each module of `network` returns for `image`; no hook stays behind.

    Examples
    --------
    >>> output_shapes(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten()), torch.zeros(1, 3, 6, 6))
    {'0': (1, 8, 4, 4), '1': (1, 128)}
    """
    shapes: dict[str, tuple[int, ...] | str] = {}

    def record(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        shapes.pop(name, None)  # a module that runs twice moves to the end
        shapes[name] = tuple(output.shape) if isinstance(output, Tensor) else describe_output(output)

    with ExitStack() as hooks, torch.no_grad():
        for name, module in network.named_modules():
            if name:
                hooks.enter_context(module.register_forward_hook(partial(record, name)))
        network(image.clone())  # which it may write to
    return shapes


def run_counts(network: nn.Module, image: Tensor) -> dict[str, int]:
    """How often each module without children runs for `image`; no hook stays behind."""
    counts = {name: 0 for name, module in network.named_modules() if not any(module.children())}

    def count(name: str, module: nn.Module, inputs: Any) -> None:
        counts[name] += 1

    with ExitStack() as hooks, torch.no_grad():
        for name in counts:
            hook = network.get_submodule(name).register_forward_pre_hook(partial(count, name))
            hooks.enter_context(hook)
        network(image.clone())  # which it may write to
    return counts


def relu_counts(network: nn.Module, image: Tensor) -> tuple[int, int]:
    """How often a forward pass runs an ``nn.ReLU``, and how many ReLUs its logits depend on.

    The latter counts functional ReLUs too.

    Parameters
    ----------
    network : nn.Module
        Returns logits (N, C).
    """
    counts = run_counts(network, image)
    modules = sum(count for name, count in counts.items() if isinstance(network.get_submodule(name), nn.ReLU))
    with torch.enable_grad():
        logits = network(image.detach().requires_grad_().clone())
    waiting, visited, total = [logits.grad_fn], set(), 0
    while waiting:
        node = waiting.pop()
        if node is not None and node not in visited:
            visited.add(node)
            total += node.name().startswith("Relu")
            waiting += [following for following, _ in node.next_functions]
    return modules, total


def is_spatial(shape: object, min_cells: int = 1) -> bool:
    """Whether an output is (N, D, h, w), of at least `min_cells` cells."""
    return isinstance(shape, tuple) and len(shape) == 4 and shape[2] * shape[3] >= min_cells


def last_spatial_layer(shapes: OutputShapes) -> str:
    """The last module that returned (N, D, h, w) with more than one cell.

    Raises
    ------
    UnsupportedNetworkError
        Where none did.
    """
    names = [name for name, shape in shapes.items() if is_spatial(shape, min_cells=2)]
    if not names:
        raise UnsupportedNetworkError(
            "Expected a layer that returns (N, D, h, w) with more than one cell; of "
            f"{len(shapes)} none does. Methods that attribute to pixels need none."
        )
    return names[-1]


def check_spatial_layer(shapes: OutputShapes, layer: str) -> None:
    """Refuse a layer that does not return (N, D, h, w).

    Raises
    ------
    UnsupportedNetworkError
        Saying what it returns, and which layers will do.
    """
    if is_spatial(shapes.get(layer)):
        return
    names = [name for name, shape in shapes.items() if is_spatial(shape, min_cells=2)]
    hint = f" Layers that do, the last ones first: {_first_names(names[::-1])}." if names else ""
    returned = f"returns {shapes[layer]}" if layer in shapes else "was not run on its own"
    raise UnsupportedNetworkError(f"Expected a layer that returns (N, D, h, w); {layer!r} {returned}.{hint}")


def describe_output(value: object) -> str:
    """What a network or a layer returned, in a few words.

    Examples
    --------
    >>> describe_output({"logits": torch.zeros(2, 3), "loss": None})
    "dict of 'logits': a tensor (2, 3) of torch.float32, 'loss': NoneType"
    """
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    if isinstance(value, Mapping):
        items = ", ".join(f"{key!r}: {describe_output(item)}" for key, item in value.items())
        return f"{type(value).__name__} of {items or 'nothing'}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {', '.join(map(describe_output, value)) or 'nothing'}"
    logits = getattr(value, "logits", None)
    if isinstance(logits, Tensor):
        return f"{type(value).__name__} with .logits, {describe_output(logits)}"
    return type(value).__name__


def _first_names(names: Iterable[str], count: int = 6) -> str:
    """The first `count` of `names`, quoted."""
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:count]) + (", …" if len(quoted) > count else "")
