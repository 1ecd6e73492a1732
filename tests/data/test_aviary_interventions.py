from collections.abc import Callable

import numpy as np
import pytest
from attrs import fields

from explainkit.data.datasets.aviary import interventions as change
from explainkit.data.datasets.aviary.grammar import (
    COLORS,
    PARTS,
    SHAPES,
    grammar,
)
from explainkit.data.datasets.aviary.rendering import Rendering, render
from explainkit.data.datasets.aviary.scenes import (
    Booleans,
    Casting,
    Scenes,
    compose,
)
from explainkit.errors import UnknownNameError

SPECIES = grammar(20)
SCENES = compose(SPECIES, np.arange(60), Casting(seed=5))
DRAWN = render(SCENES, 64)
OTHER_CODES = SPECIES.codes[(SCENES.labels + 7) % 20]

ON_ONE_PART: list[tuple[str, str, Callable[[Scenes], Scenes]]] = [
    *[(f"remove {part}", part, lambda scenes, part=part: change.remove(scenes, part)) for part in PARTS],
    *[
        (f"swap {part}", part, lambda scenes, part=part: change.swap(scenes, part, OTHER_CODES))
        for part in PARTS
    ],
    *[
        (f"recolor {part}", part, lambda scenes, part=part: change.recolor(scenes, part, "pink"))
        for part in PARTS
    ],
    *[
        (f"reshape {part}", part, lambda scenes, part=part: change.reshape(scenes, part, SHAPES[part][0]))
        for part in PARTS
    ],
    ("repattern wing", "wing", lambda scenes: change.repattern(scenes, "wing", "spotted")),
]


@pytest.mark.parametrize(
    ("part", "edit"), [case[1:] for case in ON_ONE_PART], ids=[case[0] for case in ON_ONE_PART]
)
def test_an_edit_of_a_part_changes_pixels_at_that_part_alone(
    part: str, edit: Callable[[Scenes], Scenes]
) -> None:
    after = render(edit(SCENES), 64)
    p = PARTS.index(part)

    outside = _changed(DRAWN, after) & ~_grown(DRAWN.masks[:, p] | after.masks[:, p])

    # What is left is ink of the part that covers less than half of a pixel, beside what hides the part.
    assert outside.sum((1, 2)).mean() <= 1.0
    assert outside.sum((1, 2)).max() <= 12


@pytest.mark.parametrize("edit", [case[2] for case in ON_ONE_PART], ids=[case[0] for case in ON_ONE_PART])
def test_an_edit_of_a_part_leaves_every_other_factor(edit: Callable[[Scenes], Scenes]) -> None:
    after = edit(SCENES)

    moved = [c.name for c in fields(Scenes) if (getattr(after, c.name) != getattr(SCENES, c.name)).any()]

    assert moved in (["codes"], ["present"])


def test_a_removed_part_is_gone_and_all_others_stay() -> None:
    after = render(change.remove(SCENES, ["beak", "tail"]), 64)
    gone = [PARTS.index("beak"), PARTS.index("tail")]

    assert not after.masks[:, gone].any()
    assert after.masks[:, [p for p in range(7) if p not in gone]].any((2, 3)).all()


def test_recoloring_leaves_the_label_map() -> None:
    for part in PARTS:
        for color in COLORS[:2]:
            assert (
                render(change.recolor(SCENES[:20], part, color), 64).identities == DRAWN.identities[:20]
            ).all()


def test_a_bird_with_all_parts_of_another_species_is_one() -> None:
    after = change.swap(SCENES, PARTS, OTHER_CODES)

    matches = SPECIES.matches(after.codes[:, 0], after.present[:, 0])

    assert (matches.argmax(1) == (SCENES.labels + 7) % 20).all()


def test_all_subsets_of_parts_are_drawn_in_one_batch() -> None:
    scenes = change.subsets(SCENES[:2])
    table = change.subset_table()

    assert len(scenes) == 256
    assert (scenes.present[128:, 0] == table).all()
    assert (table @ (1 << np.arange(7)) == np.arange(128)).all()
    drawn = render(scenes[[127, 255, 0]], 64)
    assert (drawn.images[:2] == DRAWN.images[:2]).all()
    assert not drawn.masks[2].any()


def test_keeping_does_not_bring_back_what_is_missing() -> None:
    bare = change.remove(SCENES[:1], "tail")

    assert not change.keep(bare, np.ones(7, bool)).present[0, 0, PARTS.index("tail")]


def test_another_theme_leaves_the_label_map() -> None:
    after = render(change.with_theme(SCENES, "night"), 64)

    assert (after.identities == DRAWN.identities).all()
    assert (after.images != DRAWN.images).any((1, 2, 3)).sum() >= 40


def test_another_plumage_changes_the_body_alone() -> None:
    after = render(change.with_plumage(SCENES, "olive"), 64)
    bird = DRAWN.birds[:, 0]

    assert not (_changed(DRAWN, after) & ~_grown(bird)).any()
    assert (after.identities == DRAWN.identities).all()


def test_distractors_can_be_taken_away_one_by_one_or_all() -> None:
    bare = render(change.without_distractors(SCENES), 64)
    fewer = change.without_distractors(SCENES, [0])

    assert not bare.distractors.any()
    assert (
        not (_changed(DRAWN, bare) & ~_grown(DRAWN.distractors | bare.distractors, 2)).any((1, 2)).sum() > 30
    )
    assert (bare.birds == DRAWN.birds).all()
    assert (fewer.distractors[:, 1:] == SCENES.distractors[:, 1:]).all()


def test_one_bird_can_leave_and_the_others_stay() -> None:
    scenes = compose(SPECIES, np.arange(40), Casting(seed=5, birds=3))
    before, after = render(scenes, 64), render(change.without_bird(scenes, 0), 64)

    assert not after.birds[:, 0].any()
    assert (after.birds[:, 1:] | ~before.birds[:, 1:]).all()
    assert (_changed(before, after) & ~_grown(before.birds[:, 0])).sum((1, 2)).mean() <= 2


def test_edits_leave_the_scenes_they_were_given() -> None:
    before = {column.name: getattr(SCENES, column.name).copy() for column in fields(Scenes)}

    for _, _, edit in ON_ONE_PART:
        edit(SCENES)

    assert all((getattr(SCENES, name) == value).all() for name, value in before.items())


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda: change.remove(SCENES, "horn"), "No part is called 'horn'. There are: beak"),
        (lambda: change.recolor(SCENES, "beak", "teal"), "No color is called 'teal'"),
        (lambda: change.reshape(SCENES, "beak", "fork"), "No shape of a beak is called 'fork'"),
        (lambda: change.repattern(SCENES, "beak", "barred"), "No pattern of a beak is called 'barred'"),
        (lambda: change.with_theme(SCENES, "moon"), "No theme is called 'moon'"),
    ],
)
def test_unknown_names_are_answered_with_the_known_ones(edit: Callable[[], Scenes], words: str) -> None:
    with pytest.raises(UnknownNameError, match=words):
        edit()


def _changed(before: Rendering, after: Rendering) -> Booleans:
    return (before.images != after.images).any(1)


def _grown(masks: Booleans, pixels: int = 1) -> Booleans:
    wide = np.pad(masks, ((0, 0), (pixels, pixels), (pixels, pixels)))
    size, steps = masks.shape[-1], range(2 * pixels + 1)
    return np.logical_or.reduce([wide[:, y : y + size, x : x + size] for y in steps for x in steps])
