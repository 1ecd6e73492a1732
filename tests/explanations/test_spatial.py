"""Where evidence lies: contributions distributed over maps, and maps on other grids."""

import pytest
import torch
from attrs import evolve
from explanation_cases import drawn, make_explanations, make_units
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from explainkit.explanations.spatial import (
    distribute,
    distribute_sum,
    distribution,
    is_localized,
    paste,
    resize,
)

SIDES = st.integers(1, 13)


PROPORTIONAL = ["mean", "sum", "coupled"]


@pytest.mark.parametrize("pooling", PROPORTIONAL)
def test_a_contribution_is_distributed_in_proportion_to_its_map(pooling):
    contributions, maps = drawn(2, 3, signed=True), drawn(2, 3, 4, 5, seed=1)

    distributed = distribute(contributions, maps, pooling)

    for n in range(2):
        for k in range(3):
            for row in range(4):
                for column in range(5):
                    share = maps[n, k, row, column] / sum(maps[n, k].flatten().tolist())
                    torch.testing.assert_close(distributed[n, k, row, column], contributions[n, k] * share)


def test_with_max_pooling_the_best_cell_receives_all():
    contributions, maps = drawn(2, 3, signed=True), drawn(2, 3, 4, 5, seed=1)

    distributed = distribute(contributions, maps, "max")

    for n in range(2):
        for k in range(3):
            best = max(range(20), key=lambda cell: maps[n, k].flatten()[cell])
            expected = torch.zeros(20, dtype=torch.float64)
            expected[best] = contributions[n, k]
            torch.testing.assert_close(distributed[n, k].flatten(), expected)


def test_of_equal_best_cells_the_first_receives_all():
    distributed = distribute(torch.tensor([[2.0]]), torch.ones(1, 1, 2, 2), "max")

    assert distributed.flatten().tolist() == [2, 0, 0, 0]


@pytest.mark.parametrize("pooling", [*PROPORTIONAL, "max"])
def test_a_unit_with_a_map_of_zeros_has_no_place(pooling):
    maps = torch.zeros(1, 2, 2, 2)
    maps[0, 1, 0, 1] = 3
    contributions = torch.tensor([[5.0, -1.0]])

    assert is_localized(maps).tolist() == [[False, True]]
    assert distribute(contributions, maps, pooling).flatten().tolist() == [0, 0, 0, 0, 0, -1, 0, 0]
    assert distribute_sum(contributions, maps, pooling).flatten().tolist() == [0, -1, 0, 0]


@pytest.mark.parametrize("pooling", [*PROPORTIONAL, "max"])
@pytest.mark.parametrize("faintest", [1e-45, 1e-40, 1e-38, 1e-30, 1e-20])
def test_a_faint_map_distributes_finite_numbers_that_sum_to_what_is_localized(pooling, faintest):
    maps = torch.full((1, 2, 3, 3), faintest)
    contributions = torch.tensor([[100.0, 0.0]])

    distributed = distribute_sum(contributions, maps, pooling)

    assert distributed.isfinite().all()
    torch.testing.assert_close(distributed.sum(), (contributions * is_localized(maps)).sum())
    torch.testing.assert_close(distribute(contributions, maps, pooling).sum(1), distributed)


@pytest.mark.parametrize("pooling", [*PROPORTIONAL, "max"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_map_is_a_place_above_the_faintest_peak_alone(pooling, dtype):
    """The faintest peak is written out as it is documented: 1e-30."""
    faintest = torch.tensor(1e-30, dtype=dtype)
    below, above = (
        faintest.nextafter(torch.zeros_like(faintest)),
        faintest.nextafter(torch.ones_like(faintest)),
    )
    maps = torch.zeros(1, 3, 2, 2, dtype=dtype)
    maps[0, :, 1, 0] = torch.stack([below, faintest, above])
    contributions = torch.tensor([[2.0, 3.0, 5.0]], dtype=dtype)

    distributed = distribute(contributions, maps, pooling)

    assert is_localized(maps).tolist() == [[False, False, True]]
    assert distributed[0, :2].count_nonzero() == 0
    torch.testing.assert_close(distributed[0, 2], torch.tensor([[0.0, 0.0], [5.0, 0.0]], dtype=dtype))
    torch.testing.assert_close(distribute_sum(contributions, maps, pooling)[0], distributed[0, 2])


@pytest.mark.parametrize(("peak", "is_a_place"), [(0.9e-30, False), (1e-30, False), (1.1e-30, True)])
def test_the_contribution_of_a_map_that_is_too_faint_is_nonspatial(peak, is_a_place):
    maps = torch.zeros(4, 5, 4, 4).double()
    maps[:, 0, 1, 2] = peak
    explanations = make_explanations(maps=maps)

    saliency = explanations.saliency((4, 4))

    first = explanations.contributions[:, 0]
    torch.testing.assert_close(saliency[:, 1, 2], first if is_a_place else torch.zeros_like(first))
    torch.testing.assert_close(
        explanations.nonspatial + saliency.sum((1, 2)), explanations.contributions.sum(1)
    )


@given(st.integers(0, 3), st.integers(1, 4), SIDES, SIDES, st.sampled_from([*PROPORTIONAL, "max"]))
@settings(max_examples=40, deadline=None)
def test_distributing_keeps_every_sum(images, units, height, width, pooling):
    contributions, maps = drawn(images, units, signed=True), drawn(images, units, height, width, seed=1)

    distributed = distribute(contributions, maps, pooling)

    torch.testing.assert_close(distributed.sum((2, 3)), contributions)
    torch.testing.assert_close(distribute_sum(contributions, maps, pooling), distributed.sum(1))


@pytest.mark.parametrize("pooling", [*PROPORTIONAL, "max"])
def test_distributing_by_group_equals_distributing_each_group(pooling):
    contributions, maps = drawn(2, 3, 4, signed=True), drawn(2, 4, 5, 6, seed=1)

    together = distribute_sum(contributions, maps, pooling)

    assert together.shape == (2, 3, 5, 6)
    for group in range(3):
        torch.testing.assert_close(together[:, group], distribute_sum(contributions[:, group], maps, pooling))


def test_distributions_sum_to_one():
    torch.testing.assert_close(distribution(drawn(2, 3, 4, 5), "mean").sum((2, 3)), torch.ones(2, 3).double())


@given(SIDES, SIDES, SIDES, SIDES)
@settings(max_examples=80, deadline=None)
def test_resizing_keeps_the_sum_of_signed_maps_at_any_ratio(height, width, rows, columns):
    maps = drawn(2, 3, height, width, signed=True)

    resized = resize(maps, (rows, columns))

    assert resized.shape == (2, 3, rows, columns)
    torch.testing.assert_close(resized.sum((-2, -1)), maps.sum((-2, -1)))


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_enlarging_by_a_whole_factor_is_bilinear_interpolation(factor):
    maps = drawn(1, 2, 5, 7, signed=True)

    enlarged = resize(maps, (5 * factor, 7 * factor))

    bilinear = F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarged, bilinear / factor**2)


def test_shrinking_adds_cells_up():
    maps = drawn(4, 6, signed=True)

    small = resize(maps, (2, 2))

    expected = [[maps[2 * r : 2 * r + 2, 3 * c : 3 * c + 3].sum() for c in range(2)] for r in range(2)]
    torch.testing.assert_close(small, torch.tensor(expected, dtype=torch.float64))


def test_shrinking_splits_a_cell_between_the_pixels_it_lies_in():
    small = resize(torch.tensor([[1.0, 2.0, 4.0]]), (1, 2))

    torch.testing.assert_close(small, torch.tensor([[2.0, 5.0]]))


def test_shrinking_what_was_enlarged_gives_a_single_cell_its_sum():
    maps = drawn(3, 3, signed=True)

    torch.testing.assert_close(resize(resize(maps, (17, 11)), (1, 1))[0, 0], maps.sum())


def test_never_negative_maps_stay_so():
    assert (resize(drawn(5, 5), (13, 9)) >= 0).all()


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_pasting_into_boxes_keeps_the_sum(height, width, rows, columns, seed):
    maps = drawn(2, 3, height, width, signed=True)
    corners = drawn(2, 3, 2, 2, seed=seed).sort(dim=2).values * torch.tensor([40.0, 30.0])
    boxes = torch.cat([corners[:, :, 0], corners[:, :, 1] + 1e-3], -1).clamp(max=30)  # x0, y0, x1, y1
    boxes[..., 0].clamp_(max=29)
    boxes[..., 1].clamp_(max=29)
    boxes[..., 2:] = torch.maximum(boxes[..., 2:], boxes[..., :2] + 0.5)

    whole = paste(maps, boxes, (30, 40), (rows, columns))

    assert whole.shape == (2, rows, columns)
    torch.testing.assert_close(whole.sum((1, 2)), maps.sum((1, 2, 3)))


def test_a_map_pasted_into_a_box_stays_in_it():
    boxes = torch.tensor([[[2.0, 4.0, 6.0, 8.0]]])

    whole = paste(torch.ones(1, 1, 2, 2), boxes, (12, 10), (12, 10))

    torch.testing.assert_close(whole[0, 4:8, 2:6].sum(), torch.tensor(4.0))
    assert whole.count_nonzero() == 16


def test_a_box_of_the_whole_image_changes_nothing():
    maps = drawn(2, 1, 4, 4)
    boxes = torch.tensor([0.0, 0.0, 12.0, 12.0], dtype=torch.float64).expand(2, 1, 4)

    torch.testing.assert_close(paste(maps, boxes, (12, 12), (12, 12)), resize(maps[:, 0], (12, 12)))


def test_boxes_of_integers_are_accepted():
    boxes = torch.tensor([[[2, 4, 6, 8]]])

    whole = paste(torch.ones(1, 1, 2, 2), boxes, (12, 10), (12, 10))

    torch.testing.assert_close(whole, paste(torch.ones(1, 1, 2, 2), boxes.float(), (12, 10), (12, 10)))


def test_pasting_is_differentiable():
    maps = drawn(1, 1, 2, 2).requires_grad_()

    paste(maps, torch.tensor([[[0.0, 0.0, 4.0, 4.0]]]).double(), (4, 4), (4, 4)).sum().backward()

    torch.testing.assert_close(maps.grad, torch.ones_like(maps))


@pytest.mark.parametrize("pooling", [*PROPORTIONAL, "max"])
@pytest.mark.parametrize("boxes", [None, torch.tensor([[[2.0, 1, 13, 15]]]).double().expand(4, -1, -1)])
def test_saliency_keeps_its_precision_under_the_callers_autocast(pooling, boxes):
    explanations = make_explanations(units=make_units(pooling=pooling), boxes=boxes)
    numbers = {name: getattr(explanations, name) for name in ("logits", "base", "scores", "weights", "maps")}
    explanations = evolve(explanations, decomposition=None, **{key: v.float() for key, v in numbers.items()})

    with torch.autocast("cpu", torch.bfloat16):
        saliency, kept = explanations.saliency(), explanations.keep_maps(2)

    assert saliency.dtype == kept.remainder_map.dtype == torch.float32
    assert torch.equal(saliency, explanations.saliency())
    assert torch.equal(kept.remainder_map, explanations.keep_maps(2).remainder_map)
