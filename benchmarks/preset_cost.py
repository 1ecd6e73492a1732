"""What training costs with one preset, as a ratio to another, by the CPU time of whole fits side by side.

Usage: python benchmarks/preset_cost.py cam protopnet --presets standard small [--repeats 3] [--train 320]

Fits alternate, so that both see the same machine; a row is the median of the ratios of the pairs.
"""

import argparse
import time
import warnings
from statistics import median

import torch

import explainkit as ek


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("explainers", nargs="+")
    parser.add_argument("--presets", nargs=2, default=["standard", "small"], help="the first is the baseline")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--train", type=int, default=320, help="training images")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    dataset = ek.dataset("aviary", train=options.train, validation=64, test=64)
    for split in ("train", "validation"):
        for _ in dataset.batches(split, 64):  # drawn before the clock starts
            pass
    baseline, other = options.presets
    print(f"| explainer | CPU time of `{other}` over `{baseline}` | pairs |\n|---|---|---|")
    for name in options.explainers:
        ratios = []
        for _ in range(options.repeats):
            spent = {preset: _fit_cpu_seconds(name, preset, dataset) for preset in options.presets}
            ratios.append(spent[other] / spent[baseline])
        pairs = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| `{name}` | {median(ratios):.2f} | {pairs} |", flush=True)


def _fit_cpu_seconds(name: str, preset: str, dataset: ek.ImageDataset) -> float:
    start = time.process_time()
    ek.explainer(name, preset=preset).fit(dataset, seed=0, device="cpu", progress=False)
    return time.process_time() - start


if __name__ == "__main__":
    main()
