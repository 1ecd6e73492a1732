"""Quantiles of streams: near the true ones, whatever the order, scale or number of batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from explainkit.questions.quantiles import Quantiles

SHARES = (0.05, 0.5, 0.95)


def streamed(values, groups, count, size):
    found = Quantiles(count, values.shape[1])
    for some, of in zip(values.split(size), groups.split(size), strict=True):
        found.add(some, of)
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e5]), st.sampled_from([1, 7, 400]))
def test_they_are_within_a_bin_of_the_true_ones(seed, scale, size):
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(400, 3, generator=generator) + torch.tensor([0.0, 5.0, -40.0])) * scale
    groups = torch.randint(0, 2, (400,), generator=generator)
    found = streamed(values, groups, 2, size).at(SHARES)

    for group in range(2):
        mine = values[groups == group]
        true = torch.stack([mine.quantile(share, dim=0, interpolation="lower") for share in SHARES])
        above = torch.stack([mine.quantile(share, dim=0, interpolation="higher") for share in SHARES])
        bin = 4 / 256 * (mine.amax(0) - mine.amin(0))
        assert (found[:, group] >= true - bin).all() and (found[:, group] <= above + bin).all()


def test_a_constant_stream_has_one_quantile():
    found = streamed(torch.full((50, 1), 3.25), torch.zeros(50, dtype=torch.long), 1, 8).at(SHARES)

    assert (found == 3.25).all()


def test_a_stream_without_numbers_has_none():
    found = streamed(torch.ones(5, 2), torch.zeros(5, dtype=torch.long), 2, 5).at(SHARES)

    assert found[:, 1].isnan().all() and not found[:, 0].isnan().any()


@pytest.mark.parametrize("size", [1, 3, 90])
def test_memory_does_not_grow_and_every_number_is_counted_once(size):
    values = torch.randn(90, 2, generator=torch.Generator().manual_seed(1)) ** 5
    found = streamed(values, torch.zeros(90, dtype=torch.long), 1, size)

    assert found.counts.shape == (2, 256) and (found.counts.sum(1) == 90).all()
