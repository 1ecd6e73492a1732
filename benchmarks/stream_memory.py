"""Whether memory is flat while 20,000 images are explained one batch after the other.

Usage: python benchmarks/stream_memory.py [--images 20000] [--names cam protopnet captum/saliency]

A row an explainer: the memory of the process, in MB, after each tenth of the images, and by how much it grew
from the second tenth to the last.
"""

import argparse
import gc
import os
from collections.abc import Iterator

import torch

from explainkit.data.types import Batch
from explainkit.testing import fitted_example

BATCH_SIZE = 250
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_megabytes() -> float:
    """Of this process, now."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE_BYTES / 1e6


def batches(count: int, size: int = 64) -> Iterator[Batch]:
    """`count` images of noise, drawn as they are asked for."""
    generator = torch.Generator().manual_seed(0)
    for start in range(0, count, BATCH_SIZE):
        ids = torch.arange(start, min(start + BATCH_SIZE, count))
        images = torch.rand(len(ids), 3, size, size, generator=generator)
        yield Batch(images=images, labels=torch.zeros(len(ids), dtype=torch.long), ids=ids)


def main() -> None:
    """A line an explainer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--names", nargs="+", default=["cam", "protopnet", "captum/saliency"])
    arguments = parser.parse_args()
    for name in arguments.names:
        explainer, sizes, seen, total = fitted_example(name), [], 0, 0.0
        for explanations in explainer.explain_stream(batches(arguments.images)):
            seen += len(explanations)
            total += explanations.saliency((8, 8)).sum().item()
            if seen * 10 % arguments.images == 0:
                sizes.append(resident_megabytes())
        grown = sizes[-1] - sizes[1]
        print(f"{name:<18} {' '.join(f'{size:6.0f}' for size in sizes)}   grown {grown:+.0f} MB", flush=True)


if __name__ == "__main__":
    main()
