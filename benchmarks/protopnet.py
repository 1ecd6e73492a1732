"""ProtoPNet beside literal loops, and over seeds: ratios, and a table of training runs.

Usage: python benchmarks/protopnet.py [--model folder] [--train] [--seeds 0 1 2] [--threads 2]

Without ``--train``: projection, nearest patches with pruning, and the last layer, against literal loops.
Searches run over patches that are there already, for the paper's birds (200 classes) and for aviary's; both
sides have to give the same answer, or the script stops. The last layer's loop takes the same steps, but
runs a trained network for each of them. Then what `explain` costs beside the bare forward. With
``--train``: `small` on aviary.
"""

import argparse
import heapq
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import explainkit as ek
from explainkit.data.types import ArraySplit, Batch, ImageDataset
from explainkit_protopnet.explainer import ProtoPNet
from explainkit_protopnet.head import all_scores, fit_head
from explainkit_protopnet.model import ProtoPNetNetwork
from explainkit_protopnet.nearest import nearest_patches
from explainkit_protopnet.pruning import survivors

Result = TypeVar("Result")


class PatchNetwork(torch.nn.Module):
    """Prototypes and patches without a network: `latent` gives what it gets."""

    def __init__(self, owner: Tensor, prototypes: torch.nn.Parameter) -> None:
        super().__init__()
        self.owner, self.prototypes = owner, prototypes
        self.own = owner[:, None] == torch.arange(int(owner.max()) + 1)

    def latent(self, patches: Tensor) -> Tensor:
        """The patches (N, D, h, w) as they are."""
        return patches


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def loop_projection(network: ProtoPNetNetwork, batches: list[Batch]) -> list[tuple[int, int]]:
    """The nearest own patch of each prototype: all distances of a batch, then a prototype at a time."""
    best = [(math.inf, -1, -1)] * len(network.owner)
    for batch in batches:
        distances = _all_distances(network, batch).reshape(len(batch), len(best), -1)
        for p, label in enumerate(network.owner.tolist()):
            for row, image_label in enumerate(batch.labels.tolist()):
                if image_label == label:
                    cell = int(distances[row, p].argmin())
                    nearest = (float(distances[row, p, cell]), int(batch.ids[row]), cell)
                    if nearest[0] < best[p][0]:
                        best[p] = nearest
    return [(image, cell) for _, image, cell in best]


def loop_nearest(network: ProtoPNetNetwork, batches: list[Batch], count: int) -> list[list[int]]:
    """The nearest images of each prototype: all distances of a batch, then a heap and a record a pair.

    That is how the authors' code goes about it, which is loops for the half of it alone.
    """
    heaps: list[list[tuple[float, int, tuple[int, ...], object]]] = [[] for _ in network.owner]
    for batch in batches:
        maps = _all_distances(network, batch)
        latent = batch.images.numpy()
        for row, image in enumerate(batch.ids.tolist()):
            for p in range(len(heaps)):
                cell = np.unravel_index(maps[row, p].argmin(), maps.shape[2:])
                patch = latent[row, :, cell[0], cell[1]].copy()
                record = (-float(maps[row, p][cell]), -image, tuple(map(int, cell)), patch)
                (heapq.heappush if len(heaps[p]) < count else heapq.heappushpop)(heaps[p], record)
    return [[-record[1] for record in sorted(heap, key=lambda one: one[:2], reverse=True)] for heap in heaps]


def loop_cells(network: ProtoPNetNetwork, batches: list[Batch], count: int) -> list[list[int]]:
    """The same, a cell at a time: the three loops that the definition has."""
    heaps: list[list[tuple[float, int]]] = [[] for _ in network.owner]
    for batch in batches:
        for patches, image in zip(batch.images.flatten(2).mT, batch.ids.tolist(), strict=True):
            for heap, prototype in zip(heaps, network.prototypes, strict=True):
                nearest = min((patch - prototype).square().sum().item() for patch in patches)
                (heapq.heappush if len(heap) < count else heapq.heappushpop)(heap, (-nearest, -image))
    return [[-image for _, image in sorted(heap, reverse=True)] for heap in heaps]


def loop_pairs(network: ProtoPNetNetwork, batches: list[Batch], count: int) -> list[list[int]]:
    """The same, an image and a prototype at a time."""
    heaps: list[list[tuple[float, int]]] = [[] for _ in network.owner]
    for batch in batches:
        for patches, image in zip(batch.images.flatten(2), batch.ids.tolist(), strict=True):
            for heap, prototype in zip(heaps, network.prototypes, strict=True):
                nearest = (patches - prototype[:, None]).square().sum(0).min().item()
                (heapq.heappush if len(heap) < count else heapq.heappushpop)(heap, (-nearest, -image))
    return [[-image for _, image in sorted(heap, reverse=True)] for heap in heaps]


def _all_distances(network: ProtoPNetNetwork, batch: Batch) -> Any:
    """(B, P, h, w), a prototype at a time."""
    maps = [(batch.images - prototype[:, None, None]).square().sum(1) for prototype in network.prototypes]
    return torch.stack(maps, 1).numpy()


def loop_head(
    network: ProtoPNetNetwork, dataset: ImageDataset, first: Tensor, penalty: float, steps: int
) -> Tensor:
    """The same steps with nothing kept: each runs the network over all images, batch by batch."""
    labels, step = dataset.train.labels, 0.0
    threshold = (penalty * ~network.own.T).to(first)
    weight = ahead = first.clone()
    pace = 1.0
    for _ in range(steps):
        slope, scores = torch.zeros_like(first), []
        for batch in dataset.batches("train", 80):
            batch_scores = network.decompose(batch.images).scores
            truth = F.one_hot(labels[batch.ids], len(first))
            slope += ((batch_scores @ ahead.T).softmax(1) - truth).T @ batch_scores / len(labels)
            scores.append(batch_scores)
        if not step:
            step = len(labels) / (0.5 * float(torch.linalg.matrix_norm(torch.cat(scores), 2)) ** 2)
        moved = ahead - step * slope
        moved = moved.sign() * (moved.abs() - step * threshold).clamp(min=0)
        if ((ahead - moved) * (moved - weight)).sum() > 0:
            pace, ahead = 1.0, moved
        else:
            faster = (1 + (1 + 4 * pace**2) ** 0.5) / 2
            ahead, pace = moved + (pace - 1) / faster * (moved - weight), faster
        weight = moved
    return weight


LOOPS = {"a cell": loop_cells, "an image and a prototype": loop_pairs, "distances of a batch": loop_nearest}


def compare(
    classes: int, prototypes_per_class: int, depth: int, side: int, images: int, by: Sequence[str]
) -> None:
    """Print the ratios of the two searches, on random patches, against loops of `LOOPS`."""
    torch.manual_seed(0)
    owner = torch.arange(classes).repeat_interleave(prototypes_per_class)
    labels = torch.arange(images) % classes
    patches = torch.rand(images, depth, side, side)
    prototypes = torch.nn.Parameter(torch.rand(len(owner), depth), requires_grad=False)
    network: ProtoPNetNetwork = PatchNetwork(owner, prototypes)  # type: ignore[assignment]
    batches = [
        Batch(images=patches[ids], labels=labels[ids], ids=ids) for ids in torch.arange(images).split(75)
    ]
    fast_pruning(network, batches[:1])  # warm
    print(f"{len(owner)} prototypes of depth {depth}, {images} images of {side} x {side}")
    report("projection", lambda: fast_projection(network, batches), lambda: loop_projection(network, batches))
    for how in by:
        report(
            f"pruning, by {how}",
            lambda: fast_pruning(network, batches),
            lambda how=how: loop_pruning(network, batches, labels, LOOPS[how]),  # type: ignore[misc]
        )


def report(name: str, fast: Callable[[], object], slow: Callable[[], object]) -> None:
    """Print a ratio, once both are found to give the same."""
    (result, quick), (expected, long) = timed(fast), timed(slow)
    if result != expected:
        raise SystemExit(f"{name}: not the same result")
    print(f"  {name:36s} {long / quick:7.1f} x   ({long:.2f} s by loops, {quick:.3f} s; same result)")


def fast_projection(network: ProtoPNetNetwork, batches: list[Batch]) -> list[tuple[int, int]]:
    nearest = nearest_patches(network, batches, 1, own=True)
    return list(zip(nearest.image[:, 0].tolist(), nearest.cell[:, 0].tolist(), strict=True))


def fast_pruning(network: ProtoPNetNetwork, batches: list[Batch]) -> tuple[list[list[int]], list[bool]]:
    nearest = nearest_patches(network, batches, 6)
    return nearest.image.tolist(), survivors(nearest, network.owner, 3).tolist()


def loop_pruning(
    network: ProtoPNetNetwork,
    batches: list[Batch],
    labels: Tensor,
    loops: Callable[[ProtoPNetNetwork, list[Batch], int], list[list[int]]],
) -> tuple[list[list[int]], list[bool]]:
    images = loops(network, batches, 6)
    alike = [
        sum(int(labels[image]) == label for image in row)
        for row, label in zip(images, network.owner.tolist(), strict=True)
    ]
    is_kept = [count >= 3 for count in alike]
    for label in network.owner.unique().tolist():
        of_class = [p for p, owner in enumerate(network.owner.tolist()) if owner == label]
        if not any(is_kept[p] for p in of_class):
            is_kept[max(of_class, key=lambda p: alike[p])] = True
    return images, is_kept


def compare_head(model: ProtoPNet, dataset: ImageDataset, images: int, penalty: float = 1e-3) -> None:
    """Print the ratio of the last layer's fit from its first weights, the search for scores on both sides."""
    network = model.network
    assert isinstance(network, ProtoPNetNetwork)
    batch = dataset.train.batch(torch.arange(images))
    split = ArraySplit(images=(batch.images * 255).round().byte(), labels=batch.labels)
    names = ("train", "validation", "test")
    subset = ImageDataset(
        name="subset", classes=dataset.classes, size=dataset.size, splits=dict.fromkeys(names, split)
    )
    first = torch.where(network.own.T, 1.0, -0.5)
    with torch.no_grad():
        all_scores(network, subset)  # warm
        fit, quick = timed(
            lambda: fit_head(*all_scores(network, subset), network.own, first, penalty, tolerance=1e-2)
        )
        weight, long = timed(lambda: loop_head(network, subset, first, penalty, fit.steps))
    gap = (weight - fit.weight).abs().max().item()
    if gap > 1e-3:
        raise SystemExit(f"last layer: not the same result, off by {gap:.2g}")
    print(
        f"  {'last layer':36s} {long / quick:7.1f} x   ({long:.2f} s by loops, {quick:.3f} s for {fit.steps} "
        f"steps; weights within {gap:.0e})"
    )


def explain_cost(pairs: int = 50) -> None:
    """Print what explaining costs beside the bare forward pass."""
    torch.manual_seed(0)
    network = (
        ProtoPNet(start_epochs=0).build(ek.Task(classes=20)).to(memory_format=torch.channels_last).eval()
    )
    network.projected.fill_(True)
    model = ProtoPNet.from_network(network, classes=[f"class {c}" for c in range(20)])
    images = torch.rand(32, 3, 64, 64)

    def forward() -> None:
        with torch.no_grad():
            network(images)

    ratios = []
    for index in range(pairs + 5):
        order = (forward, lambda: model.explain(images))[:: 1 if index % 2 else -1]
        times = {call is forward: timed(call)[1] for call in order}
        ratios.append(times[False] / times[True])
    print(
        f"explain / forward              {statistics.median(ratios[5:]):7.3f}     (median of {pairs} pairs)"
    )


def train(seeds: list[int]) -> None:
    """Print a row a seed: `small` on aviary."""
    dataset = ek.dataset("aviary")
    for split in dataset.splits:
        for _ in dataset.batches(split, 500):  # drawn before the clock starts
            pass
    print("| seed | test | before projection | after | new head | duplicates | zeros | wall s | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for seed in seeds:
        cpu, wall = time.process_time(), time.perf_counter()
        model = ProtoPNet().fit(dataset, seed=seed, device="cpu", progress=False)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        test, report = model.evaluate(dataset, ("test",))["test"]["accuracy"], model.report
        assert report.accuracy_before is not None
        print(
            f"| {seed} | {test:.1%} | {report.accuracy_before:.1%} | {report.accuracy_after:.1%} "
            f"| {report.accuracy:.1%} | {report.duplicates} of {report.prototypes} | {report.zeros:.1%} "
            f"| {wall:.0f} | {cpu:.0f} |",
            flush=True,
        )
        check_sources(model, dataset)


def check_sources(model: ProtoPNet, dataset: ImageDataset) -> None:
    """After everything, each prototype is its patch, and scores the ceiling on it."""
    network = model.network
    assert isinstance(network, ProtoPNetNetwork)
    sources = network.sources
    rows = torch.arange(len(network.owner))
    with torch.no_grad():
        images = dataset.train.batch(sources.image).images
        latent, scores = network.latent(images), network.decompose(images).scores
    patches = latent[rows, :, sources.cell[:, 0], sources.cell[:, 1]]
    gap = (patches - network.prototypes).square().sum(1).max().item()
    lowest = scores[rows, rows].min().item()
    assert gap < 1e-5 and lowest > math.log(1 / network.epsilon) - 1e-3, (gap, lowest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument(
        "--model", help="folder of a saved ProtoPNet, for the last layer; else one is trained"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.train:
        train(options.seeds)
    else:
        pair, batch = "an image and a prototype", "distances of a batch"
        compare(classes=200, prototypes_per_class=10, depth=128, side=7, images=300, by=[pair, batch])
        compare(classes=20, prototypes_per_class=5, depth=64, side=8, images=1000, by=[pair, batch])
        compare(classes=20, prototypes_per_class=5, depth=64, side=8, images=100, by=["a cell"])
        dataset = ek.dataset("aviary")
        model = ek.load(options.model) if options.model else ek.explainer("protopnet").fit(dataset)
        assert isinstance(model, ProtoPNet)
        compare_head(model, dataset, options.images)
        explain_cost()


if __name__ == "__main__":
    main()
