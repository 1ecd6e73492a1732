"""The decomposition: regions, their evidence, and what the head says of other attention."""

import pytest
import torch
from plugin_cases import FLOAT32, assert_near, uniform
from regioncnn_networks import explainer, small_network
from torch import nn

from explainkit.networks.normalization import fold_batch_norm
from explainkit_regioncnn.model import RegionBlock, RegionCNNNetwork, RenormalizedAttention, RestingBatchNorm


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, FLOAT32), (torch.float64, 1e-11)])
def test_every_logit_is_its_bias_and_attention_times_evidence_literally(dtype, tolerance):
    network, images = small_network(dtype=dtype), uniform(3, 3, 32, 32, dtype=dtype)

    decomposition = network.decompose(images)

    outputs, norm = network.outputs(images), network.norm
    for n in range(3):
        for c in range(4):
            total, size = decomposition.bias[c], 0.0
            weights = decomposition.weights_at(torch.tensor([n]), torch.tensor([c]))[0]
            for k in range(5):
                said = sum(
                    network.head.weight[c, e] * norm.weight[e] / (norm.running_var[e] + norm.eps).sqrt()
                    * outputs.descriptors[n, k, e] for e in range(24)
                )  # fmt: skip
                assert_near(weights[k], said, 10 * tolerance)
                total = total + outputs.attention[n, k] * said
                size += abs(outputs.attention[n, k] * said)
            assert_near(
                total, decomposition.logits[n, c], tolerance, scale=size + decomposition.bias[c].abs()
            )
            assert_near(decomposition.logits[n, c], network(images)[n, c], tolerance)


def test_the_folded_batch_norm_is_the_module():
    network, rows = small_network(dtype=torch.float64), uniform(7, 24, dtype=torch.float64)

    weight, bias = network.folded_head()
    assert_near(rows @ weight.T + bias, network.head(network.norm(rows)), 1e-12)

    expected = network(uniform(2, 3, 32, 32, dtype=torch.float64))
    fold_batch_norm(network)
    decomposition = network.decompose(uniform(2, 3, 32, 32, dtype=torch.float64))
    assert_near(decomposition.logits, expected, 1e-10)
    assert_near(decomposition.logits_at(torch.arange(2), decomposition.scores), expected, 1e-10)


def test_maps_of_cells_sum_to_each_contribution_and_all_with_the_bias_to_the_logit():
    model, images = explainer(), uniform(4, 3, 32, 32)

    explanations = model.explain(images).check_additivity()

    outputs = model.network.outputs(images)
    cells = explanations.contributions[:, :, None, None] * outputs.shares / outputs.mass[:, :, None, None]
    assert_near(explanations.saliency(outputs.shares.shape[2:]), cells.sum(1), scale=cells.abs().sum(1))
    assert_near(
        cells.sum((1, 2, 3)) + explanations.base,
        explanations.explained_output,
        scale=cells.abs().sum((1, 2, 3)),
    )


def test_attention_sums_to_1_and_is_the_softmax_of_energies():
    network, images = small_network(), uniform(3, 3, 32, 32)

    outputs = network.outputs(images)

    assert_near(outputs.attention, outputs.energies.softmax(1))
    assert_near(outputs.attention.sum(1), torch.ones(3))
    cut = small_network(attention_relu=True)
    assert_near(cut.outputs(images).attention, cut.outputs(images).energies.clamp(min=0).softmax(1))


def test_permuted_regions_permute_assignments_features_and_attention_and_no_logit():
    network, images, order = small_network(), uniform(3, 3, 32, 32), torch.tensor([3, 0, 4, 1, 2])
    before = network.outputs(images)

    with torch.no_grad():
        network.dictionary.copy_(network.dictionary[order])
        network.smoothing.copy_(network.smoothing[order])
    after = network.outputs(images)

    for name in ("shares", "features", "attention", "mass", "energies"):
        assert_near(getattr(after, name), getattr(before, name)[:, order])
    assert_near(after.logits, before.logits)


def test_an_absent_region_gets_no_attention_and_nothing_becomes_nan():
    network, images = small_network(), uniform(3, 3, 32, 32)
    with torch.no_grad():
        network.dictionary[2] = 1e3

    decomposition = network.decompose(images)

    assert (decomposition.scores[:, 2] == 0).all() and decomposition.logits.isfinite().all()
    assert_near(decomposition.scores.sum(1), torch.ones(3))
    network.train()(images).sum().backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in network.parameters())


def test_a_region_that_is_off_leaves_its_attention_to_the_others():
    model, images = explainer(), uniform(3, 3, 32, 32)
    before = model.explain(images)
    expected = before.scores.clone()
    expected[:, 1] = 0
    expected /= expected.sum(1, keepdim=True)

    removed = before.intervene({1: "off"})
    model.disable_units(1)
    after = model.explain(images)

    assert_near(after.scores, expected)
    assert_near(removed.logits, after.logits, scale=before.weights)
    assert_near(model.predict(images), after.logits)
    model.disable_units(range(5))
    assert_near(model.predict(images), model.explain(images).decomposition.bias.expand(3, -1))


def test_the_head_brings_attention_to_a_sum_of_1():
    evidence, bias = uniform(2, 3, 4, dtype=torch.float64), uniform(3, seed=1, dtype=torch.float64)
    rescore = RenormalizedAttention(evidence, bias)
    scores = torch.tensor([[0.2, 0.6, 0.0, 0.0], [-1.0, 0.3, 0.3, 0.6], [0.0, 0, 0, 0]], dtype=torch.float64)

    logits = rescore(torch.tensor([1, 0, 0]), scores)

    shares = [[0.25, 0.75, 0, 0], [0, 0.25, 0.25, 0.5], [0, 0, 0, 0]]
    for m, row in enumerate((1, 0, 0)):
        for c in range(3):
            literal = bias[c] + sum(share * evidence[row, c, k] for k, share in enumerate(shares[m]))
            assert_near(logits[m, c], literal, 1e-12)


def test_scores_of_the_network_give_its_logits():
    decomposition = small_network().decompose(uniform(4, 3, 32, 32))

    assert_near(decomposition.logits_at(torch.arange(4), decomposition.scores), decomposition.logits)


def test_blocks_begin_as_their_shortcuts():
    block, rows = RegionBlock(6, 6, 3), uniform(5, 6) - 0.5

    assert torch.equal(block(rows), rows.relu())


def test_a_training_batch_of_one_image_goes_by_running_statistics():
    norm = RestingBatchNorm(3)
    norm.running_mean.fill_(0.5)
    row = uniform(1, 3)

    assert_near(norm.train()(row), norm.eval()(row))
    assert norm.num_batches_tracked == 0
    assert small_network().train()(uniform(1, 3, 32, 32)).isfinite().all()


def test_half_precision_autocast_leaves_distances_and_sums_alone():
    network, images = small_network(), uniform(2, 3, 32, 32)

    with torch.autocast("cpu", torch.bfloat16):
        decomposition = network.decompose(images)

    assert decomposition.maps.dtype == decomposition.logits.dtype == torch.float32
    assert_near(decomposition.logits_at(torch.arange(2), decomposition.scores), decomposition.logits)


@pytest.mark.parametrize("blocks", [0, 1])
def test_networks_without_bottlenecks_are_networks_too(blocks):
    network = RegionCNNNetwork(small_network().backbone, 4, 3, head_blocks=blocks, attention_blocks=0).eval()

    assert network(uniform(2, 3, 32, 32)).shape == (2, 4)
    assert isinstance(network.attend[0], nn.Linear)


def test_the_dictionary_begins_where_features_are():
    network = RegionCNNNetwork(small_network().backbone, 4, 3)

    assert (network.dictionary > 0).all() and torch.equal(network.beta, torch.full((3,), 0.5))
