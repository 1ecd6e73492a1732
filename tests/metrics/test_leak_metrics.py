"""The metrics of leak are the means of what `measure_leak` finds, and give reasons to all other rows."""

import torch

from explainkit.metrics import evaluate_explanations
from explainkit.metrics.baselines import TRIVIAL
from explainkit.questions.leak import leak_of

NAMES = ("cell-leak", "region-leak")


def test_the_metrics_are_the_means_over_units_cells_and_both_kinds(small) -> None:
    table = evaluate_explanations(small.cam, small.dataset, images=6, metrics=NAMES)

    leak = leak_of(small.cam, small.dataset, "mixed", torch.arange(6))
    for name, values in zip(NAMES, (leak.cell, leak.region), strict=True):
        score = table.score("cam", name)
        assert score.better == "lower"
        torch.testing.assert_close(score.values, values.double().mean((0, 2)), rtol=1e-3, atol=1e-6)
    assert table.score("cam", "cell-leak").mean < 1e-5 < table.score("cam", "region-leak").mean


def test_rows_without_scores_at_places_have_a_reason(small) -> None:
    table = evaluate_explanations([small.cam, small.slopes], small.dataset, images=3, metrics=NAMES)

    slopes = table.rows[1].name
    for name in NAMES:
        assert "after it was made" in table.score(slopes, name).reason
        assert all(table.score(row, name).reason for row in TRIVIAL)


def test_data_that_cannot_be_redrawn_swap_other_images_in(small, plain) -> None:
    from explainkit.testing import fitted_example

    table = evaluate_explanations(fitted_example("protopnet"), plain, images=5, metrics=NAMES)

    for name in NAMES:
        assert len(table.score("protopnet", name).defined) == 5
