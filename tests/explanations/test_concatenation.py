"""Explanations put together add up as they did apart, or are refused in words."""

import pytest
import torch
from attrs import evolve
from explanation_cases import REFERENCE, drawn, make_explanations, make_units

import explainkit as ek
from explainkit.errors import InputError

CHANGES = {
    "kind": "prototype",
    "names": [f"other {k}" for k in range(5)],
    "pooling": "max",
    "group": torch.tensor([0, 0, 1, 1, 0]),
    "parent": torch.tensor([0, 1, 1, 1, 0]),
    "parents": ("head", "wing"),
    "class_affinity": drawn(5, 3, seed=21),
    "reference": REFERENCE * 2,
    "score_range": drawn(2, 3, 5, seed=22).sort(0).values,
    "phrases": ("red", "blue", None, None, None),
    "phrase_scores": drawn(2, 5, seed=23),
    "phrasing": ek.Phrasing(measure="share"),
}


def described(**fields):
    """Units of which everything is known, so that each field can differ or be absent alone."""
    known = {
        "group": torch.tensor([0, 0, 1, 1, 1]), "parent": torch.tensor([0, 1, 0, 1, 1]),
        "parents": ("head", "body"), "class_affinity": drawn(5, 3), "reference": REFERENCE.clone(),
        "score_range": drawn(2, 3, 5).sort(0).values, "phrases": ("red", None, None, None, None),
        "phrase_scores": drawn(2, 5), "phrasing": ek.Phrasing(),
    }  # fmt: skip
    return make_units(**known | fields)


@pytest.mark.parametrize("field", CHANGES)
def test_parts_whose_units_differ_are_refused_naming_the_field(field):
    first = make_explanations(reference=REFERENCE, units=described())
    other = evolve(first, units=described(**{field: CHANGES[field]}))

    with pytest.raises(InputError, match=f"Expected explanations of the same units.{field}; got .* part 2"):
        ek.Explanations.concat([first, first, other])


@pytest.mark.parametrize(
    "field", ["group", "class_affinity", "reference", "score_range", "phrases", "phrase_scores"]
)
def test_what_the_units_of_one_part_alone_have_is_refused(field):
    first = make_explanations(reference=REFERENCE, units=described())
    other = evolve(first, units=described(**{field: None}))

    for parts in ([first, other], [other, first]):
        with pytest.raises(InputError, match=f"the same units.{field}; got"):
            ek.Explanations.concat(parts)


def test_units_that_are_equal_are_the_same_though_described_twice():
    """As those of two files; how their pictures look makes no difference to a sum or a word."""
    pictures = ((ek.UnitPicture(id=1, box=(0, 0, 4, 4)),), (), (), (), ())
    first = make_explanations(reference=REFERENCE, units=described(pictures=pictures))
    other = evolve(first, units=described(phrases=["red", None, None, None, None]))

    together = ek.Explanations.concat([first, other])

    assert torch.equal(together.residual, torch.cat([first.residual, other.residual]))
    assert torch.equal(together.contributions, torch.cat([first.contributions, other.contributions]))


BOXES = torch.tensor([[[0.0, 0, 16, 16]]]).expand(4, 1, 4)

ONE_SIDED = {
    "boxes": {"boxes": BOXES},
    "boxes of more groups": {"boxes": BOXES.expand(4, 2, 4)},
    "additivity": {"additivity": "approximate"},
    "diagnostics": {"diagnostics": {"sure": torch.zeros(4)}},
    "weights of all classes": {"decomposition": None},
    "map_units": {"map_units": torch.arange(5).expand(4, 5)},
    "images": {"images": drawn(4, 3, 8, 8)},
}


@pytest.mark.parametrize("what", ONE_SIDED)
def test_what_one_part_alone_has_is_refused(what):
    first = make_explanations(**{"boxes": BOXES} if "more" in what else {})
    other = evolve(first, **ONE_SIDED[what])

    for parts in ([first, other], [other, first]):
        with pytest.raises(InputError, match=f"same {what.split(' of more')[0]}"):
            ek.Explanations.concat(parts)


def test_a_remainder_in_one_part_alone_is_refused():
    kept = make_explanations().keep_maps(2)

    with pytest.raises(InputError, match="same remainder_map"):
        ek.Explanations.concat([kept, evolve(kept, remainder_map=None)])


def test_diagnostics_of_other_names_are_refused():
    parts = [make_explanations(diagnostics={name: torch.zeros(4)}) for name in ("sure", "unsure")]

    with pytest.raises(InputError, match=r"same diagnostics; got .*'sure'.* and .*'unsure'"):
        ek.Explanations.concat(parts)


@pytest.mark.parametrize("field", ["weights", "bias", "rescore", "extras"])
def test_weights_of_all_classes_that_differ_are_refused(field):
    """Contrasts and interventions of the second part would take those of the first."""
    first = make_explanations()
    decomposition = first.decomposition
    changes = {
        "weights": decomposition.weights + 1,
        "bias": decomposition.bias + 1,
        "rescore": lambda rows, scores: scores[:, :3],
        "extras": {"sure": torch.zeros(4)},
    }
    other = evolve(first, decomposition=evolve(decomposition, **{field: changes[field]}))

    with pytest.raises(InputError, match="same weights of all classes"):
        ek.Explanations.concat([first, other])


def test_weights_that_differ_by_image_stay_those_of_their_image():
    whole = make_explanations(callable_weights=True)

    together = ek.Explanations.concat([whole[:1], whole[1:3], whole[3:]])

    assert torch.equal(together.contrast("jay").contributions, whole.contrast("jay").contributions)
    with pytest.raises(InputError, match="same weights of all classes"):
        ek.Explanations.concat([whole, make_explanations()])


def test_units_of_one_explainer_are_not_compared(monkeypatch):
    """So that a stream is put together without looking at 1,000 classes x 2,048 units for each batch."""
    whole = make_explanations(reference=REFERENCE, units=described())
    parts = [whole[:1], whole[1:2], whole[2:]]

    def refuse(*tensors):
        raise AssertionError("compared")

    monkeypatch.setattr(torch, "equal", refuse)

    assert len(ek.Explanations.concat(parts)) == 4
