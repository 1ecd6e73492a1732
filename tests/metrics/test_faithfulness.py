import pytest
import torch
from attrs import evolve
from scipy.stats import pearsonr, spearmanr

from explainkit.metrics import Answer
from explainkit.metrics.baselines import class_average, oracle
from explainkit.metrics.baselines import random as random_row
from explainkit.metrics.faithfulness import (
    area_under,
    part_deletion,
    part_insertion,
    ranks,
    residual,
    residual_r,
    rho_phi,
    spearman,
    top_part,
)


def scored(exam, scores, **more):
    """A row that scores parts so."""
    return Answer(exam=exam, name="made", given_part_scores=scores, **more)


@pytest.mark.filterwarnings("ignore:An input array is constant")
@pytest.mark.parametrize("levels", [3, 1000])
def test_rank_correlation_is_that_of_scipy_with_ties_too(levels) -> None:
    one, other = torch.randint(levels, (2, 30, 7), generator=torch.Generator().manual_seed(0)).double()

    found = spearman(one, other)

    expected = [spearmanr(a, b).statistic for a, b in zip(one.numpy(), other.numpy(), strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), equal_nan=True)


def test_ties_share_their_average_rank() -> None:
    assert ranks(torch.tensor([[5.0, 1.0, 5.0, 0.0]])).tolist() == [[3.5, 2.0, 3.5, 1.0]]


def test_a_flat_ranking_counts_as_nothing(small) -> None:
    assert rho_phi(scored(small.exam(), torch.ones(6, 7))).values.tolist() == [0] * 6


def test_the_true_scores_are_perfect_and_their_opposite_the_reverse(small) -> None:
    exam = small.exam()
    truth = exam.truth.shapley

    torch.testing.assert_close(rho_phi(scored(exam, truth * 3)).mean, 1.0)
    torch.testing.assert_close(rho_phi(scored(exam, -truth)).mean, -1.0)
    torch.testing.assert_close(residual_r(scored(exam, truth * 3)).mean, 1.0)
    assert top_part(scored(exam, truth)).mean == 1


def test_the_observer_says_the_truth_of_itself(small) -> None:
    exam = small.exam(explainer=small.observer)
    told = small.observer.explain(exam.batch, exam.targets)
    answer = Answer(exam=exam, name="observer", told=told, given_part_scores=told.contributions)

    assert rho_phi(answer).mean == pytest.approx(1)
    assert residual(answer).mean == 0


def test_the_oracle_is_better_than_noise_in_every_measure(small) -> None:
    exam = small.exam(20)
    knowing, guessing = oracle(exam), random_row(exam)

    for measure in (rho_phi, residual_r, top_part, part_insertion):
        assert measure(knowing).mean > measure(guessing).mean
    assert part_deletion(knowing).mean < part_deletion(guessing).mean
    assert rho_phi(knowing).mean > 0.8


def test_what_goes_beyond_the_class_is_pearsons_correlation_of_the_deviations(small) -> None:
    exam = small.exam(20)
    scores = torch.randn(20, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    found = residual_r(scored(exam, scores)).mean

    told, true = scores.clone(), exam.truth.shapley.clone()
    for target in exam.targets.unique():
        mine = exam.targets == target
        told[mine] -= told[mine].mean(0)
        true[mine] -= true[mine].mean(0)
    parts = [pearsonr(told[:, p].numpy(), true[:, p].numpy()).statistic for p in range(7)]
    assert found == pytest.approx(sum(parts) / 7)


def test_a_perfect_correlation_is_certain_and_a_poor_one_is_not(small) -> None:
    exam = small.exam(20)
    noise = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))

    assert residual_r(scored(exam, exam.truth.shapley)).interval == pytest.approx((1, 1))
    low, high = residual_r(scored(exam, noise)).interval
    assert -1 < low < high < 1 and high - low > 0.1


def test_what_never_differs_within_a_class_knows_nothing_beyond_it(small) -> None:
    exam = small.exam(20)
    table = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))

    assert residual_r(scored(exam, table[exam.targets])).mean == 0


def test_the_class_average_is_silent_where_it_is_what_is_subtracted(small) -> None:
    assert "by definition" in residual_r(class_average(small.exam(20))).reason


def test_areas_are_those_of_trapezoids() -> None:
    curve = [0.9, 0.7, 0.1, 0.1, 0.1]

    by_hand = sum((curve[k] + curve[k + 1]) / 2 for k in range(3)) / 3

    assert area_under(torch.tensor(curve), torch.tensor(3)).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("deleting", [True, False])
def test_part_curves_are_those_of_removing_parts_one_by_one(small, deleting) -> None:
    exam = small.exam()
    scores = torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    measure = part_deletion if deleting else part_insertion

    found = measure(scored(exam, scores)).values

    truth = exam.truth
    for n in range(6):
        there = [p for p in scores[n].argsort(descending=True).tolist() if truth.present[n, p]]
        left = set(there) if deleting else set()
        curve = [truth.probabilities[n, sum(1 << p for p in left)].item()]
        for part in there:
            left ^= {part}
            curve.append(truth.probabilities[n, sum(1 << p for p in left)].item())
        area = sum((curve[k] + curve[k + 1]) / 2 for k in range(len(there))) / len(there)
        assert found[n].item() == pytest.approx(area)


def test_parts_that_tie_go_in_every_order_and_not_in_that_of_their_names(small) -> None:
    exam = small.exam()
    flat = scored(exam, torch.zeros(6, 7))
    named = scored(exam, -torch.arange(7.0).expand(6, -1))

    assert not torch.allclose(part_deletion(flat).values, part_deletion(named).values)
    again = scored(small.exam(), torch.zeros(6, 7))
    torch.testing.assert_close(part_deletion(flat).values, part_deletion(again).values)


def test_equal_highest_parts_count_by_their_share(small) -> None:
    assert top_part(scored(small.exam(), torch.zeros(6, 7))).values.tolist() == pytest.approx([1 / 7] * 6)


def test_a_residual_is_a_share_of_the_logit(small) -> None:
    exam = small.exam()
    told = small.cam.explain(exam.images, exam.targets)
    half = evolve(told, base=told.base - told.totals / 2)

    assert residual(Answer(exam=exam, name="cam", told=told)).mean < 1e-5
    assert residual(Answer(exam=exam, name="half", told=half)).mean == pytest.approx(0.5, rel=1e-3)


def test_what_claims_no_sum_has_a_reason_for_a_residual(small) -> None:
    exam = small.exam()
    told = small.slopes.explain(exam.images, exam.targets)

    assert residual(Answer(exam=exam, name="slopes", told=told)).reason == "It claims no sum."


def test_part_scores_are_sums_within_a_pixel_of_the_part(small) -> None:
    exam = small.exam(2)
    saliency = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0))

    found = Answer(exam=exam, name="made", saliency_map=saliency).part_scores

    for n in range(2):
        for p in range(7):
            near = {
                (y + dy, x + dx)
                for y, x in exam.masks[n, p].nonzero().tolist()
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
                if 0 <= y + dy < 32 and 0 <= x + dx < 32
            }
            assert found[n, p].item() == pytest.approx(sum(saliency[n, y, x].item() for y, x in near))
