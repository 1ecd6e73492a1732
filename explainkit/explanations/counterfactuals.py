"""Counterfactual explanations as values: edits of the scores, and edits of the image that were tried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from attrs import field, frozen
from torch import Tensor

from explainkit.explanations.batch import Explanations
from explainkit.explanations.display import figure, markup
from explainkit.explanations.sentences import counterfactual_sentence
from explainkit.explanations.single import Explanation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Norm = Literal["l0", "l1", "l2"]
"""What an edit has least of: changed scores, the sum of their changes, or of their squares."""


@frozen(eq=False, kw_only=True)
class ScoreEdits:
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
    lower_bound : Tensor, (N,), int64
        Scores that must change at least.
    norm : {"l0", "l1", "l2"}
    """

    before: Tensor = field(repr=False)
    after: Tensor = field(repr=False)
    gains: Tensor = field(repr=False)
    logits: Tensor = field(repr=False)
    feasible: Tensor
    exact: Tensor
    lower_bound: Tensor
    norm: Norm

    @property
    def size(self) -> Tensor:
        """How many scores change, (N,)."""
        return (self.after != self.before).sum(1)


@frozen(eq=False, kw_only=True)
class RegionSwaps:
    """For N images, the regions that were swapped in and what the network then said.

    Attributes
    ----------
    images : Tensor, (N, 3, H, W)
        With the swapped regions; as they were where no swap succeeds.
    regions : Tensor, (N, h, w), bool
        Which cells were swapped.
    success : Tensor, (N,), bool
        Whether the network says the target: it was asked.
    logits : Tensor, (N, C)
        Of `images`.
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

    images: Tensor = field(repr=False)
    regions: Tensor = field(repr=False)
    success: Tensor
    logits: Tensor = field(repr=False)
    exemplars: Tensor
    sources: Tensor = field(repr=False)
    shifts: Tensor = field(repr=False)
    mirrored: Tensor = field(repr=False)
    predicted_size: Tensor
    num_forwards: int

    @property
    def size(self) -> Tensor:
        """How many cells were swapped, (N,)."""
        return self.regions.flatten(1).sum(1)


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


Edits = TypedDict("Edits", {"score-edit": ScoreEdits, "region-swap": RegionSwaps})
"""Edits by the method that found them."""


@frozen(eq=False, kw_only=True)
class Counterfactuals:
    """For N images, what would make each its target.

    Attributes
    ----------
    explanations : Explanations
        Of the images as they are, for the targets.
    edits : mapping of str to ScoreEdits or RegionSwaps
        By method: ``"score-edit"``, what would have to change in the evidence; ``"region-swap"``, what was
        changed in the image, and what the network then said.
    wanted : Tensor or None, (N,), bool
        Of labels: whether the target shall hold, or no longer do; ``None`` for classes.
    """

    explanations: Explanations = field(repr=False)
    edits: Edits
    wanted: Tensor | None = None

    def __repr__(self) -> str:
        num_feasible, num_successes = int(self.edits["score-edit"].feasible.sum()), int(self.success.sum())
        return (
            f"<{len(self)} counterfactuals by {self.explanations.provenance.explainer}: "
            f"{num_feasible} feasible in the evidence, {num_successes} in the image>"
        )

    @property
    def images(self) -> Tensor:
        """As they are, (N, 3, H, W)."""
        return self.explanations.images

    @property
    def targets(self) -> Tensor:
        """(N,)."""
        return self.explanations.targets

    @property
    def predictions(self) -> Tensor:
        """The classes as they are, (N,)."""
        return self.explanations.logits.argmax(1)

    @property
    def classes(self) -> tuple[str, ...]:
        """C names."""
        return self.explanations.classes

    @property
    def success(self) -> Tensor:
        """Whether the network really says the target once regions are swapped, (N,)."""
        return self.edits["region-swap"].success

    def __len__(self) -> int:
        return len(self.explanations)

    def __iter__(self) -> Iterator[Counterfactual]:
        return (Counterfactual(batch=self, index=index) for index in range(len(self)))

    def _repr_html_(self) -> str:
        return markup(self)

    def __getitem__(self, index: int) -> Counterfactual:
        if not -len(self) <= index < len(self):
            raise IndexError(f"Expected an index of {len(self)} counterfactuals; got {index}.")
        return Counterfactual(batch=self, index=index % len(self))


@frozen(eq=False, kw_only=True)
class Counterfactual:
    """One image's: a view of `Counterfactuals`."""

    batch: Counterfactuals = field(repr=False)
    index: int

    @property
    def explanation(self) -> Explanation:
        """Of the image as it is, for the target."""
        return self.batch.explanations[self.index]

    @property
    def target_name(self) -> str:
        """The class that it should be; of a label that shall not hold, ``"not <label>"``."""
        return self._state(self.batch.wanted is None or bool(self.batch.wanted[self.index]))

    @property
    def predicted_name(self) -> str:
        """The class that it is to the network; of labels, what the network says of the one in question."""
        if self.batch.wanted is None:
            return self.batch.classes[int(self.batch.predictions[self.index])]
        return self._state(self._holds)

    @property
    def already(self) -> bool:
        """Whether it is the target to begin with."""
        return (
            self._holds if self.batch.wanted is None else self._holds == bool(self.batch.wanted[self.index])
        )

    @property
    def _holds(self) -> bool:
        """Whether the network says the target of the image as it is."""
        return bool(self.batch.explanations.holds[self.index, self.batch.targets[self.index]])

    def _state(self, holds: bool) -> str:
        """What an image is called for which the target holds, or does not."""
        name = self.batch.classes[int(self.batch.targets[self.index])]
        return name if holds else self.batch.explanations.decision.absent(name)

    @property
    def feasible(self) -> bool:
        """Whether plausible scores exist with which the target wins."""
        return bool(self.batch.edits["score-edit"].feasible[self.index])

    @property
    def success(self) -> bool:
        """Whether the network really says the target once regions are swapped."""
        return bool(self.batch.success[self.index])

    @property
    def changes(self) -> list[Change]:
        """The scores that would have to change, the largest gain first."""
        edits, units = self.batch.edits["score-edit"], self.batch.explanations.units
        before, after, gains = edits.before[self.index], edits.after[self.index], edits.gains[self.index]
        changed = (before != after).nonzero()[:, 0]
        order = changed[gains[changed].argsort(descending=True, stable=True)]
        return [
            Change(
                unit=unit, kind=units.kind, name=units.names[unit],
                phrase=units.phrases[unit] if units.phrases else None, before=before[unit].item(),
                after=after[unit].item(), gain=gains[unit].item(),
                is_absent=units.is_absent(unit, max(before[unit].item(), after[unit].item())),
            )
            for unit in order.tolist()
        ]  # fmt: skip

    @property
    def regions(self) -> int:
        """How many regions were swapped."""
        return int(self.batch.edits["region-swap"].size[self.index])

    @property
    def image(self) -> Tensor:
        """With the swapped regions, (3, H, W)."""
        return self.batch.edits["region-swap"].images[self.index]

    def sentence(self) -> str:
        """Both answers in words, failures too."""
        return counterfactual_sentence(self)

    def figure(self, size: float = 3.0) -> Figure:
        """A matplotlib figure: before, what is swapped, after, and the scores that would have to change."""
        return figure(self, size)

    def facts(self) -> dict[str, Any]:
        """Everything about it, as JSON values."""
        edits, swaps, row = self.batch.edits["score-edit"], self.batch.edits["region-swap"], self.index
        return {
            "predicted": self.predicted_name, "target": self.target_name, "sentence": self.sentence(),
            "feasible": self.feasible, "exact": bool(edits.exact[row]), "size": int(edits.size[row]),
            "lower_bound": int(edits.lower_bound[row]), "norm": edits.norm,
            "changes": [
                {name: getattr(item, name) for name in ("unit", "name", "phrase", "before", "after", "gain")}
                for item in self.changes
            ],
            "success": self.success, "regions": swaps.regions[row].nonzero().tolist(),
            "exemplar": int(swaps.exemplars[row]), "shift": swaps.shifts[row].tolist(),
            "mirrored": bool(swaps.mirrored[row]),
        }  # fmt: skip

    def _repr_html_(self) -> str:
        return markup(self)
