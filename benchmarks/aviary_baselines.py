"""How far shortcuts get on aviary: color histograms and tiny pictures with an MLP, beside a network.

Run ``python benchmarks/aviary_baselines.py`` for the default task, and add for example
``--classes 10 20 50 --presets standard shape color`` for others.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

import explainkit as ek
from explainkit.data.datasets.aviary import interventions
from explainkit.data.datasets.aviary.dataset import Aviary, aviary
from explainkit.data.datasets.aviary.grammar import PRESETS
from explainkit.data.types import Batch

Features = Callable[[Batch], NDArray[np.float32]]
LEVELS = 6


def color_histogram(batch: Batch) -> NDArray[np.float32]:
    """(N, 216): the root of each color's share of the image."""
    red, green, blue = (batch.images * 255).long().mul(LEVELS).div(256, rounding_mode="floor").unbind(1)
    color = ((red * LEVELS + green) * LEVELS + blue).flatten(1)
    counts = torch.zeros(len(batch), LEVELS**3).scatter_add_(1, color, torch.ones(color.shape))
    return (counts / color.shape[1]).sqrt().numpy()


def tiny_picture(batch: Batch) -> NDArray[np.float32]:
    """(N, 768): 16 x 16 pixels."""
    return functional.adaptive_avg_pool2d(batch.images, 16).flatten(1).numpy()


def mlp_accuracy(dataset: Aviary, features: Features) -> float:
    """Per cent of test images that an MLP on `features` gets right."""
    inputs = {
        split: np.concatenate([features(b) for b in dataset.batches(split, 250)])
        for split in ("train", "test")
    }
    layers = MLPClassifier((256,), alpha=1.0, early_stopping=True, n_iter_no_change=8, random_state=0)
    model = make_pipeline(StandardScaler(), layers).fit(inputs["train"], dataset.train.labels.numpy())
    return 100 * float(model.score(inputs["test"], dataset.test.labels.numpy()))


def rows(dataset: Aviary) -> Iterator[tuple[str, float]]:
    """The name and the accuracy of each baseline, as they are measured."""
    yield "chance", 100 / len(dataset.classes)
    yield "color histogram + MLP", mlp_accuracy(dataset, color_histogram)
    yield "16 x 16 pixels + MLP", mlp_accuracy(dataset, tiny_picture)


def explainer_rows(dataset: Aviary, name: str, seeds: int) -> Iterator[tuple[str, float]]:
    """The accuracy of an interpretable network over `seeds`, then of the last one with each part removed."""
    for seed in range(seeds):
        model = ek.explainer(name).fit(dataset, seed=seed, progress=False)
        yield f"{name}, seed {seed}", 100 * model.evaluate(dataset, ["test"])["test"]["accuracy"]
    scenes = dataset.scenes("test")
    for part in dataset.parts:
        without_part = interventions.remove(scenes, part)
        is_right = [
            (model.predict(batch).argmax(1) == batch.labels).float()
            for batch in (
                dataset.render(without_part[start : start + 250])
                for start in range(0, len(without_part), 250)
            )
        ]
        yield f"  without {part}", 100 * torch.cat(is_right).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[20])
    parser.add_argument("--presets", nargs="+", default=["standard"], choices=list(PRESETS))
    parser.add_argument("--explainer", default="cam", help="'' for none")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    print(f"{'task':28}{'model':28}{'test accuracy':>14}{'seconds':>9}")
    for preset in options.presets:
        for classes in options.classes:
            dataset = aviary(classes=classes, preset=preset)
            started = time.perf_counter()
            networks = explainer_rows(dataset, options.explainer, options.seeds) if options.explainer else ()
            for name, accuracy in chain(rows(dataset), networks):
                now = time.perf_counter()
                task = f"{preset}, {classes} classes"
                print(f"{task:28}{name:28}{accuracy:13.1f}%{now - started:9.1f}", flush=True)
                started = now


if __name__ == "__main__":
    main()
