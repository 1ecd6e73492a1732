"""Aviary as `ImageData`: splits that draw themselves when first asked, and scenes to draw again, changed."""

from collections.abc import Mapping

import numpy as np
import torch
from attrs import evolve, field, frozen
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from explainkit.data.augmentation import MirrorShiftLight
from explainkit.data.aviary.grammar import PARTS, PRESETS, Codes, Grammar, grammar
from explainkit.data.aviary.language import (
    captions,
    hard_negatives,
    species_names,
    synonyms,
    vocabulary,
)
from explainkit.data.aviary.rendering import Rendering, part_masks, render
from explainkit.data.aviary.scenes import BIRDS, Casting, Placement, Scenes, compose
from explainkit.data.images import Batch, Caption, ImageData, class_index
from explainkit.errors import InputError, UnknownNameError

_BLOCK = 256
"""Images drawn at a time, when one of them is asked for."""


class BirdSplit:
    """Drawn birds in memory: bytes for the images and one more for what each pixel shows."""

    def __init__(self, grammar: Grammar, casting: Casting, count: int, size: int) -> None:
        self._grammar, self._casting = grammar, casting
        self._images = np.empty((count, 3, size, size), np.uint8)
        self._identities = np.empty((count, size, size), np.uint8)
        self._key_points = np.empty((count, len(PARTS), 3), np.float32)
        self._boxes = np.empty((count, 4), np.float32)
        self._captions: dict[int, Caption] = {}
        self._drawn = np.zeros(-(-count // _BLOCK), bool)
        self._labels = torch.arange(count) % len(grammar)

    def __len__(self) -> int:
        return len(self._images)

    def __repr__(self) -> str:
        count, _, height, width = self._images.shape
        return f"BirdSplit({count} images of {height} x {width}, {len(self._grammar)} classes)"

    @property
    def labels(self) -> Tensor:
        """(N,), int64."""
        return self._labels

    def batch(self, ids: Tensor) -> Batch:
        """The images of `ids` (n,) with all that is known of them."""
        rows = self._rows(ids)
        self._draw(np.unique(rows // _BLOCK))
        self._tell(rows)
        identities = self._identities[rows]
        return Batch(
            images=torch.from_numpy(self._images[rows]).float().div_(255),
            labels=self._labels[rows],
            ids=torch.from_numpy(rows),
            masks=torch.from_numpy(part_masks(identities)),
            key_points=torch.from_numpy(self._key_points[rows]),
            boxes=torch.from_numpy(self._boxes[rows]),
            captions=tuple(self._captions[row] for row in rows.tolist()),
        )

    def scenes(self, ids: ArrayLike | None = None) -> Scenes:
        """What is in the images of `ids`, or in all of them."""
        rows = np.arange(len(self)) if ids is None else self._rows(ids)
        return compose(self._grammar, rows, self._casting)

    def _rows(self, ids: ArrayLike) -> NDArray[np.int64]:
        rows = np.asarray(ids, np.int64)
        if rows.ndim != 1 or (len(rows) and not 0 <= rows.min() <= rows.max() < len(self)):
            raise InputError(f"Expected ids (n,) in 0 … {len(self) - 1}; got {rows!r}.")
        return rows

    def _draw(self, blocks: NDArray[np.int64]) -> None:
        for block in blocks[~self._drawn[blocks]]:
            some = slice(block * _BLOCK, min((block + 1) * _BLOCK, len(self)))
            drawn = render(self.scenes(np.arange(some.start, some.stop)), self._images.shape[-1])
            self._images[some], self._identities[some] = drawn.images, drawn.identities
            self._key_points[some], self._boxes[some] = drawn.key_points[:, 0], drawn.boxes
            self._drawn[block] = True

    def _tell(self, rows: NDArray[np.int64]) -> None:
        """Remember the captions of `rows`: told once, they cost later epochs nothing."""
        missing = [row for row in dict.fromkeys(rows.tolist()) if row not in self._captions]
        if missing:
            self._captions.update(zip(missing, captions(self.scenes(missing)), strict=True))


@frozen(eq=False, kw_only=True)
class Aviary(ImageData):
    """Drawn birds, and the means to draw them otherwise.

    Attributes
    ----------
    grammar : Grammar
        Which species there are and how far apart.
    """

    grammar: Grammar = field(repr=False)
    splits: Mapping[str, BirdSplit] = field(repr=False)

    @property
    def codes(self) -> Codes:
        """(C, P, 3): shape, colour and pattern of each part of each species."""
        return self.grammar.codes

    def scenes(self, split: str, ids: ArrayLike | None = None) -> Scenes:
        """What is in the images of `split`: change it with `interventions` and `render` it."""
        if split not in self.splits:
            raise UnknownNameError(
                f"{self.name} has no split {split!r}. There are: {', '.join(self.splits)}."
            )
        return self.splits[split].scenes(ids)

    def draw(self, scenes: Scenes) -> Rendering:
        """Any scenes in the size of this data set, as bytes with every bird's masks and key points."""
        return render(scenes, self.size[0])

    def render(self, scenes: Scenes) -> Batch:
        """Any scenes as a batch without captions; ids count from 0."""
        drawn = self.draw(scenes)
        return Batch(
            images=torch.from_numpy(drawn.images).float().div_(255),
            labels=torch.from_numpy(scenes.labels),
            ids=torch.arange(len(scenes)),
            masks=torch.from_numpy(drawn.masks),
            key_points=torch.from_numpy(drawn.key_points[:, 0]),
            boxes=torch.from_numpy(drawn.boxes),
        )

    def captions(self, scenes: Scenes, paraphrase: int = 0) -> tuple[Caption, ...]:
        """A sentence a scene; `paraphrase` 0 is what the batches of a split say."""
        return captions(scenes, paraphrase)

    def hard_negatives(self, scenes: Scenes, paraphrase: int = 0) -> tuple[Caption, ...]:
        """The same sentences, each wrong in one attribute of one part."""
        return hard_negatives(captions(scenes, paraphrase), scenes, paraphrase)

    def minimal_sufficient(self, species: str | int) -> tuple[tuple[str, ...], ...]:
        """The smallest sets of parts that tell a species from all others."""
        return self.grammar.minimal_sufficient(class_index(self.classes, species))

    def differing(self, species: str | int, other: str | int) -> tuple[str, ...]:
        """The parts in which two species differ."""
        return self.grammar.differing(class_index(self.classes, species), class_index(self.classes, other))


def aviary(
    *,
    classes: int = 20,
    size: int = 64,
    preset: str = "standard",
    seed: int = 0,
    train: int = 5000,
    validation: int = 1000,
    test: int = 2000,
    placement: Placement = "centred",
    birds: int = 1,
    dropout: float = 0.5,
    variation: float = 0.1,
    class_seed: int = 0,
) -> Aviary:
    """Birds made of seven parts, drawn as they are asked for; see the page "aviary" of the documentation.

    Parameters
    ----------
    classes : int
        5 … 200.
    size : int
        Pixels a side, 32 … 224.
    preset : {"standard", "integrate", "shape", "colour", "hard", "clever-hans"}
    seed : int
        Of the scenes. The species stay the same: they follow `class_seed`.
    train, validation, test : int
        Images of each split. A fourth split, ``mixed``, has as many as ``test``: every bird in it has one
        part of another species and lacks up to two others, so that importance varies within a class.
    placement : {"centred", "free"}
        Free: birds 30 … 60 % of the frame long, and up to 25 % off its centre.
    birds : int
        1 … 3: the most birds (of one species) in an image.
    dropout : float
        How often a training bird lacks parts, so that images with parts removed are nothing new to a model.
    variation : float
        How often one part of a bird differs from its species in shape, colour or pattern.
    """
    _check(size, placement, birds, {"train": train, "validation": validation, "test": test})
    for name, share in (("dropout", dropout), ("variation", variation)):
        if not 0 <= share <= 1:
            raise InputError(f"Expected {name} within [0, 1]; got {share}.")
    species = grammar(classes, preset, class_seed)
    usual = Casting(seed=seed, split=3, variation=variation, birds=birds, placement=placement)
    taught = evolve(usual, split=1, dropout=dropout, spurious=PRESETS[preset].spurious)
    castings = {
        "train": (taught, train),
        "validation": (evolve(usual, split=2), validation),
        "test": (usual, test),
        "mixed": (evolve(usual, split=4, mixed=True), test),
    }
    return Aviary(
        name="aviary",
        classes=species_names(species),
        size=(size, size),
        splits={
            name: BirdSplit(species, casting, count, size) for name, (casting, count) in castings.items()
        },
        parts=PARTS,
        vocabulary=vocabulary(),
        synonyms=synonyms(),
        augment=MirrorShiftLight(shift=max(1, size // 16)),
        grammar=species,
    )


def _check(size: int, placement: str, birds: int, counts: Mapping[str, int]) -> None:
    if not 32 <= size <= 224:
        raise InputError(f"Expected images of 32 … 224 pixels a side; got {size}.")
    if placement not in ("centred", "free"):
        raise InputError(f"Expected placement 'centred' or 'free'; got {placement!r}.")
    if not 1 <= birds <= BIRDS:
        raise InputError(f"Expected 1 … {BIRDS} birds; got {birds}.")
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"Expected at least one image to {name}; got {count}.")
