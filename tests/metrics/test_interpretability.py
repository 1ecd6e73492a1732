import math

import pytest
import torch

from explainkit.metrics import ExplainerOutput
from explainkit.metrics.interpretability import gini, gini_index, units_to_95_percent, units_to_reach


def test_units_are_counted_from_the_strongest_for_or_against() -> None:
    contributions = torch.tensor([[-90.0, 6.0, 4.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 2.0, 0.0, 0.0]])

    assert units_to_reach(contributions).tolist() == [2, 4, 1]


def test_nothing_is_reached_where_there_is_nothing() -> None:
    assert math.isnan(units_to_reach(torch.zeros(1, 3)).item())


def test_the_gini_index_is_the_mean_difference_over_twice_the_mean() -> None:
    values = torch.rand(5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    differences = (values[:, :, None] - values[:, None, :]).abs().mean((1, 2))

    torch.testing.assert_close(gini_index(values), differences / (2 * values.mean(1)))


def test_the_gini_index_knows_its_ends_and_no_sign() -> None:
    one = torch.zeros(1, 64)
    one[0, 5] = -3

    assert gini_index(one).item() == pytest.approx(1 - 1 / 64)
    assert gini_index(torch.full((1, 64), -2.0)).item() == pytest.approx(0, abs=1e-12)
    assert math.isnan(gini_index(torch.zeros(1, 64)).item())


def test_pixels_for_and_against_are_no_units_to_count(small) -> None:
    context = small.context(2)
    explanations = small.slopes.explain(context.images, context.targets)
    row = ExplainerOutput(
        context=context, name="slopes", full_explanations=explanations, saliency_map=explanations.saliency()
    )

    assert "always two" in units_to_95_percent(row).reason
    assert gini(row).reason is None
