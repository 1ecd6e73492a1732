"""Aviary as `ImageDataset`: splits that are drawn on first access, and scenes that can be redrawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from attrs import evolve, field, frozen
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from explainkit.data.datasets.aviary.grammar import (
    PARTS,
    PRESETS,
    Codes,
    Grammar,
    grammar,
)
from explainkit.data.datasets.aviary.interventions import redrawn, with_other_species
from explainkit.data.datasets.aviary.language import (
    captions,
    hard_negatives,
    species_names,
    synonyms,
    vocabulary,
)
from explainkit.data.datasets.aviary.rendering import Rendering, part_masks, render
from explainkit.data.datasets.aviary.scenes import (
    BIRDS,
    Casting,
    Placement,
    Scenes,
    compose,
)
from explainkit.data.random_keys import random_keys
from explainkit.data.transforms.augmentation import FlipShiftBrightness
from explainkit.data.types import Batch, Caption, ImageDataset
from explainkit.errors import InputError, UnknownNameError
from explainkit.explanations.validation import class_index

if TYPE_CHECKING:
    from PIL.Image import Image

    from explainkit.data.datasets.aviary.observer import IdealObserver

_BLOCK = 256
"""Images drawn at a time, when one of them is requested."""

_REDRAW = 0x52454452
"""Parts the seeds of redrawn scenes from those of data sets."""


@frozen(eq=False, kw_only=True)
class SceneBatch(Batch):
    """A batch of drawn scenes that knows what was drawn.

    Attributes
    ----------
    scenes : Scenes
    """

    scenes: Scenes = field(repr=False)


class BirdSplit:
    """Drawn birds in memory: bytes for the images and one more for what each pixel shows.

    Intervenable, Redrawable and BackgroundEditable: its scenes can be drawn again without some of their
    parts, with birds that stand as they do while all else is new, and without any one of their distractors.
    """

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
        """The images of `ids` (n,) with all of their annotations."""
        rows = self._rows(ids)
        self._draw_blocks(np.unique(rows // _BLOCK))
        self._write_captions(rows)
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

    def part_presence(self, ids: Tensor) -> Tensor:
        """Which parts are seen on any bird in the scenes of `ids` (n,): (n, P), bool."""
        scenes = self.scenes(ids.cpu().numpy())
        return torch.from_numpy(np.asarray((scenes.present & scenes.shown[..., None]).any(1)))

    def with_parts(self, ids: Tensor, parts: Tensor) -> SceneBatch:
        """The scenes of `ids` (n,) again, every bird with only those of its `parts` (n, P), bool."""
        scenes = self.scenes(ids.cpu().numpy())
        present = scenes.present & parts.cpu().numpy()[:, None]
        return render_batch(evolve(scenes, present=present), self._images.shape[-1])

    def redraw(self, ids: Tensor, *, same_class: bool, seed: int) -> SceneBatch:
        """The birds of `ids` (n,) in the same places and poses, in other plumages before other backgrounds.

        Parts have other tints; of another class each is that of another species, drawn evenly, and is there
        where it was. An image depends on `seed` and its id alone.
        """
        rows = self._rows(ids.cpu().numpy())
        casting = evolve(self._casting, seed=self._redraw_seed(same_class, seed), spurious=0.0)
        scenes = redrawn(self.scenes(rows), compose(self._grammar, rows, casting))
        if not same_class:
            scenes = with_other_species(scenes, self._grammar)
        return render_batch(scenes, self._images.shape[-1])

    def _redraw_seed(self, same_class: bool, seed: int) -> int:
        """A seed of scenes that no data set is likely to have."""
        return int(random_keys(_REDRAW, self._casting.seed, int(same_class), seed).astype(np.int64))

    def object_masks(self, ids: Tensor) -> Tensor:
        """Where birds are seen, bodies and all, in the images of `ids` (n,): (n, S, S), bool."""
        rendering = render(self.scenes(ids.cpu().numpy()), self._images.shape[-1])
        return torch.from_numpy(rendering.birds.any(1))

    def background_objects(self, ids: Tensor) -> Tensor:
        """Which distractors are in the scenes of `ids` (n,), seen or behind a bird: (n, 8), bool."""
        return torch.from_numpy(self.scenes(ids.cpu().numpy()).distractors >= 0)

    def background_masks(self, ids: Tensor) -> Tensor:
        """Where distractors are seen: (n, 8, S, S), bool, where a pixel changes as one is removed."""
        objects = self.background_objects(ids)
        masks = torch.zeros(*objects.shape, *self._images.shape[2:], dtype=torch.bool)
        images = self.batch(ids).images
        for rows, numbers in (pairs.T for pairs in objects.nonzero().split(_BLOCK)):
            without = self.without_background_object(ids.cpu()[rows], numbers).images
            masks[rows, numbers] = (without != images[rows]).any(1)
        return masks

    def without_background_object(self, ids: Tensor, objects: Tensor) -> SceneBatch:
        """The scenes of `ids` (n,) again, each without distractor number `objects` (n,)."""
        scenes, removed = self.scenes(ids.cpu().numpy()), objects.cpu().numpy()
        distractors = scenes.distractors.copy()
        if removed.shape != (len(scenes),) or (removed < 0).any() or (removed >= distractors.shape[1]).any():
            raise InputError(
                f"Expected a distractor of 0 … {distractors.shape[1] - 1} for each of {len(scenes)} scenes; "
                f"got {removed!r}."
            )
        distractors[np.arange(len(scenes)), removed] = -1
        return render_batch(evolve(scenes, distractors=distractors), self._images.shape[-1])

    def ideal_observer(self, ids: Tensor) -> IdealObserver:
        """The explainer that knows the scenes of `ids` (n,), and any `SceneBatch` that is passed to it."""
        from explainkit.data.datasets.aviary.observer import IdealObserver

        return IdealObserver.from_scenes(
            self._grammar, self.scenes(ids.cpu().numpy()), self._images.shape[-1]
        )

    def _rows(self, ids: ArrayLike) -> NDArray[np.int64]:
        rows = np.asarray(ids, np.int64)
        if rows.ndim != 1 or (len(rows) and not 0 <= rows.min() <= rows.max() < len(self)):
            raise InputError(f"Expected ids (n,) in 0 … {len(self) - 1}; got {rows!r}.")
        return rows

    def _draw_blocks(self, blocks: NDArray[np.int64]) -> None:
        for block in blocks[~self._drawn[blocks]]:
            rows = slice(block * _BLOCK, min((block + 1) * _BLOCK, len(self)))
            rendering = render(self.scenes(np.arange(rows.start, rows.stop)), self._images.shape[-1])
            self._images[rows], self._identities[rows] = rendering.images, rendering.identities
            self._key_points[rows], self._boxes[rows] = rendering.key_points[:, 0], rendering.boxes
            self._drawn[block] = True

    def _write_captions(self, rows: NDArray[np.int64]) -> None:
        """Cache the captions of `rows`: made once, they cost later epochs nothing."""
        missing = [row for row in dict.fromkeys(rows.tolist()) if row not in self._captions]
        if missing:
            self._captions.update(zip(missing, captions(self.scenes(missing)), strict=True))


@frozen(eq=False, kw_only=True)
class Aviary(ImageDataset):
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
        """(C, P, 3): shape, color and pattern of each part of each species."""
        return self.grammar.codes

    @property
    def shared_parts(self) -> Tensor:
        """Which parts two species have in common, (C, C, P), bool."""
        return torch.from_numpy(self.grammar.shared)

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

    def render(self, scenes: Scenes) -> SceneBatch:
        """Any scenes as a batch without captions; ids count from 0."""
        return render_batch(scenes, self.size[0])

    def captions(self, scenes: Scenes, paraphrase: int = 0) -> tuple[Caption, ...]:
        """A sentence a scene; `paraphrase` 0 is what the batches of a split say."""
        return captions(scenes, paraphrase)

    def hard_negatives(self, scenes: Scenes, paraphrase: int = 0) -> tuple[Caption, ...]:
        """The same sentences, each wrong in one attribute of one part."""
        return hard_negatives(captions(scenes, paraphrase), scenes, paraphrase)

    def minimal_sufficient(self, species: str | int) -> tuple[tuple[str, ...], ...]:
        """The smallest sets of parts that tell a species from all others."""
        return self.grammar.minimal_sufficient(class_index(self.classes, species))

    def contact_sheet(self) -> Image:
        """Species, one scene with one thing changed, masks and captions as one picture."""
        from explainkit.data.datasets.aviary.preview import contact_sheet

        return contact_sheet(self)

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
    placement: Placement = "centered",
    birds: int = 1,
    dropout: float = 0.5,
    variation: float | None = None,
    class_seed: int = 0,
) -> Aviary:
    """Birds made of seven parts, drawn on demand; see the page "aviary" of the documentation.

    Parameters
    ----------
    classes : int
        5 … 200.
    size : int
        Pixels a side, 32 … 224.
    preset : {"standard", "integrate", "shape", "color", "hard", "clever-hans", "funny"}
    seed : int
        Of the scenes. The species stay the same: they follow `class_seed`.
    train, validation, test : int
        Images of each split. A fourth split, ``mixed``, has as many as ``test``: every bird in it has one
        part of another species and lacks up to two others, so that importance varies within a class.
    placement : {"centered", "free"}
        Free: birds 30 … 60 % of the frame long, and up to 25 % off its center.
    birds : int
        1 … 3: the most birds (of one species) in an image.
    dropout : float
        How often a training bird lacks parts, so that images with parts removed are nothing new to a model.
    variation : float or None
        How often one part of a bird differs from its species in shape, color or pattern. ``None``: 0.1, and 0
        with preset ``"funny"``.
    """
    _check_settings(size, placement, birds, {"train": train, "validation": validation, "test": test})
    species = grammar(classes, preset, class_seed)
    settings = PRESETS[preset]
    variation = settings.variation if variation is None else variation
    for name, share in (("dropout", dropout), ("variation", variation)):
        if not 0 <= share <= 1:
            raise InputError(f"Expected {name} within [0, 1]; got {share}.")
    casting = Casting(seed=seed, split=3, variation=variation, birds=birds, placement=placement)
    castings = {
        "train": (
            evolve(
                casting,
                split=1,
                dropout=dropout,
                spurious=settings.spurious,
                max_missing=settings.max_missing,
            ),
            train,
        ),
        "validation": (evolve(casting, split=2), validation),
        "test": (casting, test),
        "mixed": (evolve(casting, split=4, mixed=True), test),
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
        augment=FlipShiftBrightness(shift=max(1, size // 16)),
        grammar=species,
    )


def render_batch(scenes: Scenes, size: int) -> SceneBatch:
    """Any scenes as a batch of images of `size` pixels a side, without captions; ids count from 0."""
    rendering = render(scenes, size)
    return SceneBatch(
        images=torch.from_numpy(rendering.images).float().div_(255),
        labels=torch.from_numpy(scenes.labels),
        ids=torch.arange(len(scenes)),
        masks=torch.from_numpy(rendering.masks),
        key_points=torch.from_numpy(rendering.key_points[:, 0]),
        boxes=torch.from_numpy(rendering.boxes),
        scenes=scenes,
    )


def _check_settings(size: int, placement: str, birds: int, counts: Mapping[str, int]) -> None:
    if not 32 <= size <= 224:
        raise InputError(f"Expected images of 32 … 224 pixels a side; got {size}.")
    if placement not in ("centered", "free"):
        raise InputError(f"Expected placement 'centered' or 'free'; got {placement!r}.")
    if not 1 <= birds <= BIRDS:
        raise InputError(f"Expected 1 … {BIRDS} birds; got {birds}.")
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"Expected at least one image to {name}; got {count}.")
