"""The gate is a partition of nothing but what it says: paths, projections and the sum."""

import pytest
import torch
from csgcnn_networks import explainer, small_network
from plugin_cases import FLOAT32, assert_near, uniform

from explainkit_csgcnn.model import LEAKAGE, SPECIFIC, CSGCNNNetwork, projected

ADVERSARIAL = {
    "half": torch.full((3, 4), 0.5),
    "zero": torch.zeros(3, 4),
    "below zero": torch.full((3, 4), -2.0),
    "both signs": torch.tensor([[-1.0, 0.5, 0.2, 3.0], [-1e-3, -5.0, 0.0, -1.0], [7.0, 7.0, -7.0, 1e-3]]),
    "almost zero": torch.tensor([[1e-38, 0.0, 0.0, 0.0], [1e-44, 0.0, -1.0, 0.0], [1e-30, 1e-31, 0.0, 0.0]]),
    "large": torch.tensor([[1e30, 1e29, 0.0, 1.0]] * 3),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_after_projection_the_gate_is_in_0_to_1_with_a_1_in_each_row(name):
    gate = ADVERSARIAL[name]

    found = projected(gate)

    assert found.isfinite().all() and (found >= 0).all() and (found <= 1).all()
    assert torch.equal(found.amax(1), torch.ones(3))
    assert torch.equal(projected(found), found)
    for row, given in zip(found, gate, strict=True):
        largest = max(max(value, 0.0) for value in given.tolist())
        is_dead = largest < torch.finfo(torch.float32).tiny
        literal = [1.0 if is_dead else max(value, 0.0) / largest for value in given.tolist()]
        torch.testing.assert_close(row, torch.tensor(literal), rtol=1e-6, atol=0)


def test_the_gated_path_is_the_loop_over_images():
    network, images, labels = small_network(), uniform(6, 3, 32, 32), torch.tensor([0, 3, 1, 1, 2, 0])

    found = network.outputs(images, labels).gated_logits

    maps = network.backbone(images)
    for n, label in enumerate(labels.tolist()):
        mask = network.gate[:, label][None, :, None, None]
        pooled = (maps[n : n + 1] * mask).mean((2, 3))  # maps are gated here, then pooled
        assert_near(found[n : n + 1], network.head(pooled))


def test_with_a_gate_of_ones_both_paths_are_the_same():
    network, images = small_network(), uniform(4, 3, 32, 32)
    with torch.no_grad():
        network.gate.fill_(1)

    outputs = network.outputs(images, torch.tensor([0, 1, 2, 3]))

    assert torch.equal(outputs.gated_logits, outputs.logits)
    assert torch.equal(outputs.logits, network(images))


def test_a_filter_of_other_classes_alone_gets_no_gradient_from_the_gated_path():
    network, labels = small_network(), torch.tensor([2, 2])
    with torch.no_grad():
        network.gate.copy_(torch.eye(4).repeat(len(network.gate) // 4, 1))
    scores = uniform(2, len(network.gate)).requires_grad_()

    logits = network.head(network.gated(scores, labels))
    torch.nn.functional.cross_entropy(logits, labels).backward()

    is_own = network.gate[:, 2] == 1
    assert (scores.grad[:, ~is_own] == 0).all() and (scores.grad[:, is_own] != 0).any()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, FLOAT32), (torch.float64, 1e-12)])
def test_every_logit_is_base_specific_evidence_and_leakage_literally(dtype, tolerance):
    network, images = small_network(dtype=dtype), uniform(2, 3, 32, 32, dtype=dtype)

    decomposition = network.decompose(images)

    extras, gate, weight = decomposition.extras, network.gate, network.head.weight
    total = network.head.bias + extras[SPECIFIC] + extras[LEAKAGE]
    assert_near(total, decomposition.logits, tolerance, scale=extras[SPECIFIC].abs() + 1)
    for n in range(2):
        for c in range(4):
            terms = [weight[c, k] * decomposition.scores[n, k] for k in range(len(gate))]
            own = sum(gate[k, c] * term for k, term in enumerate(terms))
            rest = sum((1 - gate[k, c]) * term for k, term in enumerate(terms))
            assert_near(extras[SPECIFIC][n, c], own, tolerance, scale=torch.stack(terms).abs().sum())
            assert_near(extras[LEAKAGE][n, c], rest, tolerance, scale=torch.stack(terms).abs().sum())


def test_what_the_network_says_does_not_depend_on_the_gate_or_on_the_batch():
    network, images = small_network(), uniform(5, 3, 32, 32)
    before = network(images)

    with torch.no_grad():
        network.gate.zero_()

    assert torch.equal(network(images), before)
    assert torch.equal(network.decompose(images).logits, before)
    assert_near(torch.cat([network(image[None]) for image in images]), before)


def test_the_gate_is_saved_with_the_network():
    network, other = small_network(), small_network(seed=1)

    other.load_state_dict(network.state_dict())

    assert torch.equal(other.gate, network.gate)
    assert {name for name, _ in CSGCNNNetwork.named_parameters(network)} >= {"gate", "head.weight"}


def test_permuted_classes_permute_the_columns_of_the_gate_and_nothing_else():
    network, images, order = small_network(), uniform(3, 3, 32, 32), torch.tensor([2, 0, 3, 1])
    labels = torch.tensor([0, 1, 3])
    before, gated = network(images), network.outputs(images, labels).gated_logits

    with torch.no_grad():
        network.gate.copy_(network.gate[:, order])
        network.head.weight.copy_(network.head.weight[order])
        network.head.bias.copy_(network.head.bias[order])

    assert_near(network(images), before[:, order])
    assert_near(network.outputs(images, order.argsort()[labels]).gated_logits, gated[:, order])


def test_units_belong_to_classes_as_the_gate_says():
    model = explainer()

    assert torch.equal(model.units.class_affinity, model.network.gate.detach())
    explanations = model.explain(uniform(3, 3, 32, 32)).check_additivity()
    evidence = explanations[1].top(1)[0]
    assert evidence.class_affinity == model.network.gate[evidence.unit, explanations.targets[1]].item()
