"""Sentences, and the shares of their phrases."""

import re

import torch
from attrs import evolve
from ccnn_networks import PHRASES, fitted_explainer
from plugin_cases import assert_near, uniform

from explainkit.explanations.units import Units
from explainkit.testing import tiny_images
from explainkit_ccnn.explainer import PHRASING


def sentence_of(contributions, phrases=PHRASES, **fields):
    """The sentence of one image with these contributions."""
    count = len(contributions)
    units = Units(
        kind="phrase", names=[f"filter {k}" for k in range(count)], phrases=phrases and phrases[:count],
        pooling="mean", phrasing=PHRASING,
    )  # fmt: skip
    explanations = evolve(
        fitted_explainer().explain(tiny_images()[:1]), units=units, maps=None, decomposition=None,
        scores=torch.tensor([contributions]), weights=torch.ones(1, count),
        classes=["cardinal", "jay", "wren"], targets=torch.tensor([0]), **fields,
    )  # fmt: skip
    return explanations[0].sentence()


def test_a_sentence_gives_shares_until_nine_tenths_are_covered():
    assert (
        sentence_of([6.0, 3.0, 0.5, 0.5])
        == "cardinal, because of the red crest (60 %) and the red tail (30 %)."
    )
    assert sentence_of([5.0, 3.0, 2.0]) == (
        "cardinal, because of the red crest (50 %), the red tail (30 %) and the blue crest (20 %)."
    )


def test_a_sentence_names_the_strongest_phrase_against_the_class():
    assert (
        sentence_of([3.0, -1.0])
        == "cardinal, because of the red crest (75 %), despite the lack of the red tail (-25 %)."
    )
    assert sentence_of([3.0, -0.01]) == "cardinal, because of the red crest (over 99 %)."


def test_a_sentence_says_when_no_phrase_supports_the_class():
    assert (
        sentence_of([-1.0, -3.0])
        == "cardinal, though no phrase supports it, despite the lack of the red tail (-75 %)."
    )
    assert sentence_of([0.0, 0.0]) == "cardinal, though no phrase supports it."
    assert "because of the red crest (under 1 %), despite" in sentence_of([0.001, -3.0])


def test_a_sentence_names_five_phrases_at_most_and_the_share_of_the_others():
    assert sentence_of([1.0] * 8, phrases=None).endswith("filter 4 (12 %) and 3 other phrases (38 %).")
    assert sentence_of([1.0] * 6, phrases=None).endswith("filter 4 (17 %) and 1 other phrase (17 %).")
    assert sentence_of([3.0] * 5 + [0.1], phrases=None).endswith("and filter 4 (20 %).")


def test_the_shares_of_a_sentence_add_up_to_what_supports_the_class():
    for contributions in (uniform(40, 12) - 0.4).tolist():
        sentence = sentence_of(contributions, phrases=None)
        percents = [int(share) for share in re.findall(r"\((\d+) %\)", sentence)]
        positive = sum(c for c in contributions if c > 0) / sum(abs(c) for c in contributions)
        assert 90 * positive - 3.5 <= sum(percents) <= 100 * positive + 3.5


def test_a_sentence_names_the_foil():
    sentence = sentence_of([3.0, 1.0], foils=torch.tensor([1]))

    assert sentence.startswith("cardinal rather than jay, because of the red crest (75 %) and")


def test_filters_without_phrases_go_by_their_names():
    assert sentence_of([3.0, 1.0], None) == "cardinal, because of filter 0 (75 %) and filter 1 (25 %)."


def test_shares_of_all_phrases_come_to_one_and_keep_their_signs():
    explanations = fitted_explainer().explain(tiny_images(), 1)

    of_phrases = explanations.shares

    assert_near(of_phrases.abs().sum(1), torch.ones(len(explanations)))
    assert torch.equal(of_phrases.sign(), explanations.contributions.sign())
    for explanation, row in zip(explanations, of_phrases, strict=True):
        for phrase, percent in re.findall(r"the ([a-z ]+) \((-?\d+) %\)", explanation.sentence()):
            k = explanations.units.phrases.index(phrase)
            assert abs(100 * row[k].item() - int(percent)) <= 0.5 + 1e-3


def test_as_many_phrases_are_named_as_are_asked_for():
    explanation = fitted_explainer().explain(tiny_images())[0]

    assert explanation.sentence(supporting=2, opposing=0).count(" %)") == 2
