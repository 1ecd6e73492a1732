"""Names of units of saved models on aviary: how good they are, and whether they are true of images.

Usage: python benchmarks/unit_names.py --model FOLDER … [--images 1000] [--threads 1]

Three tables, each with a row a model: scores, with the true masks and random maps as the ends of the scale;
the best and some poorer names; and of 500 test images, how often a phrase that is given as a reason is true.
"""

import time
from collections.abc import Sequence

import torch
from aviary_models import Model, Models, load_models, model_parser, percent, print_header, print_row
from torch import Tensor
from torch.nn import functional as F

import explainkit as ek
from explainkit.data.datasets.aviary.dataset import Aviary
from explainkit.metrics.concepts import concept_scores
from explainkit.questions import naming


def measure_names(models: Models, dataset: Aviary, images: int) -> None:
    """Print how well units are named, between the true masks and noise."""
    named_models = []
    print_header("model", "units", "named", "mean score", "mean of the named", "seconds")
    for title, model in models.items():
        start = time.perf_counter()
        names = ek.name_units(model, dataset, images=images)
        duration = time.perf_counter() - start
        scores, accepted = (torch.tensor(values) for values in zip(
            *((name.score, name.accepted) for name in names), strict=True))  # fmt: skip
        print_scores(title, scores, accepted, duration)
        best = sorted(names, key=lambda name: -name.score)
        poorer = [best[quarter * (len(best) - 1) // 4] for quarter in (2, 3, 4)]
        named_models.append((title, best[:5], poorer))
    batches = [dataset.validation.batch(ids) for ids in torch.arange(images).split(64)]
    concepts = naming.find_concepts(batches, dataset, True)
    noise = torch.rand(images, 96, 8, 8, generator=torch.Generator().manual_seed(0))
    for title, maps in (
        ("the true masks", concepts.masks.float()),
        ("random maps", F.interpolate(noise, concepts.grid, mode="bilinear")),
    ):
        start = time.perf_counter()
        result = concept_scores(maps, concepts.masks, concepts.known)
        accepted = (
            (result.fis >= naming.MIN_SCORE)
            & (result.fis > naming.MIN_STD_ERRORS * result.std_error)
            & (result.selection_stability > 0.5)
        )
        print_scores(title, result.fis, accepted, time.perf_counter() - start)
    print(f"\n{len(concepts.names)} candidates, {images} validation images")
    print_header("model", "the best five", "at half, three quarters and the end")
    for title, best, poorer in named_models:
        print_row(title, *("; ".join(describe(name) for name in names) for names in (best, poorer)))


def print_scores(title: str, scores: Tensor, accepted: Tensor, duration: float) -> None:
    mean = f"{scores[accepted].mean():.3f}" if accepted.any() else "-"
    print_row(title, len(scores), int(accepted.sum()), f"{scores.mean():.3f}", mean, f"{duration:.0f}")


def describe(name: naming.Name) -> str:
    accepted = "" if name.accepted else " (not accepted)"
    return f"{name.name}: {name.phrase} {name.score:.2f} ± {name.std_error:.2f}{accepted}"


def measure_truth(models: Models, dataset: Aviary) -> None:
    """Print how often phrases that are given as reasons are true of the image."""
    batches = [dataset.test.batch(ids) for ids in torch.arange(500).split(50)]
    concepts = naming.find_concepts(batches, dataset, True)
    print_header(
        "model", "phrases of 500 images", "of a score below 0", "true of the image",
        "where the score is above 0", "true of any image",
    )  # fmt: skip
    for title, model in models.items():
        print_row(title, *truth_of_phrases(model, batches, concepts))


def truth_of_phrases(model: Model, batches: Sequence[ek.Batch], concepts: naming.Concepts) -> list[object]:
    """Of three reasons for each decision, those with a phrase: how often it is true of the image.

    Where that is known; and how often the unit is a reason because it is not found.
    """
    assert model.units is not None
    phrases = model.units.phrases or [None] * len(model.units)
    concept = torch.tensor([-1 if p not in concepts.names else concepts.names.index(p) for p in phrases])
    is_present = concepts.masks.flatten(2).any(2)
    frequency = (is_present & concepts.known).sum(0) / concepts.known.sum(0)
    true, true_above_0, chance, below_0, start = [], [], [], [], 0
    for batch in batches:
        explanations = model.explain(batch)
        top = explanations.contributions.topk(3, 1)
        image, rank = ((top.values > 0) & (concept[top.indices] >= 0)).nonzero(as_tuple=True)
        unit = top.indices[image, rank]
        phrase, index = concept[unit], image + start
        is_lacking = explanations.scores[image, unit] < 0
        is_known = concepts.known[index, phrase]
        below_0.append(is_lacking)
        true.append(is_present[index, phrase][is_known])
        true_above_0.append(is_present[index, phrase][is_known & ~is_lacking])
        chance.append(frequency[phrase][is_known])
        start += len(batch)
    count = sum(map(len, below_0))
    return [count, *(percent(torch.cat(values)) for values in (below_0, true, true_above_0, chance))]


def main() -> None:
    options = model_parser(__doc__, images=1000).parse_args()
    models, dataset = load_models(options)
    measure_names(models, dataset, options.images)
    measure_truth(models, dataset)


if __name__ == "__main__":
    main()
