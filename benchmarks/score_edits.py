"""Score edits of saved models on aviary: feasibility, size, time, and a check by brute force.

Usage: python benchmarks/score_edits.py --model FOLDER … [--images 500] [--threads 1]

A row a model, a choice of targets, and whether a proof is asked for. Two failures are reported as such: an
edit whose scores do not make the target win, and an "exact" one that brute force betters.
"""

import statistics
from itertools import combinations

import numpy as np
import torch
from aviary_models import (
    TARGETS,
    Models,
    choose_targets,
    load_models,
    model_parser,
    percent,
    print_header,
    print_row,
    seconds,
)
from scipy.optimize import linprog
from torch import Tensor

from explainkit.data.datasets.aviary.dataset import Aviary
from explainkit.explainers.state import undisturbed
from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.edits import ScoreEdits
from explainkit.questions.score_edits import edit_scores

MARGIN = 0.01
"""By how much the target is to be ahead by its evidence: the default of `counterfactual`."""


def all_weights(decomposition: Decomposition) -> Tensor:
    """(N, C, K), one pair of an image and a class after the other."""
    n, c = decomposition.logits.shape
    rows = torch.arange(n).repeat_interleave(c)
    return decomposition.weights_at(rows, torch.arange(c).repeat(n)).view(n, c, -1)


def measure_edits(models: Models, dataset: Aviary, images: int, repetitions: int) -> None:
    """Edits of the evidence, their proof by the weights, their time, and brute force."""
    print_header(
        "model", "units", "target", "prove", "feasible", "exact", "median size", "target wins", "ms an image",
        "no smaller by brute force",
    )  # fmt: skip
    for name, model in models.items():
        batch = dataset.test.batch(torch.arange(images))
        with undisturbed(model.network), torch.no_grad():
            decomposition: Decomposition = model.network.decompose(model.read_images(batch))  # type: ignore[operator]
            weights = all_weights(decomposition)
        units = model.units
        assert units is not None and units.score_range is not None
        for how in TARGETS:
            _, targets = choose_targets(model, batch.images, how)
            ranges = units.score_range[:, targets]
            for prove in (False, True):
                cells = edit_cells(
                    decomposition, weights, targets, ranges, 1 if prove else repetitions, prove
                )
                print_row(name, len(units), how, prove, *cells)


def edit_cells(
    decomposition: Decomposition, weights: Tensor, targets: Tensor, ranges: Tensor, repetitions: int,
    prove: bool,
) -> list[str]:  # fmt: skip
    """The measured columns of a row."""
    (low, high), scores = ranges, decomposition.scores

    def run() -> ScoreEdits:
        return edit_scores(
            decomposition.logits, targets, scores, lambda rows: weights[rows], low, high, margin=MARGIN,
            prove=prove,
        )  # fmt: skip

    edits = run()
    time = statistics.median(seconds(run) for _ in range(repetitions)) / len(targets) * 1000
    edited = torch.einsum("nck,nk->nc", weights.double(), edits.after.double()) + decomposition.bias.double()
    wins = (edited.argmax(1) == targets)[edits.feasible]
    is_plausible = (edits.after >= torch.minimum(low, scores) - 1e-5) & (
        edits.after <= torch.maximum(high, scores) + 1e-5
    )
    assert is_plausible.all(), "an edit leaves what is plausible"
    brute_force = "-"
    if scores.shape[1] <= 12:
        checked = [is_smallest(decomposition, weights, ranges, targets, edits, i) for i in range(20)]
        brute_force = f"{sum(checked)} of {len(checked)}"
    sizes = edits.size[edits.feasible]
    return [
        percent(edits.feasible), percent(edits.exact), f"{sizes.median().item() if len(sizes) else '-'}",
        percent(wins), f"{time:.2f}", brute_force,
    ]  # fmt: skip


def is_smallest(
    decomposition: Decomposition, weights: Tensor, ranges: Tensor, targets: Tensor, edits: ScoreEdits,
    image: int,
) -> bool:  # fmt: skip
    """Whether no set of fewer units could do, by a linear program for each set of one unit fewer.

    A smaller set that does is within one of these. Where no edit is feasible, all units are let move.
    """
    target, logits = int(targets[image]), decomposition.logits[image]
    gains = (weights[image, target] - weights[image]).double().numpy()
    gaps = (logits - logits[target] + MARGIN).double().numpy()
    is_foil = np.arange(len(gaps)) != target
    low, high = ranges[:, image] - decomposition.scores[image]
    down, up = low.double().clamp(max=0).numpy(), high.double().clamp(min=0).numpy()
    units = len(up)
    count = int(edits.size[image]) - 1 if edits.feasible[image] else units
    if count < 0:
        return True
    for chosen in combinations(range(units), count):
        free = np.isin(np.arange(units), chosen)
        solved = linprog(
            np.zeros(units), A_ub=-gains[is_foil], b_ub=-gaps[is_foil],
            bounds=list(zip(down * free, up * free, strict=True)), method="highs",
        )  # fmt: skip
        if solved.status == 0:
            return not edits.exact[image]
    return True


def main() -> None:
    parser = model_parser(__doc__, images=500)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    models, dataset = load_models(options)
    measure_edits(models, dataset, options.images, options.repetitions)


if __name__ == "__main__":
    main()
