"""The vocabulary of an explainer: what its units are."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from explainkit.explanations.decomposition import Pooling, Poolings
from explainkit.explanations.json_pictures import PICTURE_FORM
from explainkit.explanations.json_values import JsonValue
from explainkit.explanations.phrasing import Phrasing
from explainkit.explanations.receptive_field import ReceptiveField
from explainkit.explanations.unit_validation import as_poolings, check_picture, check_units
from explainkit.explanations.validation import as_names

UNIT_TENSORS = (
    "group", "parent", "class_affinity", "reference", "score_range", "phrase_scores", "leak",
)  # fmt: skip
"""The fields of `Units` that are tensors, or None."""

NEAR = 0.05
"""The share of a unit's largest plausible score up to which what it stands for counts as absent."""

PictureKind = Literal["training", "decoded", "least"]
"""An image of the data with much of a unit, a picture that the network draws of it, an image with little."""


@frozen(eq=False, kw_only=True)
class UnitPicture(JsonValue):
    """A picture of what a unit stands for.

    Attributes
    ----------
    kind : {"training", "decoded", "least"}
    image : Tensor or None, (3, H, W), uint8
        ``None`` where it is not kept, and is to be found by its `id`.
    box : (int, int, int, int)
        x0, y0, x1, y1 in pixels of the image, half-open: where the unit is.
    cell : (int, int) or None
        Row and column on the network's grid, where the unit has places.
    id, label : int or None
        Which image of the data it is, and its class; ``None`` for a decoded picture.
    split : str or None
        Of the data, ``"train"`` unless given; ``None`` for a decoded picture.
    """

    kind: PictureKind = "training"
    image: Tensor | None = field(default=None, repr=False, metadata=PICTURE_FORM)
    box: tuple[int, int, int, int]
    cell: tuple[int, int] | None = None
    id: int | None = None
    label: int | None = None
    split: str | None = field()

    @split.default
    def _training_split(self) -> str | None:
        return None if self.kind == "decoded" else "train"

    def __attrs_post_init__(self) -> None:
        check_picture(self)


@frozen(eq=False, kw_only=True)
class Units(JsonValue):
    """The vocabulary of an explainer: what its K units are.

    Attributes
    ----------
    kind : str
        One word: ``"filter"``, ``"prototype"``, ``"concept"``, ``"pixels"`` …
    names : tuple of str, K
    pooling : {"mean", "sum", "max", "coupled", "none"}, or a tuple of K of them
        How a unit's map became its score: one for all units, or one for each. K equal ones become one. The
        maps of units with ``"none"`` among others are zero.
    group : Tensor or None, (K,)
        Index into the G boxes of an explanation: which scale or part the unit belongs to.
    parent : Tensor or None, (K,)
        Index into `parents`: which larger unit each is a part of, such as a part of the object.
    parents : tuple of str or None, P
        Their names.
    class_affinity : Tensor or None, (K, C), in [0, 1]
        How much each unit belongs to each class, as its architecture has it: a prototype to its own class.
    reference : Tensor or None, (K,)
        The score that counts as nothing to say; ``None`` for 0.
    score_range : Tensor or None, (2, C, K)
        5 % and 95 % quantiles of the score on training images of each class: what is plausible.
    phrases : tuple of (str or None) or None, K
        The unit in words, where it has some.
    phrase_scores : Tensor or None, (2, K)
        How well each phrase fits, on images that it was not chosen on, and the standard error of that; 0
        where there is no phrase. ``None`` where phrases are the units' own, and were not looked for.
    pictures : tuple of tuple of UnitPicture or None, K
    phrasing : Phrasing
        How explanations by these units are put in words.
    receptive_field : ReceptiveField or None
        Which pixels one cell of a map can see, where the network bounds that; ``None`` where it does not.
    leak : Tensor or None, (K,)
        Which share of each unit's score came from outside of where it was shown, as measured on images; NaN
        where it could not be measured.
    """

    kind: str
    names: tuple[str, ...] = field(converter=as_names, repr=lambda names: f"<{len(names)} names>")
    pooling: Poolings = field(converter=as_poolings)
    group: Tensor | None = field(default=None, repr=False)
    parent: Tensor | None = field(default=None, repr=False)
    parents: tuple[str, ...] | None = field(default=None, repr=False)
    class_affinity: Tensor | None = field(default=None, repr=False)
    reference: Tensor | None = field(default=None, repr=False)
    score_range: Tensor | None = field(default=None, repr=False)
    phrases: tuple[str | None, ...] | None = field(default=None, repr=False)
    phrase_scores: Tensor | None = field(default=None, repr=False)
    pictures: tuple[tuple[UnitPicture, ...], ...] | None = field(default=None, repr=False)
    phrasing: Phrasing = field(factory=Phrasing, repr=False)
    receptive_field: ReceptiveField | None = None
    leak: Tensor | None = field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        check_units(self, UnitPicture)
        if isinstance(self.pooling, tuple) and len(set(self.pooling)) == 1:
            object.__setattr__(self, "pooling", self.pooling[0])

    def __len__(self) -> int:
        return len(self.names)

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        """How the map of each unit became its score, K."""
        return self.pooling if isinstance(self.pooling, tuple) else (self.pooling,) * len(self)

    def pooling_of(self, unit: int) -> Pooling:
        """How the map of unit number `unit` became its score."""
        return self.pooling[unit] if isinstance(self.pooling, tuple) else self.pooling

    def to(self, device: torch.device | str) -> Units:
        """The same vocabulary with its tensors on `device`."""
        tensors: dict[str, Any] = {
            name: value.to(device)
            for name in UNIT_TENSORS
            if isinstance(value := getattr(self, name), Tensor)
        }
        return evolve(self, **tensors)

    def without_images(self) -> Units:
        """The same vocabulary with pictures that say which image they are of, and do not have it."""
        if self.pictures is None:
            return self
        pictures = tuple(tuple(evolve(item, image=None) for item in of_unit) for of_unit in self.pictures)
        return evolve(self, pictures=pictures)

    def is_absent(self, unit: int, score: float) -> bool:
        """Whether `score` says that what unit number `unit` stands for is not there.

        So it is where its score is at most `NEAR` of its largest plausible one above its reference; where
        plausible scores are not known, at most its reference. See `Phrasing.absent_scores` for other scores.
        """
        one = torch.tensor([unit]), torch.tensor([score], dtype=torch.float64)
        return bool(self.are_absent(*one))

    def are_absent(self, units: Tensor, scores: Tensor) -> Tensor:
        """`is_absent` of the units (..., k) with these scores (..., k), bool."""
        if self.phrasing.absent_scores is None:
            return torch.zeros_like(scores, dtype=torch.bool)
        above = scores.double()
        if self.reference is not None:
            above = above - self.reference.double().to(scores.device)[units]
        above = above if self.phrasing.absent_scores == "low" else -above
        return above <= NEAR * self._reach.to(scores.device)[units]

    @cached_property
    def _reach(self) -> Tensor:
        """How far from its reference each unit's score plausibly is where the unit is there, (K,)."""
        if self.score_range is None:
            return torch.zeros(len(self), dtype=torch.float64)
        low, high = self.score_range
        reference = torch.zeros_like(low[0]) if self.reference is None else self.reference.to(low)
        is_low = self.phrasing.absent_scores == "low"
        farthest = high.amax(0) - reference if is_low else reference - low.amin(0)
        return farthest.clamp(min=0).double()
