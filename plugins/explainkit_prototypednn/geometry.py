"""Logits as quadratic forms of the latent point, and the nearest point at which another class wins.

With squared distances and no bias, ``l_c(z) = sum_k W_ck |z - p_k|^2`` is ``A_c |z|^2 - 2 B_c z + C_c``: the
same in every direction around its center ``B_c / A_c``. So where one class overtakes another is a sphere, or
a plane, and the nearest point of it has a closed form.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from attrs import evolve, frozen
from torch import Tensor

from explainkit.questions.goals import Goals
from explainkit_prototypednn.model import PrototypeDNNNetwork

ROUNDS = 60
"""Steps of the search where one boundary is not enough."""

HALVINGS = 40
"""Of the way back from a point that was found to the point itself."""


@frozen(eq=False)
class QuadraticForm:
    """Logits (N, C) of latent points: ``a |z|^2 - 2 b z + c``.

    Attributes
    ----------
    a : Tensor, (C,)
    b : Tensor, (C, q)
    c : Tensor, (C,)
    """

    a: Tensor
    b: Tensor
    c: Tensor

    def __call__(self, latent: Tensor) -> Tensor:
        """Logits (N, C) of points (N, q)."""
        return self.a * latent.square().sum(1, keepdim=True) - 2 * latent @ self.b.T + self.c

    @property
    def centers(self) -> Tensor:
        """Where each logit is largest, if a < 0, or smallest, if a > 0: (C, q); NaN where it is linear."""
        return torch.where(self.a[:, None] != 0, self.b / self.a[:, None], torch.nan)


def quadratic_form(network: PrototypeDNNNetwork) -> QuadraticForm:
    """The logits of `network`, in float64; a prototype that is off adds what its reference is worth."""
    weights, prototypes = network.head.weight.detach().double(), network.prototypes.detach().double()
    is_on = network.unit_mask.to(weights)
    constants = torch.where(network.unit_mask, prototypes.square().sum(1), network.reference.double())
    return QuadraticForm(
        a=(weights * is_on).sum(1), b=(weights * is_on) @ prototypes, c=weights @ constants
    )  # fmt: skip


@frozen(eq=False)
class Constraints:
    """What has to be at least 0 at a point that is the goal: ``h = a |z|^2 - 2 b z + c``, R of them for each.

    Attributes
    ----------
    a, c : Tensor, (N, R)
    b : Tensor, (N, R, q)
    """

    a: Tensor
    b: Tensor
    c: Tensor

    def values(self, latent: Tensor) -> Tensor:
        """H of each at points (N, q): (N, R)."""
        products = torch.einsum("nrq,nq->nr", self.b, latent)
        return self.a * latent.square().sum(1, keepdim=True) - 2 * products + self.c

    def select(self, rows: Tensor) -> Constraints:
        """Those of the points `rows` (n,)."""
        return Constraints(self.a[rows], self.b[rows], self.c[rows])

    def tightened(self, slack: Tensor) -> Constraints:
        """With h less by `slack` (N,)."""
        return evolve(self, c=self.c - slack[:, None])

    def steps(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """How far each boundary is from points (N, q), 0 where h >= 0; and whether it can be reached.

        (N, R) each. The step is along the gradient ``2 g``, ``g = a z - b``; h along it is the quadratic
        ``h + 2 t |g|^2 + a t^2 |g|^2``, whose root next to 0 is ``t = -r / (1 + sqrt(1 - a r))`` with
        ``r = h / |g|^2``: on the sphere around ``b / a``, and on the plane where a is 0, without a division
        by a. Where the root is not real the sphere is empty, and h below 0 everywhere.
        """
        values, gradient = self.values(latent), self._gradient(latent)
        power = gradient.square().sum(2)
        factors, is_reachable = _roots(self.a, values, power)
        # at the center itself every direction is as good: |z - o| is the radius
        from_center = (-values / self.a).clamp(min=0).sqrt()
        lengths = torch.where(power > 0, factors * power.sqrt(), from_center.nan_to_num(0, 0, 0))
        is_kept = values >= 0
        return torch.where(is_kept | ~is_reachable, 0.0, lengths), is_kept | is_reachable

    def nearest(self, latent: Tensor, which: Tensor) -> Tensor:
        """The point of boundary ``which[n]`` that is nearest to point n, (N, q); itself where h is kept.

        Where no point of it is reached, the point itself too.
        """
        rows = torch.arange(len(latent), device=latent.device)
        one = Constraints(*(values[rows, which][:, None] for values in (self.a, self.b, self.c)))
        values, gradient = one.values(latent)[:, 0], one._gradient(latent)[:, 0]
        power = gradient.square().sum(1)
        factors, is_reachable = _roots(one.a[:, 0], values, power)
        at_center = torch.zeros_like(latent)
        at_center[:, 0] = (-values / one.a[:, 0]).clamp(min=0).sqrt().nan_to_num(0, 0, 0)
        step = torch.where(power[:, None] > 0, factors[:, None] * gradient, at_center)
        return torch.where(((values < 0) & is_reachable)[:, None], latent + step, latent)

    def _gradient(self, latent: Tensor) -> Tensor:
        """Half of it, (N, R, q)."""
        return self.a[..., None] * latent[:, None] - self.b


def _roots(a: Tensor, values: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
    """How many gradients away a boundary is, and whether it exists, of ``|g|^2`` and h: see `steps`."""
    ratio = values / power.clamp(min=torch.finfo(power.dtype).tiny)
    inside = 1 - a * ratio
    is_reachable = torch.where(power > 0, inside >= 0, a > 0)
    return -ratio / (1 + inside.clamp(min=0).sqrt()), is_reachable


def constraints_for(form: QuadraticForm, goals: Goals, margin: Tensor) -> Constraints:
    """That the target of each image is `margin` (N,) ahead of every other class, or past its threshold.

    That of the target with itself always holds.
    """
    targets, margin = goals.targets, margin.to(form.c)[:, None]
    a, b, c = form.a[targets, None], form.b[targets, None], form.c[targets, None]
    if not goals.decision.is_exclusive:
        sign = goals.signs(form.c)[:, None]
        return Constraints(sign * a, sign[..., None] * b, sign * (c - goals.decision.threshold) - margin)
    is_own = torch.arange(len(form.a), device=targets.device) == targets[:, None]
    lead = torch.where(is_own, 1.0, c - form.c - margin)
    return Constraints(a - form.a, b - form.b, lead)


@frozen(eq=False, kw_only=True)
class NearestPoints:
    """The nearest points that keep constraints, of N.

    Attributes
    ----------
    latent : Tensor, (N, q)
        As they were where nothing was found.
    is_found : Tensor, (N,), bool
    is_excluded : Tensor, (N,), bool
        Whether one constraint alone is proved to hold nowhere.
    lengths : Tensor, (N,)
        Of the moves.
    lower_bound : Tensor, (N,)
        No shorter move keeps all constraints: that to the farthest boundary. Equal to `lengths` where
        that boundary's nearest point keeps the others too.
    """

    latent: Tensor
    is_found: Tensor
    is_excluded: Tensor
    lengths: Tensor
    lower_bound: Tensor


def nearest_points(constraints: Constraints, latent: Tensor, upper: float = torch.inf) -> NearestPoints:
    """The nearest points to `latent` (N, q) that keep `constraints`, within 0 and `upper` in every element.

    First the nearest point of the farthest boundary, in closed form, cut to what the encoder can reach. Where
    that breaks another constraint, or was cut, the most broken one is stepped to again and again: once
    straight, and once drawn back to the point itself by 1 / (n + 2) in step n, which in a convex set ends at
    the nearest point (Halpern, Bulletin of the AMS 73, 1967). From the nearer of both ends it is halved back.
    """
    steps, is_reachable = constraints.steps(latent)
    is_excluded = ~is_reachable.all(1)
    bound, farthest = steps.max(1)
    slack = torch.finfo(latent.dtype).eps * 64 * (1 + constraints.c.abs().amax(1))
    point = constraints.nearest(latent, farthest).clamp(0, upper)
    is_found = _is_kept(constraints, point, slack) & ~is_excluded
    rows = (~is_found & ~is_excluded).nonzero()[:, 0]
    if len(rows):
        searched, is_searched = _search(constraints.select(rows), latent[rows], upper, slack[rows])
        point[rows], is_found[rows] = searched, is_searched
    point = torch.where(is_found[:, None], point, latent)
    return NearestPoints(
        latent=point, is_found=is_found, is_excluded=is_excluded, lower_bound=bound,
        lengths=(point - latent).norm(dim=1),
    )  # fmt: skip


def _is_kept(constraints: Constraints, latent: Tensor, slack: Tensor) -> Tensor:
    """Whether points (N, q) keep all constraints, but for rounding."""
    return constraints.values(latent).amin(1) >= -slack


def _search(constraints: Constraints, latent: Tensor, upper: float, slack: Tensor) -> tuple[Tensor, Tensor]:
    """The nearer end of both searches, and whether there is one."""
    # a little further than needed, so that steps end inside rather than come ever nearer
    gap = (-constraints.values(latent).amin(1)).clamp(min=0)
    inner = constraints.tightened(0.02 * gap + 16 * slack)
    ends = torch.stack([*_walks(inner, latent, upper)])  # (2, N, q)
    kept = torch.stack([_is_kept(constraints, end, slack) for end in ends])
    nearer = [_halved_back(constraints, latent, end, slack) for end in ends]
    ends = torch.stack(nearer)
    lengths = (ends - latent).norm(dim=2).masked_fill(~kept, torch.inf)
    rows = torch.arange(len(latent), device=latent.device)
    return ends[lengths.argmin(0), rows], kept.any(0)


def _walks(constraints: Constraints, latent: Tensor, upper: float) -> Iterator[Tensor]:
    """Where steps to the most broken constraint lead: straight, and drawn back at first."""
    for pulls in (0, ROUNDS // 2):
        point = latent
        for step in range(ROUNDS):
            worst = constraints.values(point).argmin(1)
            point = constraints.nearest(point, worst).clamp(0, upper)
            if step < pulls:
                point = point + (latent - point) / (step + 2)
        yield point


def _halved_back(constraints: Constraints, latent: Tensor, end: Tensor, slack: Tensor) -> Tensor:
    """The point nearest to `latent` on the way to `end` from which on all constraints are kept."""
    low, high = torch.zeros_like(slack), torch.ones_like(slack)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        is_kept = _is_kept(constraints, latent + middle[:, None] * (end - latent), slack)
        high, low = torch.where(is_kept, middle, high), torch.where(is_kept, low, middle)
    return latent + high[:, None] * (end - latent)


def are_realizable(prototypes: Tensor, distances: Tensor, tolerance: float = 1e-4) -> Tensor:
    """Whether any point at all has these squared distances (N, K) to `prototypes` (K, q): (N,), bool.

    Around the mean of the prototypes, the mean distance says how long the point is, and the differences of
    distances where it lies in the span of the prototypes. There is such a point where they agree: exactly if
    the prototypes span the space, else if it is no shorter than its part in the span.

    Parameters
    ----------
    tolerance : float
        As a share of the largest distance.
    """
    points, targets = prototypes.double(), distances.double()
    centered = points - points.mean(0)
    own = centered.square().sum(1)
    squared_length = targets.mean(1) - own.mean()
    differences = (targets - own) - (targets - own).mean(1, keepdim=True)
    inverse = torch.linalg.pinv(-2 * centered, rcond=1e-9)  # (q, K)
    inside = differences @ inverse.T  # (N, q): the part in the span
    scale = tolerance * torch.maximum(targets.abs().amax(1), own.amax())
    misses = (inside @ (-2 * centered).T - differences).abs().amax(1)
    left = squared_length - inside.square().sum(1)
    spans_all = torch.linalg.matrix_rank(centered) == points.shape[1]
    has_length = torch.where(spans_all, left.abs() <= scale, left >= -scale)
    return (misses <= scale) & has_length & (targets >= -scale[:, None]).all(1)
