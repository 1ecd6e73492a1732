"""What scores would have to be for another class to win: edits of evidence within what is plausible.

For image n, target t and another class c let ``gap = logit_c - logit_t + margin`` and ``d = weight_t -
weight_c``. Moving unit k within its range closes the gap by at most ``gain_k = max(d_k (high_k - score_k),
d_k (low_k - score_k), 0)``.

Against one class the fewest moves are the largest gains: sorting is exact, since any m gains sum to no more
than the m largest. The most that any one class needs is therefore a lower bound for all classes together. The
search for a set that closes all gaps is greedy, then prunes; the result is optimal where its size equals the
lower bound. On request a mixed-integer program finds the fewest of all, and proves it. Where no set is found,
a linear program says whether there is any.

Least change in sum of sizes is a knapsack against one class, a linear program against all; least change in
squares a projection, found by its dual, which has a price for each class.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from explainkit.explanations.decomposition import RescoreFn
from explainkit.explanations.edits import Norm, ScoreEdits
from explainkit.questions.edit_problem import Gaps, fewest_moves_per_class
from explainkit.questions.edit_programs import (
    SOLVED,
    is_infeasible,
    least_l1,
    least_l2,
    prove_fewest,
    range_widths,
    smallest_worst_gap,
    solve_program,
)

PROOF_SECONDS = 30.0
"""After which a proof for one image is given up, with the bound that it has come to."""

ROUNDING = 1e-6
"""By how much of the largest logit an edit goes further than it must, so that rounding does not undo it."""

PROGRAM_BATCH_SIZE = 256
"""Images whose sets are tried by one linear program."""

LARGEST_CHUNK = 2**21
"""Most numbers N x C x K, 16 MiB in float64, that are worked on at once; about five such arrays are held."""


def edit_scores(
    logits: Tensor,
    targets: Tensor,
    scores: Tensor,
    weight_fn: Callable[[Tensor], Tensor],
    low: Tensor,
    high: Tensor,
    *,
    norm: Norm = "l0",
    margin: float = 0.01,
    prove: bool = False,
    rescore: RescoreFn | None = None,
) -> ScoreEdits:
    """The least change of scores after which the targets win against all classes.

    Parameters
    ----------
    logits : Tensor, (N, C)
    targets : Tensor, (N,)
    scores, low, high : Tensor, (N, K)
        And the ends of what is plausible for the target; a score outside may stay where it is.
    weight_fn : callable
        Rows (n,) to weights (n, C, K).
    margin : float
        By how much the target shall be ahead, in logits.
    prove : bool
        Whether to find the fewest changes of all where the search may not have, and prove it: for norm
        ``"l0"``, some tens of milliseconds an image at a hundred units.
    rescore : RescoreFn or None
        Rows and scores to logits, where these are no sum with the weights held still. The edits of the sum
        are then extended until the network itself says the target. Nothing is proved of them: not that none
        smaller would do, and where none is found not that there is none.
    """
    n, c = logits.shape
    logits64, before = logits.double(), scores.double()
    moved = torch.zeros_like(before)
    gains, bound = torch.zeros_like(before), torch.zeros(n, dtype=torch.long)
    feasible, exact = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    logits_after = logits64.clone()
    for rows in torch.arange(n).split(rows_at_once(c, scores.shape[1])):
        weights = weight_fn(rows)
        index, target, predicted = torch.arange(len(rows)), targets[rows], logits64[rows].argmax(1)
        lead = logits64[rows] - logits64[rows, target][:, None]
        slack = margin + ROUNDING * logits64[rows].abs().amax(1, keepdim=True).clamp(min=1)
        problem = Gaps(
            gaps=(lead + slack).scatter(1, target[:, None], -torch.inf),
            gains=_gains(weights, weights[index, target]),
            low=(low[rows].double() - before[rows]).clamp(max=0),
            high=(high[rows].double() - before[rows]).clamp(min=0),
        )
        moved[rows], feasible[rows], exact[rows], bound[rows] = _cheapest_moves(
            problem, norm, predicted == target, prove and rescore is None
        )
        logits_after[rows] += torch.einsum("nck,nk->nc", weights.double(), moved[rows])
        if rescore is not None:
            moved[rows], logits_after[rows], feasible[rows] = _extend_by_rescoring(
                problem, moved[rows], before[rows], target, partial(rescore, rows)
            )
            exact[rows] = predicted == target
            bound[rows] = (predicted != target).long()  # as they are, the scores make it another class
        gains[rows] = problem.gains[index, predicted] * moved[rows]
    return ScoreEdits(
        before=scores, after=_apply_moves(scores, moved), gains=gains.to(scores.dtype),
        logits=logits_after.to(logits.dtype), feasible=feasible, exact=exact, lower_bound=bound, norm=norm,
        verified_by="algebra" if rescore is None else "head",
    )  # fmt: skip


def rows_at_once(num_classes: int, num_units: int) -> int:
    """How many images are worked on at once: one at least."""
    return max(1, LARGEST_CHUNK // (num_classes * num_units))


def _gains(weights: Tensor, own: Tensor) -> Tensor:
    """The targets' weights (n, K) less those of each class (n, C, K), which may be a view: in float64."""
    gains = torch.empty(weights.shape, dtype=torch.float64)
    gains.copy_(weights)
    return gains.neg_().add_(own.double()[:, None])


def _apply_moves(scores: Tensor, moved: Tensor) -> Tensor:
    """The scores after their moves, in their own precision: one that moves comes to differ."""
    after = scores.clone()
    has_moved = moved != 0
    after[has_moved] = (scores.double() + moved).to(scores.dtype)[has_moved]
    is_lost = has_moved & (after == scores)  # by rounding: the next number that there is
    after[is_lost] = scores[is_lost].nextafter((moved.sign() * torch.inf).to(scores.dtype)[is_lost])
    return after


def _cheapest_moves(
    problem: Gaps, norm: Norm, is_target: Tensor, prove: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Moves (n, K); whether they close all gaps; whether none cost less; how many must move at least.

    No moves where the prediction is the target already, `is_target` (n,).
    """
    n, num_units = problem.low.shape
    count, order = fewest_moves_per_class(problem)
    bound, hardest = count.max(1)
    is_target = is_target | (bound == 0)
    moved = torch.zeros_like(problem.low)
    exact = torch.ones(n, dtype=torch.bool)
    rows = (~is_target & (bound <= num_units)).nonzero()[:, 0]
    feasible = is_target.clone()
    bound = bound.masked_fill(is_target, 0).clamp(max=num_units)
    if len(rows):
        batch = problem.select(rows)
        moves, is_closed, is_certain = _few_moves(batch, bound[rows], hardest[rows], order[rows])
        if norm == "l0":
            moves, exact[rows], bound[rows] = _fewest_moves(batch, moves, is_closed, bound[rows], prove)
        elif is_closed.any():
            closable = batch.select(is_closed)
            if norm == "l1":
                nearest = least_l1(closable, moves[is_closed], hardest[rows[is_closed]])
            else:
                nearest = least_l2(closable, moves[is_closed])
            moves[is_closed], exact[rows[is_closed]] = nearest
        moved[rows], feasible[rows] = moves, is_closed
        exact[rows] &= is_certain
    return moved, feasible, exact, bound


def _few_moves(problem: Gaps, bound: Tensor, hardest: Tensor, order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Few moves that close all gaps (n, K), whether they do, and whether that is certain.

    By the better of two searches, or by a program; it is not certain where the solver gave up.
    """
    moves = problem.moves_against(hardest)
    rank = order.argsort(1)
    largest = moves * (rank < bound[:, None])
    is_enough = problem.remaining(largest).amax(1) <= 0
    moved = torch.where(is_enough[:, None], largest, _greedy_moves(problem))
    moved = _prune_moves(problem, moved)
    is_closed = problem.remaining(moved).amax(1) <= 0
    is_certain = torch.ones_like(is_closed)
    open_ = (~is_closed).nonzero()[:, 0]
    open_ = open_[~is_infeasible(problem.select(open_))]
    for batch in open_.split(PROGRAM_BATCH_SIZE) if len(open_) else ():
        worst, dense, _ = smallest_worst_gap(problem.select(batch))
        is_certain[batch] = ~worst.isnan()
        is_solved = worst <= SOLVED
        moved[batch[is_solved]], is_closed[batch[is_solved]] = dense[is_solved], True
        for row in batch[is_solved].tolist():  # one that changes few scores, where the program finds it
            prices = 1 / range_widths(problem)[row]
            sparse = solve_program(problem.select(torch.tensor([row])), prices)
            moved[row] = moved[row] if sparse is None else sparse
    moved[~is_closed] = 0
    return moved, is_closed, is_certain


def _fewest_moves(
    problem: Gaps, moved: Tensor, is_closed: Tensor, bound: Tensor, prove: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Moves of as few units as are found; where it is proved that none fewer would do; the bound, raised."""
    moved, bound = moved.clone(), bound.clone()
    open_ = (is_closed & ((moved != 0).sum(1) > bound)).nonzero()[:, 0]
    if prove and len(open_):
        fewest, is_found, raised = prove_fewest(problem.select(open_), bound[open_], PROOF_SECONDS)
        is_fewer = is_found & ((fewest != 0).sum(1) < (moved[open_] != 0).sum(1))
        moved[open_] = torch.where(is_fewer[:, None], fewest, moved[open_])
        bound[open_] = torch.minimum(raised, (moved[open_] != 0).sum(1))
    return moved, ~is_closed | ((moved != 0).sum(1) <= bound), bound


def _greedy_moves(problem: Gaps) -> Tensor:
    """Move the unit after which the gaps that are open sum to least, until none is or none helps: (n, K)."""
    moved = torch.zeros_like(problem.low)
    remaining = problem.gaps.clone()
    rows = torch.arange(len(remaining))
    for _ in range(moved.shape[1]):
        worst = remaining.max(1)
        moves = problem.moves_against(worst.indices) * (moved == 0)
        after = problem.gains * moves[:, None]
        after = after.neg_().add_(remaining[:, :, None]).clamp_(min=0).sum(1)  # (n, K)
        best = after.min(1)
        helps = (worst.values > 0) & (best.values < remaining.clamp(min=0).sum(1) * (1 - 1e-12))
        if not helps.any():
            break
        move = moves[rows, best.indices] * helps
        moved[rows, best.indices] += move
        remaining = remaining - problem.gains[rows, :, best.indices] * move[:, None]
    return moved


def _prune_moves(problem: Gaps, moved: Tensor) -> Tensor:
    """Undo moves that are not needed, each time the one that leaves the target furthest ahead."""
    moved = moved.clone()
    rows = torch.arange(len(moved))
    while True:
        without = problem.gains * moved[:, None]  # (n, C, K)
        without += problem.remaining(moved)[:, :, None]
        worst = without.amax(1).masked_fill(moved == 0, torch.inf).min(1)
        needless = worst.values <= 0
        if not needless.any():
            return moved
        moved[rows[needless], worst.indices[needless]] = 0


def _extend_by_rescoring(
    problem: Gaps, moved: Tensor, before: Tensor, targets: Tensor, rescore: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Moves with which the head itself gives the target: more of them, the largest gain first; its logits.

    And whether the target wins; there are no moves where it does not.
    """
    rows = torch.arange(len(moved))
    logits = rescore(before + moved).double()
    for _ in range(moved.shape[1]):
        foil = logits.argmax(1)
        moves = problem.moves_against(foil)
        gain = (problem.gains[rows, foil] * moves).masked_fill(moved != 0, 0)
        best = gain.max(1)
        more = (foil != targets) & (best.values > 0)
        if not more.any():
            break
        moved[rows[more], best.indices[more]] = moves[rows[more], best.indices[more]]
        logits = rescore(before + moved).double()
    has_won = logits.argmax(1) == targets
    moved[~has_won] = 0
    return moved, torch.where(has_won[:, None], logits, rescore(before).double()), has_won
