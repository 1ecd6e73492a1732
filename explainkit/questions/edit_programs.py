"""Edits of scores by mathematical programs: proofs, and least changes in other norms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from attrs import evolve
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp, minimize
from torch import Tensor

from explainkit.questions.edit_problem import Gaps

SOLVED = 1e-7
"""By how much, in logits, a solver may fall short of a gap."""

AHEAD = 1e-6
"""By how much the least squares go further than they must, in logits: more than the dual is off by."""

WHOLE = 1e-6
"""By how much a bound of the solver on a whole number may be above it."""

STEPS = 200
"""In how many steps a proof is looked for that there is no edit, before a linear program is asked."""

LARGEST_PROGRAM = 2**19
"""Most numbers N x C x K of a linear program, which takes about 150 bytes for each; larger ones are solved by
images, each for its hardest classes."""

HARDEST = 64
"""Classes that are added to such a program at once."""

FAR = 1e9
"""A gap that is closed anyhow, in logits: that of the target itself."""


def is_infeasible(problem: Gaps) -> Tensor:
    """Where prices are found at which the gaps sum to more than all units together can close, (n,) bool.

    Such prices prove that there is no edit. They are looked for by raising those of the gaps that the best
    moves leave open (multiplicative weights); what is not proved may still be so.
    """
    is_foil = problem.gaps.isfinite()  # all classes but the target
    price = is_foil.double() / is_foil.sum(1, keepdim=True).clamp(min=1)
    proved = torch.zeros(len(price), dtype=torch.bool)
    for step in range(1, STEPS + 1):
        slope = torch.einsum("nc,nck->nk", price, problem.gains)
        moves = torch.where(slope > 0, problem.high, problem.low)
        remaining = problem.remaining(moves).masked_fill(~is_foil, 0)
        proved |= (price * remaining).sum(1) > SOLVED
        if proved.all():
            break
        size = remaining.abs().amax(1, keepdim=True).clamp(min=1e-12)
        price = price * torch.exp(remaining / size / step**0.5)
        price = price / price.sum(1, keepdim=True).clamp(min=1e-300)
    return proved


def range_widths(problem: Gaps) -> Tensor:
    """How far each score can move, (n, K); never 0, so that it can be divided by."""
    width = problem.high - problem.low
    return width.where(width > 0, torch.ones_like(width))


def solve_program(problem: Gaps, prices: Tensor) -> Tensor | None:
    """The moves of one image that close all gaps at the least sum of price times size; None if none do."""
    if problem.size <= LARGEST_PROGRAM:
        moved = _cheapest_moves(problem, prices)
        return moved if moved is not None and problem.remaining(moved[None]).amax() <= SOLVED else None
    classes = problem.gaps[0].topk(min(HARDEST, problem.gaps.shape[1])).indices
    while len(classes):
        moved = _cheapest_moves(problem.of_classes(classes), prices)
        if moved is None:
            return None
        more = _left_open(problem, moved, SOLVED, classes)
        if not len(more):
            return moved if problem.remaining(moved[None]).amax() <= SOLVED else None
        classes = torch.cat([classes, more])
    return None


def _left_open(problem: Gaps, moved: Tensor, most: float, classes: Tensor) -> Tensor:
    """The classes besides `classes` whose gaps moves (K,) of one image leave open furthest, beyond `most`."""
    remaining = problem.remaining(moved[None])[0].index_fill(0, classes, -torch.inf)
    furthest = remaining.topk(min(HARDEST, len(remaining)))
    return furthest.indices[furthest.values > most]


def _cheapest_moves(problem: Gaps, prices: Tensor) -> Tensor | None:
    """The moves of one image, (K,), as the solver has them; None where it finds none."""
    is_foil = problem.gaps[0].isfinite()
    gains = problem.gains[0, is_foil].numpy()
    price = prices.numpy()
    solution = linprog(
        np.concatenate([price, price]),
        A_ub=-np.concatenate([gains, -gains], 1), b_ub=-problem.gaps[0, is_foil].numpy(),
        bounds=[(0, top) for top in [*problem.high[0].tolist(), *(-problem.low[0]).tolist()]],
        method="highs",
    )  # fmt: skip
    if solution.status != 0:
        return None
    up, down = torch.from_numpy(np.asarray(solution.x)).chunk(2)
    return torch.minimum(torch.maximum(up - down, problem.low[0]), problem.high[0])


def prove_fewest(problem: Gaps, bound: Tensor, seconds: float) -> tuple[Tensor, Tensor, Tensor]:
    """The fewest moves of each image (n, K); whether they are found; how many there must be at least (n,).

    A mixed-integer program an image: a unit moves, at a price of one, or stays. Each set that the solver
    finds is solved again as a linear program, so that no tolerance of whole numbers is left in it.

    Parameters
    ----------
    bound : Tensor, (n,)
        How many moves there must be at least, as far as is known.
    seconds : float
        After which the solver gives up on an image, with the bound that it has come to.
    """
    moved, is_found, bound = (
        torch.zeros_like(problem.low),
        torch.zeros(len(bound), dtype=torch.bool),
        bound.clone(),
    )
    for row in range(len(bound)):
        one = problem.select(torch.tensor([row]))
        solution = _fewest_units(one, int(bound[row]), seconds)
        if solution.mip_dual_bound is not None:
            bound[row] = max(int(bound[row]), math.ceil(solution.mip_dual_bound - WHOLE))
        if solution.x is None:
            continue
        chosen = torch.from_numpy(solution.x[: problem.low.shape[1]] > 0.5)
        worst, moves, _ = smallest_worst_gap(evolve(one, low=one.low * chosen, high=one.high * chosen))
        if worst[0] <= SOLVED:
            moved[row], is_found[row] = moves[0], True
    return moved, is_found, bound


def _fewest_units(problem: Gaps, bound: int, seconds: float) -> Any:
    """The solver's answer for one image: K choices of 0 or 1, then K moves."""
    num_units, is_foil = problem.low.shape[1], problem.gaps[0].isfinite()
    low, high = problem.low[0].numpy(), problem.high[0].numpy()
    one, none = sparse.eye_array(num_units), sparse.csr_array((int(is_foil.sum()), num_units))
    gains = sparse.csr_array(problem.gains[0, is_foil].numpy())
    constraints = [
        LinearConstraint(sparse.hstack([none, gains]), lb=problem.gaps[0, is_foil].numpy()),
        LinearConstraint(sparse.hstack([sparse.diags_array(-high), one]), ub=0.0),  # <= high, where it moves
        LinearConstraint(sparse.hstack([sparse.diags_array(-low), one]), lb=0.0),
        LinearConstraint(np.concatenate([np.ones(num_units), np.zeros(num_units)])[None], lb=bound),
    ]
    return milp(
        np.concatenate([np.ones(num_units), np.zeros(num_units)]),
        integrality=np.concatenate([np.ones(num_units), np.zeros(num_units)]),
        bounds=Bounds(np.concatenate([np.zeros(num_units), low]), np.concatenate([np.ones(num_units), high])),
        constraints=constraints, options={"time_limit": seconds, "mip_rel_gap": 0.0},
    )  # fmt: skip


def smallest_worst_gap(problem: Gaps) -> tuple[Tensor, Tensor, Tensor]:
    """By how much each image's worst gap stays open at best (n,); the moves; prices (n, C) that prove it."""
    if problem.size <= LARGEST_PROGRAM:
        return _solve_together(problem)
    rows = torch.arange(len(problem.gaps)).split(1)
    worst, moved, prices = zip(*(_solve_by_classes(problem.select(row)) for row in rows), strict=True)
    return torch.cat(worst), torch.cat(moved), torch.cat(prices)


def _solve_by_classes(problem: Gaps) -> tuple[Tensor, Tensor, Tensor]:
    """The same for one image: for the classes furthest ahead, then with those that the moves leave open."""
    classes = problem.gaps[0].topk(min(HARDEST, problem.gaps.shape[1])).indices
    while True:
        worst, moved, some_prices = _solve_together(problem.of_classes(classes))
        more = _left_open(problem, moved[0], worst.item() + SOLVED / 10, classes)
        if worst.isnan() or not len(more):
            prices = torch.zeros_like(problem.gaps).index_copy(1, classes, some_prices)
            return torch.where(worst.isnan(), worst, problem.remaining(moved).amax(1)), moved, prices
        classes = torch.cat([classes, more])


def _solve_together(problem: Gaps) -> tuple[Tensor, Tensor, Tensor]:
    """The same by one linear program for all images: it falls apart into theirs."""
    n, c, k = problem.gains.shape
    is_foil = problem.gaps.isfinite()
    sides = torch.cat(
        [-problem.gains * is_foil[..., None], -torch.ones(n, c, 1).double()], 2
    )  # (n, C, K + 1)
    row = torch.arange(n * c).view(n, c, 1).expand_as(sides)
    column = (torch.arange(n)[:, None] * (k + 1) + torch.arange(k + 1))[:, None].expand_as(sides)
    matrix = sparse.csr_array((sides.flatten().numpy(), (row.flatten().numpy(), column.flatten().numpy())))
    bounds = np.full((n, k + 1, 2), [-np.inf, np.inf])
    bounds[:, :k] = torch.stack([problem.low, problem.high], 2).numpy()
    solution = linprog(  # type: ignore[call-overload]  # its stubs know no sparse matrix
        np.tile([0.0] * k + [1.0], n), A_ub=matrix, bounds=bounds.reshape(-1, 2), method="highs",
        b_ub=(-problem.gaps).where(is_foil, torch.full_like(problem.gaps, FAR)).flatten().numpy(),
    )  # fmt: skip
    if solution.status != 0:
        return torch.full((n,), torch.nan).double(), torch.zeros(n, k).double(), torch.zeros(n, c).double()
    moved = torch.from_numpy(np.asarray(solution.x)).double().view(n, k + 1)[:, :k]
    moved = torch.minimum(torch.maximum(moved, problem.low), problem.high)
    prices = -torch.from_numpy(np.asarray(solution.ineqlin.marginals)).double().view(n, c)
    return problem.remaining(moved).amax(1), moved, prices * is_foil


def least_l1(problem: Gaps, fallback: Tensor, hardest: Tensor) -> tuple[Tensor, Tensor]:
    """The least sum of sizes that closes all gaps, and where that is proved; `fallback` where none is found.

    Against the `hardest` class alone the steepest units, the last in part; where these do not close all gaps,
    a linear program.
    """
    rows = torch.arange(len(hardest))
    slopes = problem.gains[rows, hardest]
    moves = problem.moves_against(hardest)
    order = slopes.abs().argsort(1, descending=True)
    gains = (slopes * moves).gather(1, order)
    remaining = (problem.gaps[rows, hardest][:, None] - (gains.cumsum(1) - gains)).clamp(min=0)
    share = (remaining / gains.clamp(min=1e-300)).clamp(max=1) * (gains > 0)
    moved = moves * torch.zeros_like(moves).scatter(1, order, share)
    exact = torch.ones(len(moved), dtype=torch.bool)
    for row in (problem.remaining(moved).amax(1) > SOLVED).nonzero()[:, 0].tolist():
        prices = torch.ones(moved.shape[1], dtype=torch.float64)
        solution = solve_program(problem.select(torch.tensor([row])), prices)
        moved[row], exact[row] = (fallback[row], False) if solution is None else (solution, True)
    return moved, exact


def least_l2(problem: Gaps, fallback: Tensor) -> tuple[Tensor, Tensor]:
    """The least sum of squares that closes all gaps, and where that is found; `fallback` elsewhere.

    The dual: moves are ``clip(sum_c price_c gain_c)`` for prices of at least 0 that make ``sum_c price_c
    gap_c`` less the cost of the moves largest. All images at once, for the sum falls apart.
    """
    n, c = problem.gains.shape[:2]
    aims = problem.gaps.nan_to_num(neginf=0.0) + AHEAD * problem.gaps.isfinite()
    scale = problem.gains.square().sum(2).clamp(min=1e-12)  # so that prices are alike in size

    def moves(price: Tensor) -> Tensor:
        unbounded = torch.einsum("nc,nck->nk", price / scale, problem.gains)
        return torch.minimum(torch.maximum(unbounded, problem.low), problem.high)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        price = torch.from_numpy(flat).view(n, c)
        moved = moves(price)
        closed = torch.einsum("nck,nk->nc", problem.gains, moved)
        remaining = (aims - closed) / scale
        value = moved.square().sum() / 2 + (price * remaining).sum()
        return -float(value), -remaining.flatten().numpy()

    bounds = [(0.0, None if finite else 0.0) for finite in problem.gaps.isfinite().flatten().tolist()]
    solution = minimize(
        loss, np.zeros(n * c), jac=True, bounds=bounds, method="L-BFGS-B",
        options={"maxiter": 3000, "maxfun": 6000, "ftol": 1e-16, "gtol": 1e-9},
    )  # fmt: skip
    moved = moves(torch.from_numpy(solution.x).view(n, c))
    exact = problem.remaining(moved).amax(1) <= SOLVED
    return torch.where(exact[:, None], moved, fallback), exact
