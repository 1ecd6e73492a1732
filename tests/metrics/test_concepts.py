"""The score of a unit as a concept: its limiting values, its identity, and that choosing earns nothing."""

import pytest
import torch

import explainkit.metrics.concepts as concepts_module
from explainkit.metrics.concepts import (
    SHARES,
    concept_scores,
    fold_of,
    instance_weights,
    levels,
    on_grid,
    tally,
)


def world(images=300, concepts=4, side=12, seed=0, both=0.3):
    """Square concepts at random positions, in half of the images; sometimes two instances."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(images, concepts, side, side, dtype=torch.bool)
    for i in range(images):
        for k in range(concepts):
            if torch.rand(1, generator=generator) < 0.5:
                for _ in range(2 if torch.rand(1, generator=generator) < both else 1):
                    y, x = torch.randint(0, side - 2, (2,), generator=generator).tolist()
                    masks[i, k, y : y + 2, x : x + 2] = True
    return masks


def test_the_concept_itself_scores_one():
    masks = world()
    scores = concept_scores(masks.float(), masks)

    assert torch.allclose(scores.fis, torch.ones(4).double(), atol=0.02)
    assert scores.concept.tolist() == [0, 1, 2, 3] and (scores.selection_stability == 1).all()


def test_maps_that_are_the_same_everywhere_score_nothing():
    masks = world()
    center = torch.zeros(300, 1, 12, 12)
    center[:, :, 5:7, 5:7] = 1
    constant = torch.cat([center, torch.ones_like(center), torch.zeros_like(center)], 1)

    assert concept_scores(constant, masks).fis.abs().max() < 0.02


def test_choosing_among_many_concepts_earns_nothing():
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(300, 48, 12, 12, generator=generator)
    few, many = concept_scores(noise, world(concepts=2)), concept_scores(noise, world(concepts=40, seed=1))

    for scores in (few, many):
        error = scores.fis.std() / len(scores.fis) ** 0.5
        assert scores.fis.mean().abs() < 3 * error + 1e-3
        assert scores.table.amax(1).mean() > scores.fis.mean()


def test_one_of_two_instances_is_half_of_it():
    masks = torch.zeros(200, 1, 8, 8, dtype=torch.bool)
    rows = torch.randint(0, 3, (200,), generator=torch.Generator().manual_seed(0))
    first = torch.zeros(200, 1, 8, 8)
    for i, y in enumerate(rows.tolist()):
        masks[i, 0, y, 1], masks[i, 0, y + 4, 5] = True, True
        first[i, 0, y, 1] = 1
    tallies = tally(first, masks, None, torch.zeros(200, dtype=torch.long), 1)
    level = SHARES.index(0.02)
    hits, alarms, mass = tallies.hits[0, level, 0, 0], tallies.alarms[0, level, 0, 0], tallies.mass.sum()

    assert hits / (mass + alarms) == pytest.approx(0.5)


def test_overlap_is_purity_and_coverage():
    masks = world(120)
    generator = torch.Generator().manual_seed(5)
    maps = masks.float() * torch.rand(120, 4, 12, 12, generator=generator) + 0.3 * torch.rand(
        120, 4, 12, 12, generator=generator
    )
    tallies = tally(maps, masks, None, torch.zeros(120, dtype=torch.long), 1)
    hits, alarms, mass = tallies.hits[0], tallies.alarms[0], tallies.mass[0].sum(1)
    is_hit = hits > 0
    overlap = hits / (mass + alarms)
    purity, coverage = hits / (hits + alarms), hits / mass

    assert torch.allclose((1 / overlap)[is_hit], (1 / purity + 1 / coverage - 1)[is_hit])


def test_chance_is_what_pairing_at_random_gives():
    masks, maps = world(80, 2), torch.rand(80, 2, 12, 12, generator=torch.Generator().manual_seed(2))
    maps[:, :, :6] += masks[:, :, :6]
    tallies = tally(maps, masks, None, torch.zeros(80, dtype=torch.long), 1)
    weights = instance_weights(masks).flatten(2)
    on = (maps.flatten(2) > levels(maps)[5][None, :, None]).double()
    pairings = torch.stack([torch.einsum("nfp,nkp->fk", on, weights.roll(step, 0)) for step in range(80)])
    expected = torch.einsum("fp,kp->fk", tallies.active[0, 5, :, 0], tallies.mass[0] / 80)

    assert torch.allclose(pairings.mean(0), expected)


def test_what_is_not_known_of_an_image_counts_for_nothing():
    masks, maps = world(200), world(200, seed=4).float()
    annotated = torch.rand(200, 4, generator=torch.Generator().manual_seed(1)) < 0.6
    changed = masks ^ ~annotated[:, :, None, None]
    one = concept_scores(maps, masks & annotated[:, :, None, None], annotated)
    other = concept_scores(maps, changed | masks & annotated[:, :, None, None], annotated)

    assert one.table.shape == other.table.shape
    has_first = annotated[:, 0]
    part = tally(
        maps[has_first], masks[has_first][:, :1], None, torch.zeros(int(has_first.sum()), dtype=torch.long), 1
    )
    whole = tally(maps, masks, annotated, torch.zeros(200, dtype=torch.long), 1)
    assert whole.counts[0, 0] == part.counts[0, 0]


def test_scores_do_not_depend_on_the_scale_of_a_feature():
    masks = world(150)
    maps = masks.float() + 0.5 * torch.rand(150, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    one, other = concept_scores(maps, masks), concept_scores(maps.square() * 7, masks)

    assert torch.allclose(one.fis, other.fis) and torch.allclose(one.table, other.table)


def test_concepts_that_are_always_in_the_same_place_score_nothing():
    masks = torch.zeros(50, 1, 6, 6, dtype=torch.bool)
    masks[:, :, 2:4, 2:4] = True
    scores = concept_scores(masks.float(), masks)

    assert scores.fis.tolist() == [0.0] and scores.table.max() == 0


def test_units_without_a_place_are_scored_by_image():
    present = torch.rand(400, 3, generator=torch.Generator().manual_seed(0)) < 0.3
    scores = concept_scores(present.float()[..., None, None], present[..., None, None])

    assert (scores.fis > 0.9).all() and scores.concept.tolist() == [0, 1, 2]


def test_folds_are_even_and_the_same_again():
    assert torch.bincount(fold_of(103, 5, 0)).tolist() == [21, 21, 21, 20, 20]
    assert torch.equal(fold_of(50, 5, 7), fold_of(50, 5, 7))


def test_the_smallest_mask_keeps_a_cell():
    masks = torch.zeros(1, 2, 32, 32, dtype=torch.bool)
    masks[0, 0, 5, 5] = True

    assert on_grid(masks, (8, 8)).flatten(2).sum(2).tolist() == [[1, 0]]


# memory


def annotated_world(concepts=4):
    """Maps, concepts and where these are known: the first two in the same images, others in their own."""
    masks = world(120, concepts)
    generator = torch.Generator().manual_seed(7)
    annotated = (torch.rand(120, concepts, generator=generator) < 0.6)[:, [0, 0, *range(2, concepts)]]
    maps = masks.float() + 0.4 * torch.rand(120, concepts, 12, 12, generator=generator)
    return maps, masks & annotated[:, :, None, None], annotated


def test_features_at_once_change_no_score(monkeypatch):
    maps, masks, annotated = annotated_world()
    whole = concept_scores(maps, masks, annotated)
    monkeypatch.setattr(concepts_module, "LARGEST", 1)
    monkeypatch.setattr(concepts_module, "SORTED", 1)

    alone = concept_scores(maps, masks, annotated)

    assert torch.equal(alone.concept, whole.concept)
    for name in ("fis", "std_error", "selection_stability", "table"):
        torch.testing.assert_close(getattr(alone, name), getattr(whole, name))


def test_cells_are_counted_once_for_concepts_known_in_the_same_images():
    maps, masks, annotated = annotated_world()
    fold = fold_of(120, 3, 0)

    tallies = tally(maps, masks, annotated, fold, 3)

    assert tallies.active.shape[3] == 3
    thresholds = levels(maps)
    for index in range(3):
        for level in (0, 4, 8):
            for feature in range(4):
                on = maps[fold == index][:, feature].flatten(1) > thresholds[level, feature]
                for concept in range(4):
                    expected = on[annotated[fold == index][:, concept]].sum(0).double()
                    found = tallies.active[index, level, feature, tallies.image_set[concept]]
                    assert torch.equal(found, expected)


def test_thresholds_are_order_statistics():
    maps = torch.randn(30, 3, 5, 4, generator=torch.Generator().manual_seed(0))

    literal = [
        [sorted(maps[:, feature].clamp(min=0).flatten().tolist())[::-1][max(1, round(share * 600))]
         for feature in range(3)]
        for share in SHARES
    ]  # fmt: skip

    assert torch.equal(levels(maps), torch.tensor(literal))


def test_the_weight_of_an_instance_is_the_mean_area_over_its_own():
    masks = torch.zeros(70, 1, 6, 6, dtype=torch.bool)
    masks[0, 0, 0, :4] = True  # instances of 4, 1 and 1 cells, in images far apart
    masks[0, 0, 5, 5] = True
    masks[69, 0, 2, 2] = True

    weights = instance_weights(masks)

    assert weights[0, 0, 0, :4].tolist() == [0.5] * 4 and weights[0, 0, 5, 5] == weights[69, 0, 2, 2] == 2
    assert weights.sum() == masks.sum()
