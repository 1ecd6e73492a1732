"""Whether an architecture learns in two processes what it learns in one: its own phases, losses and all.

``python -m explainkit.testing.process_checks OUT NAME …`` is one of the runs that are compared.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from explainkit import registry
from explainkit.errors import ConformanceError
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explainers.task import Task
from explainkit.networks.normalization import batch_mixing_module, fold_batch_norm
from explainkit.registry.catalog import explainer as explainer_by_name
from explainkit.testing.examples import tiny_dataset
from explainkit.training import Phase, Repeat, Trainer
from explainkit.training.steps import Step

EPOCHS = 4
BATCH_SIZE = 16
"""24 steps a phase on the 96 training images of `tiny_dataset`."""

TOLERANCE = 1e-9
"""In float64, of weights and gradients; what is measured is near 1e-15."""


def check_distributed_training(*names: str) -> dict[str, float]:
    """Hold the registered explainers `names` to the same weights from two processes as from one.

    Each runs all phases of its preset ``"tiny"`` on `tiny_dataset`, 24 steps each, in float64, without
    dropout, its batch norms folded into what is before them: on two processes a batch norm sees half a batch,
    and is something else. Two processes are started with gloo, one is this one.

    Returns
    -------
    mapping of str to float
        The largest difference of a weight or a gradient, by explainer.

    Raises
    ------
    ConformanceError
        For a difference above 1e-9, or a run that fails, with the explainer's name.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", __name__, str(out), *names,
        ]  # fmt: skip
        environment = {key: value for key, value in os.environ.items() if key != "RANK"}
        shared = subprocess.Popen(
            command, env=environment | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
        )
        try:
            alone = {name: train_in_double(name) for name in names}
        finally:
            _, errors = shared.communicate()
        if shared.returncode:
            raise ConformanceError(f"Two processes do not train: {_last_error(errors)}")
        return {name: _difference(name, alone[name], out) for name in names}


def train_in_double(name: str) -> dict[str, Tensor]:
    """The weights that the explainer `name` ends with, and the last gradients of each phase."""
    factory = registry.find("explainers", name)
    preset = "tiny" if "tiny" in getattr(factory, "presets", {}) else None
    explainer = explainer_by_name(name, preset=preset)
    if not isinstance(explainer, InterpretableExplainer):
        raise ConformanceError(f"{name!r} learns nothing.")
    dataset, gradients = tiny_dataset(), dict[str, Tensor]()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = explainer.build(Task(classes=dataset.classes, size=dataset.size, dataset=dataset))
        network = _without_statistics(network)
        plan = [_in_double(item, gradients) for item in explainer.phases()]
        Trainer(device="cpu", progress=False).run(network, dataset, plan)
    return gradients | {key: value.contiguous() for key, value in network.state_dict().items()}


def _without_statistics(network: nn.Module) -> nn.Module:
    fold_batch_norm(network)
    mixing = batch_mixing_module(network)
    if mixing is not None:
        raise ConformanceError(f"The batch norm {mixing!r} cannot be folded; it keeps no statistics.")
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return network


def _in_double(item: Phase[Any] | Repeat[Any], gradients: dict[str, Tensor]) -> Phase[Any] | Repeat[Any]:
    """The same phase in float64, for 24 steps, whose last gradients are recorded."""
    if isinstance(item, Repeat):
        phases: Sequence[Phase[Any]] = [_in_double(phase, gradients) for phase in item.phases]  # type: ignore[misc]
        return evolve(item, phases=phases)
    return evolve(
        item,
        epochs=min(item.epochs, 1) * EPOCHS,
        batch_size=BATCH_SIZE,
        precision="64-true",
        on_step_end=partial(_record, phase=item, gradients=gradients),
    )


def _record(network: nn.Module, step: Step, phase: Phase[Any], gradients: dict[str, Tensor]) -> None:
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            gradients[f"gradient of {name} in {phase.name}"] = parameter.grad.clone().contiguous()
    if phase.on_step_end is not None:
        phase.on_step_end(network, step)


def _difference(name: str, alone: Mapping[str, Tensor], out: Path) -> float:
    largest = 0.0
    for rank in range(2):
        shared = load_file(out / f"{name.replace('/', '-')}.{rank}")
        for key in alone.keys() | shared.keys():
            if key not in alone or key not in shared or alone[key].shape != shared[key].shape:
                raise ConformanceError(f"{name!r} has another {key} in process {rank} of two than alone.")
            apart = (
                (alone[key].double() - shared[key].double()).abs().max().item() if alone[key].numel() else 0.0
            )
            if not apart <= TOLERANCE:
                raise ConformanceError(
                    f"{name!r} differs by {apart:.2g} at {key} in process {rank} of two, from one alone."
                )
            largest = max(largest, apart)
    return largest


def _last_error(text: str) -> str:
    lines = [
        line for line in text.splitlines() if "Error" in line and "torch.distributed.elastic" not in line
    ]
    return lines[0].strip() if lines else text[-500:]


def main(out: str, *names: str) -> None:
    """Train each explainer, and save how it ends for this process."""
    torch.set_num_threads(1)
    for name in names:
        ended = train_in_double(name)
        save_file(ended, Path(out) / f"{name.replace('/', '-')}.{os.environ.get('RANK', '0')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
