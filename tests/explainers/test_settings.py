"""Settings are checked by what their annotations say, before anything is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pytest

import explainkit as ek
from explainkit.explainers.settings import describe_kind, is_of_kind
from explainkit.testing import tiny_dataset, tiny_images


@pytest.mark.parametrize(
    ("value", "kind", "is_right"),
    [
        (1, int, True), (True, int, False), (1.0, int, False), (2, float, True), (float("nan"), float, False),
        ("1", float, False), ("a", str, True), (None, str | None, True), (3, str | None, False),
        ("0.1", float | None, False), ("mi", Literal["mi", "target"], True), (["mi"], Literal["mi"], False),
        (True, Literal[1], False), ({}, Mapping[str, int], True), (3, Mapping[str, int], False),
        (("a",), Sequence[str], True), ("blocks", Sequence[str], False),
        (["a", 3], Sequence[str], False), (object(), Path, True),
    ],
)  # fmt: skip
def test_a_value_is_of_the_kind_that_the_annotation_says(value, kind, is_right):
    assert is_of_kind(value, kind) == is_right


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (float | None, "float or None"),
        (Literal["a", "b"], "one of 'a', 'b'"),
        (Sequence[str], "a sequence of str"),
    ],
)
def test_kinds_are_described_in_words(kind, words):
    assert describe_kind(kind) == words


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cam", {"until": 3}, "until of CAM as str or None; got 3"),
        ("cam", {"lr_scheduler": "cosine"}, "lr_scheduler of CAM as one of 'one-cycle', 'steps'"),
        ("cam", {"filters": "3"}, "filters of CAM as int or None; got '3'"),
        ("csg-cnn", {"gated_layers": "blocks"}, "gated_layers of CSG-CNN as a sequence of str; got 'blocks'"),
        ("csg-cnn", {"gate_density": "0.2"}, "gate_density of CSG-CNN as float or None"),
    ],
)
def test_a_setting_of_another_kind_is_refused_by_its_name(name, settings, message):
    with pytest.raises(ek.InputError, match=f"Expected {message}"):
        ek.explainer(name, **settings)


def test_a_path_becomes_text_where_text_is_expected():
    assert ek.explainer("cam", weights=Path("somewhere")).weights == "somewhere"


def test_contrasts_and_interventions_have_no_diagnostics_of_before():
    model = ek.explainer("ra-cnn", preset="tiny").fit(tiny_dataset(), device="cpu", progress=False)
    explanations = model.explain(tiny_images())
    assert explanations.diagnostics
    assert not explanations.contrast(0).diagnostics
    assert not explanations.intervene({0: "off"}).diagnostics


@pytest.mark.parametrize(
    ("interval", "value", "words"),
    [
        ("[0, inf)", 0, None), ("[0, inf)", -1, "as 0 or more; got -1"),
        ("[0, inf)", float("inf"), "as 0 or more; got inf"), ("(0, inf)", 0.0, "above 0; got 0.0"),
        ("(0, inf)", 1e-9, None), ("[0, 1)", 1.0, r"in \[0, 1\); got 1.0"),
        ("[0, 1)", 0.0, None), ("(0, 1]", 0.0, r"in \(0, 1\]; got 0.0"), ("(0, 1]", 1.0, None),
    ],
)  # fmt: skip
def test_a_setting_outside_of_its_interval_is_refused_by_its_ends(interval, value, words):
    model = ek.explainer("cam")
    model.dropout = value

    if words is None:
        ek.check_ranges(model, {interval: ("dropout", "weights")})  # None is in each
        return
    with pytest.raises(ek.InputError, match=f"Expected dropout of CAM {words}"):
        ek.check_ranges(model, {interval: ("weights", "dropout")})
