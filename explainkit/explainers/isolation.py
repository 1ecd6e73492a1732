"""Explaining without a trace: on a shadow where the network would change, in turns where chance is drawn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

import torch
from attrs import frozen
from torch import Tensor, nn

from explainkit.explainers.state import undisturbed
from explainkit.networks.random_state import RandomState, kept_random_state
from explainkit.networks.shadows import owner_of

if TYPE_CHECKING:
    from explainkit.explainers.interface import Explainer

    E = TypeVar("E", bound=Explainer)


@frozen
class Behavior:
    """What a use of a network was seen to do besides giving a result.

    Attributes
    ----------
    draws : bool
        Whether random numbers were drawn.
    writes : bool
        Whether attributes, buffers or gradients of the network were written.
    """

    draws: bool
    writes: bool


_BEHAVIORS: WeakKeyDictionary[nn.Module, dict[type, Behavior]] = WeakKeyDictionary()
_BEHAVIORS_LOCK = threading.Lock()


@contextmanager
def isolated(explainer: E) -> Iterator[E]:
    """`explainer`, or a copy of it with a shadow for a network, so that nothing changes that others see."""
    explainer.check_precision()
    network, kind = explainer.network, type(explainer)
    with running(network, kind, isolate=explainer.hooks_network, dtype=explainer.converted_dtype) as twin:
        if twin is not network:
            explainer = copy(explainer)
            explainer._network = twin
        yield explainer


@contextmanager
def running(
    network: nn.Module, kind: type = nn.Module, *, isolate: bool = False, dtype: torch.dtype | None = None
) -> Iterator[nn.Module]:
    """The network to run for `network`, which is left as it was; see `undisturbed`.

    The first use by each `kind` of explainer is on a shadow, which is looked at afterwards: a use that draws
    random numbers takes turns with other threads from then on, and one that writes always has a shadow.
    """
    behavior = _behavior_of(network, kind)
    if behavior is None:
        with kept_random_state() as state, undisturbed(network, isolate=True, dtype=dtype) as twin:
            before = _contents(twin)
            yield twin
            _remember(network, kind, state, is_written=not _same(before, _contents(twin)))
    elif behavior.draws:
        is_isolated = isolate or behavior.writes
        with kept_random_state(), undisturbed(network, isolate=is_isolated, dtype=dtype) as twin:
            yield twin
    else:
        with undisturbed(network, isolate=isolate or behavior.writes, dtype=dtype) as twin:
            yield twin


def _behavior_of(network: nn.Module, kind: type) -> Behavior | None:
    if owner_of(network) is not network:  # a shadow: what is done to it does not show
        return Behavior(draws=False, writes=False)
    with _BEHAVIORS_LOCK:
        return _BEHAVIORS.get(network, {}).get(kind)


def _remember(network: nn.Module, kind: type, state: RandomState, *, is_written: bool) -> None:
    behavior = Behavior(draws=not state.is_current(), writes=is_written)
    with _BEHAVIORS_LOCK:
        _BEHAVIORS.setdefault(network, {})[kind] = behavior


def _contents(network: nn.Module) -> list[object]:
    """Everything that the modules hold, and version and gradient of every tensor."""
    contents: list[object] = []
    for module in network.modules():
        tensors = [*module._parameters.values(), *module._buffers.values()]
        contents += [module, *vars(module).values(), *tensors]
        contents += [_version(tensor) for tensor in tensors if tensor is not None]
        contents += [tensor.grad for tensor in tensors if tensor is not None and tensor.is_leaf]
    return contents


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _same(one: list[object], other: list[object]) -> bool:
    return len(one) == len(other) and all(
        a is b or (isinstance(a, int) and a == b) for a, b in zip(one, other, strict=True)
    )
