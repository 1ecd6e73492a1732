import math

import pytest
import torch

from explainkit.errors import InputError
from explainkit.metrics import ExplainerOutput, Score, metric


def test_a_score_has_values_or_a_reason_and_never_both() -> None:
    with pytest.raises(InputError, match="values or a reason"):
        Score(name="made")
    with pytest.raises(InputError, match="values or a reason"):
        Score(name="made", values=torch.ones(2), reason="none")
    with pytest.raises(InputError, match=r"one value an image.*\(2, 1\)"):
        Score(name="made", values=torch.ones(2, 1))


def test_a_reason_has_no_mean_and_no_interval() -> None:
    score = Score(name="made", reason="no masks")

    assert math.isnan(score.mean) and all(map(math.isnan, score.interval)) and score.undefined == 0


def test_images_without_a_value_are_left_out_and_counted() -> None:
    score = Score(name="made", values=torch.tensor([1.0, float("nan"), 3.0]))

    assert score.mean == 2 and score.undefined == 1
    assert all(map(math.isfinite, score.interval))


def test_the_interval_is_reproducible_and_about_two_standard_errors_either_side() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    low, high = Score(name="made", values=values).interval
    error = float(values.std() / 400**0.5)

    assert (low, high) == Score(name="made", values=values).interval
    assert (low, high) != Score(name="made", values=values, seed=1).interval
    assert low == pytest.approx(float(values.mean()) - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(float(values.mean()) + 1.96 * error, abs=0.2 * error)


def test_the_interval_of_equal_values_is_a_point() -> None:
    assert Score(name="made", values=torch.full((5,), 0.5)).interval == (0.5, 0.5)


def test_a_difference_is_taken_image_by_image() -> None:
    one = Score(name="made", values=torch.tensor([1.0, 5.0, 9.0]))
    other = Score(name="made", values=torch.tensor([0.0, 4.0, 8.0]))

    assert one.paired_difference(other).interval == (1, 1)
    with pytest.raises(InputError, match="one metric"):
        one.paired_difference(Score(name="else", values=torch.ones(3)))
    with pytest.raises(InputError, match="same images"):
        one.paired_difference(Score(name="made", values=torch.ones(2)))


def test_an_error_of_ours_becomes_the_reason(small) -> None:
    @metric(better="higher", unit="cells")
    def made_up(output):
        """Nothing."""
        raise InputError("There is nothing to measure.")

    score = made_up(ExplainerOutput(context=small.context(), name="row"))

    assert score.name == "made-up" and score.reason == "There is nothing to measure."
    assert score.better == "higher" and score.unit == "cells" and made_up.__doc__ == "Nothing."
