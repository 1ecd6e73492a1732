"""JSON text of values by somebody who knows what is read: refused in words, or it answers."""

import base64
import io
import json

import pytest
import torch
from hostile_files import FOREIGN, WRONG
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_explanation_files import make_explanations, put, questions

import explainkit as ek
from explainkit.errors import ExplainKitError, FormatError
from explainkit.explanations.json_pictures import HEAD


@pytest.fixture(scope="module")
def text():
    explanations = make_explanations().keep_maps(2)
    return explanations.to_json(images=True, maps=True)


def met(text, contained, answer):
    """Whether a text is read; then every question is answered, or refused in words."""
    try:
        with contained():
            explanations = ek.Explanations.from_json(text)
    except FormatError:
        return False
    for question in questions(explanations):
        answer(question)
    answer(lambda: explanations.to_json(images=True, maps=True))
    answer(lambda: explanations.to_arrow())
    answer(lambda: explanations.to_pandas(units=True))
    return True


def places(value, path=()):
    """The path to each object, list and number in a document, of lists the first two."""
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:2]
    for name, item in items:
        yield (*path, name)
        if isinstance(item, dict | list):
            yield from places(item, (*path, name))


DOCUMENT = json.loads(make_explanations().keep_maps(2).to_json(images=True, maps=True))
PLACES = {
    "/".join(map(str, path)): path for path in places(DOCUMENT) if path[0] != "derived" and len(path) < 5
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_text_that_is_none_is_refused(contained, foreign):
    with pytest.raises(ExplainKitError), contained():
        ek.Explanations.from_json(FOREIGN[foreign])


DAMAGED = (
    "", "{", "[]", "null", "1", "NaN", '{"schema": 1}', "[" * 100_000, '{"a":1,"a":1}', "9" * 100_000,
)  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED)
def test_json_of_something_else_is_refused(contained, text):
    with pytest.raises(FormatError), contained():
        ek.Explanations.from_json(text)


@pytest.mark.parametrize("value", [None, 3, b"\xff", ["{}"]])
def test_what_is_no_text_is_refused(contained, value):
    with pytest.raises(ExplainKitError), contained():
        ek.Explanations.from_json(value)


@pytest.mark.parametrize("path", PLACES)
def test_a_value_of_another_kind_is_refused_or_harmless(text, contained, answer, path):
    for value in WRONG.values():
        document = json.loads(text)
        put(document, PLACES[path], value)

        met(json.dumps(document), contained, answer)


@pytest.mark.parametrize("path", PLACES)
def test_a_value_left_out_is_refused_or_harmless(text, contained, answer, path):
    document = json.loads(text)
    *way, last = PLACES[path]
    place = document
    for step in way:
        place = place[step]
    del place[last]

    met(json.dumps(document), contained, answer)


TENSORS = ("logits", "targets", "base", "scores", "weights", "maps", "boxes", "map_units", "remainder_map")
LISTS = {
    "ragged": lambda rows: [*rows, [1]],
    "words": lambda rows: [["a"]] * len(rows),
    "numbers as words": lambda rows: [["1.0"]] * len(rows),
    "truths": lambda rows: [[True]] * len(rows),
    "null": lambda rows: [[None]] * len(rows),
    "objects": lambda rows: [[{}]] * len(rows),
    "one axis more": lambda rows: [rows],
    "thirty axes more": lambda rows: json.loads("[" * 25 + json.dumps(rows) + "]" * 25),
    "a number beyond all": lambda rows: [[10**400]] * len(rows),
    "a large number": lambda rows: [[10**30]] * len(rows),
    "a row too many": lambda rows: [*rows, rows[0]],
    "nothing": lambda rows: [],
    "halves": lambda rows: [[0.5]] * len(rows),
}


@pytest.mark.parametrize("name", TENSORS)
def test_lists_that_are_no_tensor_are_refused(text, contained, answer, name):
    for what, change in LISTS.items():
        document = json.loads(text)
        document[name] = change(document[name])

        assert not met(json.dumps(document), contained, answer), what


ABOUT = {
    "an unknown kind": {"dtype": "float31"},
    "a kind that is a list": {"dtype": ["float32"]},
    "logits of whole numbers": {"dtypes": {"logits": "int64", "targets": "int64"}},
    "targets of bytes": {"dtypes": {"targets": "uint8"}},
    "targets of floats": {"dtypes": {}},
    "kinds that are a list": {"dtypes": ["int64"]},
    "shapes that are a list": {"shapes": [1]},
}


@pytest.mark.parametrize("what", ABOUT)
def test_what_is_said_wrongly_of_tensors_is_refused(text, contained, answer, what):
    document = json.loads(text)
    document["tensors"] |= ABOUT[what]

    assert not met(json.dumps(document), contained, answer)


@pytest.mark.parametrize("shape", [[0, 10**12], [10**12, 0], [0] * 100, [1, 2], [-1, 0], ["a", 0], 0, None])
def test_what_has_no_number_cannot_be_said_to_be_vast(contained, answer, shape):
    document = json.loads(make_explanations()[:0].to_json())
    document["tensors"]["shapes"]["scores"] = shape

    assert not met(json.dumps(document), contained, answer)


def png(width, height, level=9):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, format="png", compress_level=level)
    return HEAD + base64.b64encode(buffer.getvalue()).decode()


def cut(uri):
    return uri[: len(uri) // 2 // 4 * 4]


PICTURES = {
    "a bomb": lambda: png(9000, 9000),
    "one smaller than its box": lambda: png(3, 3, 0),
    "half of it": lambda: cut(png(8, 8, 0)),
    "no base64": lambda: HEAD + "§§§",
    "no PNG": lambda: HEAD + base64.b64encode(b"GIF89a" + bytes(100)).decode(),
    "a link": lambda: "https://example.org/a.png",
    "a file": lambda: "file:///etc/passwd",
    "a number": lambda: 3,
    "a list": lambda: [],
}


@pytest.mark.parametrize("what", PICTURES)
def test_pictures_that_are_none_are_refused(text, contained, answer, what):
    document = json.loads(text)
    document["units"]["pictures"][0][0]["image"] = PICTURES[what]()

    with pytest.raises(FormatError), contained():
        ek.Explanations.from_json(json.dumps(document))


IMAGES = {
    "a bomb": {"shape": [2, 3, 9000, 9000], "dtype": "float64", "png": [png(9000, 9000)] * 2},
    "another size": {"shape": [2, 3, 8, 8], "dtype": "float64", "png": [png(9, 8, 0)] * 2},
    "one too few": {"shape": [2, 3, 8, 8], "dtype": "float64", "png": [png(8, 8, 0)]},
    "none at all": {"shape": [0, 3, 8, 8], "dtype": "float64", "png": []},
    "half an image": {"shape": [2, 3, 8, 8], "dtype": "float64", "base64": "AAAA"},
    "whole numbers": {"shape": [2, 3, 8, 8], "dtype": "int64"},
    "beyond all": {"shape": [2, 3, 10**12, 10**12], "dtype": "float64"},
    "a wide ocean": {"shape": [2, 3, 2**20, 2**20], "dtype": "float64"},
    "two axes less": {"shape": [2], "dtype": "float64"},
    "no number": {"shape": ["a"], "dtype": "float64"},
    "a shape that is none": {"shape": 3, "dtype": "float64"},
    "no shape": {"dtype": "float64"},
    "a list": [],
}


@pytest.mark.parametrize("what", IMAGES)
def test_images_that_are_none_are_refused_before_they_take_memory(text, contained, what):
    document = json.loads(text)
    document["images"] = IMAGES[what]

    with pytest.raises(FormatError), contained():
        ek.Explanations.from_json(json.dumps(document))


def test_absent_images_of_a_file_cannot_be_said_to_be_vast(tmp_path, contained):
    from explainkit.explanations.serialization import content_digest, pack, unpack

    file = make_explanations().save(tmp_path / "explanations.safetensors", images=False, maps=0)
    tensors, facts = unpack(file.read_bytes(), file)
    vast, none = ([3, 2**20, 2**20], [3, 10**12, 10**12]), ([3, 0, 8], [3], [3, -8, 8], ["a", 8, 8], [8] * 4)
    for shape in (*vast, *none):
        facts = {name: value for name, value in facts.items() if name != "digest"} | {"image_shape": shape}
        file.write_bytes(pack(tensors, facts | {"digest": content_digest(facts, tensors)}))

        with pytest.raises(FormatError), contained():
            ek.Explanations.load(file)


@settings(settings.get_profile("hostile"), max_examples=150)
@given(dataset=st.data())
def test_whatever_changes_the_text_is_refused_or_answers(text, contained, answer, dataset):
    spoiled = text
    for _ in range(dataset.draw(st.integers(1, 4))):
        place = dataset.draw(st.integers(0, len(spoiled) - 1))
        spoiled = (
            spoiled[:place] + dataset.draw(st.text('0123456789.-eE"[]{},:nulatrfs', max_size=4))
            + spoiled[place + dataset.draw(st.integers(0, 3)) :]
        )  # fmt: skip

    met(spoiled, contained, answer)


def test_absent_images_are_nan_that_no_network_takes(text):
    explanations = ek.Explanations.from_json(make_explanations().to_json())

    assert explanations.images.isnan().all() and explanations.images.shape == (2, 3, 8, 8)
    assert torch.equal(explanations.scores, make_explanations().scores)
