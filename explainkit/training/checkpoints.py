"""Checkpoints: all that the rest of a training run depends on, in one file that is whole or not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, astuple, define, field, frozen
from cattrs import Converter
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from explainkit.allowance import Allowance
from explainkit.data.images import ImageData
from explainkit.errors import InputError, TrainingError
from explainkit.files import SCHEMA, check_schema, in_brief, pack, read, understood, unpack, write
from explainkit.training.phases import Epoch, Phase, Repeat

FILE = "checkpoint.safetensors"

COUNTERS = ("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step")
"""What of torch's schedules changes as they go on."""

_PLAIN = Converter(detailed_validation=False)


@frozen(kw_only=True, order=True)
class Place:
    """Where a run is: item of the plan, turn of a repeat, phase of the item, and how far in it.

    Attributes
    ----------
    epoch, step : int
        Epochs of the phase that are whole, and steps of the next one that are done.
    stage : int
        0 while it learns, 1 before its finish, 2 when it is done.
    """

    item: int = 0
    turn: int = 0
    phase: int = 0
    stage: int = 0
    epoch: int = 0
    step: int = 0

    @property
    def of_phase(self) -> tuple[int, int, int]:
        """Which phase of the plan."""
        return self.item, self.turn, self.phase


@define(eq=False, kw_only=True)
class RunState:
    """What a checkpoint holds beside the network and its optimiser.

    Attributes
    ----------
    epochs : int
        Epochs since the run began, over all phases.
    first : mapping of str to float
        Each loss term's first value in this phase.
    totals : mapping of str to float
        Sums of the terms over the steps of an unfinished epoch.
    best : (float, float)
        Accuracy and -loss of the phase's best epoch; `waited` epochs ago.
    best_state : mapping of str to Tensor or None
        The network's state then, where the phase keeps it.
    """

    place: Place = field(factory=Place)
    epochs: int = 0
    history: list[Epoch] = field(factory=list)
    first: dict[str, float] = field(factory=dict)
    totals: dict[str, float] = field(factory=dict)
    best: tuple[float, float] = (-1.0, -1e300)
    waited: int = 0
    best_state: dict[str, Tensor] | None = None


@define(eq=False, kw_only=True)
class Checkpoints:
    """A folder with one checkpoint, replaced as the run goes on.

    Parameters
    ----------
    folder : Path
    every : int or None
        Also within epochs, after so many steps.
    run : mapping
        What must be the same for a run to go on: see `fingerprint`.
    """

    folder: Path
    every: int | None = None
    run: Mapping[str, Any] = field(factory=dict)

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / FILE

    def save(
        self, state: RunState, network: nn.Module, optimiser: Optimizer | None = None, schedule: Any = None
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
            "keeps_best": state.best_state is not None,
        }
        if optimiser is not None:
            facts["optimiser"], found = _of_optimiser(optimiser)
            tensors |= found
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
                f"Expected an optimiser and a schedule whose state is numbers and tensors: {error}. "
                "Train without checkpoints, or use another schedule."
            ) from None
        except ValueError:
            raise TrainingError(
                "Expected finite numbers in a checkpoint; the loss on the validation split, or what a phase "
                "measures, is not. "
                "Lower the learning rate, clip the gradient (clip=1.0), or train in full precision."
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
        with understood(f"{str(self.path)!r} lacks what a checkpoint has"):
            found = dict(facts["run"])
            state = _PLAIN.structure(facts["state"], RunState)
            if not all(0 <= count < 2**31 for count in (*astuple(state.place), state.epochs, state.waited)):
                raise ValueError(f"{state.place}, {state.epochs} epochs, waited {state.waited}")
            state.best_state = _under("best.", tensors) if facts["keeps_best"] else None
        _same_run(found, self.run, self.path)
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
        with understood(f"{str(self.path)!r} does not fit the network"), Allowance(self.size):
            if self.state.best_state is not None:  # to be seen now that it fits, not at the end of the phase
                network.load_state_dict(self.state.best_state)
            network.load_state_dict(_under("network.", self.tensors))
            torch.set_rng_state(self.tensors["random.cpu"])
            if "random.cuda" in self.tensors and torch.cuda.is_available():
                torch.cuda.set_rng_state(self.tensors["random.cuda"])

    def restore_optimiser(
        self, optimiser: Optimizer, schedule: LRScheduler | None, phase: Phase[Any], steps: int
    ) -> None:
        """The optimiser's state, each tensor laid out as its parameter is, so that sums round alike.

        Parameters
        ----------
        steps : int
            Of an epoch.

        Raises
        ------
        FormatError
            For what another optimiser or schedule remembers, or one at another step.
        """
        with understood(f"{str(self.path)!r} does not fit the optimiser of phase {phase.name!r}"):
            optimiser.load_state_dict(self._of_optimiser(optimiser))
            if schedule is not None:
                schedule.load_state_dict(self._of_schedule(schedule, phase, steps))

    def _of_optimiser(self, optimiser: Optimizer) -> dict[str, Any]:
        facts = self.facts["optimiser"]
        groups, parameters = [], []
        whole = optimiser.state_dict()["param_groups"]
        for found, own, kept in zip(facts["groups"], whole, optimiser.param_groups, strict=True):
            if not _alike({**found, "params": own["params"]}, _plain(own)):
                raise ValueError("another optimiser's settings")
            group = {**{name: _tuple(value) for name, value in found.items()}, "params": own["params"]}
            form = _remembered(type(optimiser), group, kept["params"][0].device)
            groups.append(group)
            parameters += [(value, form) for value in kept["params"]]
        state: dict[int, dict[str, Any]] = {
            int(index): dict(numbers) for index, numbers in facts["state"].items()
        }
        for key, value in _under("optimiser.", self.tensors).items():
            number, _, name = key.partition(".")
            like, form = parameters[int(number)]
            laid_out = torch.empty_like(like).copy_(value) if form[name].ndim else value
            state.setdefault(int(number), {})[name] = laid_out.detach()
        for index, known in state.items():
            _check_remembered(known, parameters[index][1])
        return {"state": state, "param_groups": groups}

    def _of_schedule(self, schedule: LRScheduler, phase: Phase[Any], steps: int) -> dict[str, Any]:
        found, own, place = self.facts["schedule"], _plain(schedule.state_dict()), self.state.place
        done = place.epoch * steps + place.step if phase.per == "step" else place.epoch
        if place.step >= steps or found.get("last_epoch", done) != done:
            raise ValueError(f"a schedule at step {found.get('last_epoch')}, not {done}")
        fixed = {name: value for name, value in own.items() if name not in COUNTERS}
        if isinstance(phase.schedule, str) and fixed != {name: found[name] for name in fixed}:
            raise ValueError("another schedule")
        if not _alike(found, own):
            raise ValueError("another kind of schedule")
        return found


def fingerprint(
    data: ImageData, plan: Sequence[Phase[Any] | Repeat[Any]], seed: int, device: torch.device, processes: int
) -> dict[str, Any]:
    """What decides the course of a run: equal fingerprints, equal runs."""
    return {
        "data": data.name,
        "classes": list(data.classes),
        "size": list(data.size),
        "images": {
            name: len(split) for name, split in data.splits.items() if name in ("train", "validation")
        },
        "labels": int(data.train.labels.long().cumsum(0).sum()),
        "augmented": data.augment is not None,
        "plan": [_told(item) for item in plan],
        "seed": seed,
        "device": device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else 0,
        "processes": processes,
        "torch": torch.__version__,
    }


def _told(item: Phase[Any] | Repeat[Any]) -> list[Any]:
    if isinstance(item, Repeat):
        return ["repeat", item.times, *(_told(phase) for phase in item.phases)]
    decay = item.decay if isinstance(item.decay, float | int) else dict(item.decay)
    schedule = item.schedule if isinstance(item.schedule, str) else "own"
    return [
        item.name, item.epochs, dict(item.rates), decay, item.optimiser, schedule, item.per, item.batch_size,
        item.precision, item.clip, item.keep_best, item.patience,
        {name: str(value) for name, value in item.options.items()},
    ]  # fmt: skip


def _same_run(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    for name, value in wanted.items():
        if _plain(found.get(name)) != _plain(value):
            raise InputError(
                f"Expected a checkpoint of this run at {str(path)!r}; its {name} differ: "
                f"{in_brief(repr(found.get(name)))} there, {value!r} here. Only the same run can go on."
            )


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _of_optimiser(optimiser: Optimizer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """An optimiser's state as numbers and as tensors."""
    whole = optimiser.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, entry in whole["state"].items():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    return {"groups": whole["param_groups"], "state": numbers}, tensors


def _random_states() -> dict[str, Tensor]:
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _remembered(kind: type[Optimizer], group: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """What an optimiser of these settings, which it may refuse, knows of a parameter after one step."""
    number = nn.Parameter(torch.zeros(1, device=device))
    number.grad = torch.zeros_like(number)
    known = signature(kind).parameters.keys() & group.keys() - {"params"}
    twin = kind([number], **{name: group[name] for name in known})
    twin.step()
    return dict(twin.state[number])


def _check_remembered(found: Mapping[str, Any], form: Mapping[str, Any]) -> None:
    """Refuse, as ValueError, what such an optimiser would not remember of a parameter."""
    if found.keys() != form.keys():
        raise ValueError(f"an optimiser remembers {sorted(form)}; got {in_brief(sorted(found))}")
    for name, value in form.items():
        if isinstance(value, Tensor) and not value.ndim:  # a count of steps
            count = found[name]
            if count.ndim or count.dtype != value.dtype or not 0 <= count.item() < float("inf"):
                raise ValueError(f"{name} is {in_brief(count)}")


def _alike(found: Any, own: Any) -> bool:
    """Whether JSON values are of one form: other numbers, perhaps, at the same places."""
    if isinstance(own, dict):
        return (
            isinstance(found, dict)
            and found.keys() == own.keys()
            and all(_alike(found[k], own[k]) for k in own)
        )
    if isinstance(own, list):
        return isinstance(found, list) and len(found) == len(own) and all(map(_alike, found, own))
    if isinstance(own, int | float) and not isinstance(own, bool):
        return isinstance(found, int | float) and not isinstance(found, bool)
    return own is None or bool(found == own)
