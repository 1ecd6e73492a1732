"""Reads CAM's parts out of a network that somebody else wrote, and checks that they make its logits."""

import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from explainkit.decomposition import Decomposition, full_precision
from explainkit.errors import BindError
from explainkit.interfaces import undisturbed
from explainkit_cam.model import pooled

HOW = "CAM reads networks that end in global average pooling and one linear layer, as ResNet and DenseNet do."

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


class BoundNetwork(nn.Module):
    """Somebody's network, with `decompose`; it shares the network's parameters and leaves its class alone.

    Parameters
    ----------
    network : nn.Module
    features : callable
        Images to the tensor (N, D, h, w) that is pooled.
    head : nn.Linear
    mean, std : Tensor or None, (3,)
        What the network wants its images normalised by.
    """

    signed: bool

    def __init__(
        self,
        network: nn.Module,
        features: Callable[[Tensor], Tensor],
        head: nn.Linear,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        # in a tuple, so that their parameters are not counted twice
        self._parts: tuple[Callable[[Tensor], Tensor], nn.Linear] = (features, head)
        self.register_buffer("mean", torch.tensor(mean or (0.0,) * 3).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std or (1.0,) * 3).view(3, 1, 1))
        self.signed = False

    def normalised(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) as the network was trained on them."""
        return (images - self.mean) / self.std

    def decompose(self, images: Tensor) -> Decomposition:
        """The maps that are pooled; a filter that can go below zero is two units, above and below."""
        features, head = self._parts
        maps = full_precision(features(self.normalised(images)))
        parts = pooled(maps, head)
        if not self.signed:
            return parts
        sides = torch.cat([maps.clamp(min=0), (-maps).clamp(min=0)], 1)  # (N, 2 K, h, w)
        return Decomposition(
            logits=parts.logits, bias=parts.bias, scores=sides.mean((2, 3)), maps=sides,
            weights=torch.cat([head.weight, -head.weight], 1),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """The network's own logits."""
        return self.network(self.normalised(images))


def bind(
    network: nn.Module,
    features: nn.Module | None,
    head: nn.Linear | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: tuple[int, int],
) -> BoundNetwork:
    """`network`, read and checked on random images of `size`.

    Raises
    ------
    BindError
        Where its logits are not the pooled features through the linear layer.
    """
    if (features is None) != (head is None):
        raise BindError("Expected both features=… and head=…, or neither; got one of them.")
    with undisturbed(network):
        if features is None or head is None:
            features, head = _traced(network)
        bound = BoundNetwork(network, features, head, mean, std)
        bound.eval()
        _check(bound, features, size)
    return bound


def _check(bound: BoundNetwork, features: Callable[[Tensor], Tensor], size: tuple[int, int]) -> None:
    """Compare both ways to the logits, on noise; and see whether the features can be negative."""
    like = next(bound.network.parameters())
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, *size, generator=generator).to(like)
    bound.to(like.device)
    with torch.no_grad():
        maps, logits = features(bound.normalised(images)), bound(images)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise BindError(f"Expected a network that returns logits (N, C); got {_told(logits)}. {HOW}")
        if not isinstance(maps, Tensor) or maps.ndim != 4 or maps.shape[1] != bound._parts[1].in_features:
            raise BindError(
                f"Expected features of (N, {bound._parts[1].in_features}, h, w) before pooling; got {_told(maps)}. {HOW}"
            )
        read = bound.decompose(images).logits
    scale = max(logits.abs().max().item(), 1e-6)
    gap = (read - logits).abs().max().item() if read.shape == logits.shape else float("nan")
    if not gap <= 1e-4 * scale:
        raise BindError(
            f"Expected the pooled features through the linear layer to be the network's logits; they differ by "
            f"{gap:.3g} where logits reach {scale:.3g}: something stands between. {HOW}"
        )
    bound.signed = bool((maps < 0).any())


def _traced(network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """The part of the network up to the tensor that it pools, and its linear layer."""
    try:
        graph = fx.Tracer().trace(network)
    except Exception as error:  # tracing runs the stranger's code on symbols, which can fail in any way
        raise BindError(
            f"{type(network).__name__} could not be traced ({error}). Name its parts: features=<module that gives "
            "the (N, D, h, w) before pooling>, head=<its linear layer>."
        ) from error
    modules = dict(network.named_modules())
    node = _argument(next(node for node in graph.nodes if node.op == "output"))
    node = _skip(node, modules)
    head = modules.get(str(node.target)) if node is not None and node.op == "call_module" else None
    if node is None or not isinstance(head, nn.Linear):
        raise BindError(
            f"Expected a linear layer at the end; {type(network).__name__} ends in {_named(node, modules)}. {HOW}"
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


def _up_to(network: nn.Module, graph: fx.Graph, last: fx.Node) -> fx.GraphModule:
    """The network, ending at the node `last`."""
    shorter = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        copied[node] = shorter.node_copy(node, lambda old: copied[old])
        if node is last:
            break
    shorter.output(copied[last])
    shorter.eliminate_dead_code()
    return fx.GraphModule(network, shorter)


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
    return node.target in (F.adaptive_avg_pool2d, F.avg_pool2d, torch.mean, "mean", operator.getitem)


def _named(node: fx.Node | None, modules: dict[str, nn.Module]) -> str:
    if node is None:
        return "nothing"
    if node.op == "call_module":
        return f"{type(modules[str(node.target)]).__name__} ({node.target})"
    return f"{getattr(node.target, '__name__', node.target)}()"


def _told(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
