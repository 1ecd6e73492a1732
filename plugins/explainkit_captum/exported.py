"""Networks from `torch.export`: graphs of operations, for images of the shape that they were made with."""

from collections.abc import Iterator, Sequence

import torch
from torch import fx, nn


def is_exported(network: nn.Module) -> bool:
    """Whether `network` is a graph from `torch.export`, whose layers are no modules any more."""
    return next(_input_shapes(network), None) is not None


def exported_lengths(network: nn.Module) -> Sequence[int | None]:
    """The lengths (N, D, H, W) of images that an exported network takes alone; ``None``: any."""
    for shape in _input_shapes(network):
        if len(shape) == 4:
            return [length if type(length) is int else None for length in shape]
    return [None] * 4


def _input_shapes(network: nn.Module) -> Iterator[torch.Size]:
    if isinstance(network, fx.GraphModule):
        for node in network.graph.nodes:
            if node.op == "placeholder" and hasattr(node.meta.get("val"), "shape"):
                yield node.meta["val"].shape
