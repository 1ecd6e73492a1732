"""Every term of the loss by literal loops, and what the paper promises of them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st
from plugin_cases import alone, assert_near, uniform
from prototypednn_networks import network

import explainkit as ek
from explainkit.training.steps import Step
from explainkit_prototypednn.losses import (
    head_loss,
    image_distance,
    prototype_distance,
    prototype_loss,
    reconstruction_error,
)
from explainkit_prototypednn.model import squared_distances


def batch_of(count=6, size=12, dtype=torch.float64):
    images = uniform(count, 3, size, size, dtype=dtype)
    return ek.Batch(images=images, labels=torch.arange(count) % 3, ids=torch.arange(count))


def literal_terms(made, batch):
    """Cross-entropy, reconstruction, R1 and R2, image by image and prototype by prototype."""
    latents = [made.encode(image[None])[0].detach() for image in batch.images]
    between = [[float(((z - p) ** 2).sum()) for p in made.prototypes.detach()] for z in latents]
    entropy = missed = 0.0
    for n, (image, label) in enumerate(zip(batch.images, batch.labels.tolist(), strict=True)):
        logits = [
            sum(made.head.weight[c, k].item() * between[n][k] for k in range(len(between[n])))
            for c in range(3)
        ]
        entropy += math.log(sum(math.exp(value - logits[label]) for value in logits)) / len(batch)
        drawn = made.decode(latents[n][None])[0]
        missed += sum(float(((drawn[c] - image[c]) ** 2).sum()) for c in range(3)) / len(batch)
    r1 = sum(min(row[k] for row in between) for k in range(len(between[0]))) / len(between[0])
    r2 = sum(min(row) for row in between) / len(between)
    return entropy, missed, r1, r2


def test_every_term_is_that_of_a_literal_loop():
    made, batch = network(dtype=torch.float64), batch_of()

    terms = prototype_loss(made, batch, alone(batch), 0.3, 0.05, 0.7)

    entropy, missed, r1, r2 = literal_terms(made, batch)
    expected = {"cross_entropy": entropy, "reconstruction": 0.3 * missed, "prototypes": 0.05 * r1}
    for name, value in (expected | {"images": 0.7 * r2}).items():
        assert terms[name].item() == pytest.approx(value, rel=1e-9)


def test_both_scalings_have_the_same_minimum():
    made, batch = network(dtype=torch.float64), batch_of()

    paper = sum(prototype_loss(made, batch, alone(batch), 0.05, 0.05, 0.05).values())
    terms = prototype_loss(made, batch, alone(batch), 1.0, 1.0, 1.0)
    code = 20 * terms.pop("cross_entropy") + sum(terms.values())

    assert code.item() == pytest.approx(20 * paper.item(), rel=1e-12)


@options(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_both_distances_are_zero_where_all_are_found_and_swap_with_the_sides(images, prototypes, seed):
    points, own = uniform(images, 4, seed=seed), uniform(prototypes, 4, seed=seed + 100)
    distances = squared_distances(points, own)

    assert prototype_distance(squared_distances(torch.cat([points, own]), own)) == 0
    assert image_distance(squared_distances(points, torch.cat([own, points]))) == 0
    assert prototype_distance(distances) == image_distance(distances.T)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    assert_near(prototype_distance(distances[order]), prototype_distance(distances), 1e-6)
    assert_near(image_distance(distances[order]), image_distance(distances), 1e-6)


def test_what_the_decoder_misses_is_a_sum_over_pixels_of_the_image_that_was_seen():
    one, other = uniform(2, 3, 4, 4), uniform(2, 3, 4, 4, seed=1)

    expected = [float(((one[n] - other[n]) ** 2).sum()) for n in range(2)]
    assert_near(reconstruction_error(one, other), torch.tensor(expected))


def test_images_of_other_processes_are_compared_with_prototypes():
    made, batch = network(dtype=torch.float64), batch_of()

    class Shared(Step):
        def gather(self, values):
            return torch.cat([values, values * 0])

    step = Shared(batch_size=12, processes=2)
    terms = prototype_loss(made, batch, step)

    assert terms["prototypes"] == 0 and terms["images"] > 0


def test_gradients_reach_encoder_decoder_prototypes_and_head():
    made, batch = network(), batch_of(dtype=torch.float32)

    sum(prototype_loss(made, batch, alone(batch)).values()).backward()

    for name, value in made.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, name


def test_the_last_layer_learns_from_cross_entropy_alone():
    made, batch = network(dtype=torch.float64), batch_of()

    terms = head_loss(made, batch, alone(batch))

    assert set(terms) == {"cross_entropy"}
    assert terms["cross_entropy"].item() == pytest.approx(literal_terms(made, batch)[0], rel=1e-9)
