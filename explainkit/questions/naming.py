"""Words for any unit: what it detects best, of all that parts and captions give names to, if anything.

A phrase is chosen on some images and scored on others, by `explainkit.metrics.concepts`. Where its score is
not beyond chance there is none: a unit without a phrase goes by its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from explainkit.data.captions.phrases import extract_phrases, tokenize
from explainkit.data.types import Batch, Caption, ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.interface import Explainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.display import markup
from explainkit.explanations.json_values import JsonValue
from explainkit.metrics.concepts import (
    FOLDS,
    GRID,
    concept_regions,
    fold_of,
    join_scores,
    on_grid,
    score_features,
)
from explainkit.questions.unit_maps import images_at_once, unit_maps

MIN_STD_ERRORS = 4.0
"""Standard errors by which a score must be beyond chance: of five folds, they are uncertain themselves."""

MIN_SCORE = 0.1
"""The smallest score that a phrase is said for: below, most of what the unit finds is something else."""

MIN_IMAGES = 10
"""Images in which a concept must be, to be a candidate; and in which what is said of a part must not be."""


@frozen(kw_only=True)
class Name(JsonValue):
    """What one unit is best a detector of.

    Attributes
    ----------
    phrase : str or None
        The best candidate; ``None`` where there is none to choose from.
    score, std_error : float
        Cross-fitted: 1 for the concept itself, 0 for chance; and its standard error.
    selection_stability : float
        In how large a share of the folds it was the best.
    accepted : bool
        Whether it is good enough to be said.
    """

    unit: int
    name: str
    phrase: str | None
    score: float
    std_error: float
    selection_stability: float
    accepted: bool


@frozen(eq=False, kw_only=True)
class Names(JsonValue):
    """The names of an explainer's units, good and poor ones.

    Attributes
    ----------
    candidates : tuple of str
        All that could have been chosen.
    images : int
    reason : str or None
        Why there are no names.
    """

    explainer: str
    units: tuple[Name, ...]
    candidates: tuple[str, ...] = field(repr=False)
    images: int
    reason: str | None = None

    def __len__(self) -> int:
        return len(self.units)

    def __iter__(self) -> Iterator[Name]:
        return iter(self.units)

    def __getitem__(self, unit: int) -> Name:
        return self.units[unit]

    def _repr_html_(self) -> str:
        return markup(self.table())

    def table(self) -> str:
        """All units, the best named first, as text."""
        if self.reason:
            return self.reason
        rows = sorted(self.units, key=lambda name: -name.score)
        lines = [
            f"{row.name:<24} {row.phrase or '-':<28} {row.score:6.3f} ± {row.std_error:.3f}"
            f"{'' if row.accepted else '   (not accepted)'}"
            for row in rows
        ]
        head = f"{'unit':<24} {'best phrase':<28} {'score':>6}   error"
        return "\n".join([head, *lines])


def name_units(
    explainer: Explainer,
    dataset: ImageDataset,
    *,
    split: str = "validation",
    images: int = 1000,
    folds: int = FOLDS,
    seed: int = 0,
) -> Names:
    """Name an explainer's units by what the parts, key phrases and captions of `dataset` tell of its images.

    The phrases are kept with the explainer's units, and are saved with it; a unit that has a phrase of its
    own keeps that.

    Parameters
    ----------
    split : str
        Images that the network did not learn from.
    images : int
        How many of them, at most.
    folds : int
        A phrase is chosen on all but one of so many shares of the images, and scored on that one, in turn.
    seed : int
        Of how images are parted.

    Raises
    ------
    InputError
        For data that have neither parts nor captions, and for less than an image or two folds.
    """
    explainer.network  # refuses what is not fitted, in words  # noqa: B018
    if explainer.units is None or "image" not in explainer.card.answers:
        kind = explainer.card.unit_kind
        return Names(
            explainer=explainer.card.title,
            units=(),
            candidates=(),
            images=0,
            reason=f"The units of {explainer.card.title} are {kind}, which have no meaning to name.",
        )
    if images < 1 or folds < 2:
        raise InputError(f"Expected an image or more and two folds or more; got {images} and {folds}.")
    with torch.inference_mode(False):
        return _name_each_unit(explainer, dataset, split, images, folds, seed)


def _name_each_unit(
    explainer: Explainer,
    dataset: ImageDataset,
    split: str,
    images: int,
    folds: int,
    seed: int,
) -> Names:
    """The names of all units; those that are accepted become the units' phrases."""
    source = dataset.split(split)
    count = min(images, len(source))
    first = _explain_strongest(explainer, source.batch(torch.zeros(1, dtype=torch.long)))
    ids = torch.arange(count).split(images_at_once(first))

    def batches() -> Iterator[Batch]:
        return (source.batch(part) for part in ids)

    concepts = find_concepts(batches(), dataset, first.maps is not None and first.units.pooling != "none")
    regions = concept_regions(concepts.masks, concepts.known, fold_of(count, folds, seed), folds)
    explain = partial(_explain_strongest, explainer)
    scored = join_scores(
        [score_features(maps, regions) for maps in unit_maps(explain, batches, count, first, concepts.grid)]
    )
    units = explainer.units
    assert units is not None
    names = tuple(
        Name(
            unit=unit,
            name=units.names[unit],
            phrase=concepts.names[concept] if concept >= 0 else None,
            score=score,
            std_error=error,
            selection_stability=stability,
            accepted=concept >= 0
            and score >= MIN_SCORE
            and score > MIN_STD_ERRORS * error
            and stability > 0.5,
        )
        for unit, (concept, score, error, stability) in enumerate(
            zip(
                scored.concept.tolist(),
                scored.fis.tolist(),
                scored.std_error.tolist(),
                scored.selection_stability.tolist(),
                strict=True,
            )
        )
    )
    if units.phrases is None or units.phrase_scores is not None:
        phrase_scores = torch.tensor(
            [[n.score if n.accepted else 0.0, n.std_error if n.accepted else 0.0] for n in names]
        ).T
        phrases = tuple(name.phrase if name.accepted else None for name in names)
        explainer.units = evolve(units, phrases=phrases, phrase_scores=phrase_scores.contiguous())
    return Names(explainer=explainer.card.title, units=names, candidates=concepts.names, images=count)


@frozen(eq=False, kw_only=True)
class Concepts:
    """What could be a unit's name: where each is in each image.

    Attributes
    ----------
    names : tuple of str, K
    masks : Tensor, (N, K, h, w), bool
    known : Tensor, (N, K), bool
        Whether the image's captions or masks say if it is there.
    grid : (int, int)
        (1, 1) where only whole images are described.
    """

    names: tuple[str, ...]
    masks: Tensor
    known: Tensor
    grid: tuple[int, int]


def _explain_strongest(explainer: Explainer, batch: Batch) -> Explanations:
    """One explanation an image, whose scores and maps are the same for every target."""
    is_exclusive = explainer.decision.is_exclusive
    targets = None if is_exclusive else explainer.decision.strongest(explainer.predict(batch))
    return explainer.explain(batch, targets)


def find_concepts(batches: Iterable[Batch], dataset: ImageDataset, localized: bool) -> Concepts:
    """Parts, and attributes of parts; where there are no masks, what captions say of whole images."""
    on_grids: list[Tensor] = []
    captions: list[Caption] = []
    grid = (1, 1)
    for index, batch in enumerate(batches):
        if index == 0:
            with_masks = batch.masks is not None and len(dataset.parts) > 0
            if not with_masks and batch.captions is None:
                raise InputError(
                    f"Expected data with masks of parts or with captions, to take names from; {dataset.name} "
                    "has neither."
                )
            grid = GRID if localized and with_masks else grid
        if with_masks and batch.masks is not None:
            on_grids.append(on_grid(batch.masks, grid))
        captions += batch.captions or ()
    masks = torch.cat(on_grids) if on_grids else None
    mentioned, known = _mentions(captions, dataset)
    names, regions, annotated = [], [], []
    if masks is not None:
        for index, part in enumerate(dataset.parts):
            names.append(part)
            regions.append(masks[:, index])
            annotated.append(torch.ones(len(masks), dtype=torch.bool))
    for (part, words), present in mentioned.items():
        region = present[:, None, None].expand(-1, *grid)
        if masks is not None:
            if part not in dataset.parts:
                continue
            region = region & masks[:, dataset.parts.index(part)]
        names.append(words)
        regions.append(region)
        annotated.append(known[part, words])
    enough = min(MIN_IMAGES, len(regions[0]) // 4 + 1) if regions else MIN_IMAGES
    usable = []
    for index, (region, annotated_here) in enumerate(zip(regions, annotated, strict=True)):
        present = region.flatten(1).any(1)
        whole_part = masks is not None and index < len(dataset.parts)
        if present.sum() >= enough and (whole_part or (annotated_here & ~present).sum() >= enough):
            usable.append(index)
    if not usable:
        raise InputError(
            f"Expected parts or phrases that are in {MIN_IMAGES} images or more; {dataset.name} has none."
        )
    return Concepts(
        names=tuple(names[index] for index in usable),
        masks=torch.stack([regions[index] for index in usable], 1),
        known=torch.stack([annotated[index] for index in usable], 1),
        grid=grid,
    )


Mentions = dict[tuple[str, str], Tensor]


def _mentions(captions: Sequence[Caption], dataset: ImageDataset) -> tuple[Mentions, Mentions]:
    """For each part and attribute: in which images it is said, and in which it is known from what is said."""
    count = len(captions)
    if not captions:
        return {}, {}
    if not any(caption.phrases for caption in captions):
        return _mentions_in_sentences([caption.text for caption in captions], dataset)
    values: dict[tuple[str, str, str], list[int]] = {}
    described: dict[tuple[str, str], list[int]] = {}
    texts: dict[tuple[str, str, str], Counter[str]] = {}
    for image, caption in enumerate(captions):
        for phrase in caption.phrases:
            for attribute, value in phrase.attributes.items() if phrase.part else ():
                values.setdefault((str(phrase.part), attribute, value), []).append(image)
                described.setdefault((str(phrase.part), attribute), []).append(image)
                if len(phrase.attributes) == 1:
                    wording = " ".join(tokenize(phrase.text, dataset.synonyms))
                    texts.setdefault((str(phrase.part), attribute, value), Counter())[wording] += 1
    mentioned: Mentions = {}
    known: Mentions = {}
    for (part, attribute, value), images in values.items():
        plain = value if part in value.split() else f"{value} {part}"
        usual = texts.get((part, attribute, value), Counter({plain: 1})).most_common(1)[0][0]
        name = (part, plain if (part, usual) in mentioned else usual)
        mentioned[name], known[name] = torch.zeros(count).bool(), torch.zeros(count).bool()
        mentioned[name][images] = True
        known[name][described[part, attribute]] = True
    return mentioned, known


def _mentions_in_sentences(texts: list[str], dataset: ImageDataset) -> tuple[Mentions, Mentions]:
    """The same from bare sentences: adjective and noun; what is not said counts as not there."""
    mentioned: Mentions = {}
    for image, phrases in enumerate(extract_phrases(texts, synonyms=dataset.synonyms)):
        for phrase, noun in phrases:
            mentioned.setdefault((noun, phrase), torch.zeros(len(texts)).bool())[image] = True
    return mentioned, {name: torch.ones(len(texts)).bool() for name in mentioned}
