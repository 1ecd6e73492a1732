"""The loss is what the paper's relaxed problem says, and its gradient goes where it says."""

import copy

import pytest
import torch
from csgcnn_networks import small_network
from plugin_cases import alone, assert_near, uniform
from torch.nn import functional as F

import explainkit as ek
from explainkit.data.types import Batch
from explainkit_csgcnn.losses import (
    gate_budget,
    gated_loss,
    project_gate,
    sparsity,
    standard_loss,
    starvation,
)


def batch_of(count=6, dtype=torch.float32):
    labels = torch.arange(count) % 4
    return Batch(images=uniform(count, 3, 32, 32, dtype=dtype), labels=labels, ids=torch.arange(count))


def test_the_joint_loss_is_the_papers_literally():
    network, batch = small_network(dtype=torch.float64), batch_of(dtype=torch.float64)

    terms = gated_loss(
        network, batch, alone(batch), gated_weight=0.7, sparsity_weight=0.03, classes_per_filter=1.1
    )

    total = 0.0
    scores = network.decompose(batch.images).scores
    for n, label in enumerate(batch.labels.tolist()):
        for weight, values in ((1.0, scores[n]), (0.7, scores[n] * network.gate[:, label])):
            logits = network.head.weight @ values + network.head.bias
            total += weight * (logits.logsumexp(0) - logits[label]) / len(batch)
    size = sum(abs(value) for row in network.gate.tolist() for value in row)
    total += 0.03 * max(0.0, size - 1.1 * len(network.gate))
    assert_near(sum(terms.values()), total, 1e-10)


def test_the_price_of_the_sum_is_zero_within_the_budget_and_the_same_for_all_entries_above():
    gate = uniform(5, 3, seed=1).requires_grad_()
    size = gate.abs().sum().item()

    within = sparsity(gate, size + 1e-3)
    above = sparsity(gate, size - 0.5)
    above.backward()

    assert within == 0 and above.item() == pytest.approx(0.5, rel=1e-4)
    assert torch.equal(gate.grad, torch.ones(5, 3))


def test_classes_that_lack_filters_pull_all_of_theirs_up():
    gate = torch.tensor([[1.0, 0.0, 0.2], [1.0, 0.0, 0.9]], requires_grad=True)

    lack = starvation(gate, 0.5)
    lack.backward()

    assert lack.item() == 0.5
    assert torch.equal(gate.grad, torch.tensor([[0.0, -1.0, 0.0]] * 2))


def test_the_gate_learns_from_the_gated_path_alone():
    network, batch = small_network(), batch_of()

    standard_loss(network, batch, alone(batch))["cross_entropy"].backward()

    assert network.gate.grad is None
    sum(gated_loss(network, batch, alone(batch), is_joint=False).values()).backward()
    assert (network.gate.grad != 0).any()


def test_alternating_training_has_the_gated_path_without_the_standard_one():
    network, batch = small_network(), batch_of()

    terms = gated_loss(network, batch, alone(batch), is_joint=False)

    assert set(terms) == {"gated_cross_entropy", "sparsity"}
    gated = network.outputs(batch.images, batch.labels).gated_logits
    assert_near(terms["gated_cross_entropy"], F.cross_entropy(gated, batch.labels))


def test_a_budget_is_given_per_filter_or_as_a_density():
    assert gate_budget(10, 6) == 12.5
    assert gate_budget(10, 6, classes_per_filter=2) == 20
    assert gate_budget(10, 6, classes_per_filter=2, gate_density=0.5) == 30


def test_projection_after_a_step_changes_the_gate_alone():
    network, batch = small_network(), batch_of()
    with torch.no_grad():
        network.gate.sub_(0.3)
    before = copy.deepcopy(network.state_dict())

    project_gate(network, alone(batch))

    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"gate"} and torch.equal(network.gate.amax(1), torch.ones(len(network.gate)))


@pytest.mark.parametrize("density", [0.2, 0.3])
def test_a_budget_that_no_gate_can_keep_to_is_refused_in_words(density):
    model = ek.explainer("csg-cnn", preset="tiny", gate_density=density)

    with pytest.raises(ek.InputError, match=r"at least 32, one class for each filter; got .* 3 classes"):
        model.build(ek.Task(classes=("a", "b", "c"), size=(32, 32)))

    assert model.build(ek.Task(classes=tuple("abcdef"), size=(32, 32))).gate.shape == (32, 6)
