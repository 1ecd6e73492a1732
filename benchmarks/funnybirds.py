"""FunnyBirds' scores of five architectures and of post-hoc methods, on aviary's preset after theirs.

Usage: python benchmarks/funnybirds.py --models DIR [--train 20000] [--seeds 0] [--threads 2] [--images 500]

Trains cam, protopnet, senn, ccnn and ra-cnn at their `small` settings, or loads those that --models has as
NAME-SEED, and keeps there what it trains. With --from-cam, protopnet, ccnn and ra-cnn begin with the backbone
of CAM, for fewer epochs; all but CAM learn from --train-rest images. Then evaluates each beside all trivial
rows, six post-hoc methods with CAM's network, with thresholds chosen on validation images and as published;
the share of unreasonable prototypes of protopnet, and unreasonable swaps of every architecture. Prints
Markdown and writes NAME-SEED.json and custom-SEED.json to --out. ``--preset tiny`` is for looking whether it
runs.
"""

import argparse
import json
import math
import time
import warnings
from pathlib import Path

import torch

import explainkit as ek
from explainkit.metrics import Score, unreasonable_prototypes, unreasonable_swaps

ARCHITECTURES = ("cam", "protopnet", "senn", "ccnn", "ra-cnn")
POST_HOC = (
    "captum/input-x-gradient", "captum/integrated-gradients", "captum/layer-grad-cam", "captum/occlusion",
    "captum/deep-lift-shap", "captum/saliency",
)  # fmt: skip
TINY = {"classes": 20, "size": 32, "train": 200, "validation": 20, "test": 20}
"""The data for ``--preset tiny``."""

FROM_CAM = {
    "protopnet": {"start_epochs": 1, "joint_epochs": 3},
    "ccnn": {"guided_epochs": 4, "last_epochs": 1},
    "ra-cnn": {"warm_epochs": 1, "look_epochs": 1, "fusion_epochs": 1},
}
"""Settings of architectures that begin with the backbone of CAM."""

PUBLISHED = {
    "unreasonable prototypes": "372 of 1,000",
    "unreasonable prototypes, peak": "",
    "unreasonable swaps, one part differs": "1.03",
    "unreasonable swaps, any class": "2.75",
}
"""By the paper, of ProtoPNet and of counterfactuals after Goyal et al. in another pose."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", type=Path, help="folder of models, NAME-SEED; trained ones are kept there"
    )
    parser.add_argument("--explainers", nargs="+", default=list(ARCHITECTURES), choices=ARCHITECTURES)
    parser.add_argument("--post-hoc", nargs="*", default=list(POST_HOC))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--custom-images", type=int, default=100, help="of the two custom evaluations")
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--train", type=int, default=5000, help="training images")
    parser.add_argument("--from-cam", action="store_true", help="begin with the backbone of CAM")
    parser.add_argument("--train-rest", type=int, help="training images of all but CAM")
    parser.add_argument("--preset", default="small", help="of the architectures")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/funnybirds"))
    options = parser.parse_args()
    if options.from_cam and options.models is None:
        parser.error("--from-cam needs --models, where CAM's network lies")
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    dataset = funny_birds(options.train, options)
    rest = funny_birds(options.train_rest or options.train, options)
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        models = {
            name: trained_or_loaded(name, seed, dataset if name == "cam" else rest, options)
            for name in options.explainers
        }
        for name, model in models.items():
            print_scores(name, model, seed, dataset, options)
        print_custom(models, seed, dataset, options)


def funny_birds(train: int, options: argparse.Namespace) -> ek.ImageDataset:
    """Aviary after FunnyBirds with so many training images; the other splits do not depend on that."""
    settings = {"classes": options.classes, "train": train, "test": 500}
    return ek.dataset("aviary", preset="funny", **(TINY if options.preset == "tiny" else settings))


def trained_or_loaded(
    name: str, seed: int, dataset: ek.ImageDataset, options: argparse.Namespace
) -> ek.InterpretableExplainer:
    """A model from ``--models``, or a new one that is kept there."""
    folder = options.models / f"{name}-{seed}" if options.models else None
    if folder is not None and folder.exists():
        return ek.load(folder, device=options.device)
    start = time.perf_counter()
    settings = {}
    if options.from_cam and name in FROM_CAM:
        settings = FROM_CAM[name] | {"weights": str(options.models / f"cam-{seed}")}
    model = ek.explainer(name, preset=options.preset, **settings)
    model = model.fit(dataset, seed=seed, device=options.device, progress=False)
    accuracy = model.evaluate(dataset, ["test"])["test"]["accuracy"]
    print(f"{name}, seed {seed}: accuracy {accuracy:.1%}, {time.perf_counter() - start:.0f} s", flush=True)
    if folder is not None:
        ek.save(model, folder)
    return model


def print_scores(
    name: str, model: ek.InterpretableExplainer, seed: int, dataset: ek.ImageDataset,
    options: argparse.Namespace,
) -> None:  # fmt: skip
    """The two tables of a network: its own explanations, and for CAM post-hoc methods beside them."""
    start = time.perf_counter()
    rows: dict[str, ek.Explainer] = {name: model}
    if name == "cam":
        for method in options.post_hoc:
            rows[method] = ek.explainer(method, network=model.network, classes=model.classes)
    tables = ek.evaluate_funnybirds(rows, dataset, images=options.images)
    seconds = time.perf_counter() - start
    (options.out / f"{name}-{seed}.json").write_text(tables.to_json(), encoding="utf-8")
    print(f"\n## {name}, seed {seed}\n\n{tables.markdown()}\n{seconds:.0f} s\n", flush=True)


def print_custom(
    models: dict[str, ek.InterpretableExplainer], seed: int, dataset: ek.ImageDataset,
    options: argparse.Namespace,
) -> None:  # fmt: skip
    """Unreasonable prototypes and unreasonable swaps, a line each."""
    count, scores = options.custom_images, {}
    for name, model in models.items():
        asked = {
            "unreasonable prototypes": lambda model=model: unreasonable_prototypes(
                model, dataset, images=count
            ),
            "unreasonable prototypes, peak": lambda model=model: unreasonable_prototypes(
                model, dataset, images=count, keep="peak"
            ),
            "unreasonable swaps, one part differs": lambda model=model: unreasonable_swaps(
                model, dataset, differing=1, images=count
            ),
            "unreasonable swaps, any class": lambda model=model: unreasonable_swaps(
                model, dataset, images=count
            ),
        }
        for title, measure in asked.items():
            try:
                scores[name, title] = measure()
            except ek.InputError as error:
                scores[name, title] = Score(name=title, reason=str(error))
    print(f"\n## Custom evaluations, seed {seed}\n")
    print(
        "| explainer | evaluation | mean | 95 % | images | note | published |\n|---|---|---|---|---|---|---|"
    )
    for (name, title), score in scores.items():
        low, high = score.interval
        value = f"{score.mean:.3f} | {low:.3f} … {high:.3f} | {len(score.defined)}"
        cells = f"{value} | {score.note}" if score.reason is None else f"- | - | 0 | {score.reason}"
        print(f"| {name} | {title} | {cells} | {PUBLISHED[title]} |", flush=True)
    facts = [
        {
            "explainer": name, "evaluation": title, "note": score.note, "reason": score.reason,
            "values": None
            if score.values is None
            else [None if math.isnan(value) else value for value in score.values.tolist()],
        }
        for (name, title), score in scores.items()
    ]  # fmt: skip
    (options.out / f"custom-{seed}.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
