from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explainkit.data.datasets.aviary.grammar import (
    COLORS,
    PARTS,
    PATTERNED,
    PRESETS,
    SHAPES,
    Grammar,
    grammar,
)
from explainkit.errors import InputError, UnknownNameError


@pytest.mark.parametrize("preset", ["standard", "color", "clever-hans"])
@pytest.mark.parametrize("classes", [5, 20, 50, 200])
def test_species_differ_in_at_least_four_parts(preset: str, classes: int) -> None:
    assert grammar(classes, preset).distance >= 4


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("classes", [5, 200])
def test_no_two_species_are_the_same_in_any_preset(preset: str, classes: int) -> None:
    assert grammar(classes, preset).distance >= 1


@pytest.mark.parametrize("preset", list(PRESETS))
def test_distances_are_those_of_a_literal_count(preset: str) -> None:
    species = grammar(8, preset)

    for one, other in combinations(range(8), 2):
        codes = species.codes[[one, other]][:, :, np.array(species.relevant)]
        differing = [part for p, part in enumerate(PARTS) if tuple(codes[0, p]) != tuple(codes[1, p])]
        assert species.distances[one, other] == len(differing)
        assert species.differing(one, other) == tuple(differing)


def test_every_species_wears_every_color_once() -> None:
    colors = np.sort(grammar(100).codes[..., 1], 1)

    assert (colors == np.arange(len(COLORS))).all()


def test_patterns_are_worn_by_wing_breast_and_tail_alone() -> None:
    codes = grammar(200).codes

    for p, part in enumerate(PARTS):
        assert set(codes[:, p, 2].tolist()) <= set(PATTERNED.get(part, (0,)))
        assert codes[:, p, 0].max() < len(SHAPES[part])


def test_hard_has_siblings_that_differ_in_one_part() -> None:
    species = grammar(20, "hard")

    assert (np.sort(species.distances, 1)[:, 1] == 1).mean() > 0.5


def test_integrate_lets_no_part_wear_more_than_two_colors() -> None:
    codes = grammar(20, "integrate").codes

    assert all(len(set(codes[:, p, 1].tolist())) <= 2 for p in range(len(PARTS)))


def test_a_preset_tells_species_by_its_cue_alone() -> None:
    assert len({tuple(codes[:, 0].tolist()) for codes in grammar(20, "color").codes}) == 1
    assert grammar(20, "shape").relevant == (True, False, True)


@given(st.integers(0, 19), st.sampled_from(["standard", "integrate", "hard"]), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_minimal_sufficient_sets_are_those_of_brute_force(k: int, preset: str, seed: int) -> None:
    species = grammar(20, preset, seed)

    assert set(species.minimal_sufficient(k)) == set(_brute_force(species, k))


def _brute_force(species: Grammar, k: int) -> list[tuple[str, ...]]:
    sufficient: list[tuple[int, ...]] = []
    for size in range(1, len(PARTS) + 1):
        for parts in combinations(range(len(PARTS)), size):
            if any(set(smaller) <= set(parts) for smaller in sufficient):
                continue
            alike = [
                c for c in range(len(species)) if (species.codes[c, parts] == species.codes[k, parts]).all()
            ]
            if alike == [k]:
                sufficient.append(parts)
    return [tuple(PARTS[p] for p in parts) for parts in sufficient]


def test_the_same_seed_gives_the_same_species() -> None:
    assert (grammar(50, seed=3).codes == grammar(50, seed=3).codes).all()
    assert (grammar(50, seed=3).codes != grammar(50, seed=4).codes).any()


@pytest.mark.parametrize("classes", [4, 201])
def test_other_numbers_of_classes_are_refused_in_words(classes: int) -> None:
    with pytest.raises(InputError, match=r"Expected 5 … 200 classes; got"):
        grammar(classes)


def test_an_unknown_preset_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"no preset 'easy'.*standard"):
        grammar(20, "easy")
