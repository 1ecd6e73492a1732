"""What change of the scores would flip the decision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import torch
from attrs import define, evolve
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explainers.interface import Explainer
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explanations.decomposition import Decomposition, RescoreFn
from explainkit.explanations.edits import Norm, ScoreEdits
from explainkit.networks.unit_mask import unit_mask_of
from explainkit.questions.counterfactual_methods import CounterfactualMethod, CounterfactualQuestion
from explainkit.questions.goals import Goals
from explainkit.questions.score_edits import edit_scores, rows_at_once


@define(eq=False, kw_only=True)
class ScoreEdit(CounterfactualMethod):
    """The least change of the scores that a decision is made by, within what is plausible for the target.

    Parameters
    ----------
    norm : {"l0", "l1", "l2"}
        What an edit has least of: changed scores, the sum of changes, or of their squares.
    margin : float
        By how much the target shall be ahead by its evidence, in logits.
    prove : bool
        Whether to prove, for norm ``"l0"``, that no edit changes fewer scores, and to find one that does
        where the search has not: by a mixed-integer program for each image whose edit is larger than its
        bound.

    Raises
    ------
    InputError
        For another norm or margin.
    """

    norm: Norm = "l0"
    margin: float = 0.01
    prove: bool = False

    def __attrs_post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise InputError(f"Expected norm as one of {get_args(Norm)}; got {self.norm!r}.")
        if not isinstance(self.margin, int | float) or not 0 <= self.margin < float("inf"):
            raise InputError(f"Expected a margin of at least 0, in logits; got {self.margin!r}.")
        if not isinstance(self.prove, bool):
            raise InputError(f"Expected prove as True or False; got {self.prove!r}.")

    @classmethod
    def supports(cls, explainer: Explainer) -> bool:
        """Architectures that know which scores are plausible, and whose scores can change one by one."""
        return (
            super().supports(explainer)
            and isinstance(explainer, InterpretableExplainer)
            and explainer.supports_score_edits
        )

    def search(self, question: CounterfactualQuestion) -> ScoreEdits:
        """The least edits of the scores, verified by the sum, or by the head where scores are coupled."""
        goals, explanations, decomposition = question.goals, question.explanations, question.decomposition
        is_exclusive = goals.decision.is_exclusive
        edit = edit_scores if is_exclusive else partial(_edit_label_scores, goals.to("cpu"), decomposition)
        return edit(
            explanations.logits.cpu(), goals.targets.cpu(), explanations.scores.cpu(),
            _weight_fn(decomposition), *_plausible_range(question),
            norm=self.norm, margin=self.margin, prove=self.prove, rescore=_rescore_fn(decomposition),
        )  # fmt: skip


def _edit_label_scores(
    goals: Goals,
    decomposition: Decomposition,
    logits: Tensor,
    targets: Tensor,
    scores: Tensor,
    weight_fn: Callable[[Tensor], Tensor],
    low: Tensor,
    high: Tensor,
    *,
    rescore: RescoreFn | None,
    **options: Any,
) -> ScoreEdits:
    """`edit_scores` for labels: each against its threshold, as a second class without weights."""
    index, device = torch.arange(len(targets)), decomposition.logits.device

    def against_threshold(values: Tensor, rows: Tensor) -> Tensor:
        own = values[torch.arange(len(rows)), targets[rows]]
        return torch.stack([torch.full_like(own, goals.decision.threshold), own], 1)

    def weights_of_two(rows: Tensor) -> Tensor:
        own = decomposition.weights_at(rows.to(device), targets[rows].to(device)).cpu()
        return torch.stack([torch.zeros_like(own), own], 1)

    def rescore_two(rows: Tensor, values: Tensor) -> Tensor:
        assert rescore is not None
        return against_threshold(rescore(rows, values), rows)

    edits = edit_scores(
        against_threshold(logits, index), goals.wanted.long(), scores, weights_of_two, low, high,
        rescore=None if rescore is None else rescore_two, **options,
    )  # fmt: skip
    if rescore is None:
        moved, after = edits.after - edits.before, logits.clone()
        for rows in index.split(rows_at_once(logits.shape[1], scores.shape[1])):
            after[rows] += torch.einsum("nck,nk->nc", weight_fn(rows), moved[rows])
    else:
        after = rescore(index, edits.after)
    return evolve(edits, logits=after.to(logits.dtype))


def _weight_fn(decomposition: Decomposition) -> Callable[[Tensor], Tensor]:
    """Rows (n,) to the weights of all classes, (n, C, K)."""
    num_classes = decomposition.logits.shape[1]
    if isinstance(decomposition.weights, Tensor):
        weights = decomposition.weights.cpu()
        return lambda rows: weights.expand(len(rows), -1, -1)
    device = decomposition.logits.device

    def weight_fn(rows: Tensor) -> Tensor:
        images = rows.to(device).repeat_interleave(num_classes)
        classes = torch.arange(num_classes, device=device).repeat(len(rows))
        return decomposition.weights_at(images, classes).view(len(rows), num_classes, -1).cpu()

    return weight_fn


def _plausible_range(question: CounterfactualQuestion) -> tuple[Tensor, Tensor]:
    """Ends of what is plausible for each image's goal, (N, K) each."""
    explanations, ranges = question.explanations, question.explanations.units.score_range
    if ranges is None:
        if question.distractors is None:
            raise InputError(
                "Expected training images to learn from which scores are plausible; the model keeps none. "
                "Give them, counterfactual(images, targets, distractors=dataset)."
            )
        assert isinstance(question.explainer, InterpretableExplainer)
        ranges = question.explainer.score_ranges(question.distractors)
    ranges = ranges.cpu()[:, question.goals.kind.cpu()].to(explanations.scores.dtype)
    mask = unit_mask_of(question.explainer.network)
    if mask is not None:  # a unit that is off has its score and no other
        ranges = torch.where(mask.cpu(), ranges, explanations.scores.cpu())
    low, high = ranges
    return low, high


def _rescore_fn(decomposition: Decomposition) -> RescoreFn | None:
    """The decomposition's own, from and to the CPU."""
    rescore = decomposition.rescore
    if rescore is None:
        return None
    like = decomposition.scores

    def rescore_on_cpu(rows: Tensor, scores: Tensor) -> Tensor:
        with torch.no_grad():
            return rescore(rows.to(like.device), scores.to(like)).cpu()

    return rescore_on_cpu
