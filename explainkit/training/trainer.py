"""The engine: runs phases on Lightning Fabric, and stops in words when a loss goes astray."""

import gc
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic

import torch
from attrs import define, evolve, field, frozen
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from explainkit.data.types import ImageDataset
from explainkit.errors import InputError, TrainingError
from explainkit.protocols import Logger
from explainkit.training.checkpoints import Checkpoint, Checkpoints, Position, RunState
from explainkit.training.distributed import BufferAverage, launch_fabric
from explainkit.training.evaluation import evaluate, val_metrics
from explainkit.training.fingerprint import fingerprint
from explainkit.training.loggers import Progress
from explainkit.training.optimizer_state import remember
from explainkit.training.phases import (
    Epoch,
    Loss,
    Network,
    Phase,
    Repeat,
    augmentation,
    optimizer,
    scheduler,
    set_modes,
)
from explainkit.training.steps import LossModule, Step

logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)  # it greets every run

LEARNING, FINISHING, DONE = range(3)
"""Stages of a phase, as checkpoints know them."""

CORE_METRICS = ("accuracy", "loss")
"""What an `Epoch` has fields for."""

EXPLODED = 1e4
"""A term this many times its first value (or 1, if that is larger) has exploded."""


@frozen(eq=False, kw_only=True)
class PhaseRun(Generic[Network]):
    """One phase under way: what its epochs need."""

    phase: Phase[Network]
    network: Network
    module: nn.Module  # network and loss in one, wrapped for precision and processes
    buffers: BufferAverage
    optimizer: Optimizer
    lr_scheduler: LRScheduler | None
    fabric: Fabric
    dataset: ImageDataset
    progress: Progress


@define(eq=False, kw_only=True)
class Trainer:
    """Runs a plan of phases on a network, in place.

    Under ``torchrun`` the images of each batch are shared among the processes. Batch norms normalize by the
    images of their own process; their running statistics are the mean over processes after every step.

    Parameters
    ----------
    seed : int
        Of the order of images and of their augmentation, together with epoch and image id.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` …
    loggers : sequence of Logger
        They record every epoch; when a run is resumed, those before too.
    progress : bool or None
        A bar in the terminal; ``None``: where there is one.
    checkpoints : path or None
        Folder for checkpoints: after every epoch, before and after every `on_end`.
    checkpoint_every_n_steps : int or None
        Also within epochs, after so many steps.
    resume : bool
        Go on from the checkpoint in that folder, or begin where there is none. The end is that of the
        uninterrupted run, bit for bit on the CPU.
    settings : mapping
        What else decides the course of the run, such as how the network is made: a run goes on with the same
        alone.
    """

    seed: int = 0
    device: str = "auto"
    loggers: Sequence[Logger] = ()
    progress: bool | None = None
    checkpoints: str | Path | None = None
    checkpoint_every_n_steps: int | None = None
    resume: bool = False
    settings: Mapping[str, Any] = field(factory=dict)
    state: RunState = field(factory=RunState, init=False)
    _store: Checkpoints | None = field(default=None, init=False)
    _resumed: Checkpoint | None = field(default=None, init=False)
    _fabrics: dict[str, Fabric] = field(factory=dict, init=False)

    @property
    def history(self) -> list[Epoch]:
        """What each epoch cost and gave."""
        return self.state.history

    def run(
        self, network: Network, dataset: ImageDataset, plan: Sequence[Phase[Network] | Repeat[Network]]
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
            self._begin(network, dataset, plan)
            start = self.state.position
            for index, item in enumerate(plan):
                if index < start.item:
                    continue
                repeat = item if isinstance(item, Repeat) else Repeat([item], 1)
                for round_index in range(repeat.max_rounds):
                    if (index, round_index) < (start.item, start.round):
                        continue
                    for number, phase in enumerate(repeat.phases):
                        position = Position(item=index, round=round_index, phase=number)
                        self._run_phase(network, dataset, phase, position, repeat.keep_optimizers)
                    if repeat.stop_when is not None and repeat.stop_when(network, dataset, self.history):
                        break
                self.state.kept_optimizers.clear()
            self._fabric("32-true").barrier()
            return self.history
        finally:
            network.requires_grad_(True)
            network.eval()
            for logger in self._active_loggers():
                logger.close()
            self._release_fabrics()

    def _begin(
        self, network: Network, dataset: ImageDataset, plan: Sequence[Phase[Network] | Repeat[Network]]
    ) -> None:
        """Find the device, and go back to the checkpoint where there is one."""
        fabric = self._fabric("32-true")
        network.to(fabric.device)
        if self.checkpoints is None:
            return
        run = fingerprint(dataset, plan, self.seed, fabric.device, fabric.world_size, self.settings)
        store = self._store = Checkpoints(folder=Path(self.checkpoints), run=run)
        if not store.path.exists():
            if fabric.is_global_zero:
                store.check_writable()
            return
        if not self.resume:
            raise InputError(
                f"Expected a folder without a checkpoint; {str(store.folder)!r} has one. Go on from it with "
                "resume=True, or remove it."
            )
        self._resumed = store.load()
        self._resumed.restore_network(network)
        self.state = self._resumed.state
        for logger in self._active_loggers():
            for epoch in self.history:
                logger.log(epoch)

    def _run_phase(
        self,
        network: Network,
        dataset: ImageDataset,
        phase: Phase[Network],
        position: Position,
        keep_optimizer: bool,
    ) -> None:
        checkpoint = self._resumed
        if checkpoint is not None and position.phase_index < checkpoint.state.position.phase_index:
            return
        self._resumed = None
        if checkpoint is None:
            self.state.position = position
        stage = self.state.position.stage
        if stage == LEARNING and phase.loss is not None and phase.epochs:
            fabric = self._fabric(phase.precision)
            is_shown = self.progress if fabric.is_global_zero else False
            with Progress(phase.name, phase.epochs, is_shown) as progress:
                prepared = self._learn(network, dataset, phase, phase.loss, fabric, progress, checkpoint)
            if keep_optimizer:
                self.state.kept_optimizers[position.phase] = prepared.state_dict()["state"]
        network.eval()
        if stage < DONE and phase.on_end is not None:
            if stage < FINISHING:
                self._save(network, evolve(position, stage=FINISHING))
            with torch.no_grad():
                phase.on_end(network, dataset)
        if stage < DONE:
            self._save(network, evolve(position, stage=DONE))

    def _learn(
        self,
        network: Network,
        dataset: ImageDataset,
        phase: Phase[Network],
        loss: Loss[Network],
        fabric: Fabric,
        progress: Progress,
        checkpoint: Checkpoint | None,
    ) -> Optimizer:
        if phase.batch_size % fabric.world_size or len(dataset.train) < fabric.world_size:
            raise InputError(
                f"Expected batches that {fabric.world_size} processes can share; got batch_size "
                f"{phase.batch_size} and {len(dataset.train)} training images."
            )
        prepared = optimizer(network, phase)
        if self.state.position.phase in self.state.kept_optimizers:
            remember(prepared, self.state.kept_optimizers[self.state.position.phase], phase.name)
        schedule = scheduler(phase, prepared, _steps(dataset, phase))
        module, wrapped = fabric.setup(LossModule(network, loss), prepared)
        if checkpoint is not None and "optimizer" in checkpoint.facts:
            checkpoint.restore_optimizer(prepared, schedule, phase)
        elif checkpoint is None:
            self.state = RunState(
                position=self.state.position, epochs=self.state.epochs, history=self.history,
                kept_optimizers=self.state.kept_optimizers,
            )  # fmt: skip
        phase_run = PhaseRun(
            phase=phase, network=network, module=module, buffers=BufferAverage(network), optimizer=wrapped,
            lr_scheduler=schedule, fabric=fabric, dataset=dataset, progress=progress,
        )  # fmt: skip
        state = self.state
        while state.position.epoch < phase.epochs and not _is_out_of_patience(state, phase):
            self._epoch(phase_run)
            if state.position.epoch < phase.epochs and not _is_out_of_patience(state, phase):
                self._save(network, state.position, prepared, schedule)
        if state.best_state is not None:
            network.load_state_dict(state.best_state)
            state.best_state = None
        return prepared

    def _epoch(self, phase_run: PhaseRun[Any]) -> None:
        """One pass over the training split, and its validation."""
        state, phase = self.state, phase_run.phase
        started = time.perf_counter()
        set_modes(phase_run.network)
        batches = self._order(len(phase_run.dataset.train), phase.batch_size)
        for index in range(state.position.step, len(batches)):
            values = self._step(phase_run, batches[index], index, len(batches))
            if phase_run.lr_scheduler is not None and (
                phase.lr_scheduler_interval == "step" or index == len(batches) - 1
            ):
                phase_run.lr_scheduler.step()
            for name, value in values.items():
                state.loss_sums[name] = state.loss_sums.get(name, 0.0) + value / len(batches)
            state.position = evolve(state.position, step=index + 1)
            phase_run.progress.advance(state.position.epoch + 1, (index + 1) / len(batches), values)
            if (
                self.checkpoint_every_n_steps is not None
                and (index + 1) % self.checkpoint_every_n_steps == 0
                and index + 1 < len(batches)
            ):
                self._save(phase_run.network, state.position, phase_run.optimizer, phase_run.lr_scheduler)
        with phase_run.fabric.autocast():
            validation = evaluate(phase_run.network, phase_run.dataset, "validation", phase_run.fabric.device)
        metrics = {name: value for name, value in validation.facts().items() if name not in CORE_METRICS}
        state.position = evolve(state.position, epoch=state.position.epoch + 1, step=0)
        state.epochs += 1
        epoch = Epoch(
            phase=phase.name,
            epoch=state.position.epoch,
            train_losses=state.loss_sums,
            val_accuracy=validation.accuracy,
            val_loss=validation.loss,
            seconds=time.perf_counter() - started,
            val_metrics={**metrics, **val_metrics(phase, phase_run.network, phase_run.dataset)},
        )
        state.history.append(epoch)
        state.loss_sums = {}
        for logger in self._active_loggers():
            logger.log(epoch)
        state.epochs_since_best += 1
        quality = (validation.selection, -validation.loss)
        if quality > state.best or not len(phase_run.dataset.validation):
            state.best, state.epochs_since_best = quality, 0
            state.best_state = _copy_state(phase_run.network) if phase.restore_best else None

    def _step(self, phase_run: PhaseRun[Any], ids: Tensor, index: int, steps: int) -> dict[str, float]:
        """One step of the optimizer on this process's share of `ids`; each term's mean over all of them."""
        fabric, phase = phase_run.fabric, phase_run.phase
        done = self.state.position.epoch * steps + index
        step = Step(
            batch_size=len(ids), epoch=self.state.position.epoch + 1, epochs=phase.epochs, index=done,
            progress=done / (phase.epochs * steps), rank=fabric.global_rank, processes=fabric.world_size,
        )  # fmt: skip
        batch = phase_run.dataset.train.batch(step.local(ids))
        augment = augmentation(phase, phase_run.dataset)
        if augment is not None:
            batch = augment(batch, self.seed, self.state.epochs + 1)
        batch = batch.to(fabric.device)
        batch = evolve(batch, images=fabric.strategy.precision.convert_input(batch.images))
        terms = phase_run.module(batch, step)
        losses = torch.stack(list(terms.values()))
        means: Any = fabric.all_reduce(losses.detach().double(), reduce_op="mean")
        values = dict(zip(terms, means.tolist(), strict=True))
        self._check(values, phase.name)
        phase_run.optimizer.zero_grad()
        fabric.backward(losses.sum())
        if phase.grad_clip_norm is not None:
            fabric.clip_gradients(phase_run.module, phase_run.optimizer, max_norm=phase.grad_clip_norm)
        phase_run.optimizer.step()
        if phase.on_step_end is not None:
            with torch.no_grad():
                phase.on_step_end(phase_run.network, step)
        phase_run.buffers.update()
        return values

    def _check(self, values: Mapping[str, float], phase: str) -> None:
        """Refuse terms that are not sane."""
        for name, value in values.items():
            first = self.state.initial_losses.setdefault(name, value)
            if not math.isfinite(value):
                what = "NaN" if math.isnan(value) else "infinite"
            elif abs(value) > EXPLODED * max(1.0, abs(first)):
                what = f"{value:.3g}, from {first:.3g} at first: it exploded"
            else:
                continue
            raise TrainingError(
                f"Phase {phase!r}, epoch {self.state.position.epoch + 1}: the loss term {name!r} is {what}. "
                "Lower the learning rate, clip the gradient (grad_clip_norm=1.0), or train in full precision."
            )

    def _save(
        self,
        network: nn.Module,
        position: Position | None = None,
        optimizer: Optimizer | None = None,
        schedule: LRScheduler | None = None,
    ) -> None:
        """A checkpoint, by the first process."""
        self.state.position = position or self.state.position
        if self._store is not None and self._fabric("32-true").is_global_zero:
            unwrapped = getattr(optimizer, "optimizer", optimizer)
            self._store.save(self.state, network, unwrapped, schedule)

    def _release_fabrics(self) -> None:
        """Let go of what wraps networks: it must be gone before the group of processes ends."""
        is_distributed = self._fabric("32-true").world_size > 1
        self._fabrics.clear()
        if is_distributed:
            gc.collect()

    def _active_loggers(self) -> Sequence[Logger]:
        return self.loggers if self._fabric("32-true").is_global_zero else ()

    def _fabric(self, precision: str) -> Fabric:
        if precision not in self._fabrics:
            self._fabrics[precision] = launch_fabric(self.device, precision)
        return self._fabrics[precision]

    def _order(self, images: int, batch_size: int) -> list[Tensor]:
        """The ids of each batch of this epoch; what does not fill a batch waits for another epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.state.epochs + 1)
        order = torch.randperm(images, generator=generator)
        full = max(1, images // batch_size)
        return list(order[: full * batch_size].split(batch_size))


def _steps(dataset: ImageDataset, phase: Phase[Any]) -> int:
    """Steps of an epoch."""
    return max(1, len(dataset.train) // phase.batch_size)


def _is_out_of_patience(state: RunState, phase: Phase[Any]) -> bool:
    return phase.patience is not None and state.epochs_since_best >= phase.patience


def _copy_state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
