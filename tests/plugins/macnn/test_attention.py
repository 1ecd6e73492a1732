"""Maps by hand, and where they peak."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_cases import assert_near, uniform

from explainkit.explanations.spatial import best_cells
from explainkit_macnn.attention import attention_maps, on_image, peak_points

NORMS = ("softmax", "sigmoid", "powered")


def by_hand(responses, norm, sharpness, channels):
    """One map (h, w), a cell at a time."""
    cells = [value.item() for value in responses.flatten()]
    if norm == "softmax":
        mean = sum(cells) / len(cells)
        deviation = math.sqrt(sum((cell - mean) ** 2 for cell in cells) / len(cells) + 1e-12)
        heights = [math.exp(sharpness * (cell - mean) / deviation) for cell in cells]
    elif norm == "sigmoid":
        heights = [1 / (1 + math.exp(-cell)) for cell in cells]
    else:
        quality = [math.log(1 + math.exp(math.tanh(0.1 * cell / channels))) for cell in cells]
        logs = [4 * math.log(each) for each in quality]
        heights = [math.exp(each) for each in logs]  # softmax(4 log q)
    return torch.tensor([height / sum(heights) for height in heights], dtype=torch.float64)


@pytest.mark.parametrize("norm", NORMS)
def test_maps_are_those_of_a_loop_over_cells(norm):
    responses = 8 * uniform(2, 3, 4, 5, dtype=torch.float64)

    maps = attention_maps(responses, norm, 2.5, channels=16)

    for n in range(2):
        for i in range(3):
            expected = by_hand(responses[n, i], norm, 2.5, 16)
            assert_near(maps[n, i].flatten(), expected, 1e-9)


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.0, 1e-3, 1.0, 50.0]))
def test_maps_are_never_negative_and_sum_to_1(norm, seed, scale):
    responses = scale * uniform(2, 3, 3, 5, seed=seed)

    maps = attention_maps(responses, norm, 2.5, channels=4)

    assert (maps >= 0).all() and maps.isfinite().all()
    assert_near(maps.sum((2, 3)), torch.ones(2, 3))


def test_the_softmax_map_does_not_depend_on_the_scale_of_features_and_the_others_are_nearly_flat():
    responses = uniform(1, 2, 8, 8, dtype=torch.float64)

    maps = attention_maps(responses, "softmax")

    assert_near(attention_maps(100 * responses + 7, "softmax"), maps, 1e-9)
    for norm in ("sigmoid", "powered"):  # z >= 0: a floor under every cell
        ratio = attention_maps(1e6 * responses, norm).flatten(2)
        assert (ratio.amax(2) / ratio.amin(2) <= {"sigmoid": 2, "powered": 12.94}[norm]).all()


def test_equal_responses_give_the_uniform_map_and_a_gradient_that_is_finite():
    responses = torch.full((1, 1, 3, 4), 2.0, requires_grad=True)

    maps = attention_maps(responses, "softmax")
    maps[0, 0, 1, 2].backward()

    assert_near(maps, torch.full((1, 1, 3, 4), 1 / 12))
    assert responses.grad.isfinite().all()


def test_peaks_are_those_of_a_loop_the_first_of_equal_ones():
    maps = torch.tensor(
        [[[[0.0, 2.0, 1.0], [2.0, 0.0, 0.0]], [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]]], dtype=torch.float64
    )
    more = torch.cat([maps, (4 * uniform(1, 2, 2, 3, dtype=torch.float64)).floor()])

    cells, points = best_cells(more), peak_points(more)

    for n in range(2):
        for k in range(2):
            best = max(range(6), key=lambda cell: (more[n, k, cell // 3, cell % 3], -cell))
            assert cells[n, k] == best
            assert points[n, k].tolist() == [best % 3 + 0.5, best // 3 + 0.5]
    assert cells[0].tolist() == [1, 0]


def test_refined_peaks_are_the_center_of_mass_of_the_cells_around():
    maps = uniform(3, 2, 4, 6, seed=1, dtype=torch.float64) ** 4

    points = peak_points(maps, refine=True)

    for n in range(3):
        for k in range(2):
            row, column = divmod(int(maps[n, k].argmax()), 6)
            mass = x = y = 0.0
            for r in range(max(0, row - 1), min(4, row + 2)):
                for c in range(max(0, column - 1), min(6, column + 2)):
                    weight = maps[n, k, r, c].item()
                    mass, x, y = mass + weight, x + weight * (c + 0.5), y + weight * (r + 0.5)
            assert points[n, k].tolist() == pytest.approx([x / mass, y / mass])


def test_points_on_the_grid_are_points_on_the_image():
    points = on_image(torch.tensor([[0.5, 0.5], [3.5, 1.5]]), torch.Size((2, 4)), torch.Size((32, 48)))

    assert points.tolist() == [[6.0, 8.0], [42.0, 24.0]]
