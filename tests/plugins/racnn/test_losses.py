"""The losses of scales, of aims and of ranks, by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from attrs import evolve
from plugin_cases import FLOAT32, alone, assert_near, whole_split
from racnn_networks import small_network, smooth, squares

from explainkit.testing import tiny_dataset
from explainkit_racnn.losses import aim_loss, classification, rank_loss, ranking, strongest_squares


def confident(*rows):
    """`RACNNOutputs`-like logits by scale (S, N, 2) whose softmax gives class 0 these probabilities."""
    first = torch.tensor(rows, dtype=torch.float64).logit()
    return SimpleNamespace(by_scale=torch.stack([first, torch.zeros_like(first)], 2).requires_grad_())


@pytest.mark.parametrize("detached", [True, False])
def test_ranking_is_the_hinge_by_hand(detached):
    zeros = torch.zeros(1).long()

    def loss(*rows):
        return ranking(confident(*rows), zeros[: len(rows[0])], 0.05, detached).item()

    assert loss([0.2], [0.5], [0.9]) == 0
    assert loss([0.5], [0.5], [0.5]) == pytest.approx(0.1)
    assert loss([1 - 1e-9], [1 - 1e-9], [1 - 1e-9]) == pytest.approx(0.1, abs=1e-6)
    assert loss([0.6], [0.4], [0.42]) == pytest.approx(0.25 + 0.03)
    both = ranking(confident([0.6, 0.1], [0.4, 0.8], [0.42, 0.9]), torch.zeros(2).long(), 0.05, detached)
    assert both.item() == pytest.approx((0.25 + 0.03) / 2)
    other = ranking(confident([0.3, 0.3], [0.4, 0.4], [0.6, 0.6]), torch.tensor([0, 1]), 0.05, detached)
    assert other.item() == pytest.approx((0 + 0.15 + 0.25) / 2)  # of the true class


def test_a_reference_is_taken_as_it_is():
    labels = torch.zeros(1).long()
    decomposition, attached = confident([0.6], [0.5], [0.4]), confident([0.6], [0.5], [0.4])

    ranking(decomposition, labels).backward()
    ranking(attached, labels, detach_reference=False).backward()

    slope = decomposition.by_scale.grad[:, 0, 0]
    assert slope[0] == 0  # never made less sure
    assert slope[1].item() == pytest.approx(-0.25) and slope[2].item() == pytest.approx(-0.24)
    canceled = attached.by_scale.grad[:, 0, 0]
    assert canceled[0].item() == pytest.approx(0.24) and abs(canceled[1].item()) < 1e-12
    assert canceled[2].item() == pytest.approx(-0.24)


def test_every_scale_is_taught_by_its_own_head():
    decomposition, labels = confident([0.2, 0.4], [0.5, 0.6], [0.9, 0.7]), torch.tensor([0, 1])

    cost = classification(decomposition, labels)

    expected = sum(-math.log(p) - math.log(1 - q) for p, q in ((0.2, 0.4), (0.5, 0.6), (0.9, 0.7))) / 2
    assert cost.item() == pytest.approx(expected)


def test_aims_lie_around_the_strongest_cell():
    features = torch.zeros(3, 5, 4, 6)
    for image, (row, column) in enumerate(((2, 3), (0, 0), (3, 5))):
        features[image, :, row, column] = 1
        features[image, 0, 1, 1] += 2  # one filter alone: less than the mean of all

    aims = strongest_squares(features, 0.2)

    expected = squares((3.5 / 6, 2.5 / 4, 0.2), (0.2, 0.2, 0.2), (0.8, 0.8, 0.2))
    assert_near(aims, expected)


def test_the_aim_is_a_loss_on_proposals_alone():
    network, batch = small_network(), whole_split(tiny_dataset(), "test")

    loss = aim_loss(network, batch, alone(batch), 0.3)["aim"]
    loss.backward()

    outputs = network.outputs(batch.images)
    expected = 0.0
    for proposed, features in zip(outputs.proposed, outputs.features[:2], strict=True):
        gaps = (proposed - strongest_squares(features, 0.3)).abs()
        expected += torch.where(gaps < 0.05, gaps.square() / 0.1, gaps - 0.025).mean().item()
    assert loss.item() == pytest.approx(expected, rel=FLOAT32)
    for name, value in network.named_parameters():
        assert (value.grad is not None) == name.startswith("proposals"), name


@pytest.mark.parametrize(("scales", "proposal"), [(2, 0), (3, 1)])
def test_the_ranking_reaches_proposals_by_the_gradient_of_finite_differences(scales, proposal):
    network = small_network(scales=scales).double()
    bias = network.proposals[proposal].out.bias
    batch = evolve(whole_split(tiny_dataset(), "test"), images=smooth(32, 32, 24))

    def loss():
        return rank_loss(network, batch, alone(batch), 0.9)["ranking"]

    (slope,) = torch.autograd.grad(loss(), bias)

    for axis in range(3):
        with torch.no_grad():
            bias[axis] += 1e-6
            high = loss()
            bias[axis] -= 2e-6
            low = loss()
            bias[axis] += 1e-6
        assert slope[axis].item() == pytest.approx((high - low).item() / 2e-6, rel=1e-3, abs=1e-8)
    assert slope.abs().min() > 0
