"""Classes whose units are silenced: what is left of them and of the others, by `Units.class_affinity`."""

from __future__ import annotations

from typing import ClassVar

import torch
from attrs import define, field, frozen
from torch import Tensor

import explainkit as ek
from explainkit.errors import InputError
from explainkit.explainers.interface import Explainer
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.counts import check_count
from explainkit.explanations.edits import ScoreEdits
from explainkit.questions.true_scores import check_study
from explainkit_csgcnn.evidence import (
    affinity_of,
    logits_by_class,
    scores_above_reference,
    units_with_classes,
)
from explainkit_csgcnn.model import MEMBER, check_threshold


@define(eq=False, kw_only=True)
class ClassAblation(ek.CounterfactualMethod):
    """All units of the predicted class silenced at once: ``S_c = {k : G_kc > affinity}``.

    Each has its reference for a score, and the head is asked again. What the class loses so is what its own
    units held up; where another class than the target wins then, the edit has failed. It is an experiment and
    no least change, so that it runs where it is named alone: ``method="csg-cnn/class-ablation"``.

    Parameters
    ----------
    affinity : float
        How much a unit must belong to the class to be silenced.
    """

    runs_by_default: ClassVar[bool] = False

    affinity: float = MEMBER

    def __attrs_post_init__(self) -> None:
        check_threshold("affinity", self.affinity)

    @classmethod
    def supports(cls, explainer: Explainer) -> bool:
        """Architectures whose units belong to classes, of which one wins, and can be silenced one by one."""
        return (
            super().supports(explainer)
            and isinstance(explainer, InterpretableExplainer)
            and explainer.supports_score_edits
            and explainer.decision.is_exclusive
            and explainer.units is not None
            and explainer.units.class_affinity is not None
        )

    def search(self, question: ek.CounterfactualQuestion) -> ScoreEdits:
        """The scores without those of the predicted class, and what the head says of them."""
        explanations = question.explanations
        predicted = explanations.logits.argmax(1)
        affinity = affinity_of(explanations)[:, predicted].T  # (N, K)
        is_silenced = affinity > self.affinity
        reference = explanations.scores - scores_above_reference(explanations)
        is_target = predicted == question.goals.targets.to(predicted)
        after = torch.where(is_silenced & ~is_target[:, None], reference, explanations.scores)
        return question.score_edits(after)


@frozen(eq=False, kw_only=True)
class AblationTable:
    """Accuracy before and after the units of each of C classes are silenced.

    Attributes
    ----------
    classes : tuple of str, C
    num_units : Tensor, (C,)
        Units of each class.
    images : Tensor, (C,)
        Images of each class.
    own_before, own_after : Tensor, (C,)
        Accuracy on images of the class itself.
    others_before, others_after : Tensor, (C,)
        Accuracy on images of all other classes.
    predicted_drop, true_drop : Tensor, (C,)
        By how much the class's logit falls in the mean over its images: as its units' contributions say, and
        as the head says when it is asked again. They differ where scores are coupled.
    """

    classes: tuple[str, ...]
    num_units: Tensor
    images: Tensor
    own_before: Tensor
    own_after: Tensor
    others_before: Tensor
    others_after: Tensor
    predicted_drop: Tensor
    true_drop: Tensor

    def table(self) -> str:
        """As plain text, a line a class and the mean."""
        width = max(len(name) for name in (*self.classes, "mean"))
        head = f"{'':{width}}  units  own before  own after  others before  others after  predicted  true"
        columns = torch.stack([
            self.num_units.double(), self.own_before, self.own_after, self.others_before, self.others_after,
            self.predicted_drop, self.true_drop,
        ], 1)  # fmt: skip
        rows = [*zip(self.classes, columns.tolist(), strict=True), ("mean", columns.nanmean(0).tolist())]
        lines = [
            f"{name:{width}}  {units:5.1f}  {before:10.3f}  {after:9.3f}  {rest:13.3f}  {left:12.3f}"
            f"  {predicted:9.2f}  {true:4.2f}"
            for name, (units, before, after, rest, left, predicted, true) in rows
        ]
        return "\n".join([head, *lines])


def ablated_logits(explanations: Explanations, threshold: float = MEMBER) -> Tensor:
    """Logits (N, C, C) of each image with the units of each class silenced: the middle axis is that class.

    Raises
    ------
    InputError
        For explanations whose units belong to no classes, or that know one class alone, and for a threshold
        out of [0, 1).
    """
    kept = affinity_of(explanations) <= check_threshold("threshold", threshold)
    return logits_by_class(explanations, kept)


def ablate_classes(
    explainer: Explainer, dataset: ek.ImageDataset, split: str = "test", *, batch_size: int = 128
) -> AblationTable:
    """What is left of each class, and of all others, when its units are silenced, on a split of `dataset`.

    Raises
    ------
    NotFittedError
        Before `fit`.
    InputError
        For units that belong to no classes, a data set of other classes, a split without images, and where
        several labels may hold.
    """
    batch_size = check_ablation(explainer, dataset, split, batch_size)
    tally = AblationTally(len(explainer.classes))
    for batch in dataset.batches(split, batch_size=batch_size):
        tally.add(explainer.explain(batch, batch.labels, maps=None), batch.labels)
    return tally.finish(explainer.classes)


def check_ablation(explainer: Explainer, dataset: ek.ImageDataset, split: str, batch_size: int) -> int:
    """Refuse what no table can be made of; `batch_size` as an int."""
    check_study(explainer, dataset)
    units_with_classes(explainer)
    if not explainer.decision.is_exclusive:
        raise InputError("Expected one class an image; with labels that hold or not there is no accuracy.")
    explainer.check_classes(dataset)
    if not len(dataset.split(split)):
        raise InputError(f"Expected images in the split {split!r}; {dataset.name} has none there.")
    return check_count("batch_size", batch_size)


@define(eq=False)
class AblationTally:
    """Sums over images that an `AblationTable` is made of.

    Parameters
    ----------
    classes : int
    """

    classes: int
    num_units: Tensor = field(init=False)
    sums: Tensor = field(init=False)  # images, right before, drop predicted, drop true: by own class
    right_after: Tensor = field(init=False)  # by own class and by class silenced

    def __attrs_post_init__(self) -> None:
        self.num_units = torch.zeros(self.classes, dtype=torch.long)
        self.sums = torch.zeros(self.classes, 4, dtype=torch.double)
        self.right_after = torch.zeros(self.classes, self.classes, dtype=torch.double)

    def add(self, explanations: Explanations, labels: Tensor) -> None:
        """Count explanations of images for their own classes `labels` (N,)."""
        labels = labels.to(explanations.logits.device)
        after = ablated_logits(explanations)  # (N, C, C)
        member = affinity_of(explanations) > MEMBER
        rows = torch.arange(len(labels), device=labels.device)
        own = explanations.logits[rows, labels]
        predicted = (explanations.contributions * member[:, labels].T).sum(1)
        values = torch.stack([
            torch.ones_like(own), (explanations.logits.argmax(1) == labels).to(own), predicted,
            own - after[rows, labels, labels],
        ], 1)  # fmt: skip
        is_right = after.argmax(2) == labels[:, None]  # (N, C)
        self.num_units = member.sum(0).cpu()
        self.sums.index_add_(0, labels.cpu(), values.cpu().double())
        self.right_after.index_add_(0, labels.cpu(), is_right.cpu().double())

    def finish(self, classes: tuple[str, ...]) -> AblationTable:
        """The means; NaN of a class without images."""
        images, right, predicted, true = self.sums.unbind(1)
        own_right = self.right_after.diagonal()
        others = images.sum() - images
        return AblationTable(
            classes=tuple(classes), num_units=self.num_units, images=images.long(),
            own_before=right / images, own_after=own_right / images,
            others_before=(right.sum() - right) / others,
            others_after=(self.right_after.sum(0) - own_right) / others,
            predicted_drop=predicted / images, true_drop=true / images,
        )  # fmt: skip
