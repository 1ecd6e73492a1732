"""Kill a training run, resume it, and compare its end with that of the run nobody killed.

Usage: python benchmarks/kill_resume.py [--kills 20]

Each round kills one run with SIGKILL: at a random moment, in the middle of writing a checkpoint, before a
checkpoint takes its name, or inside `on_end`. It is resumed until it ends; then all bytes of the network and
the whole history but its seconds must be those of the uninterrupted run. Exit status 1 if one is not.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explainkit.data.transforms.augmentation import FlipShiftBrightness
from explainkit.data.types import Batch, ImageDataset
from explainkit.explainers.state import state_digest
from explainkit.explanations.serialization import canonical
from explainkit.networks.backbones import tiny
from explainkit.testing import tiny_dataset
from explainkit.training import Phase, Repeat, Trainer
from explainkit.training.steps import Step

WRITE = os.O_CREAT | os.O_WRONLY | os.O_TRUNC


class Network(nn.Module):
    """Batch norm, dropout and prototypes: all kinds of state that a run can have."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = tiny()
        self.dropout = nn.Dropout(0.3)
        self.prototypes = nn.Parameter(torch.rand(6, 32))
        self.head = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 3)."""
        features = self.dropout(self.backbone(images).mean((2, 3)))
        return self.head(-torch.cdist(features, self.prototypes))


def cross_entropy(network: Network, batch: Batch, step: Step) -> Mapping[str, Tensor]:
    """The one term."""
    return {"cross_entropy": F.cross_entropy(network(batch.images), batch.labels)}


def project(network: Network, dataset: ImageDataset) -> None:
    """Move each prototype onto the nearest training image's features, slowly enough to be killed."""
    features = torch.cat(
        [network.backbone(batch.images).mean((2, 3)) for batch in dataset.batches("train", 16)]
    )
    for index in range(len(network.prototypes)):
        distances = torch.cdist(network.prototypes[index : index + 1], features)
        network.prototypes[index] = features[distances.argmin()]
        time.sleep(0.05)


def plan() -> list[Phase[Network] | Repeat[Network]]:
    """Phases, a repeat, schedules, `restore_best`, and `on_end`."""
    return [
        Phase(
            "start",
            3,
            cross_entropy,
            {"backbone": 3e-3, "head": 3e-3},
            weight_decay=0.01,
            lr_scheduler="one-cycle",
            batch_size=16,
            restore_best=True,
        ),
        Repeat(
            [
                Phase(
                    "joint",
                    2,
                    cross_entropy,
                    {"": 1e-3},
                    optimizer="sgd",
                    optimizer_kwargs={"momentum": 0.9},
                    lr_scheduler="cosine",
                    lr_scheduler_interval="epoch",
                    batch_size=16,
                    on_end=project,
                ),
                Phase("head", 1, cross_entropy, {"head": 1e-2}, optimizer="adam", batch_size=16),
            ],
            max_rounds=2,
        ),
    ]


def child(folder: Path, fate: str) -> None:
    """Run to the end, or to the fate: ``write:n`` and ``rename:n`` die in the n-th checkpoint."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step, _, count = fate.partition(":")
    if step in ("write", "rename"):
        _die_in_checkpoint(step, int(count))
    dataset = tiny_dataset()
    dataset = ImageDataset(
        name=dataset.name,
        classes=dataset.classes,
        size=dataset.size,
        splits=dataset.splits,
        augment=FlipShiftBrightness(),
    )
    network = Network()
    trainer = Trainer(
        device="cpu", progress=False, checkpoints=folder, checkpoint_every_n_steps=2, resume=True
    )
    if step == "on-end":
        _die_in_on_end(int(count))
    trainer.run(network, dataset, plan())
    history = [[e.phase, e.epoch, dict(e.train_losses), e.val_accuracy, e.val_loss] for e in trainer.history]
    (folder / "end").write_text(f"{state_digest(network)} {canonical({'history': history})}")


def _die_in_checkpoint(step: str, count: int) -> None:
    left = [count]

    def dying(function, before):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            left[0] -= 1
            if left[0] == 0:
                before(*args)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    if step == "rename":
        os.replace = dying(os.replace, lambda *args: None)
    else:
        Path.write_bytes = dying(  # type: ignore[method-assign]
            Path.write_bytes,
            lambda path, content: os.write(os.open(path, WRITE), content[: len(content) // 2]),
        )


def _die_in_on_end(count: int) -> None:
    left, sleep = [count], time.sleep

    def call(seconds: float) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sleep(seconds)

    time.sleep = call


def run(folder: Path, fate: str = "", kill_after: float | None = None) -> bool:
    """One process; whether it came to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--child", str(folder), "--fate", fate]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(errors)
    return process.returncode == 0


def main() -> int:
    """Compare killed runs with the one that was left alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path)
    parser.add_argument("--fate", default="")
    options = parser.parse_args()
    if options.child:
        child(options.child, options.fate)
        return 0
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as root:
        start = time.perf_counter()
        run(Path(root) / "uninterrupted")
        length = time.perf_counter() - start
        expected = (Path(root) / "uninterrupted" / "end").read_text()
        num_equal = 0
        for index in range(options.kills):
            folder = Path(root) / str(index)
            kind = ("moment", "write", "on-end", "rename")[index % 4]
            fate = f"{kind}:{chance.randint(1, 10)}" if kind != "moment" else ""
            has_died = not run(folder, fate, chance.uniform(0.4, 1.0) * length if kind == "moment" else None)
            while not (folder / "end").exists():
                run(folder)
            is_equal = (folder / "end").read_text() == expected
            num_equal += is_equal
            what = "killed" if has_died else "ended before it was killed"
            verdict = "equal" if is_equal else "DIFFERENT"
            print(f"{index + 1:3d}  {kind:7s} {fate:9s} {what}; end {verdict}", flush=True)
    print(f"{num_equal} of {options.kills} ends are bit-identical to the uninterrupted run's")
    return int(num_equal < options.kills)


if __name__ == "__main__":
    sys.exit(main())
