"""Logits as quadratic forms, the nearest boundary in closed form, and what no point can have."""

import math

import pytest
import torch
from attrs import evolve
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st
from plugin_cases import assert_near, uniform
from prototypednn_networks import network

from explainkit.explanations.decisions import Decision
from explainkit.questions.goals import Goals
from explainkit_prototypednn.geometry import (
    Constraints,
    are_realizable,
    constraints_for,
    nearest_points,
    quadratic_form,
)
from explainkit_prototypednn.model import squared_distances

SOFTMAX = Decision(rule="softmax")


def goals_of(targets):
    targets = torch.as_tensor(targets)
    return Goals(decision=SOFTMAX, targets=targets, wanted=torch.ones_like(targets, dtype=torch.bool))


def no_margin(count):
    return torch.zeros(count, dtype=torch.float64)


def points_of(count, length, seed=3):
    return 2 * uniform(count, length, seed=seed, dtype=torch.float64)


def two_classes(weights, prototypes):
    """A network of two classes in the plane, for its prototypes and weights alone."""
    made = network(2, len(prototypes), (2, 2), latent_channels=2, layers=1, dtype=torch.float64)
    with torch.no_grad():
        made.prototypes.copy_(torch.tensor(prototypes, dtype=torch.float64))
        made.head.weight.copy_(torch.tensor(weights, dtype=torch.float64))
    return made


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_quadratic_form_is_the_logits(dtype, tolerance):
    made = network(dtype=dtype)
    latent = made.encode(uniform(5, 3, 12, 12, dtype=dtype))

    logits = quadratic_form(made)(latent.double())

    assert_near(logits, (squared_distances(latent, made.prototypes) @ made.head.weight.T).double(), tolerance)


def test_a_prototype_that_is_off_is_a_constant_of_the_form():
    made = network(dtype=torch.float64)
    made.unit_mask[1] = False
    images = uniform(5, 3, 12, 12, dtype=torch.float64)

    assert_near(quadratic_form(made)(made.encode(images)), made(images), 1e-12)


def test_a_logit_is_largest_or_smallest_at_its_center():
    made = network(dtype=torch.float64)
    form = quadratic_form(made)
    around = form.centers[:, None] + 0.1 * (uniform(3, 50, 27, dtype=torch.float64) - 0.5)

    for label in range(3):
        at_center = form(form.centers[label][None])[0, label]
        sign = -1 if form.a[label] < 0 else 1
        assert (sign * (form(around[label])[:, label] - at_center) >= 0).all()


@options(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 5))
def test_the_nearest_point_of_a_boundary_is_on_it_and_nearer_than_any_found_along_rays(seed, length, count):
    draw = torch.Generator().manual_seed(seed)
    prototypes = torch.rand(count, length, generator=draw, dtype=torch.float64)
    weights = torch.randn(2, count, generator=draw, dtype=torch.float64)
    lead, start = weights[1] - weights[0], torch.rand(1, length, generator=draw, dtype=torch.float64) * 2

    def h(points):
        return squared_distances(points, prototypes) @ lead

    constraints = Constraints(
        lead.sum()[None, None], (lead @ prototypes)[None, None],
        (lead @ prototypes.square().sum(1))[None, None],
    )  # fmt: skip
    steps, is_reachable = constraints.steps(start)
    point = constraints.nearest(start, torch.zeros(1, dtype=torch.long))

    if h(start)[0] >= 0:
        assert steps.item() == 0 and torch.equal(point, start)
        return
    directions = torch.randn(400, length, generator=draw, dtype=torch.float64)
    directions = directions / directions.norm(dim=1, keepdim=True)
    if not is_reachable:
        assert torch.equal(point, start)
        assert h(start + torch.logspace(-3, 3, 400, dtype=torch.float64)[:, None] * directions).max() < 0
        return
    moved = (point - start).norm().item()
    assert abs(h(point).item()) < 1e-9 * (1 + lead.abs().sum().item() * (1 + moved**2))
    assert steps.item() == pytest.approx(moved, rel=1e-9)
    # no ray crosses the boundary sooner: a ball around the start holds no point past it
    inside = start + directions * (moved * (1 - 1e-9)) * torch.rand(
        400, 1, generator=draw, dtype=torch.float64
    )
    assert h(inside).max() < 0


def test_points_found_by_halving_along_random_rays_are_no_nearer():
    made = two_classes([[0.0] * 3, [1.0, -0.5, -0.3]], [[0.0, 0.0], [4.0, 0.0], [1.0, 2.0]])
    form, start, target = quadratic_form(made), torch.tensor([[0.5, 0.2]], dtype=torch.float64), 1
    found = nearest_points(constraints_for(form, goals_of([target]), no_margin(1)), start, upper=torch.inf)

    low = torch.zeros(1000, 1, dtype=torch.float64)
    rays = torch.randn(1000, start.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rays = rays / rays.norm(dim=1, keepdim=True)
    high = torch.full_like(low, 100.0)
    crosses = form(start + high * rays).argmax(1) == target
    for _ in range(60):
        middle = (low + high) / 2
        is_past = form(start + middle * rays).argmax(1, keepdim=True) == target
        high, low = torch.where(is_past, middle, high), torch.where(is_past, low, middle)

    assert crosses.all()  # it wins far away in every direction
    assert high.min() * (1 - 1e-4) <= found.lower_bound.item() <= high.min() + 1e-9


def test_a_sphere_and_a_plane_are_met_where_geometry_says():
    sphere = two_classes([[0.0], [-1.0]], [[0.0, 0.0]])  # class 1 is ahead by -|z|^2: never, but at 0
    ring = two_classes([[0.0, 0.0], [-1.0, 0.5]], [[0.0, 0.0], [4.0, 0.0]])  # -|z|^2 + |z - p|^2 / 2
    plane = two_classes([[0.0, 0.0], [-1.0, 1.0]], [[0.0, 0.0], [4.0, 0.0]])  # nearer to 0 than to (4, 0)
    start = torch.tensor([[3.0, 0.0]], dtype=torch.float64)

    ends = [
        nearest_points(constraints_for(quadratic_form(made), goals_of([1]), no_margin(1)), start).latent
        for made in (sphere, plane)
    ]

    assert_near(ends[0], torch.zeros(1, 2, dtype=torch.float64), scale=start)
    assert_near(ends[1], torch.tensor([[2.0, 0.0]], dtype=torch.float64))
    met = nearest_points(constraints_for(quadratic_form(ring), goals_of([1]), no_margin(1)), start)
    assert met.latent[0, 0].item() == pytest.approx(-4 + math.sqrt(32))  # |z| = |z - p| / sqrt(2)
    assert met.lengths.item() == pytest.approx(met.lower_bound.item())


def test_a_class_that_never_wins_is_proved_out_of_reach():
    made = two_classes([[0.0, 0.0], [-1.0, -1.0]], [[0.0, 0.0], [4.0, 0.0]])  # -d_1 - d_2 is at most -8
    start = torch.tensor([[3.0, 1.0]], dtype=torch.float64)

    found = nearest_points(constraints_for(quadratic_form(made), goals_of([1]), no_margin(1)), start)

    assert found.is_excluded.all() and not found.is_found.any() and torch.equal(found.latent, start)


def test_at_the_center_of_a_ball_every_way_out_is_as_long():
    made = two_classes([[1.0], [2.0]], [[1.0, 1.0]])
    form = quadratic_form(made)
    constraints = constraints_for(form, goals_of([1]), torch.ones(1, dtype=torch.float64))  # |z - p|^2 >= 1

    found = nearest_points(constraints, torch.ones(1, 2, dtype=torch.float64))

    assert found.is_found.all() and found.lengths.item() == pytest.approx(1.0)
    assert (found.latent - 1).norm().item() == pytest.approx(1.0)


@options(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.booleans())
def test_every_point_that_is_found_wins_by_the_margin_within_what_is_reachable(seed, classes, is_bounded):
    made = network(classes, 8, (4, 4), seed=seed, latent_channels=4, layers=1, dtype=torch.float64)
    upper = 1.0 if is_bounded else math.inf
    start = uniform(12, made.prototypes.shape[1], seed=seed, dtype=torch.float64)
    form, targets = quadratic_form(made), torch.arange(12) % classes
    margin = torch.full((12,), 0.05, dtype=torch.float64)

    found = nearest_points(constraints_for(form, goals_of(targets), margin), start, upper)

    logits = form(found.latent)
    own = logits.gather(1, targets[:, None])[:, 0]
    others = logits.scatter(1, targets[:, None], -math.inf).amax(1)
    assert (own - others >= 0.05 - 1e-9)[found.is_found].all()
    assert found.latent.min() >= 0 and found.latent.max() <= max(upper, start.max().item() + 1e9)
    assert not (found.is_found & found.is_excluded).any()
    assert (found.lengths >= found.lower_bound - 1e-9)[found.is_found].all()
    assert torch.equal(found.latent[~found.is_found], start[~found.is_found])
    assert_near(found.lengths, (found.latent - start).norm(dim=1), 1e-9, scale=found.lengths + 1)


def test_what_is_excluded_is_reached_at_none_of_many_points():
    made = network(5, 8, (4, 4), seed=2, latent_channels=4, layers=1, dtype=torch.float64)
    form, start = quadratic_form(made), uniform(5, 16, dtype=torch.float64)
    margin = torch.full((5,), 0.01, dtype=torch.float64)

    found = nearest_points(constraints_for(form, goals_of(torch.arange(5)), margin), start)

    many = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    winners = form(many * torch.logspace(-1, 2, 20_000, dtype=torch.float64)[:, None]).argmax(1).unique()
    assert not set(winners.tolist()) & set(found.is_excluded.nonzero()[:, 0].tolist())


def test_where_a_third_class_wins_at_the_nearest_boundary_the_search_goes_on():
    # class 0 to the left of 0, class 2 above, class 1 to the right: a row of planes by Voronoi cells
    made = two_classes([[0.0] * 3, [0.0] * 3], [[0.0, 0.0], [4.0, 0.0], [2.0, 1.0]])
    made.head = torch.nn.Linear(3, 3, bias=False, dtype=torch.float64)
    with torch.no_grad():
        made.head.weight.copy_(-torch.eye(3))
    start = torch.tensor([[0.0, 0.6]], dtype=torch.float64)
    constraints = constraints_for(quadratic_form(made), goals_of([1]), no_margin(1))

    found = nearest_points(constraints, start)

    steps, _ = constraints.steps(start)
    assert found.is_found.all()
    literal = min(
        (
            math.hypot(x, y - 0.6)
            for x in torch.linspace(0, 5, 501).tolist()
            for y in torch.linspace(0, 1.5, 151).tolist()
            if (x - 4) ** 2 + y**2 <= min(x**2 + y**2, (x - 2) ** 2 + (y - 1) ** 2) + 1e-9
        ),
    )
    assert steps.max() - 1e-9 <= found.lengths.item() <= literal * 1.03


def test_labels_are_moved_past_their_threshold_either_way():
    made = network(3, dtype=torch.float64)
    form, start = quadratic_form(made), points_of(6, made.prototypes.shape[1])
    decision = Decision(rule="sigmoid")
    goals = Goals(
        decision=decision, targets=torch.tensor([0, 0, 1, 1, 2, 2]), wanted=torch.arange(6) % 2 == 0
    )

    found = nearest_points(constraints_for(form, goals, no_margin(6) + 0.1), start)

    own = form(found.latent).gather(1, goals.targets[:, None])[:, 0]
    assert found.is_found.any()
    assert (torch.where(goals.wanted, own, -own) >= 0.1 - 1e-9)[found.is_found].all()


@pytest.mark.parametrize("count", [3, 6, 12])  # fewer than the space has directions, and more
def test_distances_of_a_point_are_realizable_and_others_are_not(count):
    prototypes, points = points_of(count, 5), points_of(7, 5, seed=8)
    distances = squared_distances(points, prototypes)

    assert are_realizable(prototypes, distances).all()
    below = distances.clone()
    below[:, 0] = 0  # at the first prototype, and as far from the others as before
    assert not are_realizable(prototypes, below).any()


def test_fewer_prototypes_than_directions_leave_room_for_longer_points_alone():
    prototypes = points_of(3, 5)
    distances = squared_distances(points_of(4, 5, seed=9), prototypes)

    assert are_realizable(prototypes, distances + 1).all()  # away from their plane
    assert not are_realizable(prototypes, squared_distances(prototypes, prototypes) - 0.5).any()


def test_constraints_are_selected_and_tightened_as_they_say():
    made = network(dtype=torch.float64)
    start = points_of(4, made.prototypes.shape[1])
    constraints = constraints_for(quadratic_form(made), goals_of([0, 1, 2, 0]), no_margin(4))
    rows = torch.tensor([3, 1])

    assert torch.equal(constraints.select(rows).values(start[rows]), constraints.values(start)[rows])
    slack = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    assert_near(constraints.tightened(slack).values(start), constraints.values(start) - slack[:, None], 1e-12)
    assert evolve(constraints).values(start).shape == (4, 3)
