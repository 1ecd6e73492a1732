"""Distances, logits, their sum and what is decoded."""

import pytest
import torch
from plugin_cases import assert_near, uniform
from prototypednn_networks import network

from explainkit.errors import InputError
from explainkit_prototypednn.model import LATENT, squared_distances


def test_distances_are_the_literal_sums_and_zero_of_a_point_that_is_a_prototype():
    points, prototypes = uniform(5, 7), uniform(4, 7, seed=1)
    prototypes[2] = points[3]

    distances = squared_distances(points, prototypes)

    literal = torch.tensor([
        [sum((points[n, i].item() - prototypes[k, i].item()) ** 2 for i in range(7)) for k in range(4)]
        for n in range(5)
    ])  # fmt: skip
    assert_near(distances, literal, 1e-6)
    assert distances[3, 2] == 0 and distances.min() >= 0


def test_near_points_far_from_zero_keep_their_distance():
    points = 1000 + uniform(3, 40)
    prototypes = points + 1e-2

    distances = squared_distances(points, prototypes).diagonal()

    assert_near(distances, (points.double() - prototypes.double()).square().sum(1).float())


def test_logits_are_distances_times_weights_without_a_bias():
    made = network()
    outputs = made.outputs(uniform(4, 3, 12, 12))

    assert made.head.bias is None
    assert torch.equal(outputs.logits, outputs.distances @ made.head.weight.T)
    literal = sum(
        made.head.weight[:, k] * (outputs.latent[1] - made.prototypes[k]).square().sum() for k in range(6)
    )
    assert_near(outputs.logits[1], literal)
    assert torch.equal(made(uniform(4, 3, 12, 12)), outputs.logits)


def test_a_prediction_does_not_decode_and_a_decomposition_neither():
    made, calls = network(), []
    made.decoder.register_forward_hook(lambda *_: calls.append(1))
    images = uniform(2, 3, 12, 12)

    made(images)
    made.decompose(images)
    assert calls == []

    made.outputs(images, reconstruct=True)
    made.prototype_pictures()
    assert len(calls) == 2  # all prototypes at once


def test_other_sums_over_classes_leave_probabilities_as_they_are():
    made = network(dtype=torch.float64)
    distances = made.outputs(uniform(4, 3, 12, 12, dtype=torch.float64)).distances
    centered = made.head.weight - made.head.weight.mean(0)

    assert_near((distances @ centered.T).softmax(1), (distances @ made.head.weight.T).softmax(1), 1e-12)


def test_another_order_of_prototypes_says_the_same_in_another_order():
    made, images = network(), uniform(4, 3, 12, 12)
    before = made.decompose(images)
    order, weights = torch.tensor([3, 0, 5, 1, 4, 2]), made.head.weight.detach().clone()
    with torch.no_grad():
        made.prototypes.copy_(made.prototypes[order].clone())
        made.head.weight.copy_(made.head.weight[:, order].clone())

    after = made.decompose(images)

    assert_near(after.logits, before.logits)
    assert torch.equal(after.scores, before.scores[:, order])
    assert torch.equal(after.weights, weights[:, order])


def test_a_prototype_that_is_off_is_as_far_as_its_reference():
    made, images = network(), uniform(4, 3, 12, 12)
    before = made.decompose(images)
    made.unit_mask[2] = False

    after = made.decompose(images)

    assert (after.scores[:, 2] == made.reference[2]).all()
    change = (made.reference[2] - before.scores[:, 2])[:, None] * made.head.weight[:, 2]
    assert_near(after.logits, before.logits + change, scale=before.logits)


def test_the_latent_point_is_kept_with_the_decomposition():
    made, images = network(), uniform(4, 3, 12, 12)

    assert torch.equal(made.decompose(images).extras[LATENT], made.encode(images))


def test_gray_is_the_mean_of_the_channels_and_is_drawn_in_all_of_them():
    made = network(channels=1)
    images = uniform(2, 3, 12, 12)

    latent = made.encode(images)

    assert_near(latent, made.encode(images.mean(1, keepdim=True).expand(-1, 3, -1, -1)))
    pictures = made.pictures(latent)
    assert pictures.shape == (2, 3, 12, 12) and torch.equal(pictures[:, 0], pictures[:, 2])


def test_what_is_decoded_follows_the_range_of_the_inputs():
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.1])
    made = network(low=(-mean / std).tolist(), high=((1 - mean) / std).tolist())
    latent = made.encode(uniform(2, 3, 12, 12))

    decoded, pictures = made.decode(latent), made.pictures(latent)

    assert_near(decoded * std.view(3, 1, 1) + mean.view(3, 1, 1), pictures)
    assert pictures.min() >= 0 and pictures.max() <= 1


def test_a_range_upside_down_and_another_size_are_refused_in_words():
    with pytest.raises(InputError, match="Expected low below high"):
        network(low=(1.0,), high=(0.0,))
    with pytest.raises(InputError, match=r"Expected images of \(12, 12\), .* got \(13, 12\). Resize them."):
        network()(uniform(1, 3, 13, 12))


def test_the_authors_weights_are_small_and_positive_in_the_last_layer():
    from explainkit_prototypednn.model import PrototypeDNNNetwork

    torch.manual_seed(0)
    made = PrototypeDNNNetwork(10, 15, (28, 28), init="reference")

    assert 0.008 < made.encoder.layers[2].weight.std() < 0.012 and not made.encoder.layers[2].bias.any()
    assert made.head.weight.min() >= 0 and made.head.weight.max() <= 1
    assert made.prototypes.min() >= 0 and made.prototypes.max() <= 1
