"""Class explanations come back from JSON, to the bit; what breaks a rule is refused in words."""

import json

import pytest
import torch
from class_cases import each_additive, explained_classes

import explainkit as ek
from explainkit.errors import FormatError
from explainkit.testing import fitted_example, tiny_dataset

COLUMNS = (
    "index", "counts", "logits", "base", "scores", "contributions", "std", "quantiles", "sign_agreement",
    "decisive_rate", "confusion", "linear_r2", "contributions_by_class", "bases",
)  # fmt: skip


def column_of(explanations, name):
    """A column as a tensor; contributions to all classes are kept as factors."""
    column = getattr(explanations, name)
    return column.dense() if name == "contributions_by_class" and column is not None else column


def assert_same(one, other):
    for name in COLUMNS:
        column, expected = column_of(one, name), column_of(other, name)
        assert (column is None) == (expected is None), name
        assert column is None or (column.dtype == expected.dtype and torch.equal(column, expected)), name
    for name in ("ids", "cells", "boxes"):
        assert torch.equal(getattr(one.examples, name), getattr(other.examples, name)), name
    assert [item.sentence() for item in one] == [item.sentence() for item in other]
    assert one.classes == other.classes and one.additivity == other.additivity


@each_additive
def test_what_is_read_is_what_was_written(name):
    *_, class_explanations = explained_classes(name)

    again = ek.ClassExplanations.from_json(class_explanations.to_json())

    assert_same(again, class_explanations)
    for item, expected in zip(again, class_explanations, strict=True):
        assert item.facts() == expected.facts()
    if class_explanations.contributions_by_class is not None:
        contrasts = [next(iter(batch)).contrast().sentence() for batch in (again, class_explanations)]
        assert contrasts[0] == contrasts[1]


def test_pictures_are_there_where_they_are_asked_for():
    class_explanations = fitted_example("protopnet").explain_class(tiny_dataset())

    bare, whole = (
        ek.ClassExplanations.from_json(class_explanations.to_json(images=images)) for images in (False, True)
    )

    assert_same(whole, class_explanations)
    assert not bare.examples.pictures and whole.examples.pictures
    for id, picture in class_explanations.examples.pictures.items():
        assert torch.equal(whole.examples.pictures[id], picture)
    for item, bare_item in zip(whole[0].top(3), bare[0].top(3), strict=True):
        assert [picture.id for picture in item.pictures] == [picture.id for picture in bare_item.pictures]
        assert all(picture.image is None for picture in bare_item.pictures)


@pytest.fixture(scope="module")
def document():
    class_explanations = fitted_example("protopnet").explain_class(tiny_dataset())
    return json.loads(class_explanations.to_json(images=True))


@pytest.mark.parametrize("name", [*COLUMNS, "classes", "examples", "units", "provenance", "additivity"])
def test_columns_that_disagree_are_refused(document, name):
    for value in ([], [[1.0]], [[[1.0]]], 3, "word", {"a": 1}):
        with pytest.raises(FormatError, match=r"explainkit\.class-explanations"):
            ek.ClassExplanations.from_json(json.dumps(document | {name: value}))


EXAMPLES = {
    "boxes that leave the picture": lambda examples: turn(examples["boxes"], 99),
    "boxes below zero": lambda examples: turn(examples["boxes"], -5),
    "ids below all": lambda examples: turn(examples["ids"], -2),
    "no columns": lambda examples: examples.update(columns=0),
    "pictures of words": lambda examples: examples.update(pictures={"one": "data:"}),
    "pictures that are a list": lambda examples: examples.update(pictures=[]),
    "cells too few": lambda examples: examples["cells"].pop(),
}


def turn(lists, value):
    while isinstance(lists[0], list):
        lists = lists[0]
    lists[-1] = value


@pytest.mark.parametrize("what", EXAMPLES)
def test_examples_against_the_rules_are_refused(document, what):
    spoiled = json.loads(json.dumps(document))
    EXAMPLES[what](spoiled["examples"])

    with pytest.raises(FormatError):
        ek.ClassExplanations.from_json(json.dumps(spoiled))
