"""Templates are the paper's, and a mask leaves the surroundings of one cell."""

import pytest
import torch
from plugin_cases import uniform

from explainkit.explanations.spatial import best_cells
from explainkit_interpcnn.templates import (
    masked_maps,
    positive_templates,
    templates,
    templates_at_peaks,
)

GRIDS = [(6, 6), (8, 8), (4, 9)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("beta", [3.0, 4.0, 6.0])
def test_templates_are_the_papers_formula_without_its_factor(grid, beta):
    (height, width), side = grid, (grid[0] * grid[1]) ** 0.5

    made = templates(grid, beta, torch.empty(0, dtype=torch.float64))

    for place in range(height * width):
        for cell in range(height * width):
            distance = abs(place // width - cell // width) + abs(place % width - cell % width)
            assert made[place, cell].item() == pytest.approx(max(1 - beta * distance / side, -1), abs=1e-12)
    assert made.shape == (height * width + 1, height * width) and (made[-1] == -1).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_templates_are_1_at_their_place_symmetric_and_nowhere_below_minus_1(grid):
    positive = positive_templates(grid)

    assert (positive.diagonal() == 1).all() and (positive.argmax(1) == torch.arange(len(positive))).all()
    assert torch.equal(positive, positive.T) and positive.min() == -1


@pytest.mark.parametrize("side", [4, 8, 14])
def test_the_papers_prior_is_uniform_over_all_templates(side):
    alpha = side**2 / (1 + side**2)
    prior = torch.tensor([alpha / side**2] * side**2 + [1 - alpha], dtype=torch.float64)

    assert prior.sum().item() == pytest.approx(1, abs=1e-12)
    assert (prior - 1 / len(templates((side, side)))).abs().max() < 1e-12


def test_a_mask_is_1_at_the_peak_and_0_from_a_fourth_of_the_grid_on():
    maps = uniform(3, 4, 8, 8, dtype=torch.float64)

    masked = masked_maps(maps)

    for image in range(3):
        for unit in range(4):
            row, column = divmod(maps[image, unit].argmax().item(), 8)
            for i in range(8):
                for j in range(8):
                    kept = max(1 - 4 * (abs(i - row) + abs(j - column)) / 8, 0)
                    expected = kept * maps[image, unit, i, j].item()
                    assert masked[image, unit, i, j].item() == pytest.approx(expected, abs=1e-12)


def test_masking_keeps_the_peak_and_its_value():
    maps = uniform(5, 7, 9, 6)

    masked = masked_maps(maps)

    assert torch.equal(best_cells(masked), best_cells(maps))
    assert torch.equal(masked.flatten(2).amax(2), maps.flatten(2).amax(2))


def test_maps_moved_by_cells_have_masks_moved_by_cells():
    maps = torch.zeros(1, 1, 16, 16)
    maps[0, 0, 6:9, 6:9] = uniform(3, 3)

    moved = masked_maps(maps.roll((2, -1), (2, 3)))

    assert torch.equal(moved, masked_maps(maps).roll((2, -1), (2, 3)))


def test_silent_maps_stay_silent():
    assert not masked_maps(torch.zeros(2, 3, 8, 8)).any()


def test_the_gradient_through_a_mask_is_the_mask():
    maps = uniform(2, 3, 6, 6, dtype=torch.float64).requires_grad_()

    (gradient,) = torch.autograd.grad(masked_maps(maps).sum(), maps)

    assert torch.equal(gradient.flatten(2), templates_at_peaks(maps).clamp(min=0))
