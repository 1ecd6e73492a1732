"""Whether CCNN's filters find what their phrases say, and where: against what aviary's scenes truly have.

Usage: python benchmarks/ccnn.py [--model folder ...] [--seed 0] [--variation 0.1] [--out folder]

Without ``--model`` two networks are trained: `small`, and the same with ``concept_weight=0``, so that its
filters have phrases and are not guided by them. Captions name two to four parts of a bird; what is measured
against is every part of it, on held-out images. A row a model and a split:

- *AUC*: of a phrase's score for whether its attribute is there, a mean over phrases; *apart*: over those that
  are not `confounded`. *Within*: of pairs of images of one class alone, half of which are right by chance.
- *pointing*: how often the highest pixel of a phrase's map is on its part, where that is as the phrase says;
  *mass*: the share of the map on it; *chance*: the share of the image that is. Means over phrases.

What knows the class alone, and which phrases are its, is the row to be above.
"""

import argparse
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from attrs import frozen
from scipy.stats import rankdata
from torch import Tensor

import explainkit as ek
from explainkit.data.datasets.aviary.dataset import Aviary
from explainkit.data.datasets.aviary.grammar import (
    COLORS,
    PARTS,
    PATTERNS,
    SHAPES,
)
from explainkit.data.datasets.aviary.words import (
    COLOR_WORDS,
    NOUNS,
    PATTERN_WORDS,
    SHAPE_WORDS,
)
from explainkit.explanations.spatial import resize
from explainkit.metrics.localization import mass_within, pointing_game
from explainkit_ccnn.explainer import CCNN

SPLITS = ("test", "mixed")
"""Birds like their species, up to one in ten; birds with one part of another, and up to two missing."""


@frozen
class Meaning:
    """What a phrase is about: a part, one of shape, color and pattern, and which."""

    part: int
    attribute: int
    value: int


@frozen(kw_only=True)
class Detections:
    """What a model detects of P phrases in N images, and what is there."""

    scores: Tensor
    truth: Tensor
    labels: Tensor
    correct: Tensor
    pointing: Tensor
    mass: Tensor
    area: Tensor


def meaning_of(phrase: str) -> Meaning | None:
    """The part and the attribute that a phrase names; ``None`` for one about something else."""
    word, _, noun = phrase.partition(" ")
    part = next((p for p, nouns in NOUNS.items() if noun in nouns), None)
    if part is None:
        return None
    vocabularies = ((SHAPE_WORDS[part], SHAPES[part]), (COLOR_WORDS, COLORS), (PATTERN_WORDS, PATTERNS))
    for attribute, (words, values) in enumerate(vocabularies):
        for value, texts in words.items():
            if word in texts:
                return Meaning(PARTS.index(part), attribute, values.index(value))
    return None


def meanings_of(phrases: Sequence[str]) -> dict[int, Meaning]:
    """By the phrase's number, those that have one."""
    meanings = ((k, meaning_of(phrase)) for k, phrase in enumerate(phrases))
    return {k: meaning for k, meaning in meanings if meaning is not None}


def truth_of(dataset: Aviary, split: str, ids: Tensor, meanings: Sequence[Meaning]) -> Tensor:
    """Which images have what each phrase says, (N, P)."""
    scenes = dataset.scenes(split, ids.numpy())
    has_phrase = [
        scenes.present[:, 0, m.part] & (scenes.codes[:, 0, m.part, m.attribute] == m.value) for m in meanings
    ]
    return torch.stack([torch.from_numpy(column) for column in has_phrase], 1)


@torch.no_grad()
def detect(model: CCNN, dataset: Aviary, split: str, meanings: dict[int, Meaning]) -> Detections:
    """Scores, maps and scenes of a whole split."""
    units, parts = torch.tensor(list(meanings)), torch.tensor([m.part for m in meanings.values()])
    gathered: list[tuple[Tensor, ...]] = []
    for batch in dataset.batches(split, 100):
        assert batch.masks is not None
        decomposition = model.network.eval().decompose(batch.images)  # type: ignore[operator]
        maps = resize(decomposition.maps[:, units], dataset.size).flatten(0, 1)
        masks = batch.masks[:, parts].flatten(0, 1)
        truth = truth_of(dataset, split, batch.ids, list(meanings.values()))
        is_seen = truth & batch.masks[:, parts].flatten(2).any(2)
        measures = (pointing_game(maps, masks), mass_within(maps, masks), masks.float().mean((1, 2)))
        measures_where_seen = [values.view_as(truth).where(is_seen, torch.nan) for values in measures]
        is_right = decomposition.logits.argmax(1) == batch.labels
        gathered.append((decomposition.scores[:, units], truth, batch.labels, is_right, *measures_where_seen))
    scores, truth, labels, correct, pointing, mass, area = map(torch.cat, zip(*gathered, strict=True))
    return Detections(
        scores=scores, truth=truth, labels=labels, correct=correct, pointing=pointing, mass=mass, area=area
    )


def auc(scores: Tensor, truth: Tensor) -> float:
    """How often a score where it is true is above one where it is not, ties being half; NaN without both."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return float("nan")
    ranks = torch.from_numpy(rankdata(scores.numpy()))
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def auc_within(scores: Tensor, truth: Tensor, labels: Tensor) -> float:
    """The same over pairs of images of one class, whichever it is."""
    total = pairs = 0.0
    for label in labels.unique():
        in_class = labels == label
        count = float(truth[in_class].sum() * (~truth[in_class]).sum())
        if count:
            total, pairs = total + count * auc(scores[in_class], truth[in_class]), pairs + count
    return total / pairs if pairs else float("nan")


def rows(model: CCNN, dataset: Aviary, split: str) -> Iterator[str]:
    """A row of the model, and one of what knows the true class of each image, and its phrases, alone."""
    assert model.units is not None and model.units.phrases is not None
    phrases = [str(phrase) for phrase in model.units.phrases]
    meanings = meanings_of(phrases)
    detections = detect(model, dataset, split, meanings)
    is_distinct = torch.tensor([phrases[k] not in model.confounded for k in meanings])
    of_classes = model.network.state_dict()["of_classes"][list(meanings)].float().T  # (C, P)
    localization = [
        f"{values.nanmean(0).nanmean():.1%}"
        for values in (detections.pointing, detections.mass, detections.area)
    ]
    accuracy = f"{detections.correct.float().mean():.1%}"
    for name, scores, first, last in (
        (
            f"weight {model.concept_weight:g}, seed {model.provenance().seed}",
            detections.scores,
            accuracy,
            localization,
        ),
        ("the class alone", of_classes[detections.labels], "", [""] * 3),
    ):
        columns = list(zip(scores.T, detections.truth.T, strict=True))
        overall = torch.tensor([auc(*column) for column in columns])
        within = torch.tensor([auc_within(*column, detections.labels) for column in columns])
        aucs = [
            f"{values.nanmean():.3f}"
            for values in (overall, overall[is_distinct], within, within[is_distinct])
        ]
        yield " | ".join([name, split, first, *aucs, *last])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", type=Path, default=[], help="folders of saved models")
    parser.add_argument("--seed", type=int, default=0, help="of the models that are trained")
    parser.add_argument("--variation", type=float, default=0.1, help="aviary's: birds unlike their species")
    parser.add_argument("--option", nargs="*", default=[], metavar="NAME=NUMBER", help="settings of training")
    parser.add_argument("--guided-alone", action="store_true", help="train without concept_weight=0")
    parser.add_argument("--out", type=Path, help="folder to keep what is trained in, as ccnn-WEIGHT-SEED")
    parser.add_argument("--phrases", action="store_true", help="print each phrase's AUC too")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    dataset = ek.dataset("aviary", variation=options.variation)
    assert isinstance(dataset, Aviary)
    print("| model | split | accuracy | AUC | apart | within | within, apart | pointing | mass | chance |")
    print(f"|{'---|' * 10}", flush=True)
    for model in models(options, dataset):
        for split in SPLITS:
            for cells in rows(model, dataset, split):
                print(f"| {cells} |", flush=True)
        if options.phrases:
            print_phrases(model, dataset)


def models(options: argparse.Namespace, dataset: Aviary) -> Iterator[CCNN]:
    """Those of the folders, or trained here."""
    for folder in options.model:
        model = ek.load(folder)
        assert isinstance(model, CCNN)
        yield model
    texts = dict(item.split("=", 1) for item in options.option)
    settings = {name: float(text) if re.search(r"[.e]", text) else int(text) for name, text in texts.items()}
    for weight in () if options.model else (None,) if options.guided_alone else (None, 0.0):
        guided = settings | ({} if weight is None else {"concept_weight": weight})
        model = ek.explainer("ccnn", **guided).fit(dataset, seed=options.seed, device="cpu", progress=False)
        if options.out:
            ek.save(model, options.out / f"ccnn-{model.concept_weight:g}-{options.seed}")
        yield model


def print_phrases(model: CCNN, dataset: Aviary) -> None:
    """Each phrase's AUC on the first split, the lowest first."""
    assert model.units is not None and model.units.phrases is not None
    phrases = [str(phrase) for phrase in model.units.phrases]
    meanings = meanings_of(phrases)
    detections = detect(model, dataset, SPLITS[0], meanings)
    aucs = {
        phrases[k]: auc(detections.scores[:, index], detections.truth[:, index])
        for index, k in enumerate(meanings)
    }
    for phrase, value in sorted(aucs.items(), key=lambda item: item[1]):
        print(f"  {value:.3f} {phrase}{' *' if phrase in model.confounded else ''}")


if __name__ == "__main__":
    main()
