"""The prior: its quantiles, the blur, and the distance in one dimension."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_cases import alone, assert_near, uniform
from regioncnn_networks import small_network
from scipy.stats import beta as beta_distribution
from scipy.stats import wasserstein_distance

import explainkit as ek
from explainkit_regioncnn.losses import region_loss
from explainkit_regioncnn.occurrence import (
    blurred,
    gaussian_kernel,
    occurrence,
    occurrence_distance,
    prior_quantiles,
)

PUBLISHED = (1.0, 0.001)


@pytest.mark.parametrize("prior", [(0.2, 0.2), (0.5, 2.0), (1.0, 3.0), (2.5, 1.0), (1.0, 1.0)])
def test_quantiles_are_those_of_the_beta_distribution(prior):
    shares = [(2 * i - 1) / 14 for i in range(1, 8)]

    found = prior_quantiles(7, *prior)

    assert_near(found, torch.from_numpy(beta_distribution.ppf(shares, *prior)), 1e-9)


def test_the_published_prior_says_that_every_region_is_in_every_image():
    for count in (8, 64):
        assert prior_quantiles(count, *PUBLISHED).min() >= 0.9996
    assert (prior_quantiles(512, *PUBLISHED) < 0.99).sum() == 2  # of so many images two may lack it
    literal = [1 - (1 - (2 * i - 1) / 1024) ** 1000 for i in range(1, 513)]
    assert_near(prior_quantiles(512, *PUBLISHED), torch.tensor(literal, dtype=torch.float64), 1e-12)


def test_quantiles_that_a_caller_writes_to_change_nothing():
    prior_quantiles(4, 0.3, 0.7).zero_()

    assert prior_quantiles(4, 0.3, 0.7).any()
    first, again = (occurrence_distance(uniform(4, 2), (0.3, 0.7)) for _ in range(2))
    assert first == again


def test_occurrences_of_1_are_no_distance_from_the_published_prior():
    assert occurrence_distance(torch.ones(64, 5), PUBLISHED) <= 2e-3


@pytest.mark.parametrize("prior", [PUBLISHED, (0.2, 0.2), (2.0, 3.0)])
@pytest.mark.parametrize("is_log", [True, False])
def test_occurrences_that_are_the_quantiles_are_no_distance_from_the_prior(prior, is_log):
    occurrences = prior_quantiles(20, *prior)[torch.randperm(20)][:, None].expand(-1, 3)

    assert occurrence_distance(occurrences, prior, is_log=is_log) == 0


def test_a_constant_of_a_half_is_log_2_from_a_prior_of_1():
    found = occurrence_distance(torch.full((16, 3), 0.5, dtype=torch.float64), (1.0, 1e-6))

    assert abs(found.item() - math.log(2)) <= 3e-5


def test_the_distance_is_the_literal_mean_over_regions_and_sorted_images():
    occurrences, prior = uniform(9, 3, dtype=torch.float64), (1.0, 0.4)

    found = occurrence_distance(occurrences, prior)

    total = 0.0
    for k in range(3):
        ordered = sorted(occurrences[:, k].tolist())
        for i, value in enumerate(ordered, 1):
            quantile = beta_distribution.ppf((2 * i - 1) / 18, *prior)
            total += abs(math.log(value + 1e-5) - math.log(quantile + 1e-5))
    assert found.item() == pytest.approx(total / 27, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.floats(0.1, 3), st.floats(0.1, 3), st.integers(0, 99))
def test_without_logarithms_it_is_the_1_wasserstein_distance(count, alpha, beta, seed):
    occurrences = uniform(count, 2, seed=seed, dtype=torch.float64)
    quantiles = prior_quantiles(count, alpha, beta)

    found = occurrence_distance(occurrences, (alpha, beta), is_log=False)

    expected = [wasserstein_distance(column.numpy(), quantiles.numpy()) for column in occurrences.T]
    assert found.item() == pytest.approx(sum(expected) / 2, abs=1e-9)


def test_the_order_of_images_does_not_matter():
    occurrences = uniform(12, 4)

    assert occurrence_distance(occurrences) == occurrence_distance(occurrences[torch.randperm(12)])


def test_priors_of_two_peaks_are_compared_without_logarithms():
    occurrences = uniform(8, 2)

    assert occurrence_distance(occurrences, (0.2, 0.2)) == occurrence_distance(
        occurrences, (0.2, 0.2), is_log=False
    )
    assert occurrence_distance(occurrences, (1, 0.2)) == occurrence_distance(
        occurrences, (1, 0.2), is_log=True
    )


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_the_blur_is_the_literal_gaussian_without_padding(radius):
    maps = uniform(2, 3, 6, 7, dtype=torch.float64)

    found = blurred(maps, radius)

    assert found.shape == (2, 3, 6 - 2 * radius, 7 - 2 * radius)
    offsets = range(-radius, radius + 1)
    weight = {(y, x): math.exp(-(y**2 + x**2) / (2 * 0.4**2)) for y in offsets for x in offsets}
    total = sum(weight.values())
    for y in range(found.shape[2]):
        for x in range(found.shape[3]):
            expected = sum(
                value / total * maps[:, :, y + radius + dy, x + radius + dx]
                for (dy, dx), value in weight.items()
            )
            assert_near(found[:, :, y, x], expected, 1e-12)
    assert gaussian_kernel(radius).sum().item() == pytest.approx(1, abs=1e-12)


def test_constant_assignments_stay_constant_and_occur_as_strongly():
    shares = torch.full((2, 3, 6, 6), 0.3, dtype=torch.float64)

    assert_near(blurred(shares, 2), torch.full((2, 3, 2, 2), 0.3, dtype=torch.float64), 1e-12)
    assert_near(occurrence(shares), torch.full((2, 3), 0.3, dtype=torch.float64), 1e-12)


def test_a_grid_that_the_blur_does_not_fit_into_is_refused_in_words():
    with pytest.raises(ek.InputError, match=r"5 x 5 cells at least for blur_radius=2; got 4 x 9"):
        occurrence(torch.rand(1, 2, 4, 9), 2)


def test_the_prior_moves_dictionary_smoothing_and_backbone_and_not_the_head():
    network = small_network().train()
    shares = network.outputs(uniform(6, 3, 32, 32)).shares

    occurrence_distance(occurrence(shares, 1)).backward()

    gradients = {name: value.grad for name, value in network.named_parameters()}
    assert gradients["dictionary"].any() and gradients["smoothing"].any()
    assert gradients["backbone.stem.0.weight"].any()
    assert gradients["head.weight"] is None and gradients["attend.2.weight"] is None


def test_the_loss_is_cross_entropy_and_the_weighted_prior():
    network = small_network()
    batch = ek.Batch(
        images=uniform(6, 3, 32, 32), labels=torch.tensor([0, 1, 2, 3, 0, 1]), ids=torch.arange(6)
    )
    outputs = network.outputs(batch.images)

    terms = region_loss(network, batch, alone(batch), prior=(1.0, 0.1), prior_weight=0.3, blur_radius=1)

    log_p = outputs.logits.log_softmax(1)
    assert_near(terms["cross_entropy"], -sum(log_p[n, label] for n, label in enumerate(batch.labels)) / 6)
    assert_near(terms["occurrence"], 0.3 * occurrence_distance(occurrence(outputs.shares, 1), (1.0, 0.1)))
    assert set(terms) == {"cross_entropy", "occurrence"}
    assert set(region_loss(network, batch, alone(batch), prior_weight=0.0)) == {"cross_entropy"}
