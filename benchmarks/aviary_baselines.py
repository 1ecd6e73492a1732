"""How far shortcuts get on aviary: colour histograms and tiny pictures with an MLP, beside a network.

Run ``python benchmarks/aviary_baselines.py`` for the default task, and add for example
``--classes 10 20 50 --presets standard shape colour`` for others.
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
from explainkit.data.aviary import interventions
from explainkit.data.aviary.dataset import Aviary, aviary
from explainkit.data.aviary.grammar import PRESETS
from explainkit.data.images import Batch

Features = Callable[[Batch], NDArray[np.float32]]
LEVELS = 6


def colour_histogram(batch: Batch) -> NDArray[np.float32]:
    """(N, 216): the root of each colour's share of the image."""
    red, green, blue = (batch.images * 255).long().mul(LEVELS).div(256, rounding_mode="floor").unbind(1)
    colour = ((red * LEVELS + green) * LEVELS + blue).flatten(1)
    counts = torch.zeros(len(batch), LEVELS**3).scatter_add_(1, colour, torch.ones(colour.shape))
    return (counts / colour.shape[1]).sqrt().numpy()


def tiny_picture(batch: Batch) -> NDArray[np.float32]:
    """(N, 768): 16 x 16 pixels."""
    return functional.adaptive_avg_pool2d(batch.images, 16).flatten(1).numpy()


def mlp_accuracy(data: Aviary, features: Features) -> float:
    """Per cent of test images that an MLP on `features` gets right."""
    seen = {
        split: np.concatenate([features(b) for b in data.batches(split, 250)]) for split in ("train", "test")
    }
    layers = MLPClassifier((256,), alpha=1.0, early_stopping=True, n_iter_no_change=8, random_state=0)
    model = make_pipeline(StandardScaler(), layers).fit(seen["train"], data.train.labels.numpy())
    return 100 * float(model.score(seen["test"], data.test.labels.numpy()))


def rows(data: Aviary) -> Iterator[tuple[str, float]]:
    """The name and the accuracy of each baseline, as they are measured."""
    yield "chance", 100 / len(data.classes)
    yield "colour histogram + MLP", mlp_accuracy(data, colour_histogram)
    yield "16 x 16 pixels + MLP", mlp_accuracy(data, tiny_picture)


def explainer_rows(data: Aviary, name: str, seeds: int) -> Iterator[tuple[str, float]]:
    """The accuracy of an interpretable network over `seeds`, then of the last one with each part removed."""
    for seed in range(seeds):
        model = ek.explainer(name).fit(data, seed=seed, progress=False)
        yield f"{name}, seed {seed}", 100 * model.evaluate(data, ["test"])["test"]["accuracy"]
    scenes = data.scenes("test")
    for part in data.parts:
        bare = interventions.remove(scenes, part)
        right = [
            (model.predict(batch).argmax(1) == batch.labels).float()
            for batch in (data.render(bare[start : start + 250]) for start in range(0, len(bare), 250))
        ]
        yield f"  without {part}", 100 * torch.cat(right).mean().item()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--classes", type=int, nargs="+", default=[20])
    arguments.add_argument("--presets", nargs="+", default=["standard"], choices=list(PRESETS))
    arguments.add_argument("--explainer", default="cam", help="'' for none")
    arguments.add_argument("--seeds", type=int, default=1)
    chosen = arguments.parse_args()
    print(f"{'task':28}{'model':28}{'test accuracy':>14}{'seconds':>9}")
    for preset in chosen.presets:
        for classes in chosen.classes:
            data = aviary(classes=classes, preset=preset)
            started = time.perf_counter()
            networks = explainer_rows(data, chosen.explainer, chosen.seeds) if chosen.explainer else ()
            for name, accuracy in chain(rows(data), networks):
                now = time.perf_counter()
                task = f"{preset}, {classes} classes"
                print(f"{task:28}{name:28}{accuracy:13.1f}%{now - started:9.1f}", flush=True)
                started = now


if __name__ == "__main__":
    main()
