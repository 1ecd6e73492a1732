"""Words around numbers: a sentence claims no more than the numbers carry."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainkit.explanations.sentences import (
    apart,
    called,
    capital,
    counted,
    listed,
    number,
    percent,
    signed,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
usual = st.floats(-1e6, 1e6)
shares = st.floats(0, 1)


def test_lists_read_as_they_are_said():
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(["a", "b", "c", "d"]) == "a, b, c and d"
    assert listed(("a", "b")) == "a and b"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "+0.0"), (-0.0, "+0.0"), (1.0, "+1.0"), (-2.34, "-2.3"), (0.949, "+0.95"), (0.95, "+0.9"),
        (0.1234, "+0.12"), (0.0123, "+0.012"), (-0.00012, "-1.2e-04"), (0.0012, "+0.0012"),
        (123.456, "+123.5"), (1e6, "+1000000.0"),
    ],
)  # fmt: skip
def test_signs_and_digits(value, text):
    assert signed(value) == text


@given(finite)
def test_a_signed_number_has_its_sign_and_is_near(value):
    text = signed(value)
    read = float(text)

    assert text[0] == ("-" if value < 0 else "+")
    assert read == pytest.approx(value, rel=0.055) and (read == 0) == (value == 0)
    assert text == "+0.0" or (read > 0) == (value > 0)


@given(usual)
def test_scientific_notation_is_for_the_tiny(value):
    if "e" in signed(value):
        assert 0 < abs(value) < 0.001
    else:
        assert value == 0 or abs(value) > 0.0009


@given(finite)
def test_a_number_is_signed_without_a_plus(value):
    assert number(value) == signed(value).lstrip("+") and float(number(value)) == float(signed(value))


@given(shares)
def test_per_cent_never_says_none_or_all_where_it_is_not(share):
    text = percent(share)

    assert (text == "0 %") == (share == 0) and (text == "100 %") == (share == 1)
    if re.fullmatch(r"\d+ %", text):
        assert abs(int(text.removesuffix(" %")) - 100 * share) <= 0.5 + 1e-9
    else:
        assert text in ("under 1 %", "over 99 %") and (share < 0.01 or share > 0.99)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.996, "over 99 %"), (0.995, "over 99 %"), (0.9949, "99 %"), (0.994, "99 %"), (0.005, "under 1 %"),
        (0.004, "under 1 %"), (0.006, "1 %"), (1, "100 %"), (0, "0 %"), (0.5, "50 %"),
        (math.nextafter(0.995, 0), "99 %"), (math.nextafter(1, 0), "over 99 %"), (5e-324, "under 1 %"),
    ],
)  # fmt: skip
def test_per_cent_at_its_ends(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (-0.0, "0 %"), (-1e-9, "over -1 %"), (-0.004, "over -1 %"), (-0.006, "-1 %"), (-0.014, "-1 %"),
        (-0.5, "-50 %"), (-0.994, "-99 %"), (-0.999, "under -99 %"), (-1.0, "-100 %"),
    ],
)  # fmt: skip
def test_negative_shares_are_neither_none_nor_all_where_they_are_not(share, text):
    assert percent(share) == text


@given(shares)
def test_negative_shares_are_rounded_as_positive_ones(share):
    swapped = {"under 1 %": "over -1 %", "over 99 %": "under -99 %", "0 %": "0 %"}

    assert percent(-share) == swapped.get(percent(share), f"-{percent(share)}")


@given(finite, finite)
def test_numbers_that_differ_have_texts_that_differ(one, other):
    texts = apart(one, other)

    assert (texts[0] == texts[1]) == (one == other)
    assert float(texts[0]) == pytest.approx(one, rel=0.055)
    if one < other:
        assert float(texts[0]) <= float(texts[1])


def test_no_more_digits_than_needed():
    assert apart(1.04, 2.0) == ("1.0", "2.0")
    assert apart(1.04, 1.0) == ("1.04", "1")
    assert apart(0.5, 0.5) == ("0.50", "0.50")


def test_counts_agree_with_their_nouns():
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(n, "class", "classes") for n in (1, 3)] == ["1 class", "3 classes"]


@pytest.mark.parametrize(
    ("name", "phrase", "text"),
    [
        ("filter 3", None, "filter 3"), ("filter 3", "red crown", "the red crown"),
        ("filter 3", "the crown", "the crown"), ("filter 3", "A crown", "A crown"),
        ("filter 3", "an eye", "an eye"), ("filter 3", "anvil", "the anvil"),
    ],
)  # fmt: skip
def test_a_phrase_has_one_article(name, phrase, text):
    assert called(name, phrase) == text


@given(st.text())
def test_capital_changes_the_first_letter_alone(text):
    assert capital(text)[len(text[:1].upper()) :] == text[1:] and capital(text).startswith(text[:1].upper())
