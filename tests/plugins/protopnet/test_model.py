"""Distances, similarities, and the sum."""

import math

import pytest
import torch
from plugin_cases import FLOAT32, assert_near, uniform, whole_split
from protopnet_networks import EPSILON, fitted_explainer, fitted_network, patches_of, small_network

from explainkit.testing import tiny_dataset, tiny_images
from explainkit_protopnet.model import distances_at, similarity, squared_distances


def test_distances_are_those_of_a_loop_in_double_precision():
    patches, prototypes = uniform(2, 12, 128), uniform(7, 128, seed=1)

    distances = squared_distances(patches, prototypes)

    expected = torch.empty(2, 7, 12)
    for n in range(2):
        for cell in range(12):
            for p in range(7):
                gap = patches[n, cell].double() - prototypes[p].double()
                expected[n, p, cell] = (gap * gap).sum()
    assert_near(distances, expected)
    assert distances.min() >= 0


def test_a_patch_that_is_the_prototype_is_at_distance_zero_exactly():
    patches = uniform(2, 12, 128)
    prototypes = torch.stack([patches[0, 3], patches[0, 9], patches[1, 4]])

    rough = squared_distances(patches, prototypes)
    exact = distances_at(patches, rough.argmin(2), prototypes)

    assert rough.argmin(2)[0, :2].tolist() == [3, 9] and rough.argmin(2)[1, 2] == 4
    assert exact[0, 0] == exact[0, 1] == exact[1, 2] == 0


def test_similarity_falls_with_distance_from_its_ceiling():
    distances = torch.linspace(0, 50, 1000)

    similarities = similarity(distances, EPSILON)

    assert similarities[0].item() == pytest.approx(math.log(1 / EPSILON), rel=FLOAT32)
    assert (similarities.diff() < 0).all() and (similarities > 0).all()
    literal = torch.log((distances.double() + 1) / (distances.double() + EPSILON))
    torch.testing.assert_close(similarities.double(), literal, rtol=FLOAT32, atol=0)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_the_smallest_distance_is_the_largest_similarity(size):
    network = small_network()

    decomposition = network.decompose(uniform(3, 3, *size))

    assert decomposition.maps.shape[2:] == (size[0] // 4, size[1] // 4)
    assert torch.equal(decomposition.maps.flatten(2).amax(2), decomposition.scores)
    assert_near(decomposition.scores, similarity(decomposition.extras["distances"], EPSILON))
    gaps = patches_of(network, uniform(3, 3, *size))[:, :, None].double() - network.prototypes.double()
    torch.testing.assert_close(
        decomposition.extras["distances"].double(), gaps.square().sum(3).amin(1), rtol=FLOAT32, atol=1e-6
    )


def test_distances_stay_exact_under_autocast():
    network, images = fitted_network(), whole_split(tiny_dataset()).images[:8]

    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        decomposition = network.decompose(images)
        latent = network.latent(images)

    assert decomposition.scores.dtype == decomposition.logits.dtype == latent.dtype == torch.float32
    gaps = latent.flatten(2).mT[:, :, None].double() - network.prototypes.double()
    torch.testing.assert_close(
        decomposition.extras["distances"].double(), gaps.square().sum(3).amin(1), rtol=FLOAT32, atol=1e-6
    )


def test_weights_times_similarities_are_the_logit():
    model, images = fitted_explainer(), tiny_images()

    explanations = model.explain(images, 1).check_additivity()

    weights, scores = model.network.head.weight[1].tolist(), model.network.decompose(images).scores.tolist()
    for n in range(len(images)):
        total = sum(w * s for w, s in zip(weights, scores[n], strict=True))
        terms = explanations.contributions[n].abs().sum().item()
        assert total == pytest.approx(explanations.logits[n, 1].item(), abs=FLOAT32 * terms)
    assert not explanations.base.any()
    top = explanations.top(2)
    total, terms = top.contribution.sum(1) + top.remainder, explanations.contributions.abs().sum(1)
    assert_near(total, explanations.logits[:, 1], scale=terms)


def test_a_contrast_sums_to_the_margin():
    explanations = fitted_explainer().explain(tiny_images(), 0, foils=2).check_additivity()

    margin = explanations.logits[:, 0] - explanations.logits[:, 2]
    assert_near(explanations.contributions.sum(1), margin, scale=explanations.contributions.abs().sum(1))


def test_all_evidence_of_a_prototype_comes_from_one_cell():
    model, images = fitted_explainer(), tiny_images()

    explanations = model.explain(images)

    distributed = torch.zeros(len(images), 8, 8)
    for n in range(len(images)):
        for unit in range(len(explanations.units)):
            cell = explanations.maps[n, unit].argmax()
            distributed[n].view(-1)[cell] += explanations.contributions[n, unit]
    assert_near(explanations.saliency((8, 8)), distributed)
