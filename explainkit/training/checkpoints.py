"""Checkpoints: all that the rest of a training run depends on, in one file that is whole or not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, astuple, define, field, frozen
from cattrs import Converter
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from explainkit.data.types import ImageDataset
from explainkit.errors import InputError, TrainingError
from explainkit.explanations.serialization import (
    SCHEMA,
    as_format_error,
    check_schema,
    in_brief,
    pack,
    read,
    unpack,
    write,
)
from explainkit.networks.memory import MemoryLimit
from explainkit.training.optimizer_state import as_json, has_same_form, join_state, split_state
from explainkit.training.phases import Epoch, Phase, Repeat

FILE = "checkpoint.safetensors"

COUNTERS = ("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step")
"""What of torch's schedules changes as they go on."""

_PLAIN = Converter(detailed_validation=False)


@frozen(kw_only=True, order=True)
class Position:
    """Where a run is: item of the plan, round of a repeat, phase of the item, and how far in it.

    Attributes
    ----------
    epoch, step : int
        Epochs of the phase that are whole, and steps of the next one that are done.
    stage : int
        0 while it learns, 1 before its `on_end`, 2 when it is done.
    """

    item: int = 0
    round: int = 0
    phase: int = 0
    stage: int = 0
    epoch: int = 0
    step: int = 0

    @property
    def phase_index(self) -> tuple[int, int, int]:
        """Which phase of the plan."""
        return self.item, self.round, self.phase


@define(eq=False, kw_only=True)
class RunState:
    """What a checkpoint holds beside the network and its optimizer.

    Attributes
    ----------
    epochs : int
        Epochs since the run began, over all phases.
    initial_losses : mapping of str to float
        Each loss term's first value in this phase.
    loss_sums : mapping of str to float
        Sums of the terms over the steps of an unfinished epoch.
    best : (float, float)
        Accuracy and -loss of the phase's best epoch; `epochs_since_best` epochs ago.
    best_state : mapping of str to Tensor or None
        The network's state then, where the phase keeps it.
    """

    position: Position = field(factory=Position)
    epochs: int = 0
    history: list[Epoch] = field(factory=list)
    initial_losses: dict[str, float] = field(factory=dict)
    loss_sums: dict[str, float] = field(factory=dict)
    best: tuple[float, float] = (-1.0, -1e300)
    epochs_since_best: int = 0
    best_state: dict[str, Tensor] | None = None


@define(eq=False, kw_only=True)
class Checkpoints:
    """A folder with one checkpoint, replaced as the run goes on.

    Parameters
    ----------
    folder : Path
    run : mapping
        What must be the same for a run to go on: see `fingerprint`.
    """

    folder: Path
    run: Mapping[str, Any] = field(factory=dict)

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / FILE

    def save(
        self, state: RunState, network: nn.Module, optimizer: Optimizer | None = None, schedule: Any = None
    ) -> None:
        """Replace the checkpoint by this moment of the run.

        Raises
        ------
        InputError
            Where the folder cannot be written or the disk is full; the last checkpoint is then still there.
        """
        tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in (state.best_state or {}).items()}
        tensors |= _random_states()
        facts: dict[str, Any] = {
            "schema": f"explainkit.checkpoint/{SCHEMA}",
            "run": self.run,
            "state": asdict(state, filter=lambda item, _: item.name != "best_state"),
            "has_best_state": state.best_state is not None,
        }
        if optimizer is not None:
            facts["optimizer"], optimizer_tensors = split_state(optimizer)
            tensors |= {f"optimizer.{name}": value for name, value in optimizer_tensors.items()}
        if schedule is not None:
            facts["schedule"] = schedule.state_dict()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            content = pack(tensors, facts)
        except OSError as error:
            raise InputError(
                f"Expected a folder for checkpoints that can be written; got {str(self.folder)!r}: "
                f"{error.strerror}."
            ) from None
        except TypeError as error:
            raise TrainingError(
                f"Expected an optimizer and a schedule whose state is numbers and tensors: {error}. "
                "Train without checkpoints, or use another schedule."
            ) from None
        except ValueError:
            raise TrainingError(
                "Expected finite numbers in a checkpoint; the loss on the validation split, or what a phase "
                "measures, is not. "
                "Lower the learning rate, clip the gradient (grad_clip_norm=1.0), or train in full precision."
            ) from None
        write(self.path, content)

    def load(self) -> Checkpoint:
        """What `save` wrote last.

        Raises
        ------
        InputError
            Where there is no checkpoint, or it is of another run: other data, plan, seed, threads or device.
        FormatError
            Where it is damaged, or of another schema version.
        """
        content = read(self.path)
        tensors, facts = unpack(content, self.path)
        check_schema(facts, "explainkit.checkpoint", self.path)
        with as_format_error(f"{str(self.path)!r} lacks what a checkpoint has"):
            saved_run = dict(facts["run"])
            state = _PLAIN.structure(facts["state"], RunState)
            if not all(
                0 <= count < 2**31
                for count in (*astuple(state.position), state.epochs, state.epochs_since_best)
            ):
                raise ValueError(
                    f"{state.position}, {state.epochs} epochs, {state.epochs_since_best} since the best"
                )
            state.best_state = _with_prefix("best.", tensors) if facts["has_best_state"] else None
        _check_same_run(saved_run, self.run, self.path)
        return Checkpoint(path=self.path, size=len(content), state=state, tensors=tensors, facts=facts)


@frozen(eq=False, kw_only=True)
class Checkpoint:
    """A moment of a run, to be put back piece by piece as the engine comes to need it.

    Attributes
    ----------
    path, size
        The file it was read from, and its bytes.
    """

    path: Path
    size: int
    state: RunState
    tensors: Mapping[str, Tensor] = field(repr=False)
    facts: Mapping[str, Any] = field(repr=False)

    def restore_network(self, network: nn.Module) -> None:
        """The network's parameters and buffers, in the layout that it has; and the random states.

        Raises
        ------
        FormatError
            For those of another network.
        """
        with as_format_error(f"{str(self.path)!r} does not fit the network"), MemoryLimit(self.size):
            if self.state.best_state is not None:  # to be seen now that it fits, not at the end of the phase
                network.load_state_dict(self.state.best_state)
            network.load_state_dict(_with_prefix("network.", self.tensors))
            torch.set_rng_state(self.tensors["random.cpu"])
            if "random.cuda" in self.tensors and torch.cuda.is_available():
                torch.cuda.set_rng_state(self.tensors["random.cuda"])

    def restore_optimizer(
        self, optimizer: Optimizer, schedule: LRScheduler | None, phase: Phase[Any], steps: int
    ) -> None:
        """The optimizer's state, each tensor laid out as its parameter is, so that sums round alike.

        Parameters
        ----------
        steps : int
            Of an epoch.

        Raises
        ------
        FormatError
            For what another optimizer or schedule remembers, or one at another step.
        """
        with as_format_error(f"{str(self.path)!r} does not fit the optimizer of phase {phase.name!r}"):
            tensors = _with_prefix("optimizer.", self.tensors)
            optimizer.load_state_dict(join_state(self.facts["optimizer"], tensors, optimizer))
            if schedule is not None:
                schedule.load_state_dict(self._schedule_state(schedule, phase, steps))

    def _schedule_state(self, schedule: LRScheduler, phase: Phase[Any], steps: int) -> dict[str, Any]:
        saved, own, position = self.facts["schedule"], as_json(schedule.state_dict()), self.state.position
        done = position.epoch
        if phase.lr_scheduler_interval == "step":
            done = position.epoch * steps + position.step
        if position.step >= steps or saved.get("last_epoch", done) != done:
            raise ValueError(f"a schedule at step {saved.get('last_epoch')}, not {done}")
        fixed = {name: value for name, value in own.items() if name not in COUNTERS}
        if isinstance(phase.lr_scheduler, str) and fixed != {name: saved[name] for name in fixed}:
            raise ValueError("another schedule")
        if not has_same_form(saved, own):
            raise ValueError("another kind of schedule")
        return saved


def fingerprint(
    dataset: ImageDataset,
    plan: Sequence[Phase[Any] | Repeat[Any]],
    seed: int,
    device: torch.device,
    processes: int,
) -> dict[str, Any]:
    """What decides the course of a run: equal fingerprints, equal runs."""
    return {
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "size": list(dataset.size),
        "images": {
            name: len(split) for name, split in dataset.splits.items() if name in ("train", "validation")
        },
        "labels": int(dataset.train.labels.long().cumsum(0).sum()),
        "augmented": dataset.augment is not None,
        "plan": [_phase_settings(item) for item in plan],
        "seed": seed,
        "device": device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else 0,
        "processes": processes,
        "torch": torch.__version__,
    }


def _phase_settings(item: Phase[Any] | Repeat[Any]) -> list[Any]:
    if isinstance(item, Repeat):
        return ["repeat", item.max_rounds, *(_phase_settings(phase) for phase in item.phases)]
    decay = item.weight_decay if isinstance(item.weight_decay, float | int) else dict(item.weight_decay)
    schedule = item.lr_scheduler if isinstance(item.lr_scheduler, str) else "own"
    return [
        item.name,
        item.epochs,
        dict(item.lr),
        decay,
        item.optimizer,
        schedule,
        item.lr_scheduler_interval,
        item.batch_size,
        item.precision,
        item.grad_clip_norm,
        item.restore_best,
        item.patience,
        {name: str(value) for name, value in item.optimizer_kwargs.items()},
    ]


def _check_same_run(saved: Mapping[str, Any], current: Mapping[str, Any], path: Path) -> None:
    for name, value in current.items():
        if as_json(saved.get(name)) != as_json(value):
            raise InputError(
                f"Expected a checkpoint of this run at {str(path)!r}; its {name} differ: "
                f"{in_brief(repr(saved.get(name)))} there, {value!r} here. Only the same run can go on."
            )


def _random_states() -> dict[str, Tensor]:
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
