"""Saved models of aviary, their targets for counterfactuals, and Markdown tables: shared by benchmarks."""

import argparse
import time
from collections.abc import Callable

import torch
from attrs import evolve
from torch import Tensor

import explainkit as ek
from explainkit.data.datasets.aviary.dataset import Aviary
from explainkit.explainers.interpretable import InterpretableExplainer

Model = InterpretableExplainer[torch.nn.Module]
Models = dict[str, Model]

TARGETS = ("runner-up", "random")
"""How the target of a counterfactual is chosen."""


def model_parser(description: str | None, images: int | None) -> argparse.ArgumentParser:
    """A parser with the options of all benchmarks of saved models; `images` is the default of its own."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--model", nargs="+", required=True, help="folders of models trained on aviary")
    parser.add_argument("--threads", type=int, default=1)
    if images is not None:
        parser.add_argument("--images", type=int, default=images, help=f"{images} unless given")
    return parser


def load_models(options: argparse.Namespace) -> tuple[Models, Aviary]:
    """The models by title, or by folder where a title is taken, and their dataset."""
    torch.set_num_threads(options.threads)
    dataset = ek.dataset("aviary")
    assert isinstance(dataset, Aviary)
    models: Models = {}
    for folder in options.model:
        model = ek.load(folder)
        assert isinstance(model, InterpretableExplainer) and model.units is not None
        if model.units.score_range is None:
            model.units = evolve(model.units, score_range=model.score_ranges(dataset))
        models[model.card.title if model.card.title not in models else folder] = model
    return models, dataset


def choose_targets(model: Model, images: Tensor, how: str) -> tuple[Tensor, Tensor]:
    """Predictions, and targets: runners-up, or any other class by chance."""
    logits = model.predict(images)
    top = logits.topk(2, 1).indices
    step = torch.randint(1, logits.shape[1], (len(images),), generator=torch.Generator().manual_seed(0))
    return top[:, 0], top[:, 1] if how == "runner-up" else (top[:, 0] + step) % logits.shape[1]


def print_header(*columns: str) -> None:
    """The head of a Markdown table."""
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def print_row(*values: object) -> None:
    """A line of it."""
    print(f"| {' | '.join(str(value) for value in values)} |", flush=True)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def percent(values: Tensor) -> str:
    return f"{values.float().mean().item():.1%}" if values.numel() else "-"
