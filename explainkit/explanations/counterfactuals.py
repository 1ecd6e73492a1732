"""Counterfactual explanations as values: what edits, by what methods, would make each image its target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.batch import Explanations
from explainkit.explanations.counterfactual_json import CounterfactualsJson
from explainkit.explanations.display import figure, markup
from explainkit.explanations.edit_sentences import counterfactual_sentence, edit_sentence
from explainkit.explanations.edits import Change, Edit, ImageEdits, RegionSwaps, ScoreEdits
from explainkit.explanations.single import Explanation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@frozen(eq=False, kw_only=True)
class Counterfactuals(CounterfactualsJson):
    """For N images, what would make each its target.

    Attributes
    ----------
    explanations : Explanations
        Of the images as they are, for the targets.
    edits : mapping of str to ScoreEdits or ImageEdits
        By method: ``"score-edit"``, what would have to change in the evidence; ``"region-swap"``, what was
        changed in the image, and what the network then said; and those of plugins.
    wanted : Tensor or None, (N,), bool
        Of labels: whether the target shall hold, or no longer do; ``None`` for classes.
    """

    explanations: Explanations = field(repr=False)
    edits: Mapping[str, ScoreEdits | ImageEdits | RegionSwaps]
    wanted: Tensor | None = None

    def __repr__(self) -> str:
        counts = [f"{int(self._success_of(name).sum())} by {name}" for name in self.edits]
        explainer = self.explanations.provenance.explainer
        return f"<{len(self)} counterfactuals by {explainer}: {', '.join(counts)}>"

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
        """Whether an edit makes each image its target, (N,), bool.

        As the network itself says of an edited image; where only scores were edited, as those say.
        """
        asked = self.image_edits or self.score_edits
        return torch.stack([self._success_of(name) for name in asked]).any(0)

    @property
    def score_edits(self) -> dict[str, ScoreEdits]:
        """Those of the evidence, by method."""
        return {name: edits for name, edits in self.edits.items() if isinstance(edits, ScoreEdits)}

    @property
    def image_edits(self) -> dict[str, ImageEdits]:
        """Those of the image, by method."""
        return {name: edits for name, edits in self.edits.items() if isinstance(edits, ImageEdits)}

    def _success_of(self, method: str) -> Tensor:
        success = self.edits[method].success
        if success is None:
            raise InputError(
                f"Expected edits by {method!r} of which the network was asked; got some unasked."
            )
        return success

    def __len__(self) -> int:
        return len(self.explanations)

    def __iter__(self) -> Iterator[Counterfactual]:
        return (Counterfactual(batch=self, index=index) for index in range(len(self)))

    def without_images(self) -> Counterfactuals:
        """The same without the images and their edits: all numbers and sentences, and nothing to draw."""
        edits = {
            name: item.without_images() if isinstance(item, ImageEdits) else item
            for name, item in self.edits.items()
        }
        return evolve(self, explanations=self.explanations.without_images(), edits=edits)

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
    def edits(self) -> dict[str, Edit]:
        """The edit by each method."""
        return {name: self._edit(name) for name in self.batch.edits}

    @property
    def feasible(self) -> bool:
        """Whether plausible scores were found with which the target wins."""
        return any(bool(edits.feasible[self.index]) for edits in self.batch.score_edits.values())

    @property
    def success(self) -> bool:
        """Whether an edit makes it the target: `Counterfactuals.success`."""
        return bool(self.batch.success[self.index])

    @property
    def changes(self) -> list[Change]:
        """The scores that would have to change by the first method that edits scores; see `changes_by`."""
        return next((self.changes_by(name) for name in self.batch.score_edits), [])

    def changes_by(self, method: str) -> list[Change]:
        """The scores that `method` would change, the largest gain first."""
        edits, units = self.batch.score_edits[method], self.batch.explanations.units
        before, after, gains = edits.before[self.index], edits.after[self.index], edits.gains[self.index]
        changed = (before != after).nonzero()[:, 0]
        order = changed[gains[changed].argsort(descending=True, stable=True)]
        return [
            Change(
                unit=unit, kind=units.kind, name=units.names[unit],
                phrase=units.phrases[unit] if units.phrases else None, before=before[unit].item(),
                after=after[unit].item(), gain=gains[unit].item(),
                is_absent=all(units.is_absent(unit, scores[unit].item()) for scores in (before, after)),
            )
            for unit in order.tolist()
        ]  # fmt: skip

    @property
    def image(self) -> Tensor:
        """As the first method that succeeds in the image has made it, (3, H, W); as it is where none does."""
        for edits in self.batch.image_edits.values():
            if edits.success is not None and edits.success[self.index]:
                return edits.images[self.index]
        return self.batch.images[self.index]

    def sentence(self) -> str:
        """What each method found in words, failures too."""
        return counterfactual_sentence(self)

    def figure(self, size: float = 3.0) -> Figure:
        """A matplotlib figure: before, what is edited, after, and the scores that would have to change."""
        return figure(self, size)

    def facts(self) -> dict[str, Any]:
        """Everything about it, as JSON values."""
        return {
            "predicted": self.predicted_name, "target": self.target_name, "sentence": self.sentence(),
            "success": self.success, "edits": [self._edit_facts(name) for name in self.batch.edits],
        }  # fmt: skip

    def _edit(self, method: str) -> Edit:
        edits, row = self.batch.edits[method], self.index
        is_scores = isinstance(edits, ScoreEdits)
        return Edit(
            method=method, kind=edits.kind,
            before=edits.before[row] if isinstance(edits, ScoreEdits) else self.batch.images[row],
            after=edits.after[row] if isinstance(edits, ScoreEdits) else edits.images[row],
            success=bool(self.batch._success_of(method)[row]), size=int(edits.size[row]),
            unit="column" if not is_scores and self.batch.images.ndim == 2 else edits.unit,
            lower_bound=None if edits.lower_bound is None else int(edits.lower_bound[row]),
            verified_by=edits.verified_by, sentence=edit_sentence(self, method),
        )  # fmt: skip

    def _edit_facts(self, method: str) -> dict[str, Any]:
        edits, edit, row = self.batch.edits[method], self._edit(method), self.index
        names = ("method", "kind", "success", "size", "unit", "lower_bound", "verified_by", "sentence")
        facts = {name: getattr(edit, name) for name in names}
        if isinstance(edits, ImageEdits):
            return facts | edits.facts_of(row)
        columns = ("unit", "name", "phrase", "before", "after", "gain")
        return facts | {
            "exact": bool(edits.exact[row]), "norm": edits.norm,
            "changes": [{name: getattr(item, name) for name in columns} for item in self.changes_by(method)],
        }  # fmt: skip

    def _repr_html_(self) -> str:
        return markup(self)
