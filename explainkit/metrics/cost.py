"""What an explanation costs: how often the network is run forward and backward for an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from attrs import define, frozen
from torch import Tensor, nn

from explainkit.errors import InputError
from explainkit.interfaces import undisturbed
from explainkit.metrics.score import metric

if TYPE_CHECKING:
    from explainkit.metrics.exam import Answer


@frozen(kw_only=True)
class Passes:
    """Runs of the network, one for each image that passed through it."""

    forward: float
    backward: float


@metric(better="lower", unit="passes per image")
def forward_passes(answer: Answer) -> Tensor:
    """How often an image was sent through the network to explain it; a batch of n counts n."""
    return _each(answer, _passes(answer).forward)


@metric(better="lower", unit="passes per image")
def backward_passes(answer: Answer) -> Tensor:
    """How often a gradient was sent back through the network to explain one image."""
    return _each(answer, _passes(answer).backward)


@define(eq=False)
class Counter:
    """Counts at every layer with parameters; the busiest one tells how often the network was run.

    Layers are counted because `decompose` does not enter through the network's own call. One image through
    the whole network is the measure, so that a layer that runs twice in a pass still counts as one.
    """

    once: list[float]
    forward: list[float]
    backward: list[float]

    @property
    def passes(self) -> Passes | None:
        """What was counted so far; ``None`` for a network without a layer to count at."""
        if not self.once:
            return None
        return Passes(forward=self._most(self.forward), backward=self._most(self.backward))

    def _most(self, counts: list[float]) -> float:
        return max((count / once for count, once in zip(counts, self.once, strict=True) if once), default=0.0)


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
        hooks = [layer.register_forward_hook(_at(index, counter)) for index, layer in enumerate(layers)]
        with undisturbed(network), torch.no_grad():
            network(image)
        counter.once, counter.forward = counter.forward, [0.0] * len(layers)
        yield counter
    finally:
        for hook in hooks:
            hook.remove()


def _at(index: int, counter: Counter) -> Callable[[nn.Module, object, object], None]:
    """A hook for layer number `index`; the layer may be a copy that somebody made of it."""

    def returned(gradient: Tensor) -> None:
        counter.backward[index] += len(gradient)

    def seen(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            counter.forward[index] += len(output)
            if output.requires_grad:
                output.register_hook(returned)  # gone with the graph

    return seen


def _passes(answer: Answer) -> Passes:
    if answer.passes is None:
        raise InputError("No layer with parameters was there to count at, or nothing was run.")
    return answer.passes


def _each(answer: Answer, value: float) -> Tensor:
    return torch.full((len(answer.exam.ids),), value)
