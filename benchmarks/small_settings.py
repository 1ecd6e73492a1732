"""Held-out accuracy and time of architectures at their `small` settings on aviary, over seeds.

Usage: python benchmarks/small_settings.py senn ra-cnn ccnn [--seeds 0 1 2] [--out runs/small]

A row a run: test accuracy, wall and CPU seconds of `fit`. With ``--out`` each model is kept, for the other
measurements.
"""

import argparse
import time
import warnings
from pathlib import Path

import torch

import explainkit as ek


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("explainers", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder to keep models in, as NAME-SEED")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    dataset = ek.dataset("aviary")
    for split in dataset.splits:
        for _ in dataset.batches(split, 500):  # drawn before the clock starts
            pass
    print("| explainer | seed | test accuracy | wall s | CPU s |\n|---|---|---|---|---|")
    for name in options.explainers:
        accuracies = []
        for seed in options.seeds:
            cpu, wall = time.process_time(), time.perf_counter()
            model = ek.explainer(name).fit(dataset, seed=seed, device="cpu", progress=False)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            accuracies.append(model.evaluate(dataset, ["test"])["test"]["accuracy"])
            print(f"| `{name}` | {seed} | {accuracies[-1]:.1%} | {wall:.0f} | {cpu:.0f} |", flush=True)
            if options.out:
                ek.save(model, options.out / f"{name}-{seed}")
        values = torch.tensor(accuracies)
        print(f"| `{name}` | mean | {values.mean():.1%} ± {values.std(correction=0):.1%} | | |", flush=True)


if __name__ == "__main__":
    main()
