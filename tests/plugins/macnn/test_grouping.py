"""Filters whose peaks move together are one group."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_cases import uniform

from explainkit_macnn.grouping import confident, group_channels


def planted(seed=0, images=80, per_group=8, groups=3, noise=1.0, random_share=0.0):
    """Peaks (n, D, 2) of filters of planted groups, weights, and the groups (D,)."""
    generator = torch.Generator().manual_seed(seed)
    centers = 16 * torch.rand(images, groups, 2, generator=generator)
    truth = torch.arange(groups * per_group) % groups
    points = centers[:, truth] + noise * torch.randn(images, len(truth), 2, generator=generator)
    is_random = torch.rand(images, len(truth), generator=generator) < random_share
    anywhere = 16 * torch.rand(points.shape, generator=generator)
    return torch.where(is_random[..., None], anywhere, points), (~is_random).float(), truth


def same_partition(one, other):
    """Whether two assignments (D,) are equal up to the names of groups."""
    return torch.equal(one[:, None] == one, other[:, None] == other)


def cost(points, weights, assigned, groups):
    """The weighted within-group sum of squares over each filter's weight, a filter at a time."""
    total = 0.0
    for group in range(groups):
        members = (assigned == group).nonzero()[:, 0].tolist()
        for j in members:
            own = 0.0
            for n in range(len(points)):
                mass = sum(weights[n, k].item() for k in members)
                if weights[n, j] and mass:
                    center = sum(weights[n, k] * points[n, k] for k in members) / mass
                    own += weights[n, j].item() * (points[n, j] - center).square().sum().item()
            total += own / max(weights[:, j].sum().item(), 1e-12)
    return total


@pytest.mark.parametrize("seed", range(5))
def test_planted_groups_are_found(seed):
    points, weights, truth = planted(seed)

    assert same_partition(group_channels(points, torch.ones_like(weights), 3), truth)


@pytest.mark.parametrize("seed", range(5))
def test_weights_find_groups_among_peaks_most_of_which_mean_nothing(seed):
    points, weights, truth = planted(seed, random_share=0.6)

    assert same_partition(group_channels(points, weights, 3), truth)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_filters_has_no_say_and_there_is_no_chance(seed):
    points, weights, _ = planted(seed, images=20, per_group=4, noise=3.0, random_share=0.4)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))

    groups = group_channels(points, weights, 3)
    torch.rand(3)

    assert torch.equal(group_channels(points, weights, 3), groups)
    assert same_partition(group_channels(points[:, order], weights[:, order], 3), groups[order])


def test_of_few_filters_the_best_partition_of_all_is_found():
    points, weights, _ = planted(1, images=12, per_group=2, noise=1.0, random_share=0.3)
    points = points.double()

    groups = group_channels(points, weights, 3)

    best = min(
        cost(points, weights, torch.tensor(each), 3)
        for each in itertools.product(range(3), repeat=6)
        if each[0] == 0
    )
    assert cost(points, weights, groups, 3) == pytest.approx(best)


def test_filters_that_count_nowhere_are_in_no_group():
    points, weights, truth = planted()
    weights[:, 4] = 0

    groups = group_channels(points, weights, 3)

    assert groups[4] == -1
    assert same_partition(groups[truth.ne(-1) & (torch.arange(24) != 4)], truth[torch.arange(24) != 4])
    assert (group_channels(points, torch.zeros_like(weights), 3) == -1).all()


def test_filters_that_move_with_too_few_others_are_left_out_and_make_no_part():
    points, weights, truth = planted(2)
    alone = 16 * uniform(len(points), 1, 2, seed=5) * 20  # far from everything
    points, weights = torch.cat([points, alone], 1), torch.cat([weights, weights[:, :1]], 1)

    groups, with_outlier = group_channels(points, weights, 3, min_size=2), group_channels(points, weights, 3)

    assert groups[-1] == -1 and same_partition(groups[:-1], truth)
    assert (with_outlier == with_outlier[-1]).sum() == 1
    few = group_channels(points[:, :4], weights[:, :4], 3, min_size=2)  # not enough for three such groups
    assert (few >= 0).all()


def test_more_groups_than_filters_leave_some_empty():
    groups = group_channels(uniform(5, 2, 2), torch.ones(5, 2), 4)

    assert sorted(groups.tolist()) == [0, 1]


def test_a_peak_counts_where_it_is_high_for_its_filter():
    strength = torch.stack([torch.arange(10.0), 100 - torch.arange(10.0), torch.ones(10)], 1)

    counts = confident(strength, 0.7)

    assert counts[:, 0].nonzero()[:, 0].tolist() == [7, 8, 9]
    assert counts[:, 1].nonzero()[:, 0].tolist() == [0, 1, 2]
    assert not counts[:, 2].any()
