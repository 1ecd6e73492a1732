import pytest
import torch
from attrs import evolve
from scipy.stats import pearsonr, spearmanr

from explainkit.metrics import ExplainerOutput
from explainkit.metrics.baselines import class_average, oracle
from explainkit.metrics.baselines import random as random_row
from explainkit.metrics.faithfulness import (
    area_under,
    part_deletion,
    part_insertion,
    ranks,
    residual,
    shapley_correlation,
    spearman,
    top_part,
    within_class_correlation,
)


def scored(context, scores, **more):
    """A row that scores parts so."""
    return ExplainerOutput(context=context, name="made", given_part_scores=scores, **more)


@pytest.mark.filterwarnings("ignore:An input array is constant")
@pytest.mark.parametrize("levels", [3, 1000])
def test_rank_correlation_is_that_of_scipy_with_ties_too(levels) -> None:
    one, other = torch.randint(levels, (2, 30, 7), generator=torch.Generator().manual_seed(0)).double()

    correlations = spearman(one, other)

    expected = [spearmanr(a, b).statistic for a, b in zip(one.numpy(), other.numpy(), strict=True)]
    torch.testing.assert_close(correlations, torch.tensor(expected, dtype=correlations.dtype), equal_nan=True)


def test_ties_share_their_average_rank() -> None:
    assert ranks(torch.tensor([[5.0, 1.0, 5.0, 0.0]])).tolist() == [[3.5, 2.0, 3.5, 1.0]]


def test_a_flat_ranking_counts_as_nothing(small) -> None:
    assert shapley_correlation(scored(small.context(), torch.ones(6, 7))).values.tolist() == [0] * 6


def test_the_true_scores_are_perfect_and_their_opposite_the_reverse(small) -> None:
    context = small.context()
    truth = context.truth.shapley

    torch.testing.assert_close(shapley_correlation(scored(context, truth * 3)).mean, 1.0)
    torch.testing.assert_close(shapley_correlation(scored(context, -truth)).mean, -1.0)
    torch.testing.assert_close(within_class_correlation(scored(context, truth * 3)).mean, 1.0)
    assert top_part(scored(context, truth)).mean == 1


def test_the_observer_says_the_truth_of_itself(small) -> None:
    context = small.context(explainer=small.observer)
    explanations = small.observer.explain(context.batch, context.targets)
    output = ExplainerOutput(
        context=context,
        name="observer",
        full_explanations=explanations,
        given_part_scores=explanations.contributions,
    )

    assert shapley_correlation(output).mean == pytest.approx(1)
    assert residual(output).mean == 0


def test_the_oracle_is_better_than_noise_in_every_measure(small) -> None:
    context = small.context(20)
    knowing, guessing = oracle(context), random_row(context)

    for measure in (shapley_correlation, within_class_correlation, top_part, part_insertion):
        assert measure(knowing).mean > measure(guessing).mean
    assert part_deletion(knowing).mean < part_deletion(guessing).mean
    assert shapley_correlation(knowing).mean > 0.8


def test_what_goes_beyond_the_class_is_pearsons_correlation_of_the_deviations(small) -> None:
    context = small.context(20)
    scores = torch.randn(20, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    correlation = within_class_correlation(scored(context, scores)).mean

    deviations, true = scores.clone(), context.truth.shapley.clone()
    for target in context.targets.unique():
        of_class = context.targets == target
        deviations[of_class] -= deviations[of_class].mean(0)
        true[of_class] -= true[of_class].mean(0)
    parts = [pearsonr(deviations[:, p].numpy(), true[:, p].numpy()).statistic for p in range(7)]
    assert correlation == pytest.approx(sum(parts) / 7)


def test_a_perfect_correlation_is_certain_and_a_poor_one_is_not(small) -> None:
    context = small.context(20)
    noise = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))

    assert within_class_correlation(scored(context, context.truth.shapley)).interval == pytest.approx((1, 1))
    low, high = within_class_correlation(scored(context, noise)).interval
    assert -1 < low < high < 1 and high - low > 0.1


def test_what_never_differs_within_a_class_knows_nothing_beyond_it(small) -> None:
    context = small.context(20)
    table = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))

    assert within_class_correlation(scored(context, table[context.targets])).mean == 0


def test_the_class_average_does_not_apply_where_it_is_what_is_subtracted(small) -> None:
    assert "by definition" in within_class_correlation(class_average(small.context(20))).reason


def test_areas_are_those_of_trapezoids() -> None:
    curve = [0.9, 0.7, 0.1, 0.1, 0.1]

    by_hand = sum((curve[k] + curve[k + 1]) / 2 for k in range(3)) / 3

    assert area_under(torch.tensor(curve), torch.tensor(3)).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("deleting", [True, False])
def test_part_curves_are_those_of_removing_parts_one_by_one(small, deleting) -> None:
    context = small.context()
    scores = torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    measure = part_deletion if deleting else part_insertion

    areas = measure(scored(context, scores)).values

    truth = context.truth
    for n in range(6):
        present = [p for p in scores[n].argsort(descending=True).tolist() if truth.present[n, p]]
        left = set(present) if deleting else set()
        curve = [truth.probabilities[n, sum(1 << p for p in left)].item()]
        for part in present:
            left ^= {part}
            curve.append(truth.probabilities[n, sum(1 << p for p in left)].item())
        area = sum((curve[k] + curve[k + 1]) / 2 for k in range(len(present))) / len(present)
        assert areas[n].item() == pytest.approx(area)


def test_parts_that_tie_go_in_every_order_and_not_in_that_of_their_names(small) -> None:
    context = small.context()
    flat = scored(context, torch.zeros(6, 7))
    named = scored(context, -torch.arange(7.0).expand(6, -1))

    assert not torch.allclose(part_deletion(flat).values, part_deletion(named).values)
    again = scored(small.context(), torch.zeros(6, 7))
    torch.testing.assert_close(part_deletion(flat).values, part_deletion(again).values)


def test_equal_highest_parts_count_by_their_share(small) -> None:
    assert top_part(scored(small.context(), torch.zeros(6, 7))).values.tolist() == pytest.approx([1 / 7] * 6)


def test_a_residual_is_a_share_of_the_logit(small) -> None:
    context = small.context()
    explanations = small.cam.explain(context.images, context.targets)
    half = evolve(explanations, base=explanations.base - explanations.explained_output / 2)

    assert residual(ExplainerOutput(context=context, name="cam", full_explanations=explanations)).mean < 1e-5
    assert residual(
        ExplainerOutput(context=context, name="half", full_explanations=half)
    ).mean == pytest.approx(0.5, rel=1e-3)


def test_what_claims_no_sum_has_a_reason_for_a_residual(small) -> None:
    context = small.context()
    explanations = small.slopes.explain(context.images, context.targets)

    assert (
        residual(ExplainerOutput(context=context, name="slopes", full_explanations=explanations)).reason
        == "It claims no sum."
    )


def test_part_scores_are_sums_within_a_pixel_of_the_part(small) -> None:
    context = small.context(2)
    saliency = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0))

    part_scores = ExplainerOutput(context=context, name="made", saliency_map=saliency).part_scores

    for n in range(2):
        for p in range(7):
            near = {
                (y + dy, x + dx)
                for y, x in context.masks[n, p].nonzero().tolist()
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
                if 0 <= y + dy < 32 and 0 <= x + dx < 32
            }
            assert part_scores[n, p].item() == pytest.approx(sum(saliency[n, y, x].item() for y, x in near))
