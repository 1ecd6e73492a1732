"""Edits that were found: of the scores that a decision is made by, and of the image."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from attrs import evolve, field, frozen
from torch import Tensor

from explainkit.explanations.images import absent_images
from explainkit.explanations.json_pictures import IMAGES_FORM
from explainkit.explanations.json_values import JsonValue

Norm = Literal["l0", "l1", "l2"]
"""What an edit has least of: changed scores, the sum of their changes, or of their squares."""

VerifiedBy = Literal["algebra", "head", "network"]
"""Who says that an edit reaches its target: the sum; the network's head, with the edited scores; the network,
of the edited image."""

EditKind = Literal["scores", "image"]


@frozen(eq=False, kw_only=True)
class ScoreEdits(JsonValue):
    """For N images, what would have to change in the evidence.

    Attributes
    ----------
    before, after : Tensor, (N, K)
        Scores; equal where an edit is not feasible.
    gains : Tensor, (N, K)
        By how much each change closes the gap between the predicted class and the target, in logits.
    logits : Tensor, (N, C)
        With the edited scores.
    feasible : Tensor, (N,), bool
        Whether plausible scores exist with which the target wins; verified where true, proved where false
        if `exact`.
    exact : Tensor, (N,), bool
        Whether it is proved that no edit within the ranges costs less; or that there is none.
    lower_bound : Tensor or None, (N,), int64
        Scores that must change at least, where that is known.
    norm : {"l0", "l1", "l2"}
    verified_by : {"algebra", "head"}
    descriptions : tuple of str or None, N
        What each edit stands for where it is more than single scores, as in "With its wing that of image 3";
        empty where it is not.
    """

    json_type: ClassVar[str | None] = "scores"
    kind: ClassVar[EditKind] = "scores"
    unit: ClassVar[str] = "score"

    before: Tensor = field(repr=False)
    after: Tensor = field(repr=False)
    gains: Tensor = field(repr=False)
    logits: Tensor = field(repr=False)
    feasible: Tensor
    exact: Tensor
    lower_bound: Tensor | None = None
    norm: Norm = "l0"
    verified_by: VerifiedBy = "algebra"
    descriptions: tuple[str | None, ...] = field(default=(), repr=False)

    @property
    def size(self) -> Tensor:
        """How many scores change, (N,)."""
        return (self.after != self.before).sum(1)

    @property
    def success(self) -> Tensor:
        """Whether the edit reaches its target, (N,), bool: the same as `feasible`."""
        return self.feasible


@frozen(eq=False, kw_only=True)
class ImageEdits(JsonValue):
    """For N images, edited images, and whether the network says the target of them.

    A method gives `images` and what it did, `descriptions`; the network is asked afterwards, and by that
    `logits`, `success` and `sizes` are filled in.

    Attributes
    ----------
    images : Tensor, (N, D, H, W), or rows (N, F)
        As they are after the edit; as they were where nothing was found.
    descriptions : tuple of str or None, N
        What was done to each, as in "With its wing drawn red".
    failures : tuple of str or None, N
        Why nothing was found for each, as a sentence; said where the network does not say the target.
    logits : Tensor or None, (N, C)
        Of `images`.
    success : Tensor or None, (N,), bool
        Whether the network says the target of `images`.
    sizes : Tensor or None, (N,), int64
        How much of each image is edited, counted in `unit`; the cells of `regions`, or where there are none
        the pixels or columns that differ, unless given.
    unit : str
    lower_bound : Tensor or None, (N,), int64
        How much must be edited at least, where that is known.
    sources : Tensor or None, (N, D, H, W)
        Pictures that the edits were taken from, or that are to be seen beside them.
    source_label : str
        What those are, before the name of the target: ``"from"``.
    regions : Tensor or None, (N, h, w), bool
        Which cells were edited.
    """

    json_type: ClassVar[str | None] = "image"
    kind: ClassVar[EditKind] = "image"
    verified_by: ClassVar[VerifiedBy] = "network"

    images: Tensor = field(repr=False, metadata=IMAGES_FORM)
    descriptions: tuple[str | None, ...] = field(default=(), repr=False)
    failures: tuple[str | None, ...] = field(default=(), repr=False)
    logits: Tensor | None = field(default=None, repr=False)
    success: Tensor | None = None
    sizes: Tensor | None = None
    unit: str = "pixel"
    lower_bound: Tensor | None = None
    sources: Tensor | None = field(default=None, repr=False, metadata=IMAGES_FORM)
    source_label: str = "from"
    regions: Tensor | None = field(default=None, repr=False)

    @property
    def size(self) -> Tensor:
        """How much of each image is edited, (N,)."""
        if self.sizes is not None:
            return self.sizes
        assert self.regions is not None  # once the network was asked there is one or the other
        return self.regions.flatten(1).sum(1)

    def without_images(self) -> Self:
        """The same without images: see `Explanations.without_images`."""
        sources = None if self.sources is None else absent_images(self.sources.shape, self.sources)
        return evolve(self, images=absent_images(self.images.shape, self.images), sources=sources)

    def describe(self, row: int, target: str) -> str:
        """What was done to image number `row` to make it `target`, as the beginning of a sentence."""
        text = self.descriptions[row] if self.descriptions else None
        count = int(self.size[row])
        return text or f"With {count} {self.unit}{'' if count == 1 else 's'} edited"

    def describe_failure(self, row: int, target: str) -> str:
        """That no edit was found which makes image number `row` `target`, and why where that is known."""
        text = self.failures[row] if self.failures else None
        return text or (
            f"No edit that was tried of the {'row' if self.images.ndim == 2 else 'image'} made it {target}."
        )

    def facts_of(self, row: int) -> dict[str, Any]:
        """Further facts about the edit of image number `row`, as JSON values."""
        return {} if self.regions is None else {"regions": self.regions[row].nonzero().tolist()}


@frozen(eq=False, kw_only=True)
class RegionSwaps(ImageEdits):
    """For N images, the regions that were swapped in and what the network then said.

    Attributes
    ----------
    images : Tensor, (N, 3, H, W)
        With the swapped regions; as they were where no swap succeeds.
    regions : Tensor, (N, h, w), bool
        Which cells were swapped.
    exemplars : Tensor, (N,)
        Ids in the distractors; -1 where nothing was swapped.
    sources : Tensor, (N, 3, H, W)
        The distractors' images, as they were laid over: shifted and mirrored.
    shifts : Tensor, (N, 2)
        Down and right, in cells.
    mirrored : Tensor, (N,), bool
    predicted_size : Tensor, (N,)
        How many cells the evidence alone said would do.
    num_forwards : int
        Images that the network was asked about.
    """

    json_type: ClassVar[str | None] = "region-swap"

    unit: str = "region"
    exemplars: Tensor
    shifts: Tensor = field(repr=False)
    mirrored: Tensor
    predicted_size: Tensor
    num_forwards: int

    def describe(self, row: int, target: str) -> str:
        """How many regions are from where."""
        assert self.regions is not None
        mirrored = "the mirrored " if bool(self.mirrored[row]) else ""
        source = "row" if self.images.ndim == 2 else "image"
        return (
            f"With {int(self.size[row])} of its {self.regions[row].numel()} {self._cells} taken from "
            f"{mirrored}{source} {int(self.exemplars[row])} of the bank, which is {target}"
        )

    def describe_failure(self, row: int, target: str) -> str:
        """That no swap of up to half of the image makes it `target`."""
        return (
            f"No swap that was tried, of up to half of its {self._cells} for those of {target}, made it so."
        )

    def facts_of(self, row: int) -> dict[str, Any]:
        """The regions, and where they are from."""
        return super().facts_of(row) | {
            "exemplar": int(self.exemplars[row]), "shift": self.shifts[row].tolist(),
            "mirrored": bool(self.mirrored[row]),
        }  # fmt: skip

    @property
    def _cells(self) -> str:
        return "columns" if self.images.ndim == 2 else "regions"


@frozen(eq=False, kw_only=True)
class Edit:
    """One image's edit by one method.

    Attributes
    ----------
    method : str
    kind : {"scores", "image"}
        What is edited.
    before, after : Tensor, (K,) or (D, H, W)
        Scores, or the image.
    success : bool
        Whether the edit makes it the target, as `verified_by` says.
    size : int
        How much is edited, in `unit`.
    lower_bound : int or None
        How much must be edited at least, where that is known.
    verified_by : {"algebra", "head", "network"}
    sentence : str
    """

    method: str
    kind: EditKind
    before: Tensor = field(repr=False)
    after: Tensor = field(repr=False)
    success: bool
    size: int
    unit: str
    lower_bound: int | None
    verified_by: VerifiedBy
    sentence: str


@frozen(kw_only=True)
class Change:
    """One score that would have to change.

    ``gain`` is by how much that closes the gap between the predicted class and the target, in logits; below 0
    where the change is there for another class. `is_absent` says that what the unit stands for is not there
    before nor after.
    """

    unit: int
    kind: str
    name: str
    phrase: str | None
    before: float
    after: float
    gain: float
    is_absent: bool = False

    @property
    def text(self) -> str:
        """The unit's phrase, or its name where it has none."""
        return self.phrase or self.name
