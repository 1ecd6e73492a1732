"""Each of FunnyBirds' scores against a literal count, on small random cases; truth and chance."""

import math

import pytest
import torch
from scipy.stats import spearmanr

from explainkit.metrics import funnybirds as fb
from explainkit.metrics.funnybirds import PartImportance, SceneLogits
from explainkit.metrics.ground_truth import subset_table

PARTS, OBJECTS, CLASSES, SCENES = 5, 3, 9, 14
THRESHOLDS = torch.tensor([0.01, 0.1, 0.2, 0.35, 0.5], dtype=torch.float64)
HAS = torch.tensor([True, False, True, True, True])
"""The second part is none of any class."""


def shared_parts(generator, classes=CLASSES, variants=2):
    codes = torch.randint(variants, (4 * classes, PARTS), generator=generator) * HAS
    codes = codes.unique(dim=0)[:classes]
    return (codes[:, None] == codes) & HAS


def a_case(seed=0, scenes=SCENES):
    """Logits of random scenes, in which every other network output is right, and random importance."""
    generator = torch.Generator().manual_seed(seed)
    shared = shared_parts(generator)
    classes = len(shared)
    labels = torch.randint(classes, (scenes,), generator=generator)
    present = HAS.expand(scenes, -1) & (torch.rand(scenes, PARTS, generator=generator) < 0.9)
    table = subset_table(PARTS)
    visible = table[None] & present[:, None]
    worth = torch.randn(classes, PARTS, generator=generator)
    evidence = (visible[:, :, None] & shared[labels][:, None]) * worth.abs()  # (N, S, C, P)
    noise = torch.randn(scenes, len(table), classes, generator=generator)
    keys = fb.subset_index(visible)  # equal pictures have equal logits
    noise = noise.gather(1, keys[..., None].expand_as(noise))
    with_parts = evidence.sum(3) + 0.3 * noise
    whole = with_parts[:, -1]
    objects = torch.rand(scenes, OBJECTS, generator=generator) < 0.7
    objects[0] = False
    without = whole[:, None] + 0.2 * torch.randn(scenes, OBJECTS, classes, generator=generator)
    logits = SceneLogits(
        labels=labels, present=present, objects=objects, with_parts=with_parts, without_object=without,
        shared_parts=shared,
    )  # fmt: skip
    return logits, generator


def importance(generator, scenes=SCENES):
    evidence = torch.rand(scenes, PARTS + OBJECTS, generator=generator, dtype=torch.float64) - 0.1
    total = evidence.sum(1, keepdim=True) + 0.5
    return PartImportance(parts=evidence[:, :PARTS], evidence=evidence, total=total)


def important(row, n, threshold):
    return {i for i in range(PARTS + OBJECTS) if row.evidence[n, i] > threshold * row.total[n, 0]}


def literal_sets(shared, label):
    """Sets of parts that the class has and no other has all of, without those that contain another."""
    own = [p for p in range(PARTS) if shared[label, label, p]]
    sets = []
    for s in range(1, 2**PARTS):
        parts = {p for p in range(PARTS) if s >> p & 1}
        others = [c for c in range(len(shared)) if c != label and all(shared[label, c, p] for p in parts)]
        if parts <= set(own) and not others:
            sets.append(parts)
    return [one for one in sets if not any(other < one for other in sets)]


def index_of(parts):
    return sum(1 << p for p in parts)


@pytest.mark.parametrize("seed", range(4))
def test_minimal_sufficient_sets_are_those_of_a_literal_search(seed) -> None:
    shared = shared_parts(torch.Generator().manual_seed(seed))

    found = fb.minimal_sufficient_sets(shared)

    for c in range(len(shared)):
        assert found[c].nonzero()[:, 0].tolist() == sorted(index_of(s) for s in literal_sets(shared, c))


@pytest.mark.parametrize("seed", range(3))
def test_the_controlled_synthetic_data_check_is_that_of_a_literal_count(seed) -> None:
    logits, generator = a_case(seed)
    row = importance(generator)

    values = fb.controlled_synthetic_data_check(logits, row, THRESHOLDS)

    for t, threshold in enumerate(THRESHOLDS):
        for n in range(SCENES):
            label = int(logits.labels[n])
            if int(logits.with_parts[n, -1].argmax()) != label:
                assert values[t, n].isnan()
                continue
            shares = [
                len(s & important(row, n, threshold)) / len(s)
                for s in literal_sets(logits.shared_parts, label)
            ]
            assert values[t, n].item() == pytest.approx(max(shares))


@pytest.mark.parametrize("seed", range(3))
def test_preservation_and_deletion_ask_the_network_of_the_parts_that_are_kept(seed) -> None:
    logits, generator = a_case(seed)
    row = importance(generator)

    preserved = fb.preservation_check(logits, row, THRESHOLDS)
    deleted = fb.deletion_check(logits, row, THRESHOLDS)

    for t, threshold in enumerate(THRESHOLDS):
        for n in range(SCENES):
            parts = {p for p in important(row, n, threshold) if p < PARTS}
            said = logits.with_parts[n].argmax(1)
            assert preserved[t, n] == float(said[index_of(parts)] == said[-1])
            assert deleted[t, n] == float(said[index_of(set(range(PARTS)) - parts)] != said[-1])


def literal_drops(logits, n):
    """By how much the label's logit falls without each part and object that is there."""
    label = logits.labels[n]
    whole = logits.with_parts[n, -1, label].item()
    drops = {
        p: whole - logits.with_parts[n, 2**PARTS - 1 - 2**p, label].item()
        for p in range(PARTS)
        if logits.present[n, p]
    }
    objects = {
        PARTS + b: whole - logits.without_object[n, b, label].item()
        for b in range(OBJECTS)
        if logits.objects[n, b]
    }
    return whole, drops | objects


@pytest.mark.parametrize("seed", range(3))
def test_distractibility_is_the_share_of_irrelevant_things_that_are_not_important(seed) -> None:
    logits, generator = a_case(seed)
    row = importance(generator)

    values = fb.distractibility(logits, row, THRESHOLDS)

    for n in range(SCENES):
        whole, drops = literal_drops(logits, n)
        irrelevant = {i for i, drop in drops.items() if abs(drop) < 0.05 * abs(whole) or drop < 0}
        for t, threshold in enumerate(THRESHOLDS):
            if not irrelevant:
                assert values[t, n].isnan()
                continue
            share = len(irrelevant & important(row, n, threshold)) / len(irrelevant)
            assert values[t, n].item() == pytest.approx(1 - share)


@pytest.mark.parametrize("seed", range(3))
def test_background_independence_is_that_of_all_objects_together(seed) -> None:
    logits, _ = a_case(seed)

    relevant = total = 0
    for n in range(SCENES):
        whole, drops = literal_drops(logits, n)
        objects = [drop for i, drop in drops.items() if i >= PARTS]
        total += len(objects)
        relevant += sum(drop >= 0.05 * abs(whole) and drop > 0 for drop in objects)

    assert fb.background_independence(logits).mean().item() == pytest.approx(1 - relevant / total)


@pytest.mark.parametrize("seed", range(3))
def test_single_deletion_is_scipys_rank_correlation_over_the_parts_that_classes_have(seed) -> None:
    logits, generator = a_case(seed)
    row = importance(generator)

    values = fb.single_deletion(logits, row)

    coded = HAS.nonzero()[:, 0].tolist()
    for n in range(SCENES):
        label = logits.labels[n]
        whole = logits.with_parts[n, -1, label].item()
        drops = [whole - logits.with_parts[n, 2**PARTS - 1 - 2**p, label].item() for p in coded]
        correlation = spearmanr([row.parts[n, p].item() for p in coded], drops).statistic
        assert values[n].item() == pytest.approx((correlation + 1) / 2)


def test_single_deletion_says_nothing_where_all_parts_are_alike() -> None:
    logits, _ = a_case()
    flat = torch.ones(SCENES, PARTS + OBJECTS, dtype=torch.float64)

    row = PartImportance(parts=flat[:, :PARTS], evidence=flat, total=flat.sum(1, keepdim=True))

    assert fb.single_deletion(logits, row).isnan().all()


def literal_pair(shared, label):
    """The first two classes of two parts in common each, and no part in common with both."""
    common = [{p for p in range(PARTS) if shared[label, c, p]} for c in range(len(shared))]
    for one in range(len(shared)):
        for other in range(one + 1, len(shared)):
            is_pair = label not in (one, other) and len(common[one]) == len(common[other]) == 2
            if is_pair and not common[one] & common[other]:
                return one, other, common[one], common[other]
    return None


@pytest.mark.parametrize("seed", range(6))
def test_target_sensitivity_is_that_of_a_literal_count(seed) -> None:
    logits, generator = a_case(seed, scenes=40)
    first, second = (importance(generator, 40) for _ in range(2))

    pairs, is_counted = fb.sensitivity_pairs(logits)
    values = fb.target_sensitivity(logits, pairs, first, second)

    for n in range(40):
        found = literal_pair(logits.shared_parts, int(logits.labels[n]))
        if found is None:
            assert not is_counted[n]
            continue
        one, other, own_one, own_other = found
        assert pairs[n].tolist() == [one, other]
        whole = 2**PARTS - 1
        without_one, without_other = (
            logits.with_parts[n, whole - index_of(own)] for own in (own_one, own_other)
        )
        holds = without_one[one] < without_other[one] and without_other[other] < without_one[other]
        assert bool(is_counted[n]) == bool(holds)
        wins = [
            sum(first.parts[n, p] for p in own_one) > sum(second.parts[n, p] for p in own_one),
            sum(second.parts[n, p] for p in own_other) > sum(first.parts[n, p] for p in own_other),
        ]
        assert values[n].item() == sum(map(float, wins)) / 2


def test_some_scene_is_counted_for_target_sensitivity() -> None:
    assert any(fb.sensitivity_pairs(a_case(seed, 40)[0])[1].any() for seed in range(6))


def test_an_explanation_that_ignores_its_target_gets_no_target_sensitivity() -> None:
    logits, generator = a_case(3, scenes=40)
    row = importance(generator, 40)

    assert (fb.target_sensitivity(logits, fb.sensitivity_pairs(logits)[0], row, row) == 0).all()


def test_noise_scores_a_half_in_single_deletion_and_target_sensitivity() -> None:
    logits, generator = a_case(scenes=3000)
    first, second = (importance(generator, 3000) for _ in range(2))

    deletion = fb.single_deletion(logits, first)
    sensitivity = fb.target_sensitivity(logits, fb.sensitivity_pairs(logits)[0], first, second)

    assert deletion.nanmean().item() == pytest.approx(0.5, abs=0.03)
    assert sensitivity.mean().item() == pytest.approx(0.5, abs=0.03)


def test_the_drops_themselves_are_a_perfect_single_deletion() -> None:
    logits, _ = a_case()
    drops = logits.drops

    row = PartImportance(parts=drops[:, :PARTS], evidence=drops, total=drops.sum(1, keepdim=True))

    values = fb.single_deletion(logits, row)
    assert values[logits.present[:, HAS].all(1)].numpy() == pytest.approx(1)


def test_the_threshold_is_the_first_with_the_highest_completeness() -> None:
    logits, generator = a_case(1)
    row = importance(generator)
    curves = (
        fb.controlled_synthetic_data_check(logits, row, THRESHOLDS),
        fb.preservation_check(logits, row, THRESHOLDS),
        fb.deletion_check(logits, row, THRESHOLDS),
        fb.distractibility(logits, row, THRESHOLDS),
    )

    best, best_value = None, -math.inf
    for t, threshold in enumerate(THRESHOLDS.tolist()):
        csdc, preservation, deletion, distractible = (values[t].nanmean().item() for values in curves)
        value = (csdc + preservation + deletion) / 3 + distractible
        if value > best_value + 1e-12:
            best, best_value = threshold, value

    assert THRESHOLDS[fb.best_threshold(*curves)] == best


def test_a_weighted_sum_has_the_mean_of_the_means_whatever_is_undefined() -> None:
    one = torch.tensor([1.0, math.nan, 0.0, 1.0], dtype=torch.float64)
    other = torch.tensor([math.nan, math.nan, 0.2, 0.6], dtype=torch.float64)

    values = fb.weighted_sum([(0.5, one), (2.0, other)])

    assert values.mean().item() == pytest.approx(0.5 * 2 / 3 + 2 * 0.4)
    assert fb.weighted_sum([(1.0, torch.full_like(one, math.nan)), (1.0, other)]).isnan().all()
