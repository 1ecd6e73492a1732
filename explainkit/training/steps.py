"""One step of training: where in a phase it is, which rows of the batch are here, the loss as a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from explainkit.data.types import Batch
from explainkit.errors import InputError, TrainingError


@frozen(kw_only=True)
class Step:
    """What a loss may want to know beside its batch.

    Under several processes each has every W-th image of the batch. The terms of a loss are means over the
    images that are here; what compares images with each other takes those of all processes by `gather`.

    Attributes
    ----------
    batch_size : int
        Images of the whole batch, over all processes.
    epoch, epochs : int
        Number of the epoch within the phase, from 1, and how many there are.
    index : int
        Steps of the phase before this one.
    progress : float
        Share of the phase's steps before this one, in [0, 1).
    rank, processes : int
        Number of this process, and how many share the batch.

    Examples
    --------
    >>> step = Step(batch_size=8, epoch=2, epochs=4, index=10, progress=0.25)
    >>> step.local(torch.arange(8)).tolist()  # all of them, since there is one process
    [0, 1, 2, 3, 4, 5, 6, 7]
    """

    batch_size: int
    epoch: int = 1
    epochs: int = 1
    index: int = 0
    progress: float = 0.0
    rank: int = 0
    processes: int = 1

    def local(self, values: Tensor) -> Tensor:
        """Of `values` with a row for each image of the whole batch, the rows of the images that are here."""
        return values[self.rank :: self.processes]

    def gather(self, values: Tensor) -> Tensor:
        """`values` (n, ...) of the images that are here, of all processes: (N, ...), in the batch's order.

        Differentiable: a loss of the gathered rows has the gradient that it would have in one process, also
        where the rows cannot be shared evenly. Every process has to call it, as often and in the same order.

        Raises
        ------
        InputError
            For values that are not one row for each image that is here.
        """
        expected = len(range(self.rank, self.batch_size, self.processes))
        if values.ndim == 0 or len(values) != expected:
            raise InputError(
                f"Expected one row for each of the {expected} images of this process; got values of "
                f"{tuple(values.shape)}."
            )
        if self.processes == 1:
            return values
        if values.dtype == torch.bool:
            return _gather_rows(values.to(torch.uint8), self).bool()
        gathered: Tensor = _Gather.apply(values, self)
        return gathered


class LossModule(nn.Module):
    """A network and its loss: `forward` gives the named terms and nothing else.

    So that whatever wraps it, such as DistributedDataParallel, sees every parameter that a gradient is for.
    """

    def __init__(self, network: nn.Module, loss: Callable[[Any, Batch, Step], Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The terms, each already weighted; their mean over processes is that over the whole batch."""
        terms = self.loss(self.network, batch, step)
        if not (isinstance(terms, Mapping) and terms and all(_is_scalar(term) for term in terms.values())):
            raise TrainingError(f"Expected a loss that returns named scalar tensors; got {_in_words(terms)}.")
        share = (
            len(batch) * step.processes / step.batch_size
        )  # where one process has more images than another
        return {name: value if share == 1 else share * value for name, value in terms.items()}


def _is_scalar(term: object) -> bool:
    return isinstance(term, Tensor) and term.ndim == 0


def _in_words(terms: object) -> str:
    """What a loss returned instead."""
    if not isinstance(terms, Mapping):
        return type(terms).__name__
    kinds = {
        name: tuple(value.shape) if isinstance(value, Tensor) else value for name, value in terms.items()
    }
    return ", ".join(f"{name!r} of {kind!r}" for name, kind in kinds.items()) or "none"


class _Gather(torch.autograd.Function):
    """Rows of all processes; a row's gradient is the sum of what each process has for it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, step: Step) -> Tensor:
        ctx.step = step
        return _gather_rows(values, step)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return ctx.step.local(total), None


def _gather_rows(values: Tensor, step: Step) -> Tensor:
    """(n, ...) of each process to (N, ...): every W-th row is one's own; the shorter ones are padded."""
    longest = -(-step.batch_size // step.processes)
    padded = values.new_zeros(longest, *values.shape[1:])
    padded[: len(values)] = values.detach()
    parts = [torch.empty_like(padded) for _ in range(step.processes)]
    distributed.all_gather(parts, padded)
    return torch.stack(parts, 1).flatten(0, 1)[: step.batch_size]
