"""Where a network that somebody else wrote pools its features, read out of its traced graph."""

import operator
import threading
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from explainkit.errors import UnknownNameError, UnsupportedNetworkError

HOW = "Networks that end in global average pooling and one linear layer can be read, as ResNet and DenseNet."

_PASSIVE_FUNCTIONS = {
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    torch.flatten,
    torch.squeeze,
    "flatten",
    "view",
    "reshape",
    "squeeze",
}
_PASSIVE_MODULES = (nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Identity)


_lock = threading.Lock()
"""Tracing changes `nn.Module` for the whole process: one thread at a time traces."""


def split_at_pooling(network: nn.Module, twin: nn.Module | None = None) -> tuple[nn.Module, nn.Linear]:
    """The part of `network` up to the tensor (N, D, h, w) that it pools, and its linear layer.

    Found in the traced graph, going back from the output; the parts share the network's parameters.

    Parameters
    ----------
    network : nn.Module
    twin : nn.Module or None
        A copy in eval mode, to be traced in its place: what a network does differently in training is not
        seen.

    Raises
    ------
    UnsupportedNetworkError
        Where it cannot be traced, or does not end in global average pooling and one linear layer.
    """
    graph = _trace(network if twin is None else twin)
    modules = dict(network.named_modules())
    node = _first_input(next(node for node in graph.nodes if node.op == "output"))
    node = _skip_passive(node, modules)
    head = modules.get(str(node.target)) if node is not None and node.op == "call_module" else None
    if node is None or not isinstance(head, nn.Linear):
        raise UnsupportedNetworkError(
            f"Expected a linear layer at the end; {type(network).__name__} ends in "
            f"{_describe_node(node, modules)}. {HOW}"
        )
    node = _skip_passive(_first_input(node), modules)
    if node is None or not _is_pooling(node, modules):
        raise UnsupportedNetworkError(
            f"Expected global average pooling before the linear layer; {type(network).__name__} has "
            f"{_describe_node(node, modules)}. {HOW}"
        )
    pooled_from = _first_input(node)
    if pooled_from is None:
        raise UnsupportedNetworkError(
            f"Expected a tensor before the pooling of {type(network).__name__}; got none. {HOW}"
        )
    return _truncate(network, graph, pooled_from, before=node), head


def split_before_last_pooling(network: nn.Module) -> nn.Module:
    """The part of `network` up to what its last global pooling takes, whatever comes after.

    Raises
    ------
    UnsupportedNetworkError
        Where it cannot be traced, or has no global pooling.
    """
    graph, modules = _trace(network), dict(network.named_modules())
    pooling = [node for node in graph.nodes if _is_pooling(node, modules)]
    pooled_from = _first_input(pooling[-1]) if pooling else None
    if pooled_from is None:
        raise UnsupportedNetworkError(f"Expected a pooling layer; {type(network).__name__} has none.")
    return _truncate(network, graph, pooled_from, before=pooling[-1])


def split_after(network: nn.Module, layer: str) -> nn.Module:
    """The part of `network` up to what its module `layer`, by dotted name, returns.

    Raises
    ------
    UnsupportedNetworkError
        Where it cannot be traced.
    UnknownNameError
        Where it does not run a module of that name.
    """
    graph = _trace(network, ends=(layer,))
    for node in reversed(graph.nodes):
        if node.op == "call_module" and node.target == layer:
            return _truncate(network, graph, node)
    names = [name for name, _ in network.named_modules() if name]
    close = get_close_matches(layer, names, n=3) or names[:6]
    raise UnknownNameError(
        f"{type(network).__name__} runs no layer {layer!r}. Did you mean {' or '.join(map(repr, close))}?"
    )


def _trace(network: nn.Module, ends: Sequence[str] = ()) -> fx.Graph:
    """The graph of `network`, in which the modules called `ends` stay whole."""
    try:
        with _lock:
            return _Tracer(ends).trace(network)
    except Exception as error:  # tracing runs the user's code on symbols, which can fail in any way
        raise UnsupportedNetworkError(
            f"{type(network).__name__} could not be traced ({error}). Name its parts: "
            "features=<module that gives the (N, D, h, w) before pooling>, head=<its linear layer>."
        ) from error


class _Proxy(fx.Proxy):
    """A symbol that takes assignments to its items down."""

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})


class _Tracer(fx.Tracer):
    """Leaves modules called `ends` whole, and lets other threads run their networks meanwhile."""

    def __init__(self, ends: Sequence[str]) -> None:
        super().__init__()
        self._ends, self._thread = ends, threading.get_ident()

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._ends or super().is_leaf_module(module, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def _truncate(
    network: nn.Module, graph: fx.Graph, last: fx.Node, before: fx.Node | None = None
) -> fx.GraphModule:
    """The network, ending at the node `last`, with all changes made to it `before` another node."""
    truncated = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node is before:
            break
        copied[node] = truncated.node_copy(node, lambda old: copied[old])
        if node is last and before is None:
            break
    truncated.output(copied[last])
    module = fx.GraphModule(network, truncated)
    modules = dict(network.named_modules())
    module.graph.eliminate_dead_code(lambda node: node.is_impure() or _writes(node, modules))
    module.recompile()
    return module


def _writes(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node changes a tensor in place, so that it counts although nothing takes its result."""
    if node.op == "call_module":
        return bool(getattr(modules.get(str(node.target)), "inplace", False))
    if node.op not in ("call_method", "call_function"):
        return False
    name = str(getattr(node.target, "__name__", node.target))
    is_in_place = name.endswith("_") and not name.endswith("__")
    return is_in_place or node.target is operator.setitem or bool(node.kwargs.get("inplace"))


def _first_input(node: fx.Node) -> fx.Node | None:
    """The first tensor that a node takes."""
    return node.all_input_nodes[0] if node.all_input_nodes else None


def _skip_passive(node: fx.Node | None, modules: dict[str, nn.Module]) -> fx.Node | None:
    """Back over what changes no number in eval mode: dropout, flattening."""
    while node is not None:
        is_passive = (
            isinstance(modules[str(node.target)], _PASSIVE_MODULES)
            if node.op == "call_module"
            else node.op in ("call_function", "call_method") and node.target in _PASSIVE_FUNCTIONS
        )
        if not is_passive:
            break
        node = _first_input(node)
    return node


def _is_pooling(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node is global average pooling; the identity check has the last word."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        return isinstance(module, nn.AdaptiveAvgPool2d | nn.AvgPool2d)
    return node.target in (F.adaptive_avg_pool2d, F.avg_pool2d, torch.mean, "mean")


def _describe_node(node: fx.Node | None, modules: dict[str, nn.Module]) -> str:
    if node is None:
        return "nothing"
    if node.op == "call_module":
        return f"{type(modules[str(node.target)]).__name__} ({node.target})"
    return f"{getattr(node.target, '__name__', node.target)}()"
