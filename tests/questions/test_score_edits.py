"""Edits of evidence flip, stay within what is plausible, and are as small as brute force finds."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, linprog, minimize

from explainkit.questions import edit_programs, score_edits
from explainkit.questions.edit_problem import Gaps
from explainkit.questions.score_edits import edit_scores


def problem(seed, images=6, classes=4, units=6, room=1.0):
    """Random heads, scores and ranges, some of which leave no way."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(classes, units, generator=generator).double()
    scores = torch.rand(images, units, generator=generator).double()
    bias = torch.randn(classes, generator=generator).double()
    logits = scores @ weights.T + bias
    targets = (logits.argmax(1) + torch.randint(1, classes, (images,), generator=generator)) % classes
    low = scores - room * torch.rand(images, units, generator=generator)
    high = scores + room * torch.rand(images, units, generator=generator)
    return logits, targets, scores, weights, low, high


def edited(given, **options):
    logits, targets, scores, weights, low, high = given
    return edit_scores(
        logits, targets, scores, lambda rows: weights.expand(len(rows), -1, -1), low, high, **options
    )


def possible(given, image, among, margin=0.01):
    """Whether moving the units `among` alone can make the target win, by a linear program written anew."""
    logits, targets, scores, weights, low, high = (value.numpy() for value in given)
    t, rivals = targets[image], [c for c in range(logits.shape[1]) if c != targets[image]]
    rows = [[weights[c, k] - weights[t, k] for k in among] for c in rivals]
    gaps = [logits[image, t] - logits[image, c] - margin for c in rivals]
    ends = [(low[image, k] - scores[image, k], high[image, k] - scores[image, k]) for k in among]
    if not among:
        return all(gap >= 0 for gap in gaps)
    return linprog(np.zeros(len(among)), A_ub=rows, b_ub=gaps, bounds=ends, method="highs").status == 0


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 1.0, 3.0]))
def test_the_fewest_changes_are_those_that_brute_force_finds(seed, room):
    given_ = problem(seed, room=room)
    quick, found = edited(given_), edited(given_, prove=True)
    units = range(given_[2].shape[1])
    assert torch.equal(quick.feasible, found.feasible)

    for image in range(len(given_[0])):
        sizes = [sum(some) for some in product((0, 1), repeat=6)
                 if possible(given_, image, [k for k in units if some[k]])]  # fmt: skip
        assert bool(found.feasible[image]) == bool(sizes)
        assert found.exact[image]
        if sizes:
            assert int(found.size[image]) == min(sizes) == int(found.lower_bound[image])
            assert int(quick.size[image]) >= min(sizes) >= int(quick.lower_bound[image])
            assert not quick.exact[image] or int(quick.size[image]) == min(sizes)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from([0.2, 1.0]), st.sampled_from(["l0", "l1", "l2"]),
    st.sampled_from([5, 40]),
)  # fmt: skip
def test_a_feasible_edit_flips_within_the_ranges(seed, room, cost, units):
    given_ = logits, targets, scores, weights, low, high = problem(seed, classes=7, units=units, room=room)
    found = edited(given_, norm=cost)
    moved = found.after - scores
    after = logits + moved @ weights.T

    assert torch.equal(after.argmax(1)[found.feasible], targets[found.feasible])
    assert ((found.after >= low - 1e-9) & (found.after <= high + 1e-9)).all()
    assert (moved[~found.feasible] == 0).all()
    assert torch.allclose(found.logits, after)
    for image in (~found.feasible).nonzero()[:, 0].tolist():
        assert not possible(given_, image, list(range(units)))


@pytest.mark.parametrize("seed", range(12))
def test_what_is_not_proved_smallest_says_so_by_its_bound(seed):
    found = edited(problem(seed, images=20, classes=8, units=30, room=0.6))

    assert (found.size >= found.lower_bound)[found.feasible].all()
    assert (found.size == found.lower_bound)[found.feasible & found.exact].all()


@pytest.mark.parametrize("seed", range(3))
def test_a_proof_on_many_units_is_smaller_or_the_same_and_holds(seed):
    given_ = problem(seed, images=12, classes=8, units=30, room=0.6)
    quick, proved = edited(given_), edited(given_, prove=True)
    feasible = proved.feasible

    assert torch.equal(quick.feasible, feasible) and proved.exact.all()
    assert (proved.size <= quick.size).all() and (proved.size >= quick.lower_bound)[feasible].all()
    assert (proved.size[quick.exact] == quick.size[quick.exact]).all()
    assert torch.equal(proved.logits.argmax(1)[feasible], given_[1][feasible])


def test_a_proof_that_takes_too_long_claims_its_bound_alone(monkeypatch):
    monkeypatch.setattr(score_edits, "PROOF_SECONDS", 0.0)
    given_ = problem(1, images=12, classes=8, units=30, room=0.6)
    true = edited(given_, prove=False)

    found = edited(given_, prove=True)

    assert torch.equal(found.feasible, true.feasible)
    assert (found.size >= found.lower_bound)[found.feasible].all()
    assert (found.size == found.lower_bound)[found.feasible & found.exact].all()


@pytest.mark.parametrize("seed", range(5))
def test_the_least_sum_of_sizes_is_that_of_a_linear_program(seed):
    given_ = logits, targets, scores, weights, low, high = problem(seed, room=2.0)
    found = edited(given_, norm="l1")

    for image in found.feasible.nonzero()[:, 0].tolist():
        t, rivals = int(targets[image]), [c for c in range(4) if c != int(targets[image])]
        rows = [(weights[c] - weights[t]).tolist() for c in rivals]
        ends = [(0, float(high[image, k] - scores[image, k])) for k in range(6)]
        ends += [(0, float(scores[image, k] - low[image, k])) for k in range(6)]
        best = linprog(
            np.ones(12), A_ub=[[*row, *(-value for value in row)] for row in rows],
            b_ub=[float(logits[image, t] - logits[image, c]) - 0.01 for c in rivals],
            bounds=ends, method="highs",
        )  # fmt: skip
        assert (found.after - scores)[image].abs().sum().item() == pytest.approx(best.fun, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_least_sum_of_squares_is_that_of_a_general_solver(seed):
    given_ = logits, targets, scores, weights, low, high = problem(seed, images=3, room=2.0)
    found = edited(given_, norm="l2")

    for image in found.feasible.nonzero()[:, 0].tolist():
        t = int(targets[image])
        rivals = [c for c in range(4) if c != t]
        sides = (weights[t] - weights[rivals]).numpy()
        ahead = (logits[image, t] - logits[image, rivals] - 0.01).numpy()
        ends = list(zip((low - scores)[image].tolist(), (high - scores)[image].tolist(), strict=True))
        rule = LinearConstraint(sides, lb=-ahead)
        best = minimize(lambda x: x @ x, np.zeros(6), bounds=ends, constraints=[rule], method="SLSQP")
        changed = (found.after - scores)[image]
        assert changed.square().sum().item() == pytest.approx(best.fun, rel=1e-3, abs=1e-6)


def test_against_one_rival_without_ends_the_least_squares_are_the_closed_form():
    logits, targets, scores, weights, _, _ = problem(3, images=4, classes=2)
    far = torch.full_like(scores, 1e3)
    found = edited((logits, targets, scores, weights, -far, far), norm="l2", margin=0.5)
    towards = weights[targets] - weights[1 - targets]
    gap = logits.gather(1, (1 - targets)[:, None]) - logits.gather(1, targets[:, None]) + 0.5

    assert torch.allclose(
        found.after - scores, towards * gap / towards.square().sum(1, keepdim=True), atol=1e-5
    )


def test_what_is_the_target_already_is_left_alone():
    logits, _, scores, weights, low, high = problem(1)
    found = edited((logits, logits.argmax(1), scores, weights, low, high))

    assert found.feasible.all() and found.exact.all() and not found.size.any() and not found.lower_bound.any()


def test_weights_of_their_own_for_every_image_are_taken():
    logits, targets, scores, weights, low, high = problem(5, room=3.0)
    every = weights + 0.3 * torch.randn(6, 4, 6, generator=torch.Generator().manual_seed(0)).double()
    logits = torch.einsum("nck,nk->nc", every, scores)
    targets = (logits.argmax(1) + 1) % 4
    found = edit_scores(logits, targets, scores, lambda rows: every[rows], low, high)
    after = torch.einsum("nck,nk->nc", every, found.after)

    assert found.feasible.any() and torch.equal(after.argmax(1)[found.feasible], targets[found.feasible])


def test_where_scores_are_coupled_the_head_is_run_again():
    logits, targets, scores, weights, low, high = problem(7, images=12, units=8, room=2.0)

    def rescore(_, values):
        return (values / values.norm(dim=1, keepdim=True)) @ weights.T * 5

    logits = rescore(None, scores)
    targets = (logits.argmax(1) + 1) % 4
    found = edited((logits, targets, scores, weights, low, high), rescore=rescore)

    assert found.feasible.any() and not found.exact.any()
    again = rescore(None, found.after)
    assert torch.equal(again.argmax(1)[found.feasible], targets[found.feasible])
    assert torch.allclose(found.logits, again, atol=1e-9)


def test_where_the_solver_gives_up_nothing_is_called_proved(monkeypatch):
    class GaveUp:
        status = 4

    given_ = problem(3, images=60, classes=6, room=0.8)
    true = edited(given_)
    monkeypatch.setattr(edit_programs, "linprog", lambda *_, **__: GaveUp())
    monkeypatch.setattr(
        score_edits, "is_infeasible", lambda some: torch.zeros(len(some.low), dtype=torch.bool)
    )
    found = edited(given_)

    assert not found.exact.all() and (found.size >= found.lower_bound)[found.feasible].all()
    assert torch.equal(found.feasible[found.exact], true.feasible[found.exact])
    assert torch.equal(found.size[found.exact], true.size[found.exact])


def soft_tree(images, seed, depth=3):
    """A soft decision tree: each of 7 gates goes left or right; a logit is a mean of the values of leaves."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2**depth, 4, generator=generator).double()
    gates = torch.rand(images, 2**depth - 1, generator=generator).double()

    def rescore(_, scores):
        reached = torch.ones(len(scores), 1).double()
        first = 0
        for level in range(depth):
            right = scores[:, first : first + 2**level]
            reached = torch.stack([reached * (1 - right), reached * right], 2).flatten(1)
            first += 2**level
        return reached @ values

    slopes = torch.func.vmap(torch.func.jacrev(lambda one: rescore(None, one[None])[0]))(gates)  # (N, 4, 7)
    return gates, rescore, slopes


@pytest.mark.parametrize("seed", range(3))
def test_of_a_soft_decision_tree_nothing_is_claimed_that_brute_force_refutes(seed):
    """By all ways to set each gate to either end of its range or leave it: 3^7 of them."""
    gates, rescore, slopes = soft_tree(8, seed)
    logits = rescore(None, gates)
    targets = logits.topk(2, 1).indices[:, 1]
    low, high = (gates - 0.3).clamp(0, 1), (gates + 0.3).clamp(0, 1)

    found = edit_scores(logits, targets, gates, lambda rows: slopes[rows], low, high, rescore=rescore)

    choices = torch.tensor(list(product((0, 1, 2), repeat=7)))
    for image in range(8):
        ends = torch.stack([gates[image], low[image], high[image]])
        edits = ends.gather(0, choices)
        wins = rescore(None, edits).argmax(1) == targets[image]
        sizes = (choices > 0).sum(1)[wins]
        if len(sizes):
            assert found.lower_bound[image] <= sizes.min()
            assert found.feasible[image] or not found.exact[image]
        if found.feasible[image]:
            assert rescore(None, found.after[image][None]).argmax() == targets[image]
            assert found.size[image] >= found.lower_bound[image] and not found.exact[image]
    assert found.feasible.any()


# memory


@pytest.mark.parametrize("norm", ["l0", "l1", "l2"])
def test_images_at_once_change_no_edit(monkeypatch, norm):
    given_ = problem(2, images=9, classes=6, units=8, room=0.8)
    whole = edited(given_, norm=norm)
    monkeypatch.setattr(score_edits, "LARGEST_CHUNK", 1)

    alone = edited(given_, norm=norm)

    assert torch.equal(alone.feasible, whole.feasible) and torch.equal(alone.size, whole.size)
    torch.testing.assert_close(alone.after, whole.after, rtol=1e-5, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.8]))
def test_programs_for_the_hardest_classes_find_what_those_for_all_do(seed, room):
    given_ = problem(seed, images=10, classes=30, units=6, room=room)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_edits, "is_infeasible", lambda some: torch.zeros(len(some.low), dtype=torch.bool))
        whole, whole_l1 = edited(given_), edited(given_, norm="l1")
        patch.setattr(edit_programs, "LARGEST_PROGRAM", 0)
        patch.setattr(edit_programs, "HARDEST", 2)
        few, few_l1 = edited(given_), edited(given_, norm="l1")

    assert torch.equal(few.feasible, whole.feasible) and torch.equal(few.exact, whole.exact)
    for found, expected in ((few_l1.after, whole_l1.after),):
        sizes = [(after - given_[2]).abs().sum(1) for after in (found, expected)]
        torch.testing.assert_close(*sizes, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gains_are_differences_of_weights_whether_these_are_a_view_or_not(dtype):
    weights = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    targets = torch.tensor([3, 0, 3])
    view = weights.expand(3, -1, -1)

    gains = score_edits._gains(view, view[torch.arange(3), targets])

    assert torch.equal(gains, weights.double()[targets][:, None] - weights.double())
    assert gains.dtype == torch.float64


@pytest.mark.parametrize("mask", [[False, True], [True, False], [True, True], [False, False]])
def test_the_gaps_of_a_mask_are_those_of_its_images(mask):
    gaps, gains, low = torch.randn(2, 3), torch.randn(2, 3, 4), torch.zeros(2, 4)
    whole = Gaps(gaps=gaps, gains=gains, low=low, high=low + 1)

    some = whole.select(torch.tensor(mask))

    assert torch.equal(some.gaps, gaps[torch.tensor(mask)]) and len(some.low) == sum(mask)
    assert torch.equal(whole.select(torch.tensor([1, 0])).gains, gains.flip(0))
