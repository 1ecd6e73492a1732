"""Values as JSON: what is read is what was written, bit for bit; what is derived is worked out anew."""

import json

import pytest
import torch
from attrs import evolve, fields, frozen
from cam_cases import make_cam, make_images
from explanation_cases import REFERENCE, drawn, make_explanations, make_units

import explainkit as ek
from explainkit.errors import ExplainKitError, FormatError, InputError
from explainkit.explanations.batch import Explanations
from explainkit.explanations.json_pictures import picture_from_json, picture_to_json
from explainkit.explanations.json_values import JsonValue
from explainkit.testing import fitted_example, tiny_images

OTHERS = {
    "one weight of each class": {},
    "weights by image": {"callable_weights": True},
    "a reference": {"reference": REFERENCE},
    "boxes and groups": {
        "boxes": torch.tensor([[0.0, 0, 16, 16], [2, 2, 9, 9]], dtype=torch.float64).expand(4, 2, 4),
        "units": make_units(group=torch.tensor([0, 0, 1, 1, 1])),
    },
    "foils": {"foils": torch.tensor([1, 2, 0, 1]), "decomposition": None},
    "ids and several labels": {
        "ids": ("a", 3, "b", 4), "image_index": torch.tensor([0, 0, 1, 1]), "decision": "sigmoid",
    },
    "no sum": {"additivity": "none", "base": torch.zeros(4, dtype=torch.float64), "decomposition": None},
    "diagnostics": {"diagnostics": {"a.b": torch.tensor([0.5, float("nan"), 1e-44, 3e38])}},
    "rows": {"images": drawn(4, 7), "maps": None},
    "parents and classes of units": {
        "units": make_units(
            parent=torch.tensor([0, 1, 0, 1, 1]), parents=("head", "body"), class_affinity=drawn(5, 3),
            score_range=drawn(2, 3, 5).sort(0).values, phrases=("red", None, None, "blue", None),
            phrase_scores=drawn(2, 5),
        )
    },
}  # fmt: skip


def assert_equal(one, other, path="value"):
    """Equal to the bit, field by field; functions of weights are asked."""
    assert isinstance(other, type(one)), path
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.shape == other.shape, path
        assert torch.equal(one.nan_to_num(-7), other.nan_to_num(-7)), path
    elif hasattr(one, "__attrs_attrs__"):
        for field in fields(type(one)):
            if field.name not in ("decomposition", "digest"):
                assert_equal(getattr(one, field.name), getattr(other, field.name), f"{path}.{field.name}")
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for name in one:
            assert_equal(one[name], other[name], f"{path}.{name}")
    elif isinstance(one, tuple | list):
        assert len(one) == len(other), path
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{path}[{index}]")
    else:
        assert one == other, path


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("what", OTHERS)
def test_explanations_with_images_and_maps_come_back_to_the_bit(what, dtype):
    explanations = make_explanations(**OTHERS[what])
    if dtype == torch.float32 and not explanations.diagnostics and explanations.boxes is None:
        columns = {
            name: value.float()
            for name in ("logits", "base", "scores", "weights", "maps", "images")
            if (value := getattr(explanations, name)) is not None
        }
        explanations = evolve(explanations, **columns, decomposition=None)

    again = ek.Explanations.from_json(explanations.to_json(images=True, maps=True))

    assert_equal(again, explanations)
    assert_equal(again.contributions, explanations.contributions)
    assert [item.sentence() for item in again] == [item.sentence() for item in explanations]
    if not explanations.is_tabular:
        assert torch.equal(again.saliency(), explanations.saliency())


@pytest.mark.parametrize("callable_weights", [False, True])
def test_a_contrast_of_what_was_read_is_that_of_what_was_written(callable_weights):
    explanations = make_explanations(callable_weights=callable_weights)

    again = ek.Explanations.from_json(explanations.to_json())

    assert torch.equal(again.contrast(0).contributions, explanations.contrast(0).contributions)
    assert torch.equal(again.contrast(0).base, explanations.contrast(0).base)


def test_explanations_of_images_have_neither_images_nor_maps_in_json_unless_asked():
    explanations = make_cam().explain(make_images())

    text = explanations.to_json()
    again = ek.Explanations.from_json(text)

    assert not again.has_images and again.images.shape == explanations.images.shape and again.maps is None
    assert torch.equal(again.contributions, explanations.contributions)
    assert (
        len(text) < len(explanations.to_json(maps=True)) < len(explanations.to_json(maps=True, images=True))
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("whole", [True, False])
def test_images_come_back_to_the_bit(channels, whole):
    images = drawn(4, channels, 16, 16).float()
    images = (images * 255).round() / 255 if whole else images
    explanations = make_explanations(images=images)

    text = explanations.to_json(images=True)

    assert torch.equal(ek.Explanations.from_json(text).images, images)
    assert ("data:image/png" in text) == (whole and channels < 5)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 300)])
def test_a_flat_picture_comes_back_too(size):
    for picture in (torch.zeros(3, *size).byte(), torch.full((3, *size), 255).byte()):
        assert torch.equal(picture_from_json(picture_to_json(picture)), picture)


def test_pictures_of_units_are_in_json_where_images_are():
    image = (drawn(3, 8, 8) * 255).byte()
    pictures = ((ek.UnitPicture(box=(0, 1, 4, 8), cell=(1, 2), id=7, label=1, image=image),), (), (), (), ())
    explanations = make_explanations(units=make_units(pictures=pictures))

    bare = ek.Explanations.from_json(explanations.to_json()).units.pictures[0][0]
    whole = ek.Explanations.from_json(explanations.to_json(images=True)).units.pictures[0][0]

    assert bare.image is None and (bare.id, bare.box, bare.cell) == (7, (0, 1, 4, 8), (1, 2))
    assert torch.equal(whole.image, image)


def test_what_json_says_is_what_the_values_say():
    explanations = make_explanations(reference=REFERENCE)

    document = json.loads(explanations.to_json())

    for n, sums in enumerate(document["derived"]["contributions"]):
        for k, contribution in enumerate(sums):
            over = document["scores"][n][k] - document["units"]["reference"][k]
            assert contribution == document["weights"][n][k] * over
        total = document["base"][n] + sum(sums) + document["derived"]["residual"][n]
        assert total == pytest.approx(document["logits"][n][document["targets"][n]])
    assert document["derived"]["sentences"] == [item.sentence() for item in explanations]


def test_what_is_derived_is_not_believed():
    explanations = make_explanations()
    document = json.loads(explanations.to_json())
    document["derived"] = {"contributions": [[9]], "sentences": ["It is a cat."], "residual": 3}

    again = ek.Explanations.from_json(json.dumps(document))

    assert torch.equal(again.contributions, explanations.contributions)
    assert again[0].sentence() == explanations[0].sentence()


def test_the_strongest_units_and_the_others_make_the_explained_output():
    explanations = make_explanations(ids=(5, 6, 7, 8))

    document = json.loads(explanations.to_json(top=2))

    for row, item in zip(document["explanations"], explanations, strict=True):
        assert [unit["unit"] for unit in row["evidence"]] == [unit.unit for unit in item.top(2)]
        total = row["base"] + sum(unit["contribution"] for unit in row["evidence"]) + row["others"]
        assert total + row["residual"] == pytest.approx(row["explained_output"])
        assert row["sentence"] == item.sentence() and row["id"] == 5 + item.index
    with pytest.raises(FormatError, match=r"explainkit\.evidence"):
        ek.Explanations.from_json(explanations.to_json(top=2))
    with pytest.raises(InputError, match="top="):
        explanations.to_json(top=2, maps=True)


def test_one_explanation_is_written_as_a_batch_of_one():
    explanations = make_explanations()

    again = ek.Explanations.from_json(explanations[2].to_json())

    assert len(again) == 1 and again[0].sentence() == explanations[2].sentence()


def test_another_version_and_another_kind_are_refused():
    text = make_explanations().to_json()

    newer = text.replace("explainkit.explanations/2.0", "explainkit.explanations/3.0")
    minor = text.replace("explainkit.explanations/2.0", "explainkit.explanations/2.9")
    with pytest.raises(FormatError, match=r"reads 2\.x"):
        ek.Explanations.from_json(newer)
    with pytest.raises(FormatError, match=r"Expected explainkit\.units"):
        ek.Units.from_json(text)
    assert len(ek.Explanations.from_json(minor)) == 4


def test_a_minor_version_may_add():
    document = json.loads(make_explanations().to_json())
    for place in (document, document["units"], document["provenance"], document["units"]["phrasing"]):
        place["new"] = {"a": 1}

    assert len(ek.Explanations.from_json(json.dumps(document))) == 4


def test_what_json_cannot_hold_is_refused_in_words():
    with pytest.raises(InputError, match="infinity"):
        make_explanations(diagnostics={"drift": torch.full((4,), float("inf"))}).to_json()


VALUES = {
    "units": lambda: make_units(reference=drawn(5), phrases=("a", None, None, None, None)),
    "picture": lambda: ek.UnitPicture(kind="decoded", box=(0, 0, 2, 2), image=torch.ones(3, 4, 4).byte()),
    "phrasing": lambda: ek.Phrasing(measure="share", coverage=0.9, noun="part"),
    "provenance": lambda: make_cam().explain(make_images()).provenance,
    "decision": lambda: ek.Decision(rule="sigmoid", negative="healthy"),
}


@pytest.mark.parametrize("name", VALUES)
def test_each_value_comes_back_from_json(name):
    value = VALUES[name]()

    again = type(value).from_json(value.to_json())

    assert_equal(again, value)
    assert again.to_json() == value.to_json()


@pytest.mark.parametrize("name", VALUES)
def test_what_is_no_such_value_is_refused(name):
    value = VALUES[name]()

    for text in ("", "[]", "{}", json.dumps({"schema": json.loads(value.to_json())["schema"], "kind": 3})):
        if name in ("phrasing", "decision") and "schema" in text:
            continue  # which have a default for each field
        with pytest.raises(FormatError):
            type(value).from_json(text)


@pytest.mark.parametrize("callable_weights", [False, True])
def test_a_decomposition_comes_back_from_json(callable_weights):
    decomposition = make_explanations(callable_weights=callable_weights).decomposition
    targets = torch.tensor([2, 1, 0, 1])

    again = ek.Decomposition.from_json(decomposition.to_json())

    for name in ("logits", "bias", "scores", "maps"):
        assert torch.equal(getattr(again, name), getattr(decomposition, name)), name
    assert torch.equal(again.weights_for(targets), decomposition.weights_for(targets))


@pytest.mark.parametrize("name", ["logits", "bias", "scores", "weights", "maps"])
def test_a_decomposition_whose_tensors_disagree_is_refused(name):
    document = json.loads(make_explanations().decomposition.to_json())

    for value in ([], [1.0], document[name][:1], [document[name]], None if name != "maps" else 3):
        with pytest.raises(FormatError):
            ek.Decomposition.from_json(json.dumps(document | {name: value}))


def test_an_explainer_of_each_kind_of_pooling_and_box_comes_back():
    explanations = fitted_example("ra-cnn").explain(tiny_images())

    again = ek.Explanations.from_json(explanations.to_json(maps=True))

    assert torch.equal(again.contributions, explanations.contributions)
    torch.testing.assert_close(again.saliency(), explanations.saliency())


def test_errors_are_of_our_tree():
    with pytest.raises(ExplainKitError):
        ek.Explanations.from_json(7)


@frozen(eq=False, kw_only=True)
class Pair(JsonValue):
    """A value in which explanations are, and tensors of its own."""

    explanations: Explanations
    chosen: dict[str, torch.Tensor]
    notes: tuple[str | None, ...] = ()


def test_a_value_in_which_explanations_are_comes_back_too():
    explanations = make_explanations(callable_weights=True)
    pair = Pair(explanations=explanations, chosen={"rows": torch.tensor([1, 3])}, notes=("a", None))

    again = Pair.from_json(pair.to_json())

    assert_equal(again, pair)
    assert torch.equal(again.explanations.contrast(0).contributions, explanations.contrast(0).contributions)
