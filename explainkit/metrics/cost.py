"""What an explanation costs: how often the network is run forward and backward for an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from attrs import define
from torch import Tensor, nn

from explainkit.errors import InputError
from explainkit.explainers.state import undisturbed
from explainkit.metrics.context import ExplainerOutput, Passes
from explainkit.metrics.results import metric


@metric(better="lower", unit="passes per image")
def forward_passes(output: ExplainerOutput) -> Tensor:
    """How often an image was sent through the network to explain it; a batch of n counts n."""
    return _constant(output, _passes(output).forward)


@metric(better="lower", unit="passes per image")
def backward_passes(output: ExplainerOutput) -> Tensor:
    """How often a gradient was sent back through the network to explain one image."""
    return _constant(output, _passes(output).backward)


@define(eq=False)
class Counter:
    """Counts at every layer with parameters; the busiest one tells how often the network was run.

    Layers are counted because `decompose` does not enter through the network's own call. One image through
    the whole network is the measure, so that a layer that runs twice in a pass still counts as one.
    """

    per_pass: list[float]
    forward: list[float]
    backward: list[float]

    @property
    def passes(self) -> Passes | None:
        """What was counted so far; ``None`` for a network without a layer to count at."""
        if not self.per_pass:
            return None
        return Passes(forward=self._most(self.forward), backward=self._most(self.backward))

    def _most(self, counts: list[float]) -> float:
        passes = (count / one for count, one in zip(counts, self.per_pass, strict=True) if one)
        return max(passes, default=0.0)


@contextmanager
def counting(network: nn.Module, image: Tensor) -> Iterator[Counter]:
    """Count what happens to `network` within the context; it is left as it was.

    Parameters
    ----------
    image : Tensor, (1, 3, H, W)
        Sent through once, before the counting begins, as the measure.
    """
    layers = [layer for layer in network.modules() if not list(layer.children()) and list(layer.parameters())]
    counter = Counter(*([0.0] * len(layers) for _ in range(3)))
    hooks = []
    try:
        hooks = [
            layer.register_forward_hook(_counting_hook(index, counter)) for index, layer in enumerate(layers)
        ]
        with undisturbed(network) as undisturbed_network, torch.no_grad():
            undisturbed_network(image)
        counter.per_pass, counter.forward = counter.forward, [0.0] * len(layers)
        yield counter
    finally:
        for hook in hooks:
            hook.remove()


def _counting_hook(index: int, counter: Counter) -> Callable[[nn.Module, object, object], None]:
    """A hook for layer number `index`; the layer may be a copy that somebody made of it."""

    def count_backward(gradient: Tensor) -> None:
        counter.backward[index] += len(gradient)

    def count_forward(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            counter.forward[index] += len(output)
            if output.requires_grad:
                output.register_hook(count_backward)  # gone with the graph

    return count_forward


def _passes(output: ExplainerOutput) -> Passes:
    if output.passes is None:
        raise InputError("No layer with parameters was there to count at, or nothing was run.")
    return output.passes


def _constant(output: ExplainerOutput, value: float) -> Tensor:
    return torch.full((len(output.context.ids),), value)
