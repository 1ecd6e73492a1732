"""The engine: runs phases on Lightning Fabric, and stops in words when a loss goes astray."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from attrs import define, field
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from explainkit.data.images import Batch, ImageData
from explainkit.errors import TrainingError
from explainkit.training.logs import Logger, Progress
from explainkit.training.phases import (
    Epoch,
    Network,
    Phase,
    Repeat,
    optimiser,
    scheduler,
    set_modes,
)  # fmt: skip

EXPLODED = 1e4
"""A term this many times its first value (or 1, if that is larger) has exploded."""


@define(eq=False, kw_only=True)
class Trainer:
    """Runs a plan of phases on a network, in place.

    Parameters
    ----------
    seed : int
        Of the order of images and of their augmentation, together with epoch and image id.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` …
    loggers : sequence of Logger
        Told of every epoch.
    progress : bool or None
        A bar in the terminal; ``None``: where there is one.
    """

    seed: int = 0
    device: str = "auto"
    loggers: Sequence[Logger] = ()
    progress: bool | None = None
    history: list[Epoch] = field(factory=list, init=False)
    _first: dict[str, float] = field(factory=dict, init=False)
    _epochs: int = field(default=0, init=False)

    def run(
        self, network: Network, data: ImageData, plan: Sequence[Phase[Network] | Repeat[Network]]
    ) -> list[Epoch]:
        """Run `plan` in order and return what each epoch cost; the network ends in eval mode, all trainable.

        Raises
        ------
        TrainingError
            For a loss that is NaN, infinite or exploded, with phase, epoch and term.
        """
        try:
            for item in plan:
                if isinstance(item, Phase):
                    self._run_phase(network, data, item)
                    continue
                for _ in range(item.times):
                    for phase in item.phases:
                        self._run_phase(network, data, phase)
                    if item.until is not None and item.until(network, data):
                        break
            return self.history
        finally:
            network.requires_grad_(True)
            network.eval()
            for logger in self.loggers:
                logger.close()

    def _run_phase(self, network: Network, data: ImageData, phase: Phase[Network]) -> None:
        fabric = Fabric(accelerator=_accelerator(self.device), devices=1, precision=phase.precision)  # type: ignore[arg-type]
        network.to(fabric.device)
        if phase.loss is not None and phase.epochs:
            with Progress(phase.name, phase.epochs, self.progress) as progress:
                self._learn(network, data, phase, phase.loss, fabric, progress)
        network.eval()
        if phase.finish is not None:
            with torch.no_grad():
                phase.finish(network, data)

    def _learn(
        self,
        network: Network,
        data: ImageData,
        phase: Phase[Network],
        loss: Callable[[Any, Batch], Mapping[str, Tensor]],
        fabric: Fabric,
        progress: Progress,
    ) -> None:
        steps = max(1, len(data.train) // phase.batch_size)
        optimiser_ = optimiser(network, phase)
        schedule = scheduler(phase, optimiser_, steps)
        module, prepared = fabric.setup(network, optimiser_)
        if hasattr(network, "decompose"):
            module.mark_forward_method("decompose")
        best, best_state, waited = (-1.0, -math.inf), None, 0
        self._first.clear()
        for epoch in range(1, phase.epochs + 1):
            started = time.perf_counter()
            set_modes(network)
            terms = self._epoch(module, data, phase, loss, fabric, prepared, schedule, epoch, progress)
            accuracy, validation = evaluate(module, data, "validation", fabric.device)
            self.history.append(
                Epoch(
                    phase=phase.name, epoch=epoch, terms=terms, accuracy=accuracy, loss=validation,
                    seconds=time.perf_counter() - started,
                )
            )  # fmt: skip
            for logger in self.loggers:
                logger.log(self.history[-1])
            if (accuracy, -validation) > best:
                best, waited = (accuracy, -validation), 0
                best_state = _copy(network) if phase.keep_best else None
            else:
                waited += 1
            if phase.patience is not None and waited >= phase.patience:
                break
        if best_state is not None:
            network.load_state_dict(best_state)

    def _epoch(
        self,
        module: nn.Module,
        data: ImageData,
        phase: Phase[Any],
        loss: Callable[[Any, Batch], Mapping[str, Tensor]],
        fabric: Fabric,
        optimiser: Optimizer,
        schedule: LRScheduler | None,
        epoch: int,
        progress: Progress,
    ) -> dict[str, float]:
        """One pass over the training split; the mean of each term."""
        self._epochs += 1
        totals: dict[str, float] = {}
        batches = self._order(len(data.train), phase.batch_size)
        for index, ids in enumerate(batches):
            batch = data.train.batch(ids)
            if data.augment is not None:
                batch = data.augment(batch, self.seed, self._epochs)
            terms = loss(module, batch.to(fabric.device))
            values = self._checked(terms, phase.name, epoch)
            optimiser.zero_grad()
            fabric.backward(torch.stack(list(terms.values())).sum())
            if phase.clip is not None:
                fabric.clip_gradients(module, optimiser, max_norm=phase.clip)
            optimiser.step()
            if schedule is not None and (phase.per == "step" or index == len(batches) - 1):
                schedule.step()
            for name, value in values.items():
                totals[name] = totals.get(name, 0.0) + value / len(batches)
            progress.advance(epoch, (index + 1) / len(batches), values)
        return totals

    def _order(self, images: int, batch_size: int) -> list[Tensor]:
        """The ids of each batch of this epoch; what does not fill a batch waits for another epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self._epochs)
        order = torch.randperm(images, generator=generator)
        full = max(1, images // batch_size)
        return list(order[: full * batch_size].split(batch_size))

    def _checked(self, terms: Mapping[str, Tensor], phase: str, epoch: int) -> dict[str, float]:
        """The terms as numbers, once they are found to be sane."""
        values = dict(
            zip(terms, torch.stack([term.detach().float() for term in terms.values()]).tolist(), strict=True)
        )
        for name, value in values.items():
            first = self._first.setdefault(name, value)
            if not math.isfinite(value):
                what = "NaN" if math.isnan(value) else "infinite"
            elif abs(value) > EXPLODED * max(1.0, abs(first)):
                what = f"{value:.3g}, from {first:.3g} at first: it exploded"
            else:
                continue
            raise TrainingError(
                f"Phase {phase!r}, epoch {epoch}: the loss term {name!r} is {what}. "
                "Lower the learning rate, clip the gradient (clip=1.0), or train in full precision."
            )
        return values


def evaluate(
    network: nn.Module, data: ImageData, split: str, device: torch.device, size: int = 256
) -> tuple[float, float]:
    """Accuracy and mean cross-entropy of `network` on a split, in eval mode, mode put back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    right, cost, count = 0, 0.0, 0
    with torch.no_grad():
        for batch in data.batches(split, size):
            logits = network(batch.images.to(device)).float()
            labels = batch.labels.to(device)
            right += int((logits.argmax(1) == labels).sum())
            cost += F.cross_entropy(logits, labels, reduction="sum").item()
            count += len(labels)
    for module, training in modes:
        module.training = training
    return right / max(count, 1), cost / max(count, 1)


def _accelerator(device: str) -> str:
    return device if device in ("cpu", "cuda", "mps") else "auto"


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
