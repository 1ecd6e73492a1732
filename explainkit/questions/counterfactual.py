"""What change would flip the decision: in the evidence, exactly; and in the image, really."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, get_args

import torch
from attrs import field, frozen
from torch import Tensor

from explainkit.data.images import Batch, ImageData
from explainkit.decomposition import Decomposition
from explainkit.errors import InputError
from explainkit.explanation import Explanation, Explanations, class_indices
from explainkit.interfaces import MAX_BATCH, Explainer, Images, InterpretableExplainer, Targets
from explainkit.questions.edits import Cost, EvidenceEdits, edit
from explainkit.questions.exchange import RealisedEdits, exchange
from explainkit.wording import apart, called, counted, listed, repeated

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOLD = 4
"""Changes of scores that a sentence tells."""


@frozen(kw_only=True)
class Change:
    """One score that would have to change.

    ``gain`` is by how much that closes the gap between the predicted class and the target, in logits; below 0
    where the change is there for another rival.
    """

    unit: int
    kind: str
    name: str
    phrase: str | None
    before: float
    after: float
    gain: float

    @property
    def words(self) -> str:
        """The unit's phrase, or its name where it has none."""
        return self.phrase or self.name


@frozen(eq=False, kw_only=True)
class Counterfactuals:
    """For N images, what would make each its target.

    Attributes
    ----------
    explanations : Explanations
        Of the images as they are, for the targets.
    edit : EvidenceEdits
        What would have to change in the evidence.
    realised : RealisedEdits
        What was changed in the image, and what the network then said.
    """

    explanations: Explanations = field(repr=False)
    edit: EvidenceEdits
    realised: RealisedEdits

    def __repr__(self) -> str:
        can, did, n = int(self.edit.feasible.sum()), int(self.success.sum()), len(self)
        who = self.explanations.provenance.explainer
        return f"<{n} counterfactuals by {who}: {can} feasible in the evidence, {did} realised>"

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
        return self.realised.success

    def __len__(self) -> int:
        return len(self.explanations)

    def __iter__(self) -> Iterator[Counterfactual]:
        return (Counterfactual(batch=self, index=index) for index in range(len(self)))

    def _repr_html_(self) -> str:
        from explainkit.rendering.html import several

        return several(self, len(self))

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
        """The class that it should be."""
        return self.batch.classes[int(self.batch.targets[self.index])]

    @property
    def predicted_name(self) -> str:
        """The class that it is to the network."""
        return self.batch.classes[int(self.batch.predictions[self.index])]

    @property
    def already(self) -> bool:
        """Whether it is the target to begin with."""
        return int(self.batch.targets[self.index]) == int(self.batch.predictions[self.index])

    @property
    def feasible(self) -> bool:
        """Whether plausible scores exist with which the target wins."""
        return bool(self.batch.edit.feasible[self.index])

    @property
    def success(self) -> bool:
        """Whether the network really says the target once regions are swapped."""
        return bool(self.batch.success[self.index])

    @property
    def changes(self) -> list[Change]:
        """The scores that would have to change, the largest gain first."""
        edit, units = self.batch.edit, self.batch.explanations.units
        before, after, gains = edit.before[self.index], edit.after[self.index], edit.gains[self.index]
        changed = (before != after).nonzero()[:, 0]
        order = changed[gains[changed].argsort(descending=True, stable=True)]
        return [
            Change(
                unit=unit, kind=units.kind, name=units.names[unit],
                phrase=units.phrases[unit] if units.phrases else None, before=before[unit].item(),
                after=after[unit].item(), gain=gains[unit].item(),
            )
            for unit in order.tolist()
        ]  # fmt: skip

    @property
    def regions(self) -> int:
        """How many regions were swapped."""
        return int(self.batch.realised.size[self.index])

    @property
    def image(self) -> Tensor:
        """With the swapped regions, (3, H, W)."""
        return self.batch.realised.images[self.index]

    def sentence(self) -> str:
        """Both answers in words, failures too."""
        if self.already:
            return f"It is {self.target_name} already."
        return f"{self._of_evidence()} {self._of_image()}"

    def figure(self, size: float = 3.0) -> Figure:
        """A matplotlib figure: before, what is swapped, after, and the scores that would have to change."""
        from explainkit.rendering.answers import draw_change

        return draw_change(self, size)

    def facts(self) -> dict[str, Any]:
        """Everything about it, as JSON values."""
        edit, realised, row = self.batch.edit, self.batch.realised, self.index
        return {
            "predicted": self.predicted_name, "target": self.target_name, "sentence": self.sentence(),
            "feasible": self.feasible, "exact": bool(edit.exact[row]), "size": int(edit.size[row]),
            "lower_bound": int(edit.lower_bound[row]), "cost": edit.cost,
            "changes": [
                {name: getattr(item, name) for name in ("unit", "name", "phrase", "before", "after", "gain")}
                for item in self.changes
            ],
            "success": self.success, "regions": realised.regions[row].nonzero().tolist(),
            "exemplar": int(realised.exemplars[row]), "shift": realised.shifts[row].tolist(),
            "mirrored": bool(realised.mirrored[row]),
        }  # fmt: skip

    def _repr_html_(self) -> str:
        from explainkit.rendering.html import change_fragment

        return change_fragment(self)

    def _of_evidence(self) -> str:
        edit, name = self.batch.edit, self.target_name
        if not self.feasible:
            return f"No scores within what is plausible for {name} would make it {name}."
        changes = self.changes
        twice = repeated([item.words for item in changes[:TOLD]])
        told = [_told(item, item.words in twice) for item in changes[:TOLD]]
        if len(changes) > TOLD:
            told.append(f"{counted(len(changes) - TOLD, 'other score')} changed")
        least, count = int(edit.lower_bound[self.index]), counted(len(changes), "score")
        if edit.cost != "count":
            proof = f"the least change, of {count}" if edit.exact[self.index] else f"a change of {count}"
        elif edit.exact[self.index]:
            proof = f"{count}, and no fewer would do"
        else:
            proof = f"{count}; at least {least} would be needed"
        return f"By its evidence it would be {name} if {listed(told)} ({proof})."

    def _of_image(self) -> str:
        realised, row = self.batch.realised, self.index
        total, of_rows = realised.regions[row].numel(), self.batch.explanations.of_rows
        region, source = ("column", "row") if of_rows else ("region", "image")
        if not self.success:
            return (
                f"No swap that was tried, of up to half of its {region}s for those of {self.target_name}, "
                "made it so."
            )
        how = "the mirrored " if bool(realised.mirrored[row]) else ""
        return (
            f"With {self.regions} of its {total} {region}s taken from {how}{source} "
            f"{int(realised.exemplars[row])} of the bank, which is {self.target_name},"
            " the network says so."
        )


def counterfactual(
    explainer: Explainer,
    images: Images,
    targets: Targets | None = None,
    *,
    bank: ImageData | Batch | None = None,
    cost: Cost = "count",
    margin: float = 0.01,
    max_batch: int = MAX_BATCH,
) -> Counterfactuals:
    """`Explainer.counterfactual`."""
    if not isinstance(explainer, InterpretableExplainer):
        raise InputError(
            f"Expected an architecture that explains itself; {explainer.card.title} attributes a decision "
            "after it was made: there are no scores that the decision is made by, and so none to change."
        )
    if cost not in get_args(Cost):
        raise InputError(f"Expected cost as one of {get_args(Cost)}; got {cost!r}.")
    if not 0 <= margin < float("inf"):
        raise InputError(f"Expected a margin of at least 0, in logits; got {margin}.")
    if max_batch < 1:
        raise InputError(f"Expected max_batch of at least 1; got {max_batch}.")
    source = explainer._bank if bank is None else bank
    if source is None:
        raise InputError(
            "Expected training images to swap regions with: a loaded or bound model keeps none. "
            "Give them, counterfactual(images, targets, bank=data)."
        )
    explainer.network  # refuses what is not fitted, in words  # noqa: B018
    if isinstance(source, ImageData):
        explainer._same_classes(source)
    with torch.inference_mode(False):
        ready = explainer.read(images)
        if targets is None:
            logits = explainer.predict(ready, max_batch=max_batch)
            if logits.shape[1] < 2:
                raise InputError("Expected a network of two classes or more: there is none to change to.")
            targets = logits.topk(2, 1).indices[:, 1]
        wanted = class_indices(targets, explainer.classes, len(ready)).to(ready.device)
        told = explainer.explain(ready, wanted, max_batch=max_batch)
        parts = told.decomposition
        assert parts is not None
        edits = edit(
            told.logits.cpu(), wanted.cpu(), told.scores.cpu(), _weigh(parts),
            *_plausible(explainer, told, source),
            cost=cost, margin=margin, rescore=_head(explainer),
        )  # fmt: skip
        realised = exchange(explainer, ready, parts, wanted, source)
    return Counterfactuals(explanations=told, edit=edits, realised=realised)


def _weigh(parts: Decomposition) -> Callable[[Tensor], Tensor]:
    """Rows (n,) to the weights of all classes, (n, C, K)."""
    count = parts.logits.shape[1]
    weights = parts.weights
    if isinstance(weights, Tensor):
        known = weights.cpu()
        return lambda rows: known.expand(len(rows), -1, -1)
    device = parts.logits.device

    def weigh(rows: Tensor) -> Tensor:
        images = rows.to(device).repeat_interleave(count)
        classes = torch.arange(count, device=device).repeat(len(rows))
        return parts.weights_for_rows(images, classes).view(len(rows), count, -1).cpu()

    return weigh


def _plausible(
    explainer: InterpretableExplainer[Any], told: Explanations, source: ImageData | Batch
) -> tuple[Tensor, Tensor]:
    """Ends of what is plausible for each image's target, (N, K) each."""
    ranges = told.units.range
    if ranges is None:
        ranges = explainer.ranges(source)
    low, high = ranges.cpu()[:, told.targets.cpu()].to(told.scores.dtype)
    return low, high


def _head(explainer: InterpretableExplainer[Any]) -> Callable[[Tensor], Tensor] | None:
    """The network's head on scores alone, where they are coupled and it has one."""
    rescore = getattr(explainer.network, "rescore", None)
    if rescore is None:
        return None
    device, dtype = explainer.device, next(explainer.network.parameters()).dtype

    def head(scores: Tensor) -> Tensor:
        with torch.no_grad():
            return rescore(scores.to(device, dtype)).cpu()

    return head


def _told(item: Change, shared: bool) -> str:
    moved = "rose" if item.after > item.before else "fell"
    before, after = apart(item.before, item.after)
    phrase = (
        item.phrase if max(item.before, item.after) > 0 else None
    )  # of what is not there, no phrase is true
    return f"{called(item.name, phrase, shared=shared)} {moved} from {before} to {after}"
