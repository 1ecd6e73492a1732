"""Kill a training run, resume it, and compare its end with that of the run nobody killed.

Usage: python benchmarks/kill_resume.py [--kills 20]

Each round kills one run with SIGKILL: at a random moment, in the middle of writing a checkpoint, before a
checkpoint takes its name, or inside a finish step. It is resumed until it ends; then all bytes of the
network and
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

from explainkit.backbones import tiny
from explainkit.data.augmentation import MirrorShiftLight
from explainkit.data.images import Batch, ImageData
from explainkit.files import canonical
from explainkit.interfaces import state_digest
from explainkit.testing import tiny_data
from explainkit.training import Phase, Repeat, Trainer

WRITE = os.O_CREAT | os.O_WRONLY | os.O_TRUNC


class Network(nn.Module):
    """Batch norm, dropout and a bank of prototypes: all kinds of state that a run can have."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = tiny()
        self.dropout = nn.Dropout(0.3)
        self.prototypes = nn.Parameter(torch.rand(6, 32))
        self.head = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 3)."""
        found = self.dropout(self.backbone(images).mean((2, 3)))
        return self.head(-torch.cdist(found, self.prototypes))


def cross_entropy(network: Network, batch: Batch) -> Mapping[str, Tensor]:
    """The one term."""
    return {"cross_entropy": F.cross_entropy(network(batch.images), batch.labels)}


def project(network: Network, data: ImageData) -> None:
    """Move each prototype onto the nearest training image's features, slowly enough to be killed."""
    found = torch.cat([network.backbone(batch.images).mean((2, 3)) for batch in data.batches("train", 16)])
    for index in range(len(network.prototypes)):
        network.prototypes[index] = found[torch.cdist(network.prototypes[index : index + 1], found).argmin()]
        time.sleep(0.05)


def plan() -> list[Phase[Network] | Repeat[Network]]:
    """Phases, a repeat, schedules, the best kept, and finishes."""
    return [
        Phase("start", 3, cross_entropy, {"backbone": 3e-3, "head": 3e-3}, decay=0.01, schedule="one-cycle",
              batch_size=16, keep_best=True),
        Repeat(
            [
                Phase("joint", 2, cross_entropy, {"": 1e-3}, optimiser="sgd", options={"momentum": 0.9},
                      schedule="cosine", per="epoch", batch_size=16, finish=project),
                Phase("head", 1, cross_entropy, {"head": 1e-2}, optimiser="adam", batch_size=16),
            ],
            times=2,
        ),
    ]  # fmt: skip


def child(folder: Path, fate: str) -> None:
    """Run to the end, or to the fate: ``write:n`` and ``rename:n`` die in the n-th checkpoint."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    where, _, count = fate.partition(":")
    if where in ("write", "rename"):
        _die_in(where, int(count))
    data = tiny_data()
    data = ImageData(
        name=data.name, classes=data.classes, size=data.size, splits=data.splits, augment=MirrorShiftLight()
    )
    network = Network()
    trainer = Trainer(device="cpu", progress=False, checkpoints=folder, every=2, resume=True)
    if where == "finish":
        _die_in_finish(int(count))
    trainer.run(network, data, plan())
    told = [[e.phase, e.epoch, dict(e.terms), e.accuracy, e.loss] for e in trainer.history]
    (folder / "end").write_text(f"{state_digest(network)} {canonical({'history': told})}")


def _die_in(where: str, count: int) -> None:
    left = [count]

    def dying(real, act):  # type: ignore[no-untyped-def]
        def call(*given, **more):  # type: ignore[no-untyped-def]
            left[0] -= 1
            if left[0] == 0:
                act(*given)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **more)

        return call

    if where == "rename":
        os.replace = dying(os.replace, lambda *given: None)
    else:
        Path.write_bytes = dying(  # type: ignore[method-assign]
            Path.write_bytes,
            lambda path, content: os.write(os.open(path, WRITE), content[: len(content) // 2]),
        )


def _die_in_finish(count: int) -> None:
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
        _, told = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(told)
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
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        run(Path(place) / "whole")
        length = time.perf_counter() - start
        wanted = (Path(place) / "whole" / "end").read_text()
        same = 0
        for index in range(options.kills):
            folder = Path(place) / str(index)
            kind = ("moment", "write", "finish", "rename")[index % 4]
            fate = f"{kind}:{chance.randint(1, 10)}" if kind != "moment" else ""
            died = not run(folder, fate, chance.uniform(0.4, 1.0) * length if kind == "moment" else None)
            while not (folder / "end").exists():
                run(folder)
            equal = (folder / "end").read_text() == wanted
            same += equal
            what = "killed" if died else "ended before it was killed"
            verdict = "equal" if equal else "DIFFERENT"
            print(f"{index + 1:3d}  {kind:7s} {fate:9s} {what}; end {verdict}", flush=True)
    print(f"{same} of {options.kills} ends are bit-identical to the uninterrupted run's")
    return int(same < options.kills)


if __name__ == "__main__":
    sys.exit(main())
