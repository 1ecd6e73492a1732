"""Distance, diversity and classification by hand, and where their gradients go."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from macnn_networks import fitted_network, one_hot_maps, small_network
from plugin_cases import alone, assert_near, uniform, whole_split
from torch.nn import functional as F

from explainkit.testing import tiny_dataset
from explainkit_macnn.losses import (
    classification,
    distance_loss,
    diversity_loss,
    grouping_loss,
    membership_loss,
    part_classification_loss,
)


def distance_by_hand(maps):
    height, width, total = *maps.shape[2:], 0.0
    for image in maps:
        for part in image:
            row, column = divmod(int(part.argmax()), width)
            for r in range(height):
                for c in range(width):
                    total += part[r, c].item() * ((r - row) ** 2 + (c - column) ** 2)
    return total / len(maps) / (height * width)


def diversity_by_hand(maps, margin):
    total = 0.0
    for image in maps:
        for i, part in enumerate(image):
            for r in range(maps.shape[2]):
                for c in range(maps.shape[3]):
                    others = [image[k, r, c].item() for k in range(len(image)) if k != i]
                    total += part[r, c].item() * (max(others, default=0.0) - margin)
    return total / len(maps)


def some_maps(images, parts, height, width, seed=0):
    maps = uniform(images, parts, height, width, seed=seed, dtype=torch.float64) ** 3
    return maps / maps.sum((2, 3), keepdim=True)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), parts=st.integers(1, 6), margin=st.floats(0, 1))
def test_both_losses_are_those_of_loops_over_cells(seed, parts, margin):
    maps = some_maps(2, parts, 3, 4, seed)

    assert distance_loss(maps).item() == pytest.approx(distance_by_hand(maps), abs=1e-10)
    assert diversity_loss(maps, margin).item() == pytest.approx(diversity_by_hand(maps, margin), abs=1e-10)


def test_distance_is_0_for_one_cell_and_half_the_square_for_two_and_does_not_depend_on_the_place():
    one = one_hot_maps([(1, 2), (3, 4)])
    two = one_hot_maps([(0, 1)]) / 2 + one_hot_maps([(2, 4)]) / 2  # 2 down, 3 along: r^2 = 13

    assert distance_loss(one) == 0
    assert distance_loss(two).item() * 20 == pytest.approx(13 / 2)
    assert distance_loss(two.roll(1, 2)).item() == pytest.approx(distance_loss(two).item())


def test_diversity_of_maps_apart_and_of_maps_on_each_other():
    apart = one_hot_maps([(0, 0), (1, 1), (2, 2)])
    together = one_hot_maps([(1, 3)] * 3)

    assert diversity_loss(apart, 0.25).item() == pytest.approx(-3 * 0.25)
    assert diversity_loss(together, 0.25).item() == pytest.approx(3 * 0.75)
    assert diversity_loss(apart[:, :1], 0.25).item() == pytest.approx(-0.25)  # the maximum over none is 0


def test_diversity_does_not_depend_on_the_order_of_parts():
    maps = some_maps(3, 5, 4, 4)

    assert_near(diversity_loss(maps[:, [3, 0, 4, 2, 1]], 0.1), diversity_loss(maps, 0.1), 1e-12)


def test_the_margin_can_bind():
    """The uniform map is below it, a map of a few cells above."""
    flat = torch.full((1, 2, 16, 16), 1 / 256, dtype=torch.float64)
    sharp = torch.zeros(1, 2, 16, 16, dtype=torch.float64)
    sharp[:, :, 3, 3:7] = 1 / 4

    assert diversity_loss(flat, 16 / 256) < 0 < diversity_loss(sharp, 16 / 256)


def test_the_gradient_of_distance_does_not_go_through_the_peak():
    maps = some_maps(1, 2, 3, 3).requires_grad_()

    distance_loss(maps).backward()

    for part in range(2):
        row, column = divmod(int(maps[0, part].argmax()), 3)
        for r in range(3):
            for c in range(3):
                expected = ((r - row) ** 2 + (c - column) ** 2) / 9
                assert maps.grad[0, part, r, c].item() == pytest.approx(expected)
                step = torch.zeros_like(maps)
                step[0, part, r, c] = 1e-7  # does not move the peak
                with torch.no_grad():
                    slope = (distance_loss(maps + step) - distance_loss(maps - step)) / 2e-7
                assert slope.item() == pytest.approx(expected, abs=1e-6)


def test_the_gradient_of_diversity_goes_to_both_maps():
    maps = some_maps(2, 3, 2, 3).requires_grad_()

    assert torch.autograd.gradcheck(lambda values: diversity_loss(values, 0.1), (maps,))


@pytest.mark.parametrize("part_loss", ["joint", "each"])
def test_classification_is_of_the_sum_or_of_each_part(part_loss):
    scale = 1.0 if part_loss == "joint" else 1 / 3
    network, labels = small_network(dtype=torch.float64, scale=scale), torch.tensor([0, 3])
    outputs = network.outputs(uniform(2, 3, 32, 32, dtype=torch.float64))

    cost = classification(outputs, labels, part_loss, scale)

    def cross_entropy(logits, label):
        return math.log(sum(math.exp(value) for value in logits)) - logits[label]

    expected = 0.0
    for n, label in enumerate(labels.tolist()):
        by_part = [
            (network.heads.weight[i] @ outputs.scores[n, i] + network.heads.bias[i]).tolist()
            for i in range(3)
        ]
        if part_loss == "joint":
            expected += cross_entropy([sum(values) for values in zip(*by_part, strict=True)], label) / 2
        else:
            expected += sum(cross_entropy(logits, label) for logits in by_part) / 2
    assert cost.item() == pytest.approx(expected)


def test_membership_is_learned_towards_the_groups():
    network, batch = fitted_network(), whole_split(tiny_dataset())

    terms = membership_loss(network, batch, alone(batch))

    with torch.no_grad():
        membership = network.outputs(batch.images).membership_logits.sigmoid()
    target = torch.stack([(network.groups == part).float() for part in range(2)])
    expected = F.binary_cross_entropy(membership, target.expand_as(membership))
    assert_near(terms["membership"], expected)


def test_terms_have_their_weights_and_margins_are_multiples_of_the_uniform_map():
    network, batch = fitted_network(), whole_split(tiny_dataset())
    attention = network.outputs(batch.images).attention.detach()

    alone_terms = grouping_loss(network, batch, alone(batch), diversity_weight=3.0, margin=5.0)
    beside = part_classification_loss(
        network, batch, alone(batch), grouping_weight=0.5, diversity_weight=3.0, margin=5.0
    )

    expected = {"distance": distance_loss(attention), "diversity": 3 * diversity_loss(attention, 5 / 64)}
    for name, value in expected.items():
        assert_near(alone_terms[name], value)
        assert_near(beside[name], 0.5 * value)
    assert list(part_classification_loss(network, batch, alone(batch))) == ["cross_entropy"]
