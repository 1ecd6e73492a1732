"""Checkpoints: all that the rest of a training run depends on, in one file that is whole or not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, define, field, frozen
from cattrs import Converter
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from explainkit.errors import FormatError, InputError, TrainingError
from explainkit.explanations.serialization import (
    SCHEMA,
    as_format_error,
    as_json,
    check_schema,
    content_digest,
    pack,
    read,
    unpack,
    write,
)
from explainkit.training.fingerprint import check_same_run
from explainkit.training.optimizer_state import join_memory, remember, split_memory
from explainkit.training.phases import Epoch, Phase

FILE = "checkpoint.safetensors"

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
        Accuracy, or mean average precision, and -loss of the phase's best epoch, `epochs_since_best` ago.
    best_state : mapping of str to Tensor or None
        The network's state then, where the phase keeps it.
    kept_optimizers : mapping of int to mapping
        What the optimizer of each phase of a repeat remembers of each parameter, where the repeat keeps it.
    """

    position: Position = field(factory=Position)
    epochs: int = 0
    history: list[Epoch] = field(factory=list)
    initial_losses: dict[str, float] = field(factory=dict)
    loss_sums: dict[str, float] = field(factory=dict)
    best: tuple[float, float] = (-1.0, -1e300)
    epochs_since_best: int = 0
    best_state: dict[str, Tensor] | None = None
    kept_optimizers: dict[int, dict[int, dict[str, Any]]] = field(factory=dict)


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
            "state": asdict(state, filter=lambda item, _: item.name not in ("best_state", "kept_optimizers")),
            "has_best_state": state.best_state is not None,
            "kept_optimizers": {},
        }
        for phase, memory in state.kept_optimizers.items():
            facts["kept_optimizers"][str(phase)], memory_tensors = split_memory(memory)
            tensors |= {f"kept.{phase}.{name}": value for name, value in memory_tensors.items()}
        if optimizer is not None:
            whole = optimizer.state_dict()
            numbers, memory_tensors = split_memory(whole["state"])
            facts["optimizer"] = {"groups": whole["param_groups"], "state": numbers}
            tensors |= {f"optimizer.{name}": value for name, value in memory_tensors.items()}
        if schedule is not None:
            facts["schedule"] = schedule.state_dict()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            facts["digest"] = content_digest(as_json(facts), tensors)
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

    def check_writable(self) -> None:
        """Refuse, as InputError, a folder that cannot be written, before anything is learned."""
        probe = self.folder / f".{FILE}.probe"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"Expected a folder for checkpoints that can be written; got {str(self.folder)!r}: "
                f"{error.strerror}."
            ) from None

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
        if facts.pop("digest", None) != content_digest(facts, tensors):
            raise FormatError(
                f"{str(self.path)!r} is not what was saved: its SHA-256 differs from the one on record."
            )
        with as_format_error(f"{str(self.path)!r} lacks what a checkpoint has"):
            saved_run = dict(facts["run"])
            state = _PLAIN.structure(facts["state"], RunState)
            state.best_state = _with_prefix("best.", tensors) if facts["has_best_state"] else None
            state.kept_optimizers = {
                int(phase): join_memory(numbers, _with_prefix(f"kept.{phase}.", tensors))
                for phase, numbers in facts["kept_optimizers"].items()
            }
        check_same_run(saved_run, self.run, self.path)
        return Checkpoint(path=self.path, state=state, tensors=tensors, facts=facts)


@frozen(eq=False, kw_only=True)
class Checkpoint:
    """A moment of a run, to be put back piece by piece as the engine comes to need it."""

    path: Path
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
        with as_format_error(f"{str(self.path)!r} does not fit the network"):
            network.load_state_dict(_with_prefix("network.", self.tensors))
        torch.set_rng_state(self.tensors["random.cpu"])
        if "random.cuda" in self.tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.tensors["random.cuda"])

    def restore_optimizer(
        self, optimizer: Optimizer, schedule: LRScheduler | None, phase: Phase[Any]
    ) -> None:
        """What the optimizer of `phase` and its schedule remember."""
        saved = self.facts["optimizer"]
        remember(optimizer, join_memory(saved["state"], _with_prefix("optimizer.", self.tensors)), phase.name)
        for group, values in zip(optimizer.param_groups, saved["groups"], strict=True):
            group.update({name: _as_tuple(value) for name, value in values.items() if name != "params"})
        if schedule is not None:
            schedule.load_state_dict(self.facts["schedule"])


def _as_tuple(value: Any) -> Any:
    """As optimizers have it, such as betas."""
    return tuple(value) if isinstance(value, list) else value


def _random_states() -> dict[str, Tensor]:
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
