"""Quantiles of streams: near the true ones, whatever the order, scale or number of batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from explainkit.questions.quantiles import BUDGET, Quantiles

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


def walked(quantiles, stream, share):
    """One quantile, bin by bin: as far into the bin that reaches the rank as the rank is into its count."""
    low, high = quantiles.low[stream].item(), quantiles.high[stream].item()
    rank = share * quantiles.counts[stream].sum().item()
    edge = quantiles.center[stream].item() + quantiles.first[stream].item() * quantiles.width[stream].item()
    passed = 0.0
    for count in quantiles.counts[stream].tolist():
        if count and passed + count >= rank:
            edge += (rank - passed) / count * quantiles.width[stream].item()
            break
        passed += count
        edge += quantiles.width[stream].item()
    return min(max(edge, low), high)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([8, 64]), st.floats(0, 1))
def test_within_a_bin_they_are_interpolated_by_rank(seed, bins, share):
    values = torch.randn(50, 2, generator=torch.Generator().manual_seed(seed)).double()
    quantiles = Quantiles(1, 2, bins=bins)
    quantiles.add(values, torch.zeros(50, dtype=torch.long))

    literal = torch.tensor([walked(quantiles, stream, share) for stream in range(2)])

    torch.testing.assert_close(quantiles.at([share])[0, 0], literal)


def test_a_rank_halfway_through_a_bin_is_the_middle_of_the_bin():
    quantiles = Quantiles(1, 1, bins=8)
    quantiles.add(torch.tensor([[0.0], [8.0], *[[4.5]] * 10]), torch.zeros(12, dtype=torch.long))
    width = quantiles.width.item()

    middle = quantiles.center.item() + width * (
        torch.tensor((4.5 - quantiles.center.item()) / width).floor() + 0.5
    )

    torch.testing.assert_close(quantiles.at([0.5]).item(), middle.item())


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


# few bins


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from([8, 12, 24]), st.sampled_from([1, 7, 300]),
    st.sampled_from(["by chance", "rising", "with far ones", "mostly 0"]),
)  # fmt: skip
def test_few_bins_are_a_share_of_the_range_of_the_numbers(seed, bins, size, kind):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(300, 2, generator=generator) + torch.tensor([0.0, 50.0])
    if kind == "rising":
        values = values.sort(0).values
    elif kind == "with far ones":
        values[::40] *= 30
    elif kind == "mostly 0":
        values = values * (torch.rand(300, 2, generator=generator) < 0.2)
    quantiles = Quantiles(1, 2, bins=bins)
    for part in values.split(size):
        quantiles.add(part, torch.zeros(len(part), dtype=torch.long))

    widest = 2 / (bins - 2) * (values.amax(0) - values.amin(0)) * (1 + 1e-5)
    found = quantiles.at(SHARES)[:, 0]
    for share, quantile in zip(SHARES, found, strict=True):
        lower, higher = (values.quantile(share, dim=0, interpolation=way) for way in ("lower", "higher"))
        assert (quantile >= lower - widest).all() and (quantile <= higher + widest).all()
    assert (quantiles.counts.sum(1) == 300).all()
    ends = quantiles.at((0.0, 1.0))[:, 0]
    torch.testing.assert_close(ends, torch.stack([values.amin(0), values.amax(0)]))


def bytes_of(quantiles):
    return sum(value.nbytes for value in vars(quantiles).values() if isinstance(value, torch.Tensor))


def test_histograms_of_many_streams_fit_their_budget():
    cells = 1000 * 2048

    quantiles = Quantiles(1000, 2048)

    assert quantiles.bins == 12 and quantiles.counts.nbytes <= BUDGET
    assert bytes_of(quantiles) <= BUDGET + 18 * cells + 9 * 1000
    assert Quantiles(20, 96).bins == 256
    assert Quantiles(100, 1000, budget=10**5).bins == 8  # the least


def test_more_numbers_than_small_integers_hold_are_counted():
    quantiles = Quantiles(2, 1)
    quantiles.add(torch.full((30000, 1), 2.0), torch.zeros(30000, dtype=torch.long))
    for _ in range(3):
        quantiles.add(torch.full((30000, 1), 5.0), torch.zeros(30000, dtype=torch.long))

    assert int(quantiles.counts.sum()) == 120000 and (quantiles.counts >= 0).all()
    torch.testing.assert_close(quantiles.at([0.1, 0.9])[:, 0, 0], torch.tensor([2.0, 5.0]), rtol=0.02, atol=0)


def test_a_stream_does_not_depend_on_those_of_other_groups():
    values = torch.randn(200, 3, generator=torch.Generator().manual_seed(2))
    groups = torch.arange(200) % 4
    together = streamed(values, groups, 4, 40)
    alone = Quantiles(4, 3)
    for part, of in zip(values.split(40), groups.split(40), strict=True):
        alone.add(part[of == 2], of[of == 2])

    assert torch.equal(together.at(SHARES)[:, 2], alone.at(SHARES)[:, 2])


@pytest.mark.parametrize("scale", [1e-12, 1e-20, 1e-30, 1e-37])
@pytest.mark.parametrize("size", [1, 7, 400])
def test_streams_of_tiny_numbers_have_fine_bins(scale, size):
    values = scale * torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    found = streamed(values, torch.zeros(400, dtype=torch.long), 1, size).at(SHARES)[:, 0]

    exact = values.double()
    bin = 4 / 256 * (exact.amax(0) - exact.amin(0))
    for share, quantile in zip(SHARES, found.double(), strict=True):
        low, high = (exact.quantile(share, dim=0, interpolation=end) for end in ("lower", "higher"))
        assert (quantile >= low - bin).all() and (quantile <= high + bin).all()


def test_a_stream_that_begins_with_tiny_numbers_may_grow():
    generator = torch.Generator().manual_seed(0)
    values = torch.cat(
        [1e-30 * torch.randn(10, 2, generator=generator), torch.randn(400, 2, generator=generator)]
    )
    found = streamed(values, torch.zeros(410, dtype=torch.long), 1, 10).at(SHARES)[:, 0]

    bin = 4 / 256 * (values.amax(0) - values.amin(0))
    for share, quantile in zip(SHARES, found, strict=True):
        low, high = (values.quantile(share, dim=0, interpolation=end) for end in ("lower", "higher"))
        assert (quantile >= low - bin).all() and (quantile <= high + bin).all()
