"""What the sign of a gradient is worth: each map as it is, its size, and what of it is above zero.

Usage: python benchmarks/unsigned_maps.py --model runs/demo/cam [--images 200]

Over mixed aviary scenes, beside noise without and with a sign: it shows whether a method is worse than chance
because its places are wrong or because its signs are.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

import explainkit as ek
from explainkit.metrics import EvalContext, ExplainerOutput
from explainkit.metrics.baselines import random, signed_noise
from explainkit.metrics.faithfulness import part_deletion, shapley_correlation, within_class_correlation

METRICS = (shapley_correlation, within_class_correlation, part_deletion)
METHODS = ("saliency", "input-x-gradient", "guided-backprop")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of a saved explainer")
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    model = ek.load(options.model)
    context = EvalContext(
        explainer=model, dataset=ek.dataset("aviary"), split="mixed", ids=torch.arange(options.images)
    )
    print(f"{'':32}{''.join(f'{metric.__name__:>28}' for metric in METRICS)}")
    for noise in (random, signed_noise):
        show(context, noise.__name__, noise(context).saliency)
    for name in METHODS:
        method = ek.explainer(f"captum/{name}", network=model.network, classes=model.classes)
        saliency = method.explain(context.images, context.targets).saliency()
        for how, values in (
            ("", saliency), ("size", saliency.abs()), ("above zero", saliency.clamp(min=0))
        ):  # fmt: skip
            show(context, f"{name} {how}", values)


def show(context: EvalContext, name: str, saliency: Tensor) -> None:
    """Print a row."""
    scores = [
        metric(ExplainerOutput(context=context, name=name, saliency_map=saliency)) for metric in METRICS
    ]
    cells = [f"{score.mean:.3f} [{score.interval[0]:.3f}, {score.interval[1]:.3f}]" for score in scores]
    print(f"{name:32}{''.join(f'{cell:>28}' for cell in cells)}")


if __name__ == "__main__":
    main()
