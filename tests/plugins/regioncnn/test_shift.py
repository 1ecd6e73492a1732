"""The least attention that would have to move: proved against linear programs, and said by the head."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_cases import assert_near, uniform
from regioncnn_networks import explainer, fitted
from scipy.optimize import linprog

import explainkit as ek
from explainkit.testing import fitted_example, tiny_images
from explainkit_regioncnn.shift import least_shifts

METHOD = "region-cnn/attention-shift"


def least_by_grid(attention, gaps, steps=24):
    """The least sum of changes over attention in steps of 1 / `steps`; None where no gap can be closed."""
    best = None
    for counts in itertools.product(range(steps + 1), repeat=len(attention) - 1):
        if sum(counts) <= steps:
            other = torch.tensor([*counts, steps - sum(counts)], dtype=torch.float64) / steps
            if (gaps @ other <= 1e-12).all():
                size = (other - attention).abs().sum().item()
                best = size if best is None else min(best, size)
    return best


def least_by_program(attention, gaps):
    """The same exactly, over attention and the size of each of its changes."""
    count = len(attention)
    one, zero = torch.eye(count), torch.zeros(len(gaps), count)
    upper = torch.cat([torch.cat([one, -one], 1), torch.cat([-one, -one], 1), torch.cat([gaps, zero], 1)])
    limits = torch.cat([attention, -attention, torch.zeros(len(gaps))])
    result = linprog(
        [0.0] * count + [1.0] * count, A_ub=upper.numpy(), b_ub=limits.numpy(),
        A_eq=[[1.0] * count + [0.0] * count], b_eq=[1.0], bounds=[(0, None)] * (2 * count),
    )  # fmt: skip
    return result.fun if result.status == 0 else None


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(2, 6), st.integers(0, 10_000))
def test_no_smaller_shift_closes_all_gaps(foils, count, seed):
    attention = uniform(1, count, seed=seed, dtype=torch.float64).exp().softmax(1)
    gaps = uniform(1, foils, count, seed=seed + 1, dtype=torch.float64) * 2 - 0.7

    after, is_proved = least_shifts(attention, gaps)

    least = least_by_program(attention[0], gaps[0])
    assert is_proved.all()
    if least is None:
        assert torch.equal(after, attention)
        return
    assert (after >= 0).all() and after.sum().item() == pytest.approx(1, abs=1e-9)
    assert (gaps[0] @ after[0]).max() <= 1e-8
    assert (after - attention).abs().sum().item() == pytest.approx(least, abs=1e-7)


def test_a_shift_is_as_small_as_any_on_a_grid():
    attention = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)
    gaps = torch.tensor([[[2.0, -1.0, 0.5], [0.4, 0.2, -2.0]]], dtype=torch.float64)

    after, _ = least_shifts(attention, gaps)

    size = (after - attention).abs().sum().item()
    assert size - 1e-9 <= least_by_grid(attention[0], gaps[0]) <= size + 2 / 24


def test_regions_without_attention_get_none_and_foils_that_need_nothing_are_left_alone():
    attention = torch.tensor([[0.6, 0.4, 0.0], [0.6, 0.4, 0.0]], dtype=torch.float64)
    gaps = torch.tensor([[[1.0, -0.5, -9.0]], [[-torch.inf] * 3]], dtype=torch.float64)

    after, is_proved = least_shifts(attention, gaps)

    assert is_proved.all() and torch.equal(after[1], attention[1]) and after[0, 2] == 0
    assert_near(after[0], torch.tensor([1 / 3, 2 / 3, 0], dtype=torch.float64), 1e-9)


def test_the_head_says_the_target_of_every_shift_that_is_called_feasible():
    model, images = fitted(), tiny_images()

    for label in range(3):
        counterfactuals = model.counterfactual(images, label, METHOD)
        edits, explanations = counterfactuals.edits[METHOD], counterfactuals.explanations
        logits = explanations.decomposition.rescore(torch.arange(6), edits.after)
        assert edits.verified_by == "head" and edits.exact.all()
        assert (logits.argmax(1) == label)[edits.feasible].all()
        assert_near(edits.after.sum(1), torch.ones(6))
        is_target = explanations.logits.argmax(1) == label
        assert edits.feasible[is_target].all() and torch.equal(
            edits.after[is_target], edits.before[is_target]
        )
        assert (edits.size >= edits.lower_bound)[edits.feasible].all()
        rows, regions = torch.arange(6).repeat_interleave(len(model.units)), torch.eye(len(model.units))
        on_one = explanations.decomposition.rescore(rows, regions.repeat(6, 1))  # all attention on one region
        lead = on_one[:, label] - on_one.index_fill(1, torch.tensor([label]), -torch.inf).amax(1)
        assert edits.feasible[(lead.view(6, -1) > 0.1).any(1)].all()


def test_explainkit_counterfactual_methods_have_the_shift_for_this_explainer_alone():
    model = explainer()

    assert METHOD in model.counterfactual_methods()
    assert METHOD not in fitted_example("cam").counterfactual_methods()
    counterfactual = model.counterfactual(uniform(2, 3, 32, 32), method=METHOD)[0]
    assert counterfactual.sentence()


def test_of_labels_the_threshold_is_crossed():
    model = explainer()
    model.decision = ek.Decision(rule="sigmoid")
    images = uniform(6, 3, 32, 32)
    holds = model.predict(images)[:, 0] > 0

    counterfactuals = model.counterfactual(
        images, ["not class 0" if hold else "class 0" for hold in holds], METHOD
    )

    edits = counterfactuals.edits[METHOD]
    assert edits.exact.all()
    assert ((edits.logits[:, 0] > 0) != holds)[edits.feasible].all()


@pytest.mark.parametrize("margin", [-1, float("inf"), "much"])
def test_a_margin_that_is_none_is_refused(margin):
    with pytest.raises(ek.InputError, match="margin"):
        explainer().counterfactual(uniform(1, 3, 32, 32), method=METHOD, margin=margin)
