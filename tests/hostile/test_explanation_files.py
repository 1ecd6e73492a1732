"""Files of explanations by somebody who can work out a SHA-256."""

import pytest
import torch
from hostile_files import CHANGED, PLACES, SPOILED, WRONG
from hypothesis import given, settings
from hypothesis import strategies as st

import explainkit as ek
from explainkit.errors import ExplainKitError, FormatError
from explainkit.explanations.serialization import content_digest, pack, unpack
from explainkit.explanations.units import UnitPicture


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make_explanations():
    """Two explanations with all that a file can hold."""
    logits, bias, table = drawn(2, 3), drawn(3, seed=1), drawn(3, 4, seed=2)
    picture = UnitPicture(
        id=1, split="train", label=0, cell=(1, 2), box=(0, 0, 4, 8), image=torch.zeros(3, 8, 8).byte()
    )
    units = ek.Units(
        kind="part", names=list("abcd"), pooling="mean", group=torch.tensor([0, 0, 1, 1]),
        reference=drawn(4, seed=3), score_range=drawn(2, 3, 4).sort(0).values,
        parent=torch.tensor([0, 0, 1, 1]),
        parents=("head", "body"), class_affinity=drawn(4, 3, seed=5), phrases=("red crest", None, None, None),
        pictures=((picture,), (), (), ()),
    )  # fmt: skip
    return ek.Explanations(
        logits=logits, targets=torch.tensor([0, 2]), base=drawn(2), scores=drawn(2, 4, seed=4),
        weights=table[[0, 2]], units=units, classes=("cardinal", "jay", "wren"), images=drawn(2, 3, 8, 8),
        additivity="approximate", maps=drawn(2, 4, 2, 2),
        boxes=torch.tensor([[0.0, 0, 8, 8], [2, 2, 6, 7]]).expand(2, 2, 4),
        provenance=ek.Provenance(explainer="made", created="2026-01-01", versions={"torch": "2"}),
        decomposition=ek.Decomposition(
            logits=logits, bias=bias, scores=drawn(2, 4, seed=4), weights=table,
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return (
        make_explanations()
        .save(tmp_path_factory.mktemp("files") / "explanations.safetensors", maps=2)
        .read_bytes()
    )


@pytest.fixture
def file(tmp_path):
    return tmp_path / "explanations.safetensors"


def signed(facts, tensors):
    """A file with the digest that belongs to it."""
    facts = {name: value for name, value in facts.items() if name != "digest"}
    return pack(tensors, facts | {"digest": content_digest(facts, tensors)})


def questions(explained, shown=False):
    """All that can be asked of explanations; to be `shown` takes longest."""
    yield lambda: explained.check_additivity()
    yield lambda: explained.saliency()
    yield lambda: explained.saliency((5, 3))
    yield lambda: explained.nonspatial
    yield lambda: explained.top(2)
    yield lambda: explained.contrast(0).saliency()
    yield lambda: explained.to("cpu")
    yield lambda: [item.sentence() for item in explained[:2]]
    yield lambda: [item.evidence for item in explained[:2]]
    if shown:
        yield lambda: [item._repr_html_() for item in explained[:1]]
    yield lambda: explained.save("again.safetensors")


# the container


@pytest.mark.parametrize("how", SPOILED)
def test_a_file_that_is_none_is_refused(content, file, contained, how):
    file.write_bytes(SPOILED[how](content))

    with pytest.raises(FormatError, match=r"explanations\.safetensors"), contained():
        ek.Explanations.load(file)


@pytest.mark.parametrize("how", CHANGED)
def test_a_changed_bit_is_found_by_the_digest(content, file, contained, how):
    file.write_bytes(CHANGED[how](content))

    with pytest.raises(FormatError), contained():
        ek.Explanations.load(file)


@pytest.mark.parametrize("what", PLACES)
def test_what_is_no_ordinary_file_is_refused_without_waiting(file, contained, what):
    PLACES[what](file)

    with pytest.raises(ExplainKitError, match=r"explanations\.safetensors") as error, contained():
        ek.Explanations.load(file)

    assert "root:" not in str(error.value)


@pytest.mark.parametrize("path", ["a\0b", "a" * 300, "", "\udcff", "../" * 250 + "explanations.safetensors"])
def test_a_path_that_cannot_be_is_refused(contained, path):
    with pytest.raises(ExplainKitError), contained():
        ek.Explanations.load(path)


# what it says

FIELDS = {
    "/".join(map(str, path)): path
    for path in (
        ("schema",), ("classes",), ("classes", 1), ("additivity",), ("units",), ("provenance",),
        *(("units", name) for name in ("kind", "names", "pooling", "phrases", "pictures")),
        ("units", "names", 2), ("units", "phrases", 1), ("units", "pictures", 0),
        *(("units", "pictures", 0, 0, name) for name in ("kind", "id", "split", "label", "cell", "box")),
        ("units", "parents"), ("units", "phrasing"),
        *(("units", "phrasing", name) for name in ("measure", "reasons", "coverage", "noun")),
        *(("provenance", name) for name in ("explainer", "created", "versions", "settings", "seed")),
        *(("provenance", name) for name in ("device", "dtype", "threads", "digest")),
    )
}  # fmt: skip

SAID = {
    "no classes": lambda facts: facts.update(classes=[]),
    "a class too many": lambda facts: facts["classes"].append("tit"),
    "a class for each letter": lambda facts: facts.update(classes="jay"),
    "classes alike": lambda facts: facts.update(classes=["jay"] * 3),
    "ten million classes": lambda facts: facts.update(classes=["a"] * 10**7),
    "a million units": lambda facts: facts["units"].update(names=["a"] * 10**6),
    "a unit for each letter": lambda facts: facts["units"].update(names="abcd"),
    "names that are null": lambda facts: facts["units"].update(names=[None] * 4),
    "units without a place": lambda facts: facts["units"].update(pooling="none"),
    "a phrase for each letter": lambda facts: facts["units"].update(phrases="abcd"),
    "phrases that are lists": lambda facts: facts["units"].update(phrases=[["a"]] * 4),
    "a picture too many": lambda facts: facts["units"]["pictures"][0].append(dict(id=1)),
    "boxes outside": lambda facts: facts["units"]["pictures"][0][0].update(box=[0, 0, 9, 9]),
    "boxes inside out": lambda facts: facts["units"]["pictures"][0][0].update(box=[4, 4, 0, 0]),
    "boxes of three": lambda facts: facts["units"]["pictures"][0][0].update(box=[0, 0, 1]),
    "boxes below zero": lambda facts: facts["units"]["pictures"][0][0].update(box=[-5, -5, 2, 2]),
    "cells of words": lambda facts: facts["units"]["pictures"][0][0].update(cell=["a", "b"]),
    "a module to be imported": lambda facts: facts.update({"py/object": "os.system", "module": "os"}),
    "a claim too many": lambda facts: facts.update(additivity="proven"),
    "another's digest": lambda facts: facts.update(digest="0" * 64),
}
HARMLESS = {"classes alike", "a module to be imported", "another's digest"}


def put(facts, path, value):
    *way, last = path
    for step in way:
        facts = facts[step]
    facts[last] = value


def met(file, contained, answer, shown=False):
    """Whether a file is read; then every question is answered, or refused in words."""
    try:
        with contained():
            explained = ek.Explanations.load(file)
    except FormatError as error:
        assert str(file) in str(error)
        return False
    for question in questions(explained, shown):
        answer(question)
    return True


@pytest.mark.parametrize("path", FIELDS)
def test_a_fact_of_another_kind_is_refused_or_harmless(content, file, contained, answer, path):
    for value in WRONG.values():
        tensors, facts = unpack(content, file)
        put(facts, FIELDS[path], value)
        file.write_bytes(signed(facts, tensors))

        met(file, contained, answer)


@pytest.mark.parametrize("path", FIELDS)
def test_a_fact_left_out_is_refused(content, file, contained, path):
    tensors, facts = unpack(content, file)
    *way, last = FIELDS[path]
    place = facts
    for step in way:
        place = place[step]
    del place[last]
    file.write_bytes(signed(facts, tensors))

    with pytest.raises(FormatError), contained():
        ek.Explanations.load(file)


@pytest.mark.parametrize("what", SAID)
def test_what_is_said_against_the_rules_is_refused(content, file, contained, answer, what):
    tensors, facts = unpack(content, file)
    SAID[what](facts)
    file.write_bytes(signed(facts, tensors))

    assert met(file, contained, answer) == (what in HARMLESS)


def test_a_minor_version_may_add_and_no_more(content, file):
    tensors, facts = unpack(content, file)
    units = facts["units"]
    for place in (facts, facts["provenance"], units, units["phrasing"], units["pictures"][0][0]):
        place["new"] = 1
    file.write_bytes(signed(facts, tensors))

    assert ek.Explanations.load(file).provenance.explainer == "made"


# what it holds

TENSORS = (
    "logits", "targets", "base", "scores", "weights", "images", "maps", "maps.peak", "boxes", "map_units",
    "remainder_map", "foils", "units.group", "units.reference", "units.score_range", "units.picture.0.0",
    "units.parent", "units.class_affinity",
    "decomposition.weights", "decomposition.bias",
)  # fmt: skip
VALUES = {
    "left out": lambda _: None,
    "a number": lambda value: value.flatten()[:1].squeeze(),
    "nothing": lambda value: value[:0],
    "no columns": lambda value: value[..., :0],
    "one row": lambda value: value[:1],
    "a row too many": lambda value: torch.cat([value, value[:1]]),
    "an axis too many": lambda value: value[None],
    "flat": lambda value: value.flatten(),
    "turned": lambda value: value.transpose(0, -1),
    "NaN": lambda value: torch.full(value.shape, float("nan")),
    "infinity": lambda value: torch.full(value.shape, float("inf")),
    "huge": lambda value: torch.full(value.shape, 3e38),
    "tiny": lambda value: torch.full(value.shape, 1e-44),
    "below zero": lambda value: -value.float() - 1,
    "zero": lambda value: torch.zeros_like(value),
    "whole numbers": lambda value: value.long(),
    "the largest number": lambda value: torch.full(value.shape, 2**63 - 1),
    "the smallest number": lambda value: torch.full(value.shape, -(2**63)),
    "truths": lambda value: value.bool(),
    "bytes": lambda value: value.byte(),
    "pairs": lambda value: value.to(torch.complex64),
    "eight bits": lambda value: value.float().to(torch.float8_e4m3fn),
    "half": lambda value: value.half(),
    "double": lambda value: value.double(),
}


@pytest.mark.parametrize("name", TENSORS)
def test_other_values_are_refused_or_harmless(content, file, contained, answer, name):
    for what, change in VALUES.items():
        tensors, facts = unpack(content, file)
        value = change(tensors.get(name, torch.tensor([0, 1])))
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
        file.write_bytes(signed(facts, tensors))

        met(file, contained, answer, shown=what in ("huge", "tiny", "zero", "bytes"))


def long_images(tensors):
    tensors["images"] = torch.zeros(2, 3, 1, 100_000).byte()
    tensors["maps"] = torch.zeros(2, 2, 1, 99_999).half()
    tensors.pop("remainder_map"), tensors.pop("boxes")


def many_boxes(tensors):
    tensors["boxes"] = torch.tensor([0.0, 0, 8, 8]).expand(2, 500_000, 4)
    tensors["images"] = torch.zeros(2, 3, 64, 64).byte()


def one_map_for_many(tensors):
    tensors["maps"] = torch.ones(2, 1, 300, 300).half()
    tensors["maps.peak"] = torch.ones(2, 100_000)


LAVISH = {
    "maps almost as fine as long images": long_images,
    "half a million boxes": many_boxes,
    "one map for many units": one_map_for_many,
    "images of nothing and all": lambda tensors: tensors.update(images=torch.zeros(0, 3, 10**6, 10**6)),
    "maps of nothing and all": lambda tensors: tensors.update(maps=torch.zeros(2, 0, 10**6, 10**6).half()),
}


@pytest.mark.parametrize("what", LAVISH)
def test_what_would_take_far_more_memory_than_the_file_is_refused(content, file, contained, what):
    tensors, facts = unpack(content, file)
    LAVISH[what](tensors)
    file.write_bytes(signed(facts, tensors))

    with pytest.raises(FormatError), contained():
        ek.Explanations.load(file)


@settings(settings.get_profile("hostile"), max_examples=150)
@given(dataset=st.data())
def test_whatever_changes_it_is_refused_or_answers(content, tmp_path_factory, contained, answer, dataset):
    file = tmp_path_factory.getbasetemp() / "explanations.safetensors"
    spoiled = bytearray(content)
    for _ in range(dataset.draw(st.integers(1, 4))):
        place = dataset.draw(st.integers(0, len(spoiled) - 1))
        spoiled[place : place + dataset.draw(st.integers(0, 3))] = dataset.draw(st.binary(max_size=4))
    try:
        tensors, facts = unpack(bytes(spoiled), file)
        file.write_bytes(signed(facts, tensors))
    except (ExplainKitError, AttributeError, KeyError, TypeError, ValueError):
        file.write_bytes(spoiled)

    met(file, contained, answer)


@settings(settings.get_profile("hostile"), max_examples=100)
@given(
    path=st.sampled_from(list(FIELDS.values())),
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    ),
)
def test_whatever_it_says_is_refused_or_answers(content, tmp_path_factory, contained, answer, path, value):
    file = tmp_path_factory.getbasetemp() / "explanations.safetensors"
    tensors, facts = unpack(content, file)
    put(facts, path, value)
    try:
        file.write_bytes(signed(facts, tensors))
    except UnicodeEncodeError:  # half a character cannot be written
        return

    met(file, contained, answer)
