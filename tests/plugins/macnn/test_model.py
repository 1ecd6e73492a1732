"""Maps, part features and sums, by loops."""

import pytest
import torch
from macnn_networks import fitted_network, small_network
from plugin_cases import assert_near, uniform

from explainkit.explanations.factored_maps import dense_maps
from explainkit.testing import tiny_images
from explainkit_macnn.attention import attention_maps
from explainkit_macnn.model import PART_LOGITS

IMAGES = uniform(2, 3, 32, 32, dtype=torch.float64)


@pytest.mark.parametrize("norm", ["softmax", "sigmoid", "powered"])
def test_a_forward_pass_is_the_papers_equations_a_filter_at_a_time(norm):
    network = small_network(dtype=torch.float64, norm=norm, scale=0.5)

    outputs = network.outputs(IMAGES)

    grouping = network.grouping
    for n in range(2):
        features = outputs.features[n]
        pooled = torch.stack([features[j].mean() for j in range(32)])
        logits = torch.zeros(4, dtype=torch.float64)
        for i in range(3):
            hidden = (grouping.first_weight[i] @ pooled + grouping.first_bias[i]).tanh()
            membership = (grouping.second_weight[i] @ hidden + grouping.second_bias[i]).sigmoid()
            responses = sum(membership[j] * features[j] for j in range(32))
            attention = attention_maps(responses[None, None], norm, 2.5, channels=32)[0, 0]
            assert_near(outputs.attention[n, i], attention, 1e-9)
            part = torch.stack([(features[j] * attention).sum() for j in range(32)])
            assert_near(outputs.scores[n, i], part, 1e-9)
            of_part = 0.5 * (network.heads.weight[i] @ part + network.heads.bias[i])
            assert_near(outputs.part_logits[n, i], of_part, 1e-9)
            logits = logits + of_part
        assert_near(outputs.logits[n], logits, 1e-9)


@pytest.mark.parametrize("parts", [1, 3, 6])
def test_contributions_of_filters_at_parts_and_their_places_sum_to_the_logits(parts):
    network = small_network(parts=parts, dtype=torch.float64)

    decomposition = network.decompose(IMAGES)

    maps = dense_maps(decomposition.maps)
    assert decomposition.scores.shape == (2, parts * 32)
    for n in range(2):
        for c in range(4):
            total = decomposition.bias[c]
            for i in range(parts):
                of_part = sum(
                    decomposition.weights[c, 32 * i + j] * maps[n, 32 * i + j].sum() for j in range(32)
                )
                expected = decomposition.extras[PART_LOGITS][n, i, c] - network.heads.bias[i, c]
                assert_near(of_part, expected, 1e-9, scale=decomposition.logits)
                total = total + of_part
            assert_near(total, decomposition.logits[n, c], 1e-9, scale=decomposition.logits)
    assert torch.equal(network(IMAGES), decomposition.logits)


def test_before_filters_are_grouped_every_part_sees_the_whole_image():
    network = small_network(is_grouped=False)
    images = IMAGES.float()

    outputs = network.outputs(images)

    assert_near(outputs.attention, torch.full_like(outputs.attention, 1 / 64))
    assert_near(outputs.scores, outputs.features.mean((2, 3))[:, None].expand(-1, 3, -1))


def test_a_unit_that_is_off_leaves_attention_and_all_others_alone():
    network, images = small_network(), IMAGES.float()
    before = network.decompose(images)

    network.unit_mask[32 + 5] = False  # filter 5 of part 2
    after = network.decompose(images)

    expected = before.scores.clone()
    expected[:, 37] = 0
    assert torch.equal(after.scores, expected)
    assert torch.equal(after.maps.attention, before.maps.attention)
    assert_near(after.logits, expected @ before.weights.T + before.bias)
    assert torch.equal(network(images), after.logits)


def test_heads_sum_in_float32_under_autocast():
    network, images = fitted_network(), tiny_images()

    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        decomposition = network.decompose(images)

    for values in (decomposition.logits, decomposition.scores, decomposition.maps.attention):
        assert values.dtype == torch.float32
    assert_near(decomposition.scores @ decomposition.weights.T + decomposition.bias, decomposition.logits)


def test_gradients_reach_features_through_attention_and_around_it():
    network = small_network().train()

    network(IMAGES.float()).sum().backward()

    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert all(parameter.grad.any() for parameter in network.grouping.parameters())
