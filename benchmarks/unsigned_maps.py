"""What the sign of a gradient is worth: each map as it is, its size, and what of it is above zero.

Usage: python benchmarks/unsigned_maps.py --model runs/demo/cam [--images 200]

Over mixed aviary scenes, beside noise without and with a sign: it tells whether a method is worse than chance
because its places are wrong or because its signs are.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

import explainkit as ek
from explainkit.metrics import Answer, Exam
from explainkit.metrics.baselines import random, signed_noise
from explainkit.metrics.faithfulness import part_deletion, residual_r, rho_phi

METRICS = (rho_phi, residual_r, part_deletion)
METHODS = ("saliency", "input-x-gradient", "guided-backprop")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of a saved explainer")
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    model = ek.load(options.model)
    exam = Exam(explainer=model, data=ek.dataset("aviary"), split="mixed", ids=torch.arange(options.images))
    print(f"{'':32}{''.join(f'{metric.__name__:>28}' for metric in METRICS)}")
    for noise in (random, signed_noise):
        show(exam, noise.__name__, noise(exam).saliency)
    for name in METHODS:
        method = ek.explainer(f"captum/{name}", network=model.network, classes=model.classes)
        saliency = method.explain(exam.images, exam.targets).saliency()
        for how, values in (
            ("", saliency), ("size", saliency.abs()), ("above zero", saliency.clamp(min=0))
        ):  # fmt: skip
            show(exam, f"{name} {how}", values)


def show(exam: Exam, name: str, saliency: Tensor) -> None:
    """Print a row."""
    scores = [metric(Answer(exam=exam, name=name, saliency_map=saliency)) for metric in METRICS]
    cells = [f"{score.mean:.3f} [{score.interval[0]:.3f}, {score.interval[1]:.3f}]" for score in scores]
    print(f"{name:32}{''.join(f'{cell:>28}' for cell in cells)}")


if __name__ == "__main__":
    main()
