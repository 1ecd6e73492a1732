"""Which region is which part, and how well: literal counts on the pixels."""

import itertools

import pytest
import torch
from plugin_cases import assert_near, uniform

import explainkit as ek
from explainkit_regioncnn.agreement import (
    hard_regions,
    landmark_errors,
    match_regions,
    overlaps,
    part_agreement,
    region_centers,
)


def case(n=4, p=3, k=5, size=8):
    """Regions of pixels and masks of parts, which may overlap."""
    regions = (uniform(n, size, size) * k).long()
    return regions, uniform(n, p, size, size, seed=1) > 0.7


def test_a_pixel_is_of_the_region_that_its_cell_is_most_of():
    shares = uniform(2, 3, 4, 4).softmax(1)

    found = hard_regions(shares, (8, 12))

    for y in range(8):
        for x in range(12):
            assert torch.equal(found[:, y, x], shares[:, :, y // 2, x // 3].argmax(1))


def test_overlaps_are_counts_of_pixels():
    regions, masks = case()

    common, union = overlaps(regions, masks, 5)

    for n, p, k in itertools.product(range(4), range(3), range(5)):
        both = either = 0
        for y, x in itertools.product(range(8), range(8)):
            is_part, is_region = bool(masks[n, p, y, x]), int(regions[n, y, x]) == k
            both, either = both + (is_part and is_region), either + (is_part or is_region)
        assert (common[n, p, k], union[n, p, k]) == (both, either)


def test_no_other_matches_overlap_more():
    regions, masks = case()

    found = match_regions(regions, masks, 5)

    common, union = (values.sum(0) for values in overlaps(regions, masks, 5))
    share = common / union
    best = max(
        sum(share[p, k] for p, k in enumerate(matches)) for matches in itertools.permutations(range(5), 3)
    )
    assert_near(share[torch.arange(3), found].sum(), best, 1e-12)
    assert len(set(found.tolist())) == 3


def test_regions_that_are_the_parts_agree_wholly_in_any_order():
    masks = torch.zeros(3, 2, 6, 6, dtype=torch.bool)
    masks[:, 0, :2], masks[:, 1, 4:] = True, True
    regions = torch.where(masks[:, 0], 2, torch.where(masks[:, 1], 0, 1))

    region_of = match_regions(regions, masks, 3)
    agreement = part_agreement(regions, masks, region_of, 3)

    assert region_of.tolist() == [2, 0]
    assert (agreement.iou == 1).all() and (agreement.distance == 0).all()
    assert torch.equal(agreement.of_images, torch.ones(3, dtype=torch.float64))


def test_parts_that_are_not_seen_count_for_nothing_and_parts_without_a_region_for_0():
    regions, masks = case(k=2)
    masks[0, 1] = False

    region_of = match_regions(regions, masks, 2)
    agreement = part_agreement(regions, masks, region_of, 2)

    assert (region_of == -1).sum() == 1
    assert agreement.iou[0, 1].isnan() and not agreement.of_images.isnan().any()
    lone = int((region_of == -1).nonzero()[0, 0])
    assert not agreement.iou[1:, lone].any() and agreement.distance[:, lone].isnan().all()


def test_distances_are_those_of_the_middles():
    regions = torch.zeros(1, 4, 4, dtype=torch.long)
    regions[0, :2, :2] = 1
    masks = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    masks[0, 0, 2:, 1:3] = True

    found = part_agreement(regions, masks, torch.tensor([1]), 2).distance

    assert found.item() == pytest.approx(5**0.5)


def test_regions_and_masks_of_different_images_are_refused():
    regions, masks = case()

    with pytest.raises(ek.InputError, match=r"regions \(3, 8, 8\)"):
        part_agreement(regions, masks[:3], torch.tensor([0, 1, 2]), 5)


def test_centers_are_means_of_cells_by_their_shares():
    shares = uniform(2, 3, 4, 5, dtype=torch.float64)

    found = region_centers(shares)

    for n, k in itertools.product(range(2), range(3)):
        cells = list(itertools.product(range(4), range(5)))
        x = sum(shares[n, k, y, x] * (x + 0.5) / 5 for y, x in cells) / shares[n, k].sum()
        y = sum(shares[n, k, y, x] * (y + 0.5) / 4 for y, x in cells) / shares[n, k].sum()
        assert_near(found[n, k], torch.stack([x, y]), 1e-12)


def test_landmarks_that_move_with_regions_are_found_and_unseen_ones_left_out():
    centers, other = uniform(60, 3, 2, dtype=torch.float64), uniform(20, 3, 2, seed=1, dtype=torch.float64)

    def points(values):
        places = torch.stack([20 * values[:, 0] + 3 * values[:, 1], 64 - 10 * values[:, 2]], 1)
        return torch.cat([places, torch.ones(len(values), 2, 1)], 2)

    wanted = points(other)
    wanted[4, 1, 2] = 0
    errors = landmark_errors(centers, points(centers), other, wanted)

    assert errors[4, 1].isnan() and errors.nan_to_num().max() <= 1e-9
    moved = wanted.clone()
    moved[:, 0, :2] += torch.tensor([3.0, 4.0])
    assert_near(
        landmark_errors(centers, points(centers), other, moved)[:, 0], torch.full((20,), 5.0).double(), 1e-9
    )
