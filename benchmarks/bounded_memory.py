"""Memory of class statistics, score ranges, counterfactuals and unit names; their time beside a revision.

Usage: python benchmarks/bounded_memory.py [--cases NAME …] [--against CHECKOUT]

A row a case, each in a process of its own: by how much the peak of resident memory rises (`ru_maxrss`) over
that before, once libraries are loaded and a small case has run. Classes and units are made: filters on
images of 3 x 8 x 8, a linear head. With ``--against`` (a folder with another revision of this repository)
times at 20 classes and 96 units are compared: the least CPU time of some runs, in alternate processes. The
names of 2,048 units take some ten minutes.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from attrs import define
from torch import Tensor, nn

import explainkit as ek
from explainkit.data.types import ArraySplit, ImageDataset
from explainkit.explainers.task import Task

PEAKS = (
    "explain_class", "score_ranges", "counterfactual", "name_units-96", "name_units-2048",
)  # fmt: skip

TIMES = ("explain_class", "score_ranges", "counterfactual", "name_units")

LIMIT = 300
"""Megabytes that no case is to take."""


class Filters(nn.Module):
    """ReLU of filters of `side` pixels, the mean over cells, a linear head."""

    def __init__(self, classes: int, units: int, side: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cells = nn.Conv2d(3, units, side, side)
        self.head = nn.Linear(units, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.decompose(images).logits

    def decompose(self, images: Tensor) -> ek.Decomposition:
        """The sum."""
        maps = self.cells(images).relu()
        scores = maps.mean((2, 3))
        return ek.Decomposition(
            logits=self.head(scores), bias=self.head.bias, scores=scores, weights=self.head.weight, maps=maps
        )


@define(eq=False, kw_only=True)
class FilterExplainer(ek.InterpretableExplainer[Filters]):
    """An explainer of `Filters`."""

    card = ek.Card(
        title="Filters",
        citation="none",
        additivity="exact",
        unit_kind="filters",
        learns_from="training images",
    )

    def build(self, task: Task) -> Filters:
        """A fresh network."""
        return Filters(len(task.classes), 8, 4)

    def phases(self) -> tuple[()]:
        """No training."""
        return ()

    def describe_units(self, network: Filters) -> ek.Units:
        """One a filter."""
        names = [f"filter {unit}" for unit in range(network.head.in_features)]
        return ek.Units(kind="filter", names=names, pooling="mean")


def explainer_of(classes: list[str] | tuple[str, ...], units: int, side: int = 4) -> FilterExplainer:
    """An explainer of so many classes and units."""
    return FilterExplainer.from_network(Filters(len(classes), units, side).eval(), classes=classes)


def made_dataset(classes: int, images: int) -> ImageDataset:
    """Images of 3 x 8 x 8 by chance, one class after the other."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 8, 8), dtype=torch.uint8, generator=generator)
    split = ArraySplit(images=pixels, labels=torch.arange(images) % classes)
    return ImageDataset(
        name="made", classes=[f"class {index}" for index in range(classes)], size=(8, 8),
        splits=dict.fromkeys(("train", "validation", "test"), split),
    )  # fmt: skip


def question(case: str, classes: int, units: int, images: int) -> Callable[[], object]:
    """What `case` asks, ready to run."""
    if case.startswith("name_units"):
        dataset = ek.dataset("aviary", classes=20, validation=images)
        for _ in dataset.batches("validation", 64):  # drawn before
            pass
        explainer = explainer_of(dataset.classes, units, side=8)

        def name() -> None:
            explainer.units = explainer.describe_units(explainer.network)  # type: ignore[arg-type]
            ek.name_units(explainer, dataset, images=images)

        return name
    dataset = made_dataset(classes, images)
    explainer = explainer_of(dataset.classes, units)
    if case == "explain_class":
        return lambda: explainer.explain_class(dataset, batch_size=64)
    if case == "score_ranges":
        return lambda: explainer.score_ranges(dataset)
    few = dataset.train.batch(torch.arange(4)).images
    return lambda: explainer.counterfactual(few, distractors=dataset)


def print_peak(case: str) -> None:
    """Print the megabytes that a case takes, and its seconds."""
    torch.set_num_threads(1)
    units = int(case.split("-")[1]) if "-" in case else 2048
    question(case, 3, 4, 60)()  # loads what is loaded when it is first used
    ask = question(case, 1000, units, 1000 if case.startswith("name_units") else 2000)
    before, start = peak(), time.perf_counter()
    ask()
    print(f"{peak() - before:.0f} {time.perf_counter() - start:.1f}")


def peak() -> float:
    """The largest resident memory so far, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def print_time(case: str) -> None:
    """Print the least CPU seconds of a case at 20 classes and 96 units."""
    torch.set_num_threads(1)
    ask = question(case, 20, 96, 200 if case == "name_units" else 1000)
    ask()
    seconds = []
    for _ in range(1 if case == "name_units" else 5):
        start = time.process_time()
        ask()
        seconds.append(time.process_time() - start)
    print(min(seconds))


def run(option: str, case: str, checkout: Path) -> list[float]:
    """What a process that imports the checkout prints."""
    paths = os.pathsep.join(str(checkout / name) for name in ("", "plugins", "adapters"))
    done = subprocess.run(
        [sys.executable, __file__, option, case], env=os.environ | {"PYTHONPATH": paths}, check=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return [float(value) for value in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=PEAKS, default=PEAKS)
    parser.add_argument("--against", type=Path, help="another revision, to compare times with")
    parser.add_argument("--peak", choices=PEAKS, help=argparse.SUPPRESS)
    parser.add_argument("--time", choices=TIMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak or options.time:
        print_peak(options.peak) if options.peak else print_time(options.time)
        return
    here = Path(__file__).resolve().parents[1]
    print(f"| case | peak memory, MB (limit {LIMIT}) | seconds |\n|---|---|---|")
    for case in options.cases:
        megabytes, seconds = run("--peak", case, here)
        print(f"| {case} | {megabytes:.0f} | {seconds:.1f} |", flush=True)
    if options.against:
        print("\n| 20 classes, 96 units | CPU ms | CPU ms before | ratio |\n|---|---|---|---|")
        for case in TIMES:
            pairs = [[run("--time", case, path)[0] for path in (here, options.against)] for _ in range(3)]
            now, before = (min(column) for column in zip(*pairs, strict=True))
            print(f"| {case} | {now * 1000:.1f} | {before * 1000:.1f} | {now / before:.2f} |", flush=True)


if __name__ == "__main__":
    main()
