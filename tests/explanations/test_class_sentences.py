"""The sentence of a class, and what of its units' phrasing it honours."""

import pytest
from sentence_cases import class_sentence

from explainkit.explanations.phrasing import Phrasing


def test_a_class_sentence_says_what_is_against_a_class_that_nothing_is_for():
    assert class_sentence([-2.0, -0.5, 0.0]) == (
        "Cardinal, on average over 1000 images. For it: nothing; its base is +0.0. "
        "Against it: the red crest (-2.0)."
    )
    assert class_sentence([0.0]) == (
        "Cardinal, on average over 1000 images. For it: nothing; its base is +0.0."
    )


def test_a_class_sentence_questions_the_sign_of_what_is_against_it():
    text = class_sentence([-2.0, -0.5], sign_agreement=[0.6, 1.0])

    assert text.endswith("Against it: the red crest (-2.0, of that sign in only 60 %).")


@pytest.mark.parametrize(
    "phrasing",
    [Phrasing(measure="share"), Phrasing(reasons=1, objections=0, coverage=0.5), Phrasing(min_objection=0.9)],
)
def test_measure_coverage_and_counts_are_of_images_alone(phrasing):
    for contributions in ([5.0, 4.0, 3.0, 2.0, -1.0], [1.0] * 30):
        assert class_sentence(contributions, phrasing=phrasing) == class_sentence(contributions)


def test_words_are_of_classes_too():
    phrasing = Phrasing(noun="piece", plural="pieces of it")

    assert "For it: no piece; its base" in class_sentence([-1.0], phrasing=phrasing)
    assert "and 29 other pieces of it (+29.0 together)" in class_sentence([1.0] * 30, phrasing=phrasing)
