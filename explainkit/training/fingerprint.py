"""What decides the course of a training run, as JSON, and in what two runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import fields
from torch import Tensor

from explainkit.data.types import ImageDataset
from explainkit.errors import InputError
from explainkit.explanations.serialization import as_json, in_brief, tensors_digest
from explainkit.training.phases import Phase, Repeat, augmentation


def fingerprint(
    dataset: ImageDataset,
    plan: Sequence[Phase[Any] | Repeat[Any]],
    seed: int,
    device: torch.device,
    processes: int,
    settings: Mapping[str, Any],
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
        "training images": _sample_digest(dataset),
        "augment": describe(dataset.augment),
        "plan": [_settings(item) for item in plan],
        "settings": describe(settings),
        "seed": seed,
        "device": device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else 0,
        "processes": processes,
        "torch": torch.__version__,
    }


def check_same_run(saved: Mapping[str, Any], current: Mapping[str, Any], path: Path) -> None:
    """Refuse, as InputError, the checkpoint of another run, naming the first thing in which they differ."""
    for name, there, here in _differences(saved, as_json(current), ""):
        raise InputError(
            f"Expected a checkpoint of this run at {str(path)!r}; its {name} differs: "
            f"{in_brief(repr(there))} there, {in_brief(repr(here))} here. Only the same run can go on."
        )


def _differences(saved: Any, current: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ, and both values there."""
    if isinstance(saved, Mapping) and isinstance(current, Mapping):
        for key in sorted(saved.keys() | current.keys()):
            yield from _differences(saved.get(key), current.get(key), f"{name}.{key}" if name else key)
    elif isinstance(saved, list) and isinstance(current, list) and len(saved) == len(current):
        for index, (there, here) in enumerate(zip(saved, current, strict=True)):
            yield from _differences(there, here, f"{name}[{index}]")
    elif saved != current:
        yield name, saved, current


def describe(value: object) -> Any:
    """A setting as JSON: functions by name, partial ones with their arguments, tensors by digest."""
    if isinstance(value, partial):
        arguments = {name: describe(argument) for name, argument in value.keywords.items()}
        return [describe(value.func), [describe(argument) for argument in value.args], arguments]
    if isinstance(value, Tensor):
        return tensors_digest({"": value})
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): describe(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return type(value).__name__ if " at 0x" in repr(value) else repr(value)


def augmentations(plan: Sequence[Phase[Any] | Repeat[Any]], dataset: ImageDataset) -> dict[str, str]:
    """How the images of `dataset` are changed in each phase of `plan` that changes them, as text."""
    phases = [phase for item in plan for phase in (item.phases if isinstance(item, Repeat) else [item])]
    used = {phase.name: augmentation(phase, dataset) for phase in phases if phase.epochs}
    return {name: str(describe(augment)) for name, augment in used.items() if augment is not None}


def _sample_digest(dataset: ImageDataset, count: int = 16) -> str:
    """SHA-256 of `count` training images, evenly spaced."""
    ids = torch.linspace(0, len(dataset.train) - 1, min(count, len(dataset.train))).long()
    return tensors_digest({"images": dataset.train.batch(ids).images})


def _settings(item: Phase[Any] | Repeat[Any]) -> dict[str, Any]:
    settings = {setting.name: getattr(item, setting.name) for setting in fields(type(item))}
    if isinstance(item, Repeat):
        return {name: describe(value) for name, value in settings.items() if name != "phases"} | {
            "phases": [_settings(phase) for phase in item.phases]
        }
    return {name: describe(value) for name, value in settings.items()}
