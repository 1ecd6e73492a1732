"""Pages say what a cell sees and how much of a score came from elsewhere, where that is so."""

from copy import copy

import numpy as np
import pytest
import torch
from attrs import evolve

from explainkit.explanations.receptive_field import ReceptiveField
from explainkit.rendering.pictures import dashed, overlay
from explainkit.rendering.place import (
    SQUARE,
    WHOLE_IMAGE,
    cell_note,
    leak_note,
    leak_of_unit,
    strongest_cell_box,
)
from explainkit.testing import fitted_example, tiny_images


def explained(name="cam", **units):
    explanations = fitted_example(name).explain(tiny_images()[:2])
    return evolve(explanations, units=evolve(explanations.units, **units))


def field(size, stride=4):
    return ReceptiveField(size=size, stride=stride, first_pixel=-(size // 2))


def test_a_card_says_what_one_cell_sees() -> None:
    assert cell_note(explained()[0]) == "One cell sees 23 × 23 of 32 × 32 pixels."  # noqa: RUF001
    assert "at most 32 × 32 of 32 × 32" in cell_note(explained(receptive_field=field(33))[0])  # noqa: RUF001
    assert cell_note(explained(receptive_field=field(99))[0]) == WHOLE_IMAGE
    assert cell_note(explained(receptive_field=None)[0]) == WHOLE_IMAGE
    assert cell_note(explained("ra-cnn")[0]) == WHOLE_IMAGE


@pytest.mark.parametrize("name", ["senn", "captum/saliency"])
def test_nothing_is_said_of_cells_where_there_are_none(name) -> None:
    explanation = fitted_example(name).explain(tiny_images()[:1])[0]

    assert not cell_note(explanation) and strongest_cell_box(explanation) is None


def test_the_square_is_what_the_cell_with_most_evidence_sees() -> None:
    explanations = explained()

    for explanation in explanations:
        grid = explanation.saliency(explanations.maps.shape[2:]).abs()
        row, column = (grid == grid.max()).nonzero()[0].tolist()
        box = explanations.units.receptive_field.box((row, column), (32, 32))
        assert strongest_cell_box(explanation) == box


def test_explanations_that_kept_few_maps_have_the_same_square() -> None:
    explanations = explained()

    for count in (0, 3):
        kept = explanations.keep_maps(count)
        assert [strongest_cell_box(item) for item in kept] == [strongest_cell_box(e) for e in explanations]


def test_there_is_no_square_without_a_bound() -> None:
    for explanations in (explained(receptive_field=None), explained(receptive_field=field(99))):
        assert strongest_cell_box(explanations[0]) is None
        assert SQUARE not in explanations[0]._repr_html_()
    assert strongest_cell_box(explained("ra-cnn")[0]) is None


def test_markup_and_figures_have_one_square_and_its_legend() -> None:
    explanation = explained()[0]

    assert explanation._repr_html_().count(SQUARE) == 1
    texts = [text.get_text() for axes in explanation.figure().axes for text in axes.texts]
    assert texts.count(SQUARE) == 1


def test_a_card_says_the_leak_of_units_that_was_measured() -> None:
    leak = torch.full((32,), torch.nan)
    first, second, *_ = explained()[0].top(3)
    leak[second.unit] = 0.124
    explanation = explained(leak=leak)[0]

    assert leak_of_unit(explanation, first.unit) is None and leak_of_unit(explanation, second.unit) == "12 %"
    assert leak_note(explanation, explanation.top(3)) == (
        f"12 % of the score of {second.text} came from elsewhere when all outside was replaced."
    )
    assert explanation._repr_html_().count("12 % from elsewhere") == 1
    assert "elsewhere" not in explained()[0]._repr_html_()


def test_a_dashed_line_is_on_the_edge_of_its_box_alone() -> None:
    image = torch.full((3, 8, 8), 0.5)
    plain = overlay(image, torch.zeros(2, 2), 1.0, side=64)

    drawn = overlay(image, torch.zeros(2, 2), 1.0, side=64, square=(2, 1, 6, 7))

    rows, columns = np.nonzero((drawn != plain).any(2))
    on_edge = np.isin(rows, (8, 55)) | np.isin(columns, (16, 47))
    assert on_edge.all() and rows.min() == 8 and rows.max() == 55
    assert columns.min() == 16 and columns.max() == 47
    assert {tuple(drawn[row, column]) for row, column in zip(rows, columns, strict=True)} == {
        (24, 24, 27), (255, 255, 255),
    }  # fmt: skip
    assert copy(dashed(plain, (0, 0, 8, 8), 8.0)).shape == plain.shape
