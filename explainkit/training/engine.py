"""The engine: runs phases on Lightning Fabric, and stops in words when a loss goes astray."""

import gc
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic

import torch
from attrs import define, evolve, field, frozen
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from explainkit.data.images import Batch, ImageData
from explainkit.errors import InputError, TrainingError
from explainkit.training.checkpoints import Checkpoint, Checkpoints, Place, RunState, fingerprint
from explainkit.training.logs import Logger, Progress
from explainkit.training.phases import Epoch, Network, Phase, Repeat, optimiser, scheduler, set_modes
from explainkit.training.processes import accelerator

logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)  # it greets every run

LEARNING, FINISHING, DONE = range(3)
"""Stages of a phase, as checkpoints know them."""

EXPLODED = 1e4
"""A term this many times its first value (or 1, if that is larger) has exploded."""


@frozen(eq=False, kw_only=True)
class Course(Generic[Network]):
    """One phase under way: what its epochs need."""

    phase: Phase[Network]
    loss: Callable[[Any, Batch], Mapping[str, Tensor]]
    network: Network
    module: nn.Module
    optimiser: Optimizer
    schedule: LRScheduler | None
    fabric: Fabric
    data: ImageData
    progress: Progress


@define(eq=False, kw_only=True)
class Trainer:
    """Runs a plan of phases on a network, in place.

    Under ``torchrun`` the images of each batch are shared among the processes; statistics of batch norm are
    each process's own while it learns, and the first one's afterwards.

    Parameters
    ----------
    seed : int
        Of the order of images and of their augmentation, together with epoch and image id.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` …
    loggers : sequence of Logger
        Told of every epoch; when a run is resumed, of those before too.
    progress : bool or None
        A bar in the terminal; ``None``: where there is one.
    checkpoints : path or None
        Folder for checkpoints: after every epoch, before and after every finish.
    every : int or None
        Also within epochs, after so many steps.
    resume : bool
        Go on from the checkpoint in that folder, or begin where there is none. The end is that of the
        uninterrupted run, bit for bit on the CPU.
    """

    seed: int = 0
    device: str = "auto"
    loggers: Sequence[Logger] = ()
    progress: bool | None = None
    checkpoints: str | Path | None = None
    every: int | None = None
    resume: bool = False
    state: RunState = field(factory=RunState, init=False)
    _store: Checkpoints | None = field(default=None, init=False)
    _resumed: Checkpoint | None = field(default=None, init=False)
    _fabrics: dict[str, Fabric] = field(factory=dict, init=False)

    @property
    def history(self) -> list[Epoch]:
        """What each epoch cost and gave."""
        return self.state.history

    def run(
        self, network: Network, data: ImageData, plan: Sequence[Phase[Network] | Repeat[Network]]
    ) -> list[Epoch]:
        """Run `plan` in order and return what each epoch cost; the network ends in eval mode, all trainable.

        Raises
        ------
        TrainingError
            For a loss that is NaN, infinite or exploded, with phase, epoch and term.
        InputError
            For a checkpoint of another run, and for a folder that cannot be written.
        """
        try:
            self._begin(network, data, plan)
            start = self.state.place
            for index, item in enumerate(plan):
                if index < start.item:
                    continue
                repeat = item if isinstance(item, Repeat) else Repeat([item], 1)
                for turn in range(repeat.times):
                    if (index, turn) < (start.item, start.turn):
                        continue
                    for number, phase in enumerate(repeat.phases):
                        self._run_phase(network, data, phase, Place(item=index, turn=turn, phase=number))
                    if repeat.until is not None and repeat.until(network, data, self.history):
                        break
            self._fabric("32-true").barrier()
            return self.history
        finally:
            network.requires_grad_(True)
            network.eval()
            for logger in self._told():
                logger.close()
            self._leave()

    def _begin(
        self, network: Network, data: ImageData, plan: Sequence[Phase[Network] | Repeat[Network]]
    ) -> None:
        """Find the device, and go back to the checkpoint where there is one."""
        fabric = self._fabric("32-true")
        network.to(fabric.device)
        if self.checkpoints is None:
            return
        run = fingerprint(data, plan, self.seed, fabric.device, fabric.world_size)
        store = self._store = Checkpoints(folder=Path(self.checkpoints), every=self.every, run=run)
        if not store.path.exists():
            self._save(network)
            return
        if not self.resume:
            raise InputError(
                f"Expected a folder without a checkpoint; {str(store.folder)!r} has one. Go on from it with "
                "resume=True, or remove it."
            )
        self._resumed = store.load()
        self._resumed.restore_network(network)
        self.state = self._resumed.state
        for logger in self._told():
            for epoch in self.history:
                logger.log(epoch)

    def _run_phase(self, network: Network, data: ImageData, phase: Phase[Network], here: Place) -> None:
        checkpoint = self._resumed
        if checkpoint is not None and here.of_phase < checkpoint.state.place.of_phase:
            return
        self._resumed = None
        if checkpoint is None:
            self.state.place = here
        stage = self.state.place.stage
        if stage == LEARNING and phase.loss is not None and phase.epochs:
            fabric = self._fabric(phase.precision)
            shown = self.progress if fabric.is_global_zero else False
            with Progress(phase.name, phase.epochs, shown) as progress:
                self._learn(network, data, phase, phase.loss, fabric, progress, checkpoint)
        network.eval()
        if stage < DONE and phase.finish is not None:
            if stage < FINISHING:
                self._save(network, evolve(here, stage=FINISHING))
            with torch.no_grad():
                phase.finish(network, data)
        if stage < DONE:
            self._save(network, evolve(here, stage=DONE))

    def _learn(
        self,
        network: Network,
        data: ImageData,
        phase: Phase[Network],
        loss: Callable[[Any, Batch], Mapping[str, Tensor]],
        fabric: Fabric,
        progress: Progress,
        checkpoint: Checkpoint | None,
    ) -> None:
        if phase.batch_size % fabric.world_size:
            raise InputError(
                f"Expected a batch size that {fabric.world_size} processes can share; got {phase.batch_size}."
            )
        prepared = optimiser(network, phase)
        schedule = scheduler(phase, prepared, _steps(data, phase))
        module, wrapped = fabric.setup(network, prepared)
        if hasattr(network, "decompose"):
            module.mark_forward_method("decompose")
        if checkpoint is not None and "optimiser" in checkpoint.facts:
            checkpoint.restore_optimiser(prepared, schedule, phase, _steps(data, phase))
        elif checkpoint is None:
            self.state = RunState(place=self.state.place, epochs=self.state.epochs, history=self.history)
        course = Course(
            phase=phase, loss=loss, network=network, module=module, optimiser=wrapped, schedule=schedule,
            fabric=fabric, data=data, progress=progress,
        )  # fmt: skip
        state = self.state
        while state.place.epoch < phase.epochs and not _waited_enough(state, phase):
            self._epoch(course)
            if state.place.epoch < phase.epochs and not _waited_enough(state, phase):
                self._save(network, state.place, prepared, schedule)
        if state.best_state is not None:
            network.load_state_dict(state.best_state)
            state.best_state = None

    def _epoch(self, course: Course[Any]) -> None:
        """One pass over the training split, and its validation."""
        state, phase = self.state, course.phase
        started = time.perf_counter()
        set_modes(course.network)
        batches = self._order(len(course.data.train), phase.batch_size)
        for index in range(state.place.step, len(batches)):
            values = self._step(course, batches[index])
            if course.schedule is not None and (phase.per == "step" or index == len(batches) - 1):
                course.schedule.step()
            for name, value in values.items():
                state.totals[name] = state.totals.get(name, 0.0) + value / len(batches)
            state.place = evolve(state.place, step=index + 1)
            course.progress.advance(state.place.epoch + 1, (index + 1) / len(batches), values)
            if self.every is not None and (index + 1) % self.every == 0 and index + 1 < len(batches):
                self._save(course.network, state.place, course.optimiser, course.schedule)
        _share_buffers(course.network, course.fabric)
        accuracy, validation = evaluate(course.module, course.data, "validation", course.fabric.device)
        state.place = evolve(state.place, epoch=state.place.epoch + 1, step=0)
        state.epochs += 1
        epoch = Epoch(
            phase=phase.name, epoch=state.place.epoch, terms=state.totals, accuracy=accuracy, loss=validation,
            seconds=time.perf_counter() - started, measures=_measured(course),
        )  # fmt: skip
        state.history.append(epoch)
        state.totals = {}
        for logger in self._told():
            logger.log(epoch)
        state.waited += 1
        if (accuracy, -validation) > state.best or not len(course.data.validation):
            state.best, state.waited = (accuracy, -validation), 0
            state.best_state = _copy(course.network) if phase.keep_best else None

    def _step(self, course: Course[Any], ids: Tensor) -> dict[str, float]:
        """One step of the optimiser on this process's share of `ids`; each term's mean over all of them."""
        fabric, data = course.fabric, course.data
        batch = data.train.batch(ids[fabric.global_rank :: fabric.world_size])
        if data.augment is not None:
            batch = data.augment(batch, self.seed, self.state.epochs + 1)
        terms = course.loss(course.module, batch.to(fabric.device))
        told: Any = fabric.all_reduce(
            torch.stack([term.detach().double() for term in terms.values()]), reduce_op="mean"
        )
        values = dict(zip(terms, told.tolist(), strict=True))
        self._check(values, course.phase.name)
        course.optimiser.zero_grad()
        fabric.backward(torch.stack(list(terms.values())).sum())
        if course.phase.clip is not None:
            fabric.clip_gradients(course.module, course.optimiser, max_norm=course.phase.clip)
        course.optimiser.step()
        return values

    def _check(self, values: Mapping[str, float], phase: str) -> None:
        """Refuse terms that are not sane."""
        for name, value in values.items():
            first = self.state.first.setdefault(name, value)
            if not math.isfinite(value):
                what = "NaN" if math.isnan(value) else "infinite"
            elif abs(value) > EXPLODED * max(1.0, abs(first)):
                what = f"{value:.3g}, from {first:.3g} at first: it exploded"
            else:
                continue
            raise TrainingError(
                f"Phase {phase!r}, epoch {self.state.place.epoch + 1}: the loss term {name!r} is {what}. "
                "Lower the learning rate, clip the gradient (clip=1.0), or train in full precision."
            )

    def _save(
        self,
        network: nn.Module,
        place: Place | None = None,
        optimiser: Optimizer | None = None,
        schedule: LRScheduler | None = None,
    ) -> None:
        """A checkpoint, by the first process."""
        self.state.place = place or self.state.place
        if self._store is not None and self._fabric("32-true").is_global_zero:
            plain = getattr(optimiser, "optimizer", optimiser)
            self._store.save(self.state, network, plain, schedule)

    def _leave(self) -> None:
        """End the group of processes; its wrappers must be gone before it."""
        shared = self._fabric("32-true").world_size > 1
        self._fabrics.clear()
        if shared:
            gc.collect()
            torch.distributed.destroy_process_group()

    def _told(self) -> Sequence[Logger]:
        return self.loggers if self._fabric("32-true").is_global_zero else ()

    def _fabric(self, precision: str) -> Fabric:
        if precision not in self._fabrics:
            kind, index = accelerator(self.device)
            processes = int(os.environ.get("WORLD_SIZE", "1"))
            fabric = Fabric(
                accelerator=kind,
                devices=[index] if index is not None else int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
                num_nodes=processes // int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
                strategy=DDPStrategy(find_unused_parameters=True) if processes > 1 else "auto",
                precision=precision,  # type: ignore[arg-type]
            )
            fabric.launch()
            self._fabrics[precision] = fabric
        return self._fabrics[precision]

    def _order(self, images: int, batch_size: int) -> list[Tensor]:
        """The ids of each batch of this epoch; what does not fill a batch waits for another epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.state.epochs + 1)
        order = torch.randperm(images, generator=generator)
        full = max(1, images // batch_size)
        return list(order[: full * batch_size].split(batch_size))


def evaluate(
    network: nn.Module, data: ImageData, split: str, device: torch.device, size: int = 256
) -> tuple[float, float]:
    """Accuracy and mean cross-entropy of `network` on a split, in eval mode, mode put back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    right, cost, count = 0, 0.0, 0
    with torch.no_grad():
        for batch in data.batches(split, size):
            logits = network(batch.images.to(device, dtype)).float()
            labels = batch.labels.to(device)
            right += int((logits.argmax(1) == labels).sum())
            cost += F.cross_entropy(logits, labels, reduction="sum").item()
            count += len(labels)
    for module, training in modes:
        module.training = training
    return right / max(count, 1), cost / max(count, 1)


def _measured(course: Course[Any]) -> dict[str, float]:
    """What the phase measures; chance goes on as if it had not."""
    if course.phase.measure is None:
        return {}
    modes = [(module, module.training) for module in course.network.modules()]
    course.network.eval()
    with torch.no_grad(), torch.random.fork_rng():
        told = {
            name: float(value) for name, value in course.phase.measure(course.network, course.data).items()
        }
    for module, training in modes:
        module.training = training
    return told


def _steps(data: ImageData, phase: Phase[Any]) -> int:
    """Steps of an epoch."""
    return max(1, len(data.train) // phase.batch_size)


def _waited_enough(state: RunState, phase: Phase[Any]) -> bool:
    return phase.patience is not None and state.waited >= phase.patience


def _share_buffers(network: nn.Module, fabric: Fabric) -> None:
    """The first process's buffers for all, so that all see the same validation."""
    if fabric.world_size > 1:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, 0)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
