"""Maps as regions, and their boxes."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from explainkit.explanations.spatial import activation_regions, bounding_boxes, upsample


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 20), st.integers(0, 20), st.integers(3, 10), st.integers(3, 10))
@settings(max_examples=40, deadline=None)
def test_a_rectangle_gives_that_rectangle(x0, y0, width, height):
    maps = torch.zeros(1, 32, 32)
    maps[0, y0 : y0 + height, x0 : x0 + width] = 2

    boxes = bounding_boxes(activation_regions(maps, (64, 64)))[0]

    expected = 2 * torch.tensor([x0, y0, x0 + width, y0 + height])
    assert (boxes - expected).abs().max() <= 1


def test_a_higher_threshold_gives_a_region_within():
    maps = noise(4, 7, 7)
    masks = [activation_regions(maps, (28, 28), threshold, keep="all") for threshold in (0.2, 0.5, 0.8, 1.0)]

    for wide, narrow in pairwise(masks):
        assert (narrow <= wide).all() and narrow.any()


@pytest.mark.parametrize("keep", ["peak", "largest"])
def test_the_component_kept_is_the_one_that_scipy_finds_map_by_map(keep):
    maps = noise(12, 9, 9) ** 4

    masks = activation_regions(maps, (36, 36), 0.3, keep)

    for map, mask in zip(maps, masks, strict=True):
        enlarged = upsample(map[None], (36, 36))[0]
        labels, count = ndimage.label(
            (enlarged >= 0.3 * enlarged.max()).numpy(), structure=torch.ones(3, 3).numpy()
        )
        sizes = [int((labels == label).sum()) for label in range(1, count + 1)]
        component = labels.flat[int(enlarged.argmax())] if keep == "peak" else 1 + sizes.index(max(sizes))
        if keep == "largest":
            assert int(mask.sum()) == max(sizes)
        else:
            assert (mask.numpy() == (labels == component)).all()


def test_components_of_neighboring_maps_do_not_touch():
    maps = torch.zeros(2, 4, 4)
    maps[0, 0, 0] = 1
    maps[1] = 1

    masks = activation_regions(maps, (4, 4), keep="largest")

    assert masks.flatten(1).sum(1).tolist() == [1, 16]


@pytest.mark.parametrize("value", [0.0, 0.3, -1.0])
@pytest.mark.parametrize("keep", ["peak", "largest", "all"])
def test_a_map_without_a_peak_has_the_whole_image(value, keep):
    masks = activation_regions(torch.full((1, 4, 4), value), (8, 8), keep=keep)

    assert masks.all()
    assert bounding_boxes(masks).tolist() == [[0, 0, 8, 8]]


def test_the_negative_part_of_a_map_is_never_a_region():
    maps = torch.full((1, 4, 4), -5.0)
    maps[0, 0, 0] = 1

    assert activation_regions(maps, (4, 4)).flatten().nonzero().flatten().tolist() == [0]


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (0,), (2, 0)])
@pytest.mark.parametrize("keep", ["peak", "largest", "all"])
def test_any_leading_axes_will_do(leading, keep):
    maps = noise(*leading, 4, 4)

    masks = activation_regions(maps, (8, 6), keep=keep)

    assert masks.shape == (*leading, 8, 6) and masks.dtype is torch.bool
    assert bounding_boxes(masks).shape == (*leading, 4)


def test_an_empty_region_has_the_whole_image_as_its_box():
    assert bounding_boxes(torch.zeros(1, 5, 7, dtype=torch.bool)).tolist() == [[0, 0, 7, 5]]


def test_upsampling_keeps_values():
    torch.testing.assert_close(upsample(torch.full((2, 3, 3), 0.7), (10, 11)), torch.full((2, 10, 11), 0.7))


def test_maps_with_gradients_and_half_precision_have_regions():
    maps = noise(1, 4, 4).half().requires_grad_()

    assert not activation_regions(maps, (8, 8)).requires_grad
