"""Shadows: copies of a network that use the same weights, for what must not show on the network itself."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

_OWNERS: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()
_UNCOPYABLE: WeakSet[nn.Module] = WeakSet()


def shadow(network: nn.Module, dtype: torch.dtype | None = None) -> nn.Module | None:
    """A copy of `network` in eval mode, or ``None`` where it cannot be copied.

    Modules, hooks, buffers and gradients are its own. Its parameters are other objects over the same memory,
    so that a shadow takes no memory for weights and follows an update of them. Whatever else the modules hold
    is copied as `copy.deepcopy` does.

    Parameters
    ----------
    dtype : torch.dtype or None
        Of its floating tensors, which are then copied; ``None``: that of the network.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    >>> twin = shadow(network)
    >>> twin[0].weight.data_ptr() == network[0].weight.data_ptr(), twin.training, network.training
    (True, False, True)
    """
    modules = list(network.modules())
    if any(_calls_a_module(function) for module in modules for function in _functions_of(module)):
        return None
    memo: dict[int, Any] = {}
    for module in modules:
        for parameter in module._parameters.values():
            if parameter is not None:
                memo[id(parameter)] = _aliased(parameter, dtype)
        for buffer in module._buffers.values():
            if buffer is not None:
                memo[id(buffer)] = _converted(buffer.detach(), dtype).clone()
        for value in vars(module).values():
            if type(value) is OrderedDict and not value:  # of hooks: most of what deepcopy would do
                memo[id(value)] = OrderedDict()
            elif isinstance(value, Tensor) and not value.is_leaf:  # deepcopy refuses tensors with a history
                memo[id(value)] = value.detach()
    try:
        twin: nn.Module = copy.deepcopy(network, memo)
    except Exception:  # copying runs the code of whatever objects the user's modules hold
        return None
    for module in twin.modules():
        module.training = False
    _OWNERS[twin] = owner_of(network)
    return twin


def owner_of(network: nn.Module) -> nn.Module:
    """The network that `network` is a shadow of; itself where it is none."""
    return _OWNERS.get(network, network)


def mark_uncopyable(network: nn.Module) -> None:
    """Remember that `network` has no shadow: whoever uses one of its modules must take turns."""
    for module in network.modules():
        _UNCOPYABLE.add(module)


def is_uncopyable(network: nn.Module) -> bool:
    """Whether a module of `network` belongs to one that was marked."""
    return bool(_UNCOPYABLE) and any(module in _UNCOPYABLE for module in network.modules())


def _aliased(parameter: nn.Parameter, dtype: torch.dtype | None) -> Tensor:
    """Another parameter over the same memory, with gradient, version and attributes of its own."""
    converted = _converted(parameter.detach(), dtype)
    if converted.dtype != parameter.dtype:
        return nn.Parameter(converted, parameter.requires_grad)
    if type(parameter) is not nn.Parameter or parameter.is_inference():
        return parameter
    alias = nn.Parameter(parameter.data, parameter.requires_grad)  # detach() would share the version counter
    vars(alias).update(vars(parameter))
    return alias


def _converted(values: Tensor, dtype: torch.dtype | None) -> Tensor:
    return values if dtype is None or not values.is_floating_point() else values.to(dtype)


def _functions_of(module: nn.Module) -> Iterator[FunctionType]:
    """The plain functions that were set on `module`, such as another forward, and its forward hooks."""
    values: list[object] = [*vars(module).values()]
    values += [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return (value for value in values if isinstance(value, FunctionType))


def _calls_a_module(function: Callable[..., Any]) -> bool:
    """Whether `function` names a module, which would stay the original: deepcopy leaves functions alone."""
    names = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    cells = [_content(cell) for cell in function.__closure__ or ()]
    return any(isinstance(value, nn.Module) for value in (*names.values(), *defaults, *cells))


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a variable without a value yet
        return None
