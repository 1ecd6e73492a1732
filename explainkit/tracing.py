"""Where a network that somebody else wrote pools its features, read out of its traced graph."""

from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import fx, nn
from torch.nn import functional as F

from explainkit.errors import BindError, UnknownNameError

HOW = "Networks that end in global average pooling and one linear layer can be read, as ResNet and DenseNet."

_PASSES = {
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
_PASSING_MODULES = (nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Identity)


def split_at_pooling(network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """The part of `network` up to the tensor (N, D, h, w) that it pools, and its linear layer.

    Found in the traced graph, going back from the output; the parts share the network's parameters. Trace in
    eval mode: what the network does differently in training is not seen.

    Raises
    ------
    BindError
        Where it cannot be traced, or does not end in global average pooling and one linear layer.
    """
    graph = _traced(network)
    modules = dict(network.named_modules())
    node = _argument(next(node for node in graph.nodes if node.op == "output"))
    node = _skip(node, modules)
    head = modules.get(str(node.target)) if node is not None and node.op == "call_module" else None
    if node is None or not isinstance(head, nn.Linear):
        raise BindError(
            f"Expected a linear layer at the end; {type(network).__name__} ends in "
            f"{_named(node, modules)}. {HOW}"
        )
    node = _skip(_argument(node), modules)
    if node is None or not _pools(node, modules):
        raise BindError(
            f"Expected global average pooling before the linear layer; {type(network).__name__} has "
            f"{_named(node, modules)}. {HOW}"
        )
    pooled_from = _argument(node)
    if pooled_from is None:
        raise BindError(f"Expected a tensor before the pooling of {type(network).__name__}; got none. {HOW}")
    return _up_to(network, graph, pooled_from), head


def split_before_last_pooling(network: nn.Module) -> nn.Module:
    """The part of `network` up to what its last global pooling takes, whatever comes after.

    Raises
    ------
    BindError
        Where it cannot be traced, or has no global pooling.
    """
    graph, modules = _traced(network), dict(network.named_modules())
    pools = [node for node in graph.nodes if _pools(node, modules)]
    pooled_from = _argument(pools[-1]) if pools else None
    if pooled_from is None:
        raise BindError(f"Expected a pooling layer; {type(network).__name__} has none.")
    return _up_to(network, graph, pooled_from)


def split_after(network: nn.Module, layer: str) -> nn.Module:
    """The part of `network` up to what its module `layer`, by dotted name, returns.

    Raises
    ------
    BindError
        Where it cannot be traced.
    UnknownNameError
        Where it does not run a module of that name.
    """
    graph = _traced(network, ends=(layer,))
    for node in reversed(graph.nodes):
        if node.op == "call_module" and node.target == layer:
            return _up_to(network, graph, node)
    named = [name for name, _ in network.named_modules() if name]
    close = get_close_matches(layer, named, n=3) or named[:6]
    raise UnknownNameError(
        f"{type(network).__name__} runs no layer {layer!r}. Did you mean {' or '.join(map(repr, close))}?"
    )


def _traced(network: nn.Module, ends: Sequence[str] = ()) -> fx.Graph:
    """The graph of `network`, in which the modules called `ends` stay whole."""

    class Tracer(fx.Tracer):
        def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
            return module_qualified_name in ends or super().is_leaf_module(module, module_qualified_name)

    try:
        return Tracer().trace(network)
    except Exception as error:  # tracing runs the stranger's code on symbols, which can fail in any way
        raise BindError(
            f"{type(network).__name__} could not be traced ({error}). Name its parts: "
            "features=<module that gives the (N, D, h, w) before pooling>, head=<its linear layer>."
        ) from error


def _up_to(network: nn.Module, graph: fx.Graph, last: fx.Node) -> fx.GraphModule:
    """The network, ending at the node `last`."""
    shorter = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        copied[node] = shorter.node_copy(node, lambda old: copied[old])
        if node is last:
            break
    shorter.output(copied[last])
    module = fx.GraphModule(network, shorter)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _argument(node: fx.Node) -> fx.Node | None:
    """The first tensor that a node takes."""
    return node.all_input_nodes[0] if node.all_input_nodes else None


def _skip(node: fx.Node | None, modules: dict[str, nn.Module]) -> fx.Node | None:
    """Back over what changes no number in eval mode: dropout, flattening."""
    while node is not None:
        passes = (
            isinstance(modules[str(node.target)], _PASSING_MODULES)
            if node.op == "call_module"
            else node.op in ("call_function", "call_method") and node.target in _PASSES
        )
        if not passes:
            break
        node = _argument(node)
    return node


def _pools(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node is global average pooling; the identity check has the last word."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        return isinstance(module, nn.AdaptiveAvgPool2d | nn.AvgPool2d)
    return node.target in (F.adaptive_avg_pool2d, F.avg_pool2d, torch.mean, "mean")


def _named(node: fx.Node | None, modules: dict[str, nn.Module]) -> str:
    if node is None:
        return "nothing"
    if node.op == "call_module":
        return f"{type(modules[str(node.target)]).__name__} ({node.target})"
    return f"{getattr(node.target, '__name__', node.target)}()"
