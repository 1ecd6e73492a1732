"""What construction refuses, and in which words."""

import numpy as np
import pytest
import torch
from explanation_cases import changed, drawn, make_explanations, make_units

from explainkit.errors import InputError
from explainkit.explanations.factored_maps import FactoredMaps
from explainkit.explanations.phrasing import Phrasing
from explainkit.explanations.units import UnitPicture

NAN, INFINITE = float("nan"), float("inf")

REFUSED = {
    "logits that are not (N, C)": (lambda: {"logits": torch.zeros(4)}, r"logits of \(N, C\); got \(4,\)"),
    "logits that are not finite": (
        lambda: {"logits": changed((1, 2), NAN, "logits")},
        r"finite logits; got nan at \(1, 2\)",
    ),
    "scores of another shape": (lambda: {"scores": drawn(4, 6)}, r"scores of \(4, 5\); got \(4, 6\)"),
    "scores that are not finite": (
        lambda: {"scores": changed((3, 0), INFINITE, "scores")},
        r"finite scores; got inf at \(3, 0\)",
    ),
    "weights of another shape": (lambda: {"weights": drawn(3, 5)}, r"weights of \(4, 5\); got \(3, 5\)"),
    "weights that are not finite": (
        lambda: {"weights": changed((0, 1), -INFINITE, "weights")},
        "finite weights; got -inf",
    ),
    "a base of another shape": (lambda: {"base": drawn(4, 3)}, r"base of \(4,\); got \(4, 3\)"),
    "a base that is not finite": (
        lambda: {"base": changed(2, NAN, "base")},
        r"finite base; got nan at \(2,\)",
    ),
    "targets of another shape": (
        lambda: {"targets": torch.zeros(3).long()},
        r"targets of \(4,\); got \(3,\)",
    ),
    "a target too large": (
        lambda: {"targets": torch.tensor([0, 1, 2, 3])},
        r"targets in 0 … 2; got 3",
    ),
    "a target below zero": (lambda: {"targets": torch.tensor([0, -1, 2, 1])}, "targets in 0 … 2; got"),
    "targets that are no integers": (
        lambda: {"targets": torch.zeros(4)},
        "targets of int64; got torch.float32",
    ),
    "a foil too large": (lambda: {"foils": torch.tensor([0, 1, 2, 9])}, "foils in 0 … 2; got 9"),
    "too few classes": (lambda: {"classes": ("a", "b")}, "3 class names, one a logit; got 2"),
    "an unknown additivity": (lambda: {"additivity": "sure"}, "additivity to be one of .* got 'sure'"),
    "images of another number": (
        lambda: {"images": torch.zeros(3, 3, 8, 8)},
        r"4 images of \(N, D, H, W\); got \(3, 3, 8, 8\)",
    ),
    "images without a batch": (lambda: {"images": torch.zeros(3, 8, 8)}, r"4 images .* got \(3, 8, 8\)"),
    "maps of another number": (
        lambda: {"maps": drawn(4, 6, 4, 4)},
        r"maps of \(4, 5, h, w\); got \(4, 6, 4, 4\)",
    ),
    "maps below zero": (lambda: {"maps": changed((0, 0, 0, 0), -0.5, "maps")}, "never negative; got -0.5"),
    "maps that are not finite": (
        lambda: {"maps": changed((0, 0, 0, 1), NAN, "maps")},
        r"finite maps; got nan at \(0, 0, 0, 1\)",
    ),
    "maps of units without a place": (
        lambda: {"units": make_units(pooling="none")},
        "no maps of units with pooling 'none'",
    ),
    "boxes without groups": (lambda: {"boxes": drawn(4, 4)}, r"boxes of \(4, G, 4\); got \(4, 4\)"),
    "boxes that leave the image": (
        lambda: {"boxes": torch.tensor([[[0.0, 0, 17, 16]]]).expand(4, 1, 4)},
        "inside images of 16 x 16",
    ),
    "boxes inside out": (lambda: {"boxes": torch.tensor([[[8.0, 0, 4, 16]]]).expand(4, 1, 4)}, "x0 < x1"),
    "boxes of no width": (lambda: {"boxes": torch.tensor([[[4.0, 0, 4, 16]]]).expand(4, 1, 4)}, "x0 < x1"),
    "boxes of no height": (lambda: {"boxes": torch.tensor([[[0.0, 4, 16, 4]]]).expand(4, 1, 4)}, "y0 < y1"),
    "boxes that are points": (lambda: {"boxes": torch.zeros(4, 1, 4)}, "x0 < x1, y0 < y1"),
    "one box of no area among others": (
        lambda: {"boxes": torch.tensor([[[0.0, 0, 16, 16], [2, 3, 2, 3]]]).expand(4, 2, 4)},
        "x0 < x1, y0 < y1",
    ),
    "boxes that are not numbers": (lambda: {"boxes": torch.full((4, 1, 4), NAN)}, "boxes"),
    "a group without a box": (
        lambda: {
            "boxes": torch.tensor([[[0.0, 0, 16, 16]]]).expand(4, 1, 4),
            "units": make_units(group=torch.tensor([0, 0, 1, 0, 0])),
        },
        r"units.group in 0 … 0; got 1",
    ),
    "map units out of range": (
        lambda: {"maps": drawn(4, 1, 4, 4), "map_units": torch.full((4, 1), 5)},
        "map_units in 0 … 4",
    ),
    "images of no pixel": (lambda: {"images": drawn(4, 3, 0, 16)}, r"got \(4, 3, 0, 16\)"),
    "images in bytes": (
        lambda: {"images": torch.zeros(4, 3, 8, 8).byte()},
        "images as floats; got torch.uint8",
    ),
    "scores of whole numbers": (lambda: {"scores": torch.ones(4, 5).long()}, "scores as floats"),
    "maps of no cell": (lambda: {"maps": drawn(4, 5, 0, 4)}, r"maps of \(4, 5, h, w\)"),
    "maps of less precision": (
        lambda: {"maps": drawn(4, 5, 4, 4).float()},
        "maps of torch.float64, as scores and weights; got torch.float32",
    ),
    "map units of another shape": (
        lambda: {"map_units": torch.zeros(3, 5).long()},
        r"map_units of \(4, k\); got \(3, 5\)",
    ),
    "a remainder map of another number": (
        lambda: {"remainder_map": drawn(3, 4, 4)},
        r"remainder_map of \(4, h, w\); got \(3, 4, 4\)",
    ),
    "classes as one text": (lambda: {"classes": "abc"}, "a sequence of names; got 'abc'"),
    "classes that are none": (lambda: {"classes": None}, "a sequence of names; got None"),
    "ids as one text": (lambda: {"ids": "abcd"}, "a sequence of ids; got 'abcd'"),
    "diagnostics that are no tensors": (
        lambda: {"diagnostics": {"sure": [0.0] * 4}},
        "diagnostics 'sure' as a tensor; got list",
    ),
    "diagnostics that are not named": (
        lambda: {"diagnostics": [torch.zeros(4)]},
        "diagnostics as tensors by name; got list",
    ),
    "plausible scores of other classes": (
        lambda: {"units": make_units(score_range=torch.zeros(2, 4, 5))},
        r"units.score_range of \(2, 3, 5\), of each class; got \(2, 4, 5\)",
    ),
    "plausible scores of classes, of labels": (
        lambda: {"units": make_units(score_range=torch.zeros(2, 3, 5)), "decision": "sigmoid"},
        r"units.score_range of \(2, 6, 5\), without and with each label; got \(2, 3, 5\)",
    ),
}

TENSORS = (
    "logits", "targets", "base", "scores", "weights", "images", "maps", "boxes", "foils", "map_units",
    "remainder_map", "image_index",
)  # fmt: skip
OPTIONAL = ("maps", "boxes", "foils", "map_units", "remainder_map", "image_index")


PICTURE = UnitPicture(box=(0, 0, 8, 8), id=3)


@pytest.mark.parametrize("what", REFUSED)
def test_construction_refuses(what):
    fields, message = REFUSED[what]

    with pytest.raises(InputError, match=message):
        make_explanations(**fields())


@pytest.mark.parametrize(
    "value", [[0.0] * 4, "abcd", 3, None, np.zeros(4)], ids=lambda value: type(value).__name__
)
@pytest.mark.parametrize("name", TENSORS)
def test_what_is_no_tensor_is_refused_in_words(name, value):
    if value is None and name in OPTIONAL:
        return
    got = "None" if value is None else type(value).__name__

    with pytest.raises(InputError, match=f"Expected {name} as a tensor.*; got {got}."):
        make_explanations(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("part", [0, 0, 0, 1, 1]),
        ("channel", "abcde"),
        ("attention", None),
        ("features", np.zeros((4, 3, 4, 4))),
    ],
)
def test_factors_of_maps_that_are_no_tensors_are_refused_in_words(name, value):
    factors = {
        "attention": drawn(4, 2, 4, 4), "features": drawn(4, 3, 4, 4),
        "part": torch.tensor([0, 0, 0, 1, 1]), "channel": torch.tensor([0, 1, 2, 0, 1]),
    }  # fmt: skip
    make_explanations(maps=FactoredMaps(**factors), decomposition=None)

    with pytest.raises(InputError, match=f"Expected maps.{name} as a tensor; got "):
        make_explanations(maps=FactoredMaps(**factors | {name: value}), decomposition=None)


def test_plausible_scores_fit_the_decision():
    make_explanations(units=make_units(score_range=torch.zeros(2, 3, 5)))
    make_explanations(units=make_units(score_range=torch.zeros(2, 3, 5)), decision="identity")
    make_explanations(units=make_units(score_range=torch.zeros(2, 6, 5)), decision="sigmoid")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pooling": "median"}, "units.pooling to be one of .* got 'median'"),
        ({"group": torch.zeros(4).long()}, r"units.group of \(5,\); got \(4,\)"),
        ({"reference": torch.zeros(6)}, r"units.reference of \(5,\); got \(6,\)"),
        ({"reference": torch.tensor([0, 0, NAN, 0, 0])}, "finite units.reference; got nan"),
        ({"phrases": ("a",)}, "units.phrases for 5 units; got 1"),
        ({"pictures": ((),)}, "units.pictures for 5 units; got 1"),
        ({"kind": 3}, "units.kind and units.names as words"),
        ({"names": [3] * 5}, "units.kind and units.names as words"),
        ({"phrases": (3, None, None, None, None)}, "units.phrases as words"),
        ({"score_range": torch.zeros(2, 5)}, r"units.score_range of \(2, C, 5\); got \(2, 5\)"),
        ({"score_range": torch.zeros(2, 3, 4)}, r"units.score_range of \(2, C, 5\); got \(2, 3, 4\)"),
        ({"score_range": torch.full((2, 3, 5), NAN)}, "finite units.score_range; got nan"),
        ({"reference": torch.zeros(5).long()}, "units.reference as floats; got torch.int64"),
        ({"parent": torch.zeros(5).long()}, "units.parent and units.parents both"),
        ({"parents": ("head",)}, "units.parent and units.parents both"),
        ({"parent": torch.ones(5).long(), "parents": ("head",)}, "units.parent in 0 … 0; got 1"),
        ({"parent": torch.zeros(4).long(), "parents": ("head",)}, r"units.parent of \(5,\); got \(4,\)"),
        ({"class_affinity": torch.zeros(3, 5)}, r"units.class_affinity of \(5, C\); got \(3, 5\)"),
        ({"class_affinity": torch.full((5, 3), 1.5)}, "units.class_affinity in 0 … 1"),
        ({"reference": [0.0] * 5}, "units.reference as a tensor; got list"),
        ({"reference": np.zeros(5)}, "units.reference as a tensor; got ndarray"),
        ({"score_range": [[[0.0] * 5]] * 2}, "units.score_range as a tensor; got list"),
        ({"group": [0] * 5}, "units.group as a tensor; got list"),
        ({"parent": [0] * 5, "parents": ("head",)}, "units.parent as a tensor; got list"),
        ({"class_affinity": [[0.0] * 3] * 5}, "units.class_affinity as a tensor; got list"),
        ({"phrase_scores": [[0.0] * 5] * 2}, "units.phrase_scores as a tensor; got list"),
        ({"group": torch.zeros(5)}, "units.group of int64; got torch.float32"),
        ({"group": torch.tensor([0, 0, -1, 0, 0])}, "units.group .* got -1"),
        ({"score_range": torch.zeros(2, 0, 5)}, r"units.score_range of one class or more; got \(2, 0, 5\)"),
        (
            {"score_range": torch.tensor([0.5, 0.25])[:, None, None].expand(2, 3, 5)},
            "units.score_range from low to high; got 0.5 … 0.25 of 'filter 0'",
        ),
        ({"names": "abcde"}, "a sequence of names; got 'abcde'"),
        ({"names": None}, "a sequence of names; got None"),
        ({"phrases": "abcde"}, "units.phrases as a sequence; got 'abcde'"),
        ({"phrases": ("", "b", None, None, None)}, "units.phrases as words, or None .*; got ''"),
        ({"phrases": (None, " \n", None, None, None)}, "units.phrases as words, or None"),
        ({"parent": torch.zeros(5).long(), "parents": "abc"}, "units.parents as a sequence; got 'abc'"),
        ({"pictures": 3}, "units.pictures as a sequence; got 3"),
        ({"pictures": "abcde"}, "units.pictures as a sequence; got 'abcde'"),
        ({"pictures": (("x",), (), (), (), ())}, "units.pictures as a sequence of UnitPicture for each unit"),
        ({"pictures": (PICTURE,) * 5}, "units.pictures as a sequence of UnitPicture for each unit"),
        ({"phrasing": None}, "units.phrasing as a Phrasing; got None"),
        ({"phrasing": {"measure": "share"}}, "units.phrasing as a Phrasing; got {'measure'"),
    ],
)
def test_units_refuse(fields, message):
    with pytest.raises(InputError, match=message):
        make_units(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "3"}, "whole numbers"),
        ({"cell": (0, 1, 2)}, "whole numbers"),
        ({"box": (0.5, 0, 8, 8)}, "whole numbers"),
        ({"split": 3}, "by name; got 3"),
        ({"box": (4, 0, 4, 8)}, r"box inside its image; got \(4, 0, 4, 8\)"),
        ({"box": (-1, 0, 8, 8)}, "box inside its image"),
        ({"image": torch.zeros(3, 8, 7).byte()}, "box inside its image"),
        ({"image": torch.zeros(3, 8, 8)}, "in bytes; got torch.float32"),
        ({"image": torch.zeros(1, 8, 8).byte()}, r"\(3, H, W\) in bytes"),
        ({"kind": "drawn"}, "'training', 'decoded' or 'least'; got 'drawn'"),
        ({"id": None}, "id of a picture of the data"),
        ({"id": -3}, "numbers .* from 0 on; got -3"),
        ({"label": -1}, "numbers .* from 0 on; got -1"),
        ({"box": None}, "whole numbers"),
        ({"box": (0, 0, 8)}, "whole numbers"),
        ({"box": 3}, "whole numbers"),
        ({"cell": 3}, "whole numbers"),
        ({"cell": ()}, "whole numbers"),
        ({"image": torch.zeros(8).byte()}, r"\(3, H, W\) in bytes"),
        ({"image": "x"}, "picture's image as a tensor; got str"),
    ],
)
def test_a_picture_of_a_unit_refuses(fields, message):
    good = {"id": 3, "split": "train", "label": 1, "cell": (0, 1), "box": (0, 0, 8, 8)}

    with pytest.raises(InputError, match=message):
        UnitPicture(**good | fields)


@pytest.mark.parametrize("word", ["", "  ", "\n"])
@pytest.mark.parametrize("name", ["noun", "plural"])
def test_blank_words_of_a_phrasing_are_refused(name, word):
    with pytest.raises(InputError, match="Expected noun and plural as words"):
        Phrasing(**{name: word})


def test_diagnostics_of_another_number_of_images_are_refused():
    with pytest.raises(InputError, match="diagnostics 'confidence'"):
        make_explanations(diagnostics={"confidence": torch.zeros(3)})


def test_maps_of_tabular_data_are_refused():
    with pytest.raises(InputError, match="without maps"):
        make_explanations(images=drawn(4, 5, seed=7))


def test_a_box_whose_width_vanishes_in_the_precision_of_its_maps_is_refused():
    explanations = make_explanations()
    single = {
        name: getattr(explanations, name).float() for name in ("logits", "base", "scores", "weights", "maps")
    }
    box = torch.tensor([[[8.0, 0, 8 + 1e-9, 16]]], dtype=torch.float64).expand(4, 1, 4)

    with pytest.raises(InputError, match="x0 < x1, y0 < y1"):
        make_explanations(**single, boxes=box)
