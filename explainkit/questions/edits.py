"""What scores would have to be for another class to win: edits of evidence within what is plausible.

For image n, target t and rival c let ``gap = logit_c - logit_t + margin`` and ``d = weight_t - weight_c``.
Moving unit k within its range closes the gap by at most ``gain_k = max(d_k (high_k - score_k), d_k (low_k -
score_k), 0)``.

Against one rival the fewest moves are the largest gains: sorting is exact, since any m gains sum to no more
than the m largest. The most that any one rival needs is therefore a lower bound for all rivals together. A
set that closes all gaps is found by adding the unit that leaves least, and by undoing what is not needed;
where it is as small as the bound it is proved to be smallest, and up to `ENUMERATED` units smaller sets are
ruled out one by one. Where no set is found, a linear program says whether there is any.

Least change in sum of sizes is a knapsack against one rival, a linear program against all; least change in
squares a projection, found by its dual, which has a price for each rival.
"""

from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from attrs import evolve, field, frozen
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog, minimize
from torch import Tensor

Cost = Literal["count", "l1", "l2"]
"""What an edit has least of: changed scores, the sum of their changes, or of their squares."""

ENUMERATED = 12
"""Units up to which smaller sets are tried one by one."""

ROUNDING = 1e-6
"""By how much of the largest logit an edit goes further than it must, so that rounding does not undo it."""

SOLVED = 1e-7
"""By how much, in logits, a solver may fall short of a gap."""

AHEAD = 1e-6
"""By how much the least squares go further than they must, in logits: more than the dual is off by."""

RATIOS = (0.25, 0.5, 1.0, 2.0)
"""How much another rival's gap counts beside the hardest's, where two are closed at once for a bound."""

STEPS = 200
"""In how many steps a proof is looked for that there is no edit, before a linear program is asked."""

TOGETHER = 256
"""Images whose sets are tried by one linear program."""

FAR = 1e9
"""A gap that is closed anyhow, in logits: that of the target itself."""

_CHUNK = 2**23
"""Most numbers N x C x K that are worked on at once."""


@frozen(eq=False, kw_only=True)
class EvidenceEdits:
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
    cost : {"count", "l1", "l2"}
    """

    before: Tensor = field(repr=False)
    after: Tensor = field(repr=False)
    gains: Tensor = field(repr=False)
    logits: Tensor = field(repr=False)
    feasible: Tensor
    exact: Tensor
    lower_bound: Tensor
    cost: Cost

    @property
    def size(self) -> Tensor:
        """How many scores change, (N,)."""
        return (self.after != self.before).sum(1)


@frozen(eq=False, kw_only=True)
class Gaps:
    """What is to be closed, in float64, for n images: rows of it are images.

    Attributes
    ----------
    gaps : Tensor, (n, C)
        By how much each class is ahead of the target, and the margin; -inf for the target itself.
    gains : Tensor, (n, C, K)
        ``weight_t - weight_c``.
    low, high : Tensor, (n, K)
        By how much a score may change: at most 0, at least 0.
    """

    gaps: Tensor
    gains: Tensor
    low: Tensor
    high: Tensor

    def rows(self, index: Tensor) -> "Gaps":
        """Those of some images."""
        return Gaps(
            gaps=self.gaps[index], gains=self.gains[index], low=self.low[index], high=self.high[index]
        )

    def left(self, moved: Tensor) -> Tensor:
        """The gaps once scores have moved by (n, K): (n, C)."""
        return self.gaps - torch.einsum("nck,nk->nc", self.gains, moved)

    def largest(self) -> Tensor:
        """The most by which each unit can close each gap, (n, C, K)."""
        return torch.maximum(self.gains * self.high[:, None], self.gains * self.low[:, None])

    def towards(self, rival: Tensor) -> Tensor:
        """The move of each unit that closes the gap to `rival` (n,) most: (n, K)."""
        against = self.gains[torch.arange(len(rival)), rival]
        return torch.where(against > 0, self.high, self.low) * (against != 0)


def edit(
    logits: Tensor,
    targets: Tensor,
    scores: Tensor,
    weigh: Callable[[Tensor], Tensor],
    low: Tensor,
    high: Tensor,
    *,
    cost: Cost = "count",
    margin: float = 0.01,
    rescore: Callable[[Tensor], Tensor] | None = None,
) -> EvidenceEdits:
    """The least change of scores after which the targets win against all classes.

    Parameters
    ----------
    logits : Tensor, (N, C)
    targets : Tensor, (N,)
    scores, low, high : Tensor, (N, K)
        And the ends of what is plausible for the target; a score outside may stay where it is.
    weigh : callable
        Rows (n,) to weights (n, C, K).
    margin : float
        By how much the target shall be ahead, in logits.
    rescore : callable or None
        Scores (N, K) to logits, where scores are not independent of each other: the head is then run again.
    """
    n, c = logits.shape
    logits64, before = logits.double(), scores.double()
    moved = torch.zeros_like(before)
    gains, bound = torch.zeros_like(before), torch.zeros(n, dtype=torch.long)
    feasible, exact = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    after = logits64.clone()
    for rows in torch.arange(n).split(max(1, _CHUNK // (c * scores.shape[1]))):
        weights = weigh(rows).double()
        place, aim = torch.arange(len(rows)), targets[rows]
        ahead = logits64[rows] - logits64[rows, aim][:, None]
        slack = margin + ROUNDING * logits64[rows].abs().amax(1, keepdim=True).clamp(min=1)
        problem = Gaps(
            gaps=(ahead + slack).scatter(1, aim[:, None], -torch.inf),
            gains=weights[place, aim][:, None] - weights,
            low=(low[rows].double() - before[rows]).clamp(max=0),
            high=(high[rows].double() - before[rows]).clamp(min=0),
        )
        found = _least(problem, cost, logits64[rows].argmax(1) == aim)
        moved[rows], feasible[rows], exact[rows], bound[rows] = found
        predicted = logits64[rows].argmax(1)
        gains[rows] = problem.gains[place, predicted] * moved[rows]
        after[rows] += torch.einsum("nck,nk->nc", weights, moved[rows])
        if rescore is not None:
            more = _grown(problem, moved[rows], before[rows], aim, rescore)
            moved[rows], after[rows], feasible[rows] = more
            exact[rows] = False
            gains[rows] = problem.gains[place, predicted] * moved[rows]
    kept = scores.clone()
    changed = moved != 0
    kept[changed] = (before + moved).to(scores.dtype)[changed]
    lost = changed & (kept == scores)  # by rounding: the next number that there is
    kept[lost] = scores[lost].nextafter((moved.sign() * torch.inf).to(scores.dtype)[lost])
    return EvidenceEdits(
        before=scores, after=kept, gains=gains.to(scores.dtype), logits=after.to(logits.dtype),
        feasible=feasible, exact=exact, lower_bound=bound, cost=cost,
    )  # fmt: skip


def fewest_against_one(problem: Gaps) -> tuple[Tensor, Tensor]:
    """How many moves each rival alone needs, (n, C): K + 1 where all do not do; and the order of units."""
    sizes = problem.largest().sort(2, descending=True)
    reached = sizes.values.cumsum(2) >= problem.gaps[..., None]
    units = problem.low.shape[1]
    count = torch.where(reached.any(2), reached.int().argmax(2) + 1, units + 1)
    return torch.where(problem.gaps <= 0, 0, count), sizes.indices


Proved = tuple[Tensor, Tensor, Tensor]
"""Moves (n, K), and two facts about each image's."""

Found = tuple[Tensor, Tensor, Tensor, Tensor]
"""Moves (n, K); whether they do; whether nothing less does; how many must move at least."""


def _least(problem: Gaps, cost: Cost, already: Tensor) -> Found:
    """The cheapest moves that are found."""
    n, units = problem.low.shape
    needed, order = fewest_against_one(problem)
    bound, hardest = needed.max(1)
    already = already | (bound == 0)
    hopeless = bound > units
    moved = torch.zeros_like(problem.low)
    exact = torch.ones(n, dtype=torch.bool)
    open_ = (~already & ~hopeless).nonzero()[:, 0]
    feasible = already.clone()
    bound = bound.masked_fill(already, 0).clamp(max=units)
    if len(open_):
        some = problem.rows(open_)
        found, done, sure = _closing(some, bound[open_], hardest[open_], order[open_])
        if cost == "count":
            proved = _smallest(some, found, done, bound[open_], hardest[open_])
            found, exact[open_], bound[open_] = proved
        elif done.any():
            nearest = _knapsack if cost == "l1" else _projected
            found[done], exact[open_[done]] = nearest(some.rows(done), found[done], hardest[open_[done]])
        moved[open_], feasible[open_] = found, done
        exact[open_] &= sure
    return moved, feasible, exact, bound


def _closing(problem: Gaps, bound: Tensor, hardest: Tensor, order: Tensor) -> Proved:
    """Few moves that close all gaps, whether they do, and whether that is sure.

    By the better of two searches, or by a program; it is not sure where the solver gave up.
    """
    rows = torch.arange(len(bound))
    toward = problem.towards(hardest)
    rank = order[rows, hardest].argsort(1)
    sorted_ = toward * (rank < bound[:, None])
    moved = torch.where((problem.left(sorted_).amax(1) <= 0)[:, None], sorted_, _greedy(problem))
    moved = _without_needless(problem, moved)
    done = problem.left(moved).amax(1) <= 0
    sure = torch.ones_like(done)
    open_ = (~done).nonzero()[:, 0]
    open_ = open_[~_hopeless(problem.rows(open_))]
    for some in open_.split(TOGETHER) if len(open_) else ():
        short, dense, _ = _shortest(problem.rows(some))
        sure[some] = ~short.isnan()
        can = short <= SOLVED
        moved[some[can]], done[some[can]] = dense[can], True
        for row in some[can].tolist():  # one that changes few scores, where the program finds it
            sparse_ = _programmed(problem.rows(torch.tensor([row])), 1 / _room(problem)[row])
            moved[row] = moved[row] if sparse_ is None else sparse_
    moved[~done] = 0
    return moved, done, sure


def _smallest(problem: Gaps, moved: Tensor, done: Tensor, bound: Tensor, hardest: Tensor) -> Proved:
    """Moves of as few units as there are, where that can be proved; where it is; and the bound, raised."""
    moved, bound = moved.clone(), bound.clone()
    size = (moved != 0).sum(1)
    open_ = (done & (size > bound)).nonzero()[:, 0]
    for rows in open_.split(max(1, _CHUNK // (8 * problem.gains[0].numel()))):
        raised = _bound_by_pairs(problem.rows(rows), hardest[rows])
        bound[rows] = torch.minimum(torch.maximum(bound[rows], raised), size[rows])
    exact = ~done | (size <= bound)
    if moved.shape[1] <= ENUMERATED:
        for rows in (~exact).nonzero()[:, 0].split(TOGETHER):
            fewer, found, proved = _enumerated(problem.rows(rows), bound[rows], size[rows])
            moved[rows] = torch.where(found[:, None], fewer, moved[rows])
            bound[rows] = torch.where(proved, (moved[rows] != 0).sum(1), bound[rows])
            exact[rows] = proved
    return moved, exact, bound


def _bound_by_pairs(problem: Gaps, hardest: Tensor) -> Tensor:
    """How many moves must be made at least, (n,), from the hardest rival's gap and another's together.

    Whoever closes two gaps closes every sum of them, and a sum is closed soonest by the units that do most
    for it.
    """
    bound = torch.zeros(len(hardest), dtype=torch.long)
    for ratio in RATIOS:
        bound = torch.maximum(bound, fewest_against_one(_pairs(problem, hardest, ratio))[0].amax(1))
    return bound


def _pairs(problem: Gaps, hardest: Tensor, ratio: float) -> Gaps:
    """The gap to the hardest rival and `ratio` times that to each other, as one: still C of them."""
    rows = torch.arange(len(hardest))
    first, gap = problem.gains[rows, hardest], problem.gaps[rows, hardest]
    alike = first.norm(dim=1)[:, None] / problem.gains.norm(dim=2).clamp(min=1e-12)  # (n, C)
    share = (ratio * alike).masked_fill(~problem.gaps.isfinite(), 0)
    return Gaps(
        gaps=gap[:, None] + share * problem.gaps.nan_to_num(neginf=0.0),
        gains=first[:, None] + share[..., None] * problem.gains, low=problem.low, high=problem.high,
    )  # fmt: skip


def _greedy(problem: Gaps) -> Tensor:
    """Move the unit after which the gaps that are open sum to least, until none is or none helps: (n, K)."""
    moved = torch.zeros_like(problem.low)
    left = problem.gaps.clone()
    rows = torch.arange(len(left))
    for _ in range(moved.shape[1]):
        worst = left.max(1)
        step = problem.towards(worst.indices) * (moved == 0)
        after = (left[:, :, None] - problem.gains * step[:, None]).clamp(min=0).sum(1)  # (n, K)
        best = after.min(1)
        helps = (worst.values > 0) & (best.values < left.clamp(min=0).sum(1) * (1 - 1e-12))
        if not helps.any():
            break
        chosen = step[rows, best.indices] * helps
        moved[rows, best.indices] += chosen
        left = left - problem.gains[rows, :, best.indices] * chosen[:, None]
    return moved


def _without_needless(problem: Gaps, moved: Tensor) -> Tensor:
    """Undo moves that are not needed, each time the one that leaves the target furthest ahead."""
    moved = moved.clone()
    rows = torch.arange(len(moved))
    while True:
        without = problem.left(moved)[:, :, None] + problem.gains * moved[:, None]  # (n, C, K)
        worst = without.amax(1).masked_fill(moved == 0, torch.inf).min(1)
        needless = worst.values <= 0
        if not needless.any():
            return moved
        moved[rows[needless], worst.indices[needless]] = 0


def _hopeless(problem: Gaps) -> Tensor:
    """Where prices are found at which the gaps sum to more than all units together can close, (n,) bool.

    Such prices prove that there is no edit. They are looked for by raising those of the gaps that the best
    moves leave open (multiplicative weights); what is not proved may still be so.
    """
    known = problem.gaps.isfinite()
    price = known.double() / known.sum(1, keepdim=True).clamp(min=1)
    proved = torch.zeros(len(price), dtype=torch.bool)
    for step in range(1, STEPS + 1):
        slope = torch.einsum("nc,nck->nk", price, problem.gains)
        left = problem.left(torch.where(slope > 0, problem.high, problem.low)).masked_fill(~known, 0)
        proved |= (price * left).sum(1) > SOLVED
        if proved.all():
            break
        size = left.abs().amax(1, keepdim=True).clamp(min=1e-12)
        price = price * torch.exp(left / size / step**0.5)
        price = price / price.sum(1, keepdim=True).clamp(min=1e-300)
    return proved


def _room(problem: Gaps) -> Tensor:
    """How far each score can move, (n, K); never 0, so that it can be divided by."""
    room = problem.high - problem.low
    return room.where(room > 0, torch.ones_like(room))


def _programmed(problem: Gaps, prices: Tensor) -> Tensor | None:
    """The moves of one image that close all gaps at the least sum of price times size; None if none do."""
    rivals = problem.gaps[0].isfinite()
    against = problem.gains[0, rivals].numpy()
    price = prices.numpy()
    solved = linprog(
        np.concatenate([price, price]),
        A_ub=-np.concatenate([against, -against], 1), b_ub=-problem.gaps[0, rivals].numpy(),
        bounds=[(0, top) for top in [*problem.high[0].tolist(), *(-problem.low[0]).tolist()]],
        method="highs",
    )  # fmt: skip
    if solved.status != 0:
        return None
    up, down = torch.from_numpy(np.asarray(solved.x)).chunk(2)
    moved = torch.minimum(torch.maximum(up - down, problem.low[0]), problem.high[0])
    return moved if problem.left(moved[None]).amax() <= SOLVED else None


def _enumerated(problem: Gaps, bound: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fewer moves than `size` (n,), from `bound` on; where there are any; and where that is proved.

    A set that a linear program finds not to do comes with prices of the rivals that prove it: the sum of
    gaps at these prices is more than the set can close. The same prices rule out most other sets too. All
    images ask their next sets together.
    """
    n, units = problem.low.shape
    hard = problem.gaps.argmax(1)
    known = [problem, *(_pairs(problem, hard, ratio) for ratio in RATIOS)]
    limits = torch.cat([some.largest() for some in known], 1)  # (n, L, K)
    aims = torch.cat([some.gaps for some in known], 1) - SOLVED
    worth = problem.largest().masked_fill(~problem.gaps.isfinite()[..., None], 0).sum(1)
    count, found = bound.tolist(), torch.zeros(n, dtype=torch.bool)
    proved = torch.ones(n, dtype=torch.bool)
    could: list[Tensor | None] = [None] * n
    moved = torch.zeros_like(problem.low)
    while True:
        rows, places = [], []
        for row in (~found).nonzero()[:, 0].tolist():
            while count[row] < size[row]:
                member, open_ = _sets(units, count[row]), could[row]
                if open_ is None:
                    open_ = could[row] = (member @ limits[row].T >= aims[row]).all(1)
                if open_.any():
                    rows.append(row)
                    places.append(int((member @ worth[row]).masked_fill(~open_, -torch.inf).argmax()))
                    break
                count[row], could[row] = count[row] + 1, None
        if not rows:
            return moved, found, proved
        some = problem.rows(torch.tensor(rows))
        kept = torch.stack([_sets(units, count[row])[place] for row, place in zip(rows, places, strict=True)])
        short, solved, prices = _shortest(evolve(some, low=some.low * kept, high=some.high * kept))
        slope = torch.einsum("nc,nck->nk", prices, some.gains)
        most = torch.maximum(slope * some.high, slope * some.low)
        aim = (prices * some.gaps.nan_to_num(neginf=0.0)).sum(1) - SOLVED
        for place, (row, chosen) in enumerate(zip(rows, places, strict=True)):
            if short[place] <= SOLVED:
                moved[row], found[row] = solved[place], True
                continue
            if short[place].isnan():  # the solver gave up
                proved[row], count[row] = False, int(size[row])
                continue
            open_ = could[row]
            assert open_ is not None
            open_ &= _sets(units, count[row]) @ most[place] >= aim[place]
            open_[chosen] = False


@cache
def _sets(units: int, count: int) -> Tensor:
    """Every set of `count` units, a row of ones and zeros each."""
    sets = torch.tensor(list(combinations(range(units), count)))
    return torch.zeros(len(sets), units, dtype=torch.float64).scatter(1, sets, 1.0)


def _shortest(problem: Gaps) -> tuple[Tensor, Tensor, Tensor]:
    """By how much each image's worst gap stays open at best (n,); the moves; prices (n, C) that prove it.

    One linear program for all images: it falls apart into theirs.
    """
    n, c, k = problem.gains.shape
    known = problem.gaps.isfinite()
    sides = torch.cat([-problem.gains * known[..., None], -torch.ones(n, c, 1).double()], 2)  # (n, C, K + 1)
    row = torch.arange(n * c).view(n, c, 1).expand_as(sides)
    column = (torch.arange(n)[:, None] * (k + 1) + torch.arange(k + 1))[:, None].expand_as(sides)
    matrix = sparse.csr_array((sides.flatten().numpy(), (row.flatten().numpy(), column.flatten().numpy())))
    ends = np.full((n, k + 1, 2), [-np.inf, np.inf])
    ends[:, :k] = torch.stack([problem.low, problem.high], 2).numpy()
    solved = linprog(  # type: ignore[call-overload]  # its stubs know no sparse matrix
        np.tile([0.0] * k + [1.0], n), A_ub=matrix, bounds=ends.reshape(-1, 2), method="highs",
        b_ub=(-problem.gaps).where(known, torch.full_like(problem.gaps, FAR)).flatten().numpy(),
    )  # fmt: skip
    if solved.status != 0:
        return torch.full((n,), torch.nan).double(), torch.zeros(n, k).double(), torch.zeros(n, c).double()
    moved = torch.from_numpy(np.asarray(solved.x)).double().view(n, k + 1)[:, :k]
    moved = torch.minimum(torch.maximum(moved, problem.low), problem.high)
    prices = -torch.from_numpy(np.asarray(solved.ineqlin.marginals)).double().view(n, c)
    return problem.left(moved).amax(1), moved, prices * known


def _knapsack(problem: Gaps, known: Tensor, rival: Tensor) -> tuple[Tensor, Tensor]:
    """The least sum of sizes: against one rival the steepest units, the last in part; else a program."""
    rows = torch.arange(len(rival))
    against = problem.gains[rows, rival]
    toward = problem.towards(rival)
    order = against.abs().argsort(1, descending=True)
    gains = (against * toward).gather(1, order)
    open_ = (problem.gaps[rows, rival][:, None] - (gains.cumsum(1) - gains)).clamp(min=0)
    share = (open_ / gains.clamp(min=1e-300)).clamp(max=1) * (gains > 0)
    moved = toward * torch.zeros_like(toward).scatter(1, order, share)
    exact = torch.ones(len(moved), dtype=torch.bool)
    for row in (problem.left(moved).amax(1) > SOLVED).nonzero()[:, 0].tolist():
        alike = torch.ones(moved.shape[1], dtype=torch.float64)
        solved = _programmed(problem.rows(torch.tensor([row])), alike)
        moved[row], exact[row] = (known[row], False) if solved is None else (solved, True)
    return moved, exact


def _projected(problem: Gaps, known: Tensor, rival: Tensor) -> tuple[Tensor, Tensor]:
    """The least sum of squares that closes all gaps within the ranges; `known` moves where it is not found.

    The dual: moves are ``clip(sum_c price_c gain_c)`` for prices of at least 0 that make ``sum_c price_c
    gap_c`` less the cost of the moves largest. All images at once, for the sum falls apart.
    """
    n, c = problem.gains.shape[:2]
    aims = problem.gaps.nan_to_num(neginf=0.0) + AHEAD * problem.gaps.isfinite()
    scale = problem.gains.square().sum(2).clamp(min=1e-12)  # so that prices are alike in size

    def moves(price: Tensor) -> Tensor:
        free = torch.einsum("nc,nck->nk", price / scale, problem.gains)
        return torch.minimum(torch.maximum(free, problem.low), problem.high)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        price = torch.from_numpy(flat).view(n, c)
        moved = moves(price)
        closed = torch.einsum("nck,nk->nc", problem.gains, moved)
        open_ = (aims - closed) / scale
        value = moved.square().sum() / 2 + (price * open_).sum()
        return -float(value), -open_.flatten().numpy()

    ends = [(0.0, None if finite else 0.0) for finite in problem.gaps.isfinite().flatten().tolist()]
    found = minimize(
        loss, np.zeros(n * c), jac=True, bounds=ends, method="L-BFGS-B",
        options={"maxiter": 3000, "maxfun": 6000, "ftol": 1e-16, "gtol": 1e-9},
    )  # fmt: skip
    moved = moves(torch.from_numpy(found.x).view(n, c))
    exact = problem.left(moved).amax(1) <= SOLVED
    return torch.where(exact[:, None], moved, known), exact


def _grown(
    problem: Gaps, moved: Tensor, before: Tensor, targets: Tensor, rescore: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Moves that the head itself agrees to: more of them, the largest gain first, until the target wins."""
    rows = torch.arange(len(moved))
    logits = rescore(before + moved).double()
    for _ in range(moved.shape[1]):
        rival = logits.argmax(1)
        lost = rival != targets
        toward = problem.towards(rival)
        gain = (problem.gains[rows, rival] * toward).masked_fill(moved != 0, 0)
        best = gain.max(1)
        more = lost & (best.values > 0)
        if not more.any():
            break
        moved[rows[more], best.indices[more]] = toward[rows[more], best.indices[more]]
        logits = rescore(before + moved).double()
    won = logits.argmax(1) == targets
    moved[~won] = 0
    return moved, torch.where(won[:, None], logits, rescore(before).double()), won
