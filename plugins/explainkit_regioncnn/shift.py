"""Attention that would have to lie on other regions for another class to win: the head is asked with it."""

from __future__ import annotations

import numpy as np
import torch
from attrs import define, evolve
from scipy.optimize import linprog
from torch import Tensor

import explainkit as ek
from explainkit.errors import InputError
from explainkit.explainers.interface import Explainer
from explainkit.explanations.edits import ScoreEdits
from explainkit.questions.goals import Goals

SLACK = 1e-6
"""By how much of the largest logit a shift goes further than it must, so that rounding does not undo it."""


@define(eq=False, kw_only=True)
class AttentionShift(ek.CounterfactualMethod):
    """The least attention that has to move to other regions, as a sum of changes, for the target to win.

    Regions say what they say; attention alone changes, stays at 0 or above and sums to 1, and none goes to a
    region that is absent or disabled. Where no attention makes it the target, that is proved. The network's
    head is asked again with what was found.

    Parameters
    ----------
    margin : float
        By how much the target shall be ahead, in logits.
    """

    margin: float = 0.01

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.margin, int | float) or not 0 <= self.margin < float("inf"):
            raise InputError(f"Expected a margin of at least 0, in logits; got {self.margin!r}.")

    @classmethod
    def supports(cls, explainer: Explainer) -> bool:
        """Region-CNN, whose scores are attention."""
        from explainkit_regioncnn.explainer import RegionCNN

        return super().supports(explainer) and isinstance(explainer, RegionCNN)

    def search(self, question: ek.CounterfactualQuestion) -> ScoreEdits:
        """The least shifts, each verified by the head."""
        goals, decomposition = question.goals, question.decomposition
        logits, scores = decomposition.logits, decomposition.scores
        evidence = decomposition.all_weights(largest=2**63)
        assert evidence is not None
        gaps = _gaps(goals, evidence.double(), decomposition.bias.double())  # (N, F, K)
        slack = self.margin + SLACK * logits.abs().amax(1).clamp(min=1).double()
        is_reached = goals.are_reached(logits)
        gaps = torch.where(is_reached[:, None, None], -torch.inf, gaps + slack[:, None, None])
        after, is_exact = least_shifts(scores.double(), gaps)
        lower_bound = 2 * (~is_reached).long()  # what one region loses another gains
        edits = question.score_edits(after.to(scores), lower_bound)
        return evolve(
            edits, exact=is_exact.cpu() & (edits.feasible | (after == scores).all(1).cpu()), norm="l1"
        )


def least_shifts(attention: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor]:
    """Attention (N, K) nearest to `attention` in sum of changes, with which no gap is above 0.

    Against one class the least shift is that of a sorted list: from the regions with the largest gap to the
    one with the least. The shift that the hardest class needs is no more than what all classes need together,
    so that it is the least of all where it closes all gaps. Elsewhere a linear program finds it.

    Parameters
    ----------
    attention : Tensor, (N, K)
        Of at least 0, summing to 1; regions with 0 get none.
    gaps : Tensor, (N, F, K)
        By how much each foil would be ahead if all attention lay on one region; -inf where none has to move.

    Returns
    -------
    Tensor, (N, K)
        As it was where no attention closes all gaps.
    Tensor, (N,), bool
        Whether it is proved that no smaller shift would do, or that none would.
    """
    after, moved, is_closable = _shifts_by_foil(attention, gaps)
    hardest = moved.argmax(1)
    rows = torch.arange(len(attention), device=attention.device)
    shifted = after[rows, hardest]
    is_closable = is_closable.all(1)
    left = (shifted[:, None] * gaps.nan_to_num(neginf=-1.0)).sum(2).amax(1)  # -1: nothing has to move there
    is_least = is_closable & (left <= 1e-9)
    is_proved = is_least | ~is_closable
    shifted = torch.where(is_least[:, None], shifted, attention)
    for row in (~is_proved).nonzero()[:, 0].tolist():  # few: one foil's shift seldom opens another's gap
        solution, is_proved[row] = _least_by_program(attention[row], gaps[row])
        if solution is not None:
            shifted[row] = solution
    return shifted, is_proved


def _gaps(goals: Goals, evidence: Tensor, bias: Tensor) -> Tensor:
    """By how much each foil is ahead of the goal by one region alone, (N, F, K); the goal itself by -inf.

    `evidence` (N, C, K). Of labels, the one foil is the threshold.
    """
    said = evidence + bias[:, None]  # attention sums to 1, so that each region may carry the bias
    rows = torch.arange(len(said), device=said.device)
    own = said[rows, goals.targets][:, None]
    if goals.decision.is_exclusive:
        gaps = said - own
        gaps[rows, goals.targets] = -torch.inf
        return gaps
    return (goals.decision.threshold - own) * goals.signs(own)[:, None, None]


def _shifts_by_foil(attention: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The least shift against each foil alone: attention (N, F, K), how much moves, and whether it can do."""
    is_there = attention > 0
    is_needed = gaps[..., 0] > -torch.inf
    values = torch.where(is_needed[..., None], gaps, 0.0)
    shares = attention[:, None].expand_as(values)
    best = values.masked_fill(~is_there[:, None], torch.inf).min(2)  # where attention goes
    need = torch.where(is_needed, (shares * values).sum(2).clamp(min=0), 0.0)
    order = values.masked_fill(~is_there[:, None], -torch.inf).argsort(2, descending=True)
    per_share = (values - best.values[..., None]).clamp(min=0).gather(2, order)
    held = shares.gather(2, order)
    won = (held * per_share).cumsum(2)
    before = won - held * per_share
    amount = (need[..., None] - before).clamp(min=0) / per_share.where(per_share > 0, torch.inf)
    amount = torch.minimum(amount, held)
    moved = amount.sum(2)
    after = shares - torch.zeros_like(values).scatter(2, order, amount)
    after = after.scatter_add(2, best.indices[..., None], moved[..., None])
    return after, moved, (need <= 0) | (best.values <= 0)


def _least_by_program(attention: Tensor, gaps: Tensor) -> tuple[Tensor | None, bool]:
    """The same for one image against all foils at once; ``None`` where there is none; whether that is sure.

    Gains and losses of the regions that are there, at least 0 each, of as much gained as lost.
    """
    is_there, is_needed = (attention > 0).cpu().numpy(), (gaps[:, 0] > -torch.inf).cpu().numpy()
    held = attention.cpu().numpy()[is_there]
    values = gaps.cpu().numpy()[is_needed][:, is_there]
    count = len(held)
    result = linprog(
        np.ones(2 * count), A_ub=np.hstack([values, -values]), b_ub=-values @ held,
        A_eq=np.hstack([np.ones((1, count)), -np.ones((1, count))]), b_eq=[0.0],
        bounds=[*[(0, None)] * count, *[(0, share) for share in held]], method="highs",
    )  # fmt: skip
    if result.x is None:
        return None, result.status == 2  # infeasible, and not given up
    after = np.zeros(len(is_there))
    after[is_there] = (held + result.x[:count] - result.x[count:]).clip(min=0)
    return torch.from_numpy(after / after.sum()).to(attention), bool(result.status == 0)
