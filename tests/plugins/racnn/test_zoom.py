"""Crops, their gradients, and boxes within boxes."""

import math

import pytest
import torch
from plugin_cases import FLOAT32, assert_near, uniform
from racnn_networks import small_network, smooth, squares
from torch.nn import functional as F

from explainkit.testing import tiny_images
from explainkit_racnn.zoom import WHOLE, Surrogate, bounded, crop, crop_by, within


def literal_crop(image, square, side, finer=1):
    """Bilinear samples at the middles of finer cells, a pixel at a time, averaged; the border is repeated."""
    height, width = image.shape[1:]
    x, y, half = square
    crop = torch.zeros(3, side, side, dtype=image.dtype)

    def pixel(row, column):
        return image[:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]

    for i in range(side * finer):
        for j in range(side * finer):
            down = (y - half + 2 * half * (i + 0.5) / (side * finer)) * height - 0.5
            right = (x - half + 2 * half * (j + 0.5) / (side * finer)) * width - 0.5
            down, right = min(max(down, 0), height - 1), min(max(right, 0), width - 1)
            row, column = math.floor(down), math.floor(right)
            a, b = down - row, right - column
            value = (1 - a) * ((1 - b) * pixel(row, column) + b * pixel(row, column + 1))
            value = value + a * ((1 - b) * pixel(row + 1, column) + b * pixel(row + 1, column + 1))
            crop[:, i // finer, j // finer] += value / finer**2
    return crop


@pytest.mark.parametrize(
    ("size", "largest", "finer"), [((24, 24), 0.16, 1), ((24, 24), 0.45, 3), ((18, 30), 0.3, 3)]
)
def test_crops_are_those_of_a_loop_over_pixels(size, largest, finer):
    images = uniform(2, 3, *size, dtype=torch.float64)
    places = squares((0.31, 0.62, 0.17), (0.8, 0.2, 0.2), dtype=torch.float64)

    crops = crop(images, places, 8, largest)

    for image, square, cropped in zip(images, places.tolist(), crops, strict=True):
        torch.testing.assert_close(cropped, literal_crop(image, square, 8, finer), rtol=1e-9, atol=1e-9)


def test_the_whole_is_the_image_and_a_box_of_whole_pixels_is_cut_out():
    images = uniform(2, 3, 32, 32)

    whole = crop(images, torch.tensor(WHOLE).expand(2, 3), 32)
    part = crop(images, squares((14 / 32, 18 / 32, 8 / 32)).expand(2, 3), 16, 0.25)

    assert_near(whole, images)  # samples lie at float32's rounding of coordinates up to 32
    assert_near(part, images[:, :, 10:26, 6:22])


def test_a_crop_of_another_size_is_the_cut_enlarged_away_from_its_edge():
    images = uniform(1, 3, 32, 32, dtype=torch.float64)

    cropped = crop(images, squares((14 / 32, 18 / 32, 8 / 32), dtype=torch.float64), 40)

    enlarged = F.interpolate(images[:, :, 10:26, 6:22], (40, 40), mode="bilinear", align_corners=False)
    torch.testing.assert_close(cropped[..., 2:-2, 2:-2], enlarged[..., 2:-2, 2:-2], rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("largest", [0.2, 0.45])
def test_the_true_gradient_is_that_of_finite_differences(size, largest):
    images, weights = smooth(*size), uniform(1, 3, 9, 9, seed=1, dtype=torch.float64)
    square = squares((0.43127, 0.56891, 0.19237), dtype=torch.float64).requires_grad_()

    (slope,) = torch.autograd.grad((weights * crop(images, square, 9, largest)).sum(), square)

    for axis in range(3):
        step = torch.zeros(1, 3, dtype=torch.float64)
        step[0, axis] = 1e-6
        high, low = (
            (weights * crop(images, square.detach() + sign * step, 9, largest)).sum() for sign in (1, -1)
        )
        assert slope[0, axis].item() == pytest.approx((high - low).item() / 2e-6, rel=1e-5)


def test_a_box_moves_towards_what_is_bright():
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 13:19, 20:26] = 1
    blurred = F.avg_pool2d(images, 5, 1, 2)
    square = squares((0.5, 0.5, 0.25)).requires_grad_()

    (slope,) = torch.autograd.grad(crop(blurred, square, 16).mean(), square)

    assert slope[0, 0] > 0 and slope[0, 1].abs() < 1e-3 * slope[0, 0]


def pushed(gradient):
    """Where `gradient` (16, 16) on a crop pushes the surrogate's square, as gradient descent would go."""
    square = squares((0.5, 0.5, 0.25)).requires_grad_()
    cropped = Surrogate.apply(uniform(1, 3, 32, 32), square, 16, 0.5)
    cropped.backward(gradient.expand(1, 3, 16, 16))
    return -square.grad[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_surrogate_goes_where_the_loss_reacts_whatever_its_sign(sign):
    right, bottom, inside = torch.zeros(3, 16, 16).unbind(0)
    right[:, -1], bottom[-1], inside[6:10, 6:10] = sign, sign, sign
    edges = right + bottom + right.flip(1) + bottom.flip(0)

    assert pushed(right)[0] > 0 and pushed(right.flip(1))[0] < 0
    assert pushed(bottom)[1] > 0 and pushed(bottom.flip(0))[1] < 0
    assert pushed(edges)[2] > 0 and pushed(edges)[:2].abs().max() < FLOAT32
    assert pushed(inside)[2] < 0 and not pushed(inside)[:2].any()
    assert_near(pushed(1000 * right), pushed(right))  # only its shape counts
    assert pushed(torch.zeros(16, 16)).isfinite().all()


def test_the_surrogate_changes_no_crop():
    images, places = uniform(2, 3, 32, 32), squares((0.4, 0.5, 0.3), (0.6, 0.7, 0.2))

    assert torch.equal(crop_by(images, places, 16, 0.45, "surrogate"), crop(images, places, 16, 0.45))
    true, surrogate = small_network(), small_network(gradient="surrogate")
    assert torch.equal(surrogate(tiny_images()), true(tiny_images()))


def test_no_numbers_make_a_box_that_leaves_the_image():
    raw = 40 * uniform(500, 3, dtype=torch.float64) - 20

    places = bounded(raw, 0.15, 0.45)

    middle, half = places[:, :2], places[:, 2:]
    assert (middle - half).min() >= 0 and (middle + half).max() <= 1
    assert half.min() >= 0.15 and half.max() <= 0.45
    assert half.min() < 0.151 and half.max() > 0.449


def test_boxes_in_boxes_are_mapped_back_into_the_image():
    outer = bounded(8 * uniform(50, 3) - 4, 0.15, 0.45)
    inner = bounded(8 * uniform(50, 3, seed=1) - 4, 0.15, 0.45)

    both = within(outer, inner)

    for (x, y, half), (u, v, part), (a, b, c) in zip(
        outer.tolist(), inner.tolist(), both.tolist(), strict=True
    ):
        left, top, side = x - half, y - half, 2 * half
        assert (a, b, c) == pytest.approx((left + u * side, top + v * side, part * side), abs=FLOAT32)
        assert left - FLOAT32 <= a - c and a + c <= x + half + FLOAT32
        assert top - FLOAT32 <= b - c and b + c <= y + half + FLOAT32
    assert_near(within(torch.tensor(WHOLE).expand(50, 3), inner), inner)


def test_a_crop_of_a_crop_is_the_crop_of_the_composed_box():
    images = smooth(240, 240)
    outer, inner = (squares(row, dtype=torch.float64) for row in ((0.45, 0.55, 0.3), (0.6, 0.4, 0.25)))

    twice = crop(crop(images, outer, 240, 0.3), inner, 24, 0.05)
    once = crop(images, within(outer, inner), 24, 0.05)

    torch.testing.assert_close(twice, once, rtol=0, atol=1e-3)
