"""Cells are shared out among regions, and regions' features are what the sums say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_cases import assert_near, uniform

from explainkit_regioncnn.grouping import assignment, region_features, squared_distances

SIZES = st.tuples(
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)
)


def case(n=2, c=6, k=4, h=3, w=5, seed=0):
    """Features, centers and smoothing factors in float64."""
    features = uniform(n, c, h, w, seed=seed, dtype=torch.float64) * 3
    centers = uniform(k, c, seed=seed + 1, dtype=torch.float64) * 3
    return features, centers, uniform(k, seed=seed + 2, dtype=torch.float64) * 0.9 + 0.05


@settings(max_examples=25, deadline=None)
@given(SIZES, st.integers(0, 99))
def test_every_cell_is_shared_out_whole(sizes, seed):
    n, c, k, h, w = sizes
    features, centers, beta = case(n, c, k, h, w, seed)

    shares = assignment(features, centers, beta)

    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(n, h, w, dtype=torch.float64), rtol=0, atol=1e-6)


def test_assignments_are_the_literal_softmax_of_distances_over_twice_the_variance():
    features, centers, beta = case()

    shares = assignment(features, centers, beta)

    for n in range(2):
        for y in range(3):
            for x in range(5):
                sigma = (beta / 2).sqrt()
                terms = [
                    torch.exp(-((features[n, :, y, x] - centers[k]) / sigma[k]).square().sum() / 2)
                    for k in range(4)
                ]
                for k in range(4):
                    torch.testing.assert_close(
                        shares[n, k, y, x], terms[k] / sum(terms), rtol=1e-9, atol=1e-12
                    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_distances_are_those_of_cdist_and_never_negative(dtype, tolerance):
    features, centers, _ = (values.to(dtype) for values in case())
    features[0, :, 0, 0] = centers[1]

    distances = squared_distances(features, centers)

    expected = torch.cdist(
        features.flatten(2).mT, centers, compute_mode="donot_use_mm_for_euclid_dist"
    ).square()
    assert_near(distances.flatten(2).mT, expected, tolerance)
    assert (distances >= 0).all()


def test_translated_features_translate_assignments():
    features, centers, beta = case()

    moved = assignment(features.roll((1, 2), (2, 3)), centers, beta)

    assert_near(moved, assignment(features, centers, beta).roll((1, 2), (2, 3)), 1e-12)


def test_a_cell_at_a_center_with_little_smoothing_is_of_that_region_alone():
    features, centers, _ = case()
    features[1, :, 2, 3] = centers[2]

    shares = assignment(features, centers, torch.full((4,), 1e-4, dtype=torch.float64))

    assert shares[1, 2, 2, 3] == 1


def test_a_regions_feature_is_the_mean_offset_of_its_cells_at_length_1():
    features, centers, beta = case()
    shares = assignment(features, centers, beta)

    found, mass = region_features(features, shares, centers, beta)

    for n in range(2):
        for k in range(4):
            total, weight = torch.zeros(6, dtype=torch.float64), 0.0
            for y in range(3):
                for x in range(5):
                    offset = (features[n, :, y, x] - centers[k]) / (beta[k] / 2).sqrt()
                    total = total + shares[n, k, y, x] * offset
                    weight = weight + shares[n, k, y, x]
            assert_near(mass[n, k], weight, 1e-12)
            assert_near(found[n, k], total / weight / (total / weight).norm(), 1e-9)
    assert_near(found.norm(dim=2), torch.ones(2, 4, dtype=torch.float64), 1e-12)


def test_a_region_without_cells_has_no_feature_and_no_nan():
    features, centers, beta = case()
    centers[3] = 1e3
    features.requires_grad_()

    shares = assignment(features, centers, beta)
    found, mass = region_features(features, shares, centers, beta)
    found.sum().backward()

    assert (mass[:, 3] == 0).all() and not found[:, 3].any()
    assert features.grad.isfinite().all() and features.grad.any()
