"""From what size on a sentence says what: each documented threshold, at it, just below and just above.

The thresholds are written out as they are documented, so that a constant which is changed fails here.
"""

import pytest
from sentence_cases import class_sentence, image_sentence

STEP = 1e-9
BELOW, AT, ABOVE = "below", "at", "above"
STEPS = {BELOW: -STEP, AT: 0.0, ABOVE: STEP}
SENTENCES = pytest.mark.parametrize("sentence", [image_sentence, class_sentence])


@SENTENCES
@pytest.mark.parametrize(("position", "is_named"), [(BELOW, False), (AT, True), (ABOVE, True)])
def test_a_further_reason_is_named_from_five_per_cent_of_all_evidence_on(sentence, position, is_named):
    step = STEPS[position]

    text = sentence([10.0, 9.0 - step, 1.0 + step])  # of 20

    assert ("the gray tail" in text) is is_named
    assert "the red crest" in text and "the short beak" in text


@SENTENCES
def test_the_first_reason_is_named_however_small_its_share(sentence):
    text = sentence([1.0 + k / 1000 for k in range(30)])  # each under five per cent

    assert "prototype 29 (+1.0)" in text


@SENTENCES
@pytest.mark.parametrize(("position", "is_mostly"), [(BELOW, False), (AT, False), (ABOVE, True)])
def test_mostly_is_for_more_than_half_of_all_evidence(sentence, position, is_mostly):
    step = STEPS[position]

    text = sentence([5.0 + step, 3.0 - step, 2.0])  # of 10

    assert ("mostly" in text) is is_mostly


@SENTENCES
def test_the_only_reason_is_never_mostly(sentence):
    assert "mostly" not in sentence([5.0])


@SENTENCES
@pytest.mark.parametrize(("position", "is_named"), [(BELOW, False), (AT, True), (ABOVE, True)])
def test_evidence_against_is_named_from_five_per_cent_of_the_evidence_on(sentence, position, is_named):
    text = sentence([12.0, 8.0, -(1.0 + STEPS[position])])  # of 20

    assert ("the gray tail" in text) is is_named


@SENTENCES
@pytest.mark.parametrize(("position", "are_summed"), [(BELOW, True), (AT, False), (ABOVE, False)])
def test_the_others_are_summed_where_reasons_are_less_than_half_of_all_evidence(
    sentence, position, are_summed
):
    text = sentence([2.0, 2.0, 1.0 + STEPS[position], *[0.5] * 10])  # reasons of 5 of 10

    assert ("10 other prototypes (+5.0 together)" in text) is are_summed
    assert ("other" in text) is are_summed


@pytest.mark.parametrize(("agreeing", "is_stated"), [(749, True), (750, False), (751, False)])
def test_a_sign_is_questioned_in_less_than_three_of_four_images(agreeing, is_stated):
    text = class_sentence([2.0, 1.0], sign_agreement=[agreeing / 1000, 1.0])

    assert (f"of that sign in only {agreeing / 10:.0f} %" in text) is is_stated
    assert ("of that sign" in text) is is_stated
