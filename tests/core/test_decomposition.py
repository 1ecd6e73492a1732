import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from explainkit.decomposition import (
    Decomposition,
    full_precision,
    join,
    place,
    placed,
    pour,
    pour_total,
    resize,
    shares,
)

SIDES = st.integers(1, 13)
PROPORTIONAL = ["mean", "sum", "coupled"]


def drawn(*shape, seed=0, signed=False):
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values * 2 - 1 if signed else values


def decomposition(images=4, classes=3, units=5, seed=0, **fields):
    scores, weights, bias = (
        drawn(images, units, seed=seed),
        drawn(classes, units, seed=seed + 1),
        drawn(classes),
    )
    values = {
        "logits": scores @ weights.T + bias,
        "bias": bias,
        "scores": scores,
        "weights": weights,
        "maps": drawn(images, units, 2, 3, seed=seed + 2),
    }
    return Decomposition(**values | fields)


def per_image(images=4, classes=3, units=5, seed=0):
    """Weights that depend on the image, as SENN's do."""
    table = drawn(images, classes, units, seed=seed, signed=True)
    return table, lambda rows, targets: table[rows, targets]


@pytest.mark.parametrize("pooling", PROPORTIONAL)
def test_a_contribution_is_poured_in_proportion_to_its_map(pooling):
    contributions, maps = drawn(2, 3, signed=True), drawn(2, 3, 4, 5, seed=1)

    poured = pour(contributions, maps, pooling)

    for n in range(2):
        for k in range(3):
            for row in range(4):
                for column in range(5):
                    share = maps[n, k, row, column] / sum(maps[n, k].flatten().tolist())
                    torch.testing.assert_close(poured[n, k, row, column], contributions[n, k] * share)


def test_max_pooling_pours_onto_the_best_cell_alone():
    contributions, maps = drawn(2, 3, signed=True), drawn(2, 3, 4, 5, seed=1)

    poured = pour(contributions, maps, "max")

    for n in range(2):
        for k in range(3):
            best = max(range(20), key=lambda cell: maps[n, k].flatten()[cell])
            expected = torch.zeros(20, dtype=torch.float64)
            expected[best] = contributions[n, k]
            torch.testing.assert_close(poured[n, k].flatten(), expected)


def test_of_equal_best_cells_the_first_receives():
    poured = pour(torch.tensor([[2.0]]), torch.ones(1, 1, 2, 2), "max")

    assert poured.flatten().tolist() == [2, 0, 0, 0]


@pytest.mark.parametrize("pooling", [*PROPORTIONAL, "max"])
def test_a_unit_with_a_map_of_zeros_has_no_place(pooling):
    maps = torch.zeros(1, 2, 2, 2)
    maps[0, 1, 0, 1] = 3
    contributions = torch.tensor([[5.0, -1.0]])

    assert placed(maps).tolist() == [[False, True]]
    assert pour(contributions, maps, pooling).flatten().tolist() == [0, 0, 0, 0, 0, -1, 0, 0]
    assert pour_total(contributions, maps, pooling).flatten().tolist() == [0, -1, 0, 0]


@pytest.mark.parametrize("pooling", [*PROPORTIONAL, "max"])
@pytest.mark.parametrize("faintest", [1e-45, 1e-40, 1e-38, 1e-30, 1e-20])
def test_a_faint_map_pours_finite_numbers_that_sum_to_what_is_placed(pooling, faintest):
    maps = torch.full((1, 2, 3, 3), faintest)
    contributions = torch.tensor([[100.0, 0.0]])

    total = pour_total(contributions, maps, pooling)

    assert total.isfinite().all()
    torch.testing.assert_close(total.sum(), (contributions * placed(maps)).sum())
    torch.testing.assert_close(pour(contributions, maps, pooling).sum(1), total)


@given(st.integers(0, 3), st.integers(1, 4), SIDES, SIDES, st.sampled_from([*PROPORTIONAL, "max"]))
@settings(max_examples=40, deadline=None)
def test_pouring_keeps_every_sum(images, units, height, width, pooling):
    contributions, maps = drawn(images, units, signed=True), drawn(images, units, height, width, seed=1)

    poured = pour(contributions, maps, pooling)

    torch.testing.assert_close(poured.sum((2, 3)), contributions)
    torch.testing.assert_close(pour_total(contributions, maps, pooling), poured.sum(1))


@pytest.mark.parametrize("pooling", [*PROPORTIONAL, "max"])
def test_pouring_by_group_is_pouring_each_group(pooling):
    contributions, maps = drawn(2, 3, 4, signed=True), drawn(2, 4, 5, 6, seed=1)

    together = pour_total(contributions, maps, pooling)

    assert together.shape == (2, 3, 5, 6)
    for group in range(3):
        torch.testing.assert_close(together[:, group], pour_total(contributions[:, group], maps, pooling))


def test_shares_sum_to_one():
    torch.testing.assert_close(shares(drawn(2, 3, 4, 5), "mean").sum((2, 3)), torch.ones(2, 3).double())


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
def test_placing_in_boxes_keeps_the_sum(height, width, rows, columns, seed):
    maps = drawn(2, 3, height, width, signed=True)
    corners = drawn(2, 3, 2, 2, seed=seed).sort(dim=2).values * torch.tensor([40.0, 30.0])
    boxes = torch.cat([corners[:, :, 0], corners[:, :, 1] + 1e-3], -1).clamp(max=30)  # x0, y0, x1, y1
    boxes[..., 0].clamp_(max=29)
    boxes[..., 1].clamp_(max=29)
    boxes[..., 2:] = torch.maximum(boxes[..., 2:], boxes[..., :2] + 0.5)

    whole = place(maps, boxes, (30, 40), (rows, columns))

    assert whole.shape == (2, rows, columns)
    torch.testing.assert_close(whole.sum((1, 2)), maps.sum((1, 2, 3)))


def test_a_map_in_a_box_stays_in_it():
    boxes = torch.tensor([[[2.0, 4.0, 6.0, 8.0]]])

    whole = place(torch.ones(1, 1, 2, 2), boxes, (12, 10), (12, 10))

    torch.testing.assert_close(whole[0, 4:8, 2:6].sum(), torch.tensor(4.0))
    assert whole.count_nonzero() == 16


def test_a_box_of_the_whole_image_changes_nothing():
    maps = drawn(2, 1, 4, 4)
    boxes = torch.tensor([0.0, 0.0, 12.0, 12.0], dtype=torch.float64).expand(2, 1, 4)

    torch.testing.assert_close(place(maps, boxes, (12, 12), (12, 12)), resize(maps[:, 0], (12, 12)))


def test_whole_number_boxes_serve_as_well():
    boxes = torch.tensor([[[2, 4, 6, 8]]])

    whole = place(torch.ones(1, 1, 2, 2), boxes, (12, 10), (12, 10))

    torch.testing.assert_close(whole, place(torch.ones(1, 1, 2, 2), boxes.float(), (12, 10), (12, 10)))


def test_placing_is_differentiable():
    maps = drawn(1, 1, 2, 2).requires_grad_()

    place(maps, torch.tensor([[[0.0, 0.0, 4.0, 4.0]]]).double(), (4, 4), (4, 4)).sum().backward()

    torch.testing.assert_close(maps.grad, torch.ones_like(maps))


def test_constant_weights_are_looked_up_by_target():
    parts, targets = decomposition(), torch.tensor([2, 0, 1, 2])

    torch.testing.assert_close(parts.weights_for(targets), torch.stack([parts.weights[t] for t in targets]))
    torch.testing.assert_close(parts.bias_for(targets), torch.stack([parts.bias[t] for t in targets]))


def test_weights_of_the_image_are_asked_for_by_row_and_target():
    table, weigh = per_image()
    bias = drawn(4, 3, seed=5)
    parts, targets = decomposition(weights=weigh, bias=bias), torch.tensor([2, 0, 1, 2])

    torch.testing.assert_close(
        parts.weights_for(targets), torch.stack([table[n, t] for n, t in enumerate(targets)])
    )
    torch.testing.assert_close(
        parts.bias_for(targets), torch.stack([bias[n, t] for n, t in enumerate(targets)])
    )


def test_rows_keep_each_image_with_its_own_weights():
    table, weigh = per_image()
    parts = decomposition(weights=weigh, bias=drawn(4, 3), boxes=drawn(4, 1, 4))
    index, targets = torch.tensor([3, 1]), torch.tensor([0, 2])

    some = parts.rows(index).rows(torch.tensor([1, 0]))

    torch.testing.assert_close(some.weights_for(targets), torch.stack([table[1, 0], table[3, 2]]))
    for name in ("logits", "scores", "maps", "boxes", "bias"):
        torch.testing.assert_close(getattr(some, name), getattr(parts, name)[[1, 3]])


def test_what_is_joined_answers_as_its_parts_do():
    table, weigh = per_image(images=5)
    whole = decomposition(images=5, weights=weigh)
    pieces = [whole.rows(torch.tensor(rows)) for rows in ([0, 1], [2], [3, 4])]
    targets = torch.tensor([2, 0, 1, 2, 0])

    joined = join(pieces, whole.maps)

    torch.testing.assert_close(joined.logits, whole.logits)
    torch.testing.assert_close(joined.scores, whole.scores)
    torch.testing.assert_close(joined.weights_for(targets), whole.weights_for(targets))
    some = joined.rows(torch.tensor([4, 0]))
    torch.testing.assert_close(some.weights_for(torch.tensor([1, 1])), table[[4, 0], 1])


def test_joining_constant_weights_keeps_them():
    whole = decomposition(boxes=drawn(4, 1, 4))

    joined = join([whole.rows(torch.tensor([0])), whole.rows(torch.tensor([1, 2, 3]))], None)

    assert joined.weights is whole.weights and joined.maps is None
    torch.testing.assert_close(joined.boxes, whole.boxes)


def test_what_is_detached_does_not_follow_the_network():
    weights = torch.nn.Parameter(drawn(3, 5))
    parts = decomposition(weights=weights, bias=torch.nn.Parameter(drawn(3))).detach()
    before = parts.weights.clone()

    with torch.no_grad():
        weights.mul_(2)

    assert not parts.weights.requires_grad and not parts.bias.requires_grad
    torch.testing.assert_close(parts.weights, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_heads_sum_in_full_precision(dtype):
    assert full_precision(torch.ones(1, dtype=dtype)).dtype is torch.float32
    assert full_precision(torch.ones(1, dtype=torch.float64)).dtype is torch.float64


def test_weights_that_are_a_function_are_detached_too():
    votes = torch.rand(2, 3, 4, requires_grad=True)
    parts = Decomposition(
        logits=votes.sum(2),
        bias=torch.zeros(3),
        scores=torch.ones(2, 4),
        weights=lambda rows, targets: votes[rows, targets],
    )

    detached = parts.detach()

    assert not detached.weights_for(torch.tensor([0, 2])).requires_grad
    assert parts.weights_for(torch.tensor([0, 2])).requires_grad
