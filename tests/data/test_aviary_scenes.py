import hashlib

import numpy as np
import pytest
from attrs import fields
from hypothesis import given, settings
from hypothesis import strategies as st

from explainkit.data.datasets.aviary.grammar import PRESETS, grammar
from explainkit.data.datasets.aviary.scenes import (
    THEMES,
    Casting,
    Scenes,
    compose,
)
from explainkit.errors import InputError

SPECIES = grammar(20)
TRAINING = Casting(split=1, dropout=0.5, variation=0.3)


def test_factors_are_the_golden_ones() -> None:
    scenes = compose(SPECIES, np.arange(64), Casting(seed=7, split=1, dropout=0.5, variation=0.3, birds=3))

    assert _digest(scenes) == "47bb7355fac291dd"


def test_a_scene_depends_on_its_index_alone() -> None:
    scenes = compose(SPECIES, np.arange(200), TRAINING)
    order = np.random.default_rng(0).permutation(200)[:50]

    assert _digest(scenes[order]) == _digest(compose(SPECIES, order, TRAINING))


def test_seeds_and_splits_share_no_scene() -> None:
    keys = [
        compose(SPECIES, np.arange(500), Casting(seed=seed, split=split)).keys
        for seed in range(3)
        for split in range(4)
    ]

    assert len(np.unique(np.concatenate(keys))) == 12 * 500


def test_labels_are_balanced() -> None:
    assert (np.bincount(compose(SPECIES, np.arange(2000), TRAINING).labels) == 100).all()


@given(st.integers(0, 2**40), st.sampled_from(["standard", "shape", "color", "clever-hans"]))
@settings(max_examples=20, deadline=None)
def test_twice_the_changed_parts_and_the_missing_ones_stay_below_the_code_distance(
    seed: int, preset: str
) -> None:
    species = grammar(20, preset)
    scenes = compose(species, np.arange(300), Casting(seed=seed, dropout=0.7, variation=0.7))
    codes, present = scenes.codes[:, 0], scenes.present[:, 0]

    changed = (~species.same(codes, species.codes[scenes.labels])).sum(1)
    removed = (~present).sum(1)

    assert (2 * changed + removed < species.distance).all()


@given(st.integers(0, 2**40), st.sampled_from(list(PRESETS)), st.sampled_from([5, 20, 60]))
@settings(max_examples=25, deadline=None)
def test_the_label_is_the_one_nearest_species(seed: int, preset: str, classes: int) -> None:
    species = grammar(classes, preset)
    scenes = compose(species, np.arange(200), Casting(seed=seed, dropout=0.7, variation=0.7))

    matches = species.matches(scenes.codes[:, 0], scenes.present[:, 0])
    own = np.take_along_axis(matches, scenes.labels[:, None], 1)

    assert ((matches >= own).sum(1) == 1).all()


def test_variation_changes_one_attribute_of_one_part() -> None:
    scenes = compose(SPECIES, np.arange(3000), Casting(variation=0.4))

    changed = scenes.codes[:, 0] != SPECIES.codes[scenes.labels]

    assert set(changed.sum((1, 2)).tolist()) == {0, 1}
    assert changed.any((1, 2)).mean() == pytest.approx(0.4, abs=0.03)
    assert changed.any((0, 1)).all()


def test_dropout_takes_parts_from_half_of_the_birds() -> None:
    scenes = compose(SPECIES, np.arange(3000), Casting(dropout=0.5))
    removed = (~scenes.present[:, 0]).sum(1)

    assert (removed > 0).mean() == pytest.approx(0.5, abs=0.03)
    assert set(removed.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("preset", list(PRESETS))
def test_mixed_scenes_have_one_foreign_part_and_lack_up_to_two_others(preset: str) -> None:
    species = grammar(20, preset)
    scenes = compose(species, np.arange(1000), Casting(mixed=True))
    codes, present = scenes.codes[:, 0], scenes.present[:, 0]

    foreign = ~species.same(codes, species.codes[scenes.labels])
    donors = species.same(codes[:, None], species.codes[None]).any(1)

    assert (foreign.sum(1) == 1).all()
    assert present[foreign].all()
    assert donors[foreign].all()
    assert not present[:, ~np.array(species.has_parts)].any()
    assert set((~present[:, np.array(species.has_parts)]).sum(1).tolist()) == {0, 1, 2}


def test_free_birds_are_anywhere_and_of_any_size() -> None:
    positions = compose(SPECIES, np.arange(3000), Casting(placement="free")).positions[:, 0]

    assert np.abs(positions[:, :2] - 0.5).max() <= 0.25
    assert np.abs(positions[:, :2] - 0.5).max(0).min() > 0.2
    length = 3.4 * positions[:, 2]
    assert 0.3 <= length.min() < 0.32 and 0.58 < length.max() <= 0.6001


def test_a_scene_holds_one_to_three_birds_of_one_species() -> None:
    scenes = compose(SPECIES, np.arange(300), Casting(birds=3))

    assert set(scenes.shown.sum(1).tolist()) == {1, 2, 3}
    assert (scenes.species == scenes.labels[:, None]).all()
    assert (scenes.codes == scenes.codes[:, :1]).all()


def test_birds_of_several_species_can_be_requested() -> None:
    scenes = compose(SPECIES, np.arange(2), Casting(birds=3), species=[[3, 4, 5], [6, 6, 7]])

    assert scenes.labels.tolist() == [3, 6]
    assert (scenes.codes == SPECIES.codes[scenes.species]).all()


def test_a_spurious_theme_follows_the_species() -> None:
    spurious = compose(SPECIES, np.arange(2000), Casting(spurious=0.98))
    independent = compose(SPECIES, np.arange(2000), Casting())

    assert (spurious.themes == spurious.labels % len(THEMES)).mean() > 0.96
    assert (independent.themes == independent.labels % len(THEMES)).mean() < 0.2


def test_shape_paints_every_image_anew() -> None:
    scenes = compose(grammar(20, "shape"), np.arange(0, 400, 20), Casting())

    assert len({tuple(colors) for colors in scenes.codes[:, 0, :, 1].tolist()}) > 15
    assert (np.sort(scenes.codes[:, 0, :, 1], 1) == np.arange(7)).all()


def test_indices_below_zero_are_refused() -> None:
    with pytest.raises(InputError, match="Expected indices from 0 on; got -1"):
        compose(SPECIES, [-1], Casting())


def _digest(scenes: Scenes) -> str:
    digest = hashlib.sha256()
    for column in fields(Scenes):
        digest.update(np.ascontiguousarray(getattr(scenes, column.name)).tobytes())
    return digest.hexdigest()[:16]
