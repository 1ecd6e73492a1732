"""What consistency changes: accuracy, and what becomes of maps among other images, for CAM and CI-GC.

Usage: python benchmarks/cigc.py [--dataset aviary] [--dataset-option name=value ...]
       [--option name=value ...] [--epochs 12] [--warm 4] [--weights 0.5 1.0] [--images 64] [--grids 4]
       [--seed 0] [--confusion] [--model runs/cam-0 runs/ci-gc-0 …]

A row a run, all with the same settings: CAM, and CI-GC with each weight of its distance; CPU seconds of
`fit` (0 for trained models), test accuracy, mean overlap and share inside over composites of the first test
images with training images, and how many maps are dead. With ``--confusion`` which class draws attention from
which.
"""

import argparse
import time
from pathlib import Path

import torch

import explainkit as ek
from explainkit.cli.options import options_of
from explainkit_cigc.certificate import attention_confusion, measure_consistency


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="aviary")
    parser.add_argument("--dataset-option", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--option", nargs="*", metavar="NAME=VALUE", help="settings of both architectures")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--warm", type=int, default=4)
    parser.add_argument("--weights", type=float, nargs="*", default=[0.5, 1.0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--grids", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--confusion", action="store_true")
    parser.add_argument(
        "--model", type=Path, nargs="+", help="folders of trained models, instead of training"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = ek.dataset(options.dataset, **options_of(options.dataset_option))
    trained = [(folder.name, ek.load(folder)) for folder in options.model or ()]
    common = {"epochs": options.epochs, **options_of(options.option)}
    runs = [("CAM", ek.explainer("cam", **common))]
    runs += [
        (
            f"`consistency={weight}`",
            ek.explainer("ci-gc", consistency=weight, warm_epochs=options.warm, **common),
        )
        for weight in options.weights
    ]
    for _ in dataset.batches("train", 500):  # drawn before the clock starts
        pass
    batch = dataset.test.batch(torch.arange(min(options.images, len(dataset.test))))
    print("| | CPU s | accuracy | overlap | inside | dead |\n|---|---|---|---|---|---|")
    for name, model in trained or runs:
        cpu = time.process_time()
        if not trained:
            model.fit(dataset, seed=options.seed, device="cpu", progress=False)
        cpu = time.process_time() - cpu
        accuracy = model.evaluate(dataset, ["test"])["test"]["accuracy"]
        measured = measure_consistency(model, batch, dataset, batch.labels, grids=options.grids)
        overlap, inside = measured.mean_overlap.nanmean(), measured.mean_inside.nanmean()
        dead = int(measured.is_dead.sum())
        print(f"| {name} | {cpu:.0f} | {accuracy:.1%} | {overlap:.3f} | {inside:.3f} | {dead} |", flush=True)
        if options.confusion:
            confusion = attention_confusion(model, batch, dataset, grids=options.grids)
            print("\n".join(" ".join(f"{value:.2f}" for value in row) for row in confusion.tolist()))


if __name__ == "__main__":
    main()
