"""The sentence of one image."""

import torch
from attrs import evolve
from explanation_cases import make_explanations, make_units
from sentence_cases import PROVENANCE, image_sentence, prototypes

from explainkit.explanations.batch import Explanations
from explainkit.explanations.phrasing import Phrasing


def test_a_sentence_lists_reasons_for_and_against():
    text = image_sentence([2.1, 0.9, -0.4])

    assert text == (
        "Cardinal, mostly because of the red crest (+2.1), also the short beak (+0.90), "
        "despite the gray tail (-0.40)."
    )


def test_a_sentence_omits_reasons_that_hardly_count():
    assert image_sentence([2.0, 1.9, 0.15, -0.1]) == (
        "Cardinal, because of the red crest (+2.0) and the short beak (+1.9)."
    )


def test_a_sentence_that_names_less_than_half_of_the_evidence_sums_the_others():
    weights = torch.tensor([[1.0] * 9], dtype=torch.float64)
    explanations = make_explanations(
        number=1, count=9, scores=torch.ones(1, 9).double(), weights=weights, decomposition=None
    )

    assert explanations[0].sentence().endswith("and 6 other filters (+6.0 together).")


def test_units_of_one_phrase_are_summed():
    table = torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64)
    units = make_units(count=3, phrases=("fan tail", "red eye", "fan tail"), phrase_scores=torch.ones(2, 3))
    explanations = make_explanations(
        number=1, count=3, scores=torch.ones(1, 3).double(), weights=table, units=units, decomposition=None
    )

    assert explanations[0].sentence() == (
        "cardinal, mostly because of the fan tail (+4.0 in 2 filters), also the red eye (+2.0)."
    )


def test_a_sentence_says_when_nothing_supports_the_class():
    assert (
        image_sentence([-2.0, 0.0]) == "Cardinal, though nothing supports it, despite the red crest (-2.0)."
    )
    assert image_sentence([0.0]) == "Cardinal, though nothing supports it."


def test_a_sentence_names_three_reasons_at_most():
    assert image_sentence([5.0, 4.0, 3.0, 2.0, 1.0]) == (
        "Cardinal, because of the red crest (+5.0), the short beak (+4.0) and the gray tail (+3.0)."
    )


def test_reasons_are_found_behind_stronger_objections():
    weights = [-float(size) for size in range(40, 20, -1)] + [1.0]
    explanations = make_explanations(
        number=1,
        count=21,
        scores=torch.ones(1, 21).double(),
        weights=torch.tensor([weights], dtype=torch.float64),
        decomposition=None,
    )

    assert "because of filter 20 (+1.0)" in explanations[0].sentence()


def test_a_sentence_names_the_foil():
    assert image_sentence([1.0], foils=torch.tensor([1])).startswith("Cardinal rather than Jay, because of")


def absent(contributions, **phrasing):
    """The sentence of a label that does not hold, and of no other."""
    units = evolve(prototypes(len(contributions)), phrasing=Phrasing(**phrasing))
    explanations = Explanations(
        logits=torch.tensor([[-3.0]]), targets=torch.tensor([0]), base=torch.zeros(1),
        scores=torch.ones(1, len(contributions)), weights=torch.tensor([contributions], dtype=torch.float64),
        units=units, classes=("Cardinal",), decision="sigmoid", images=torch.zeros(1, 3, 4, 4),
        additivity="none", provenance=PROVENANCE,
    )  # fmt: skip
    return explanations[0].sentence()


def test_of_a_label_that_does_not_hold_the_phrasing_is_honored_the_other_way_round():
    contributions = [1.0, 0.5, -4.0, -3.0, -1.5]

    assert absent(contributions).endswith(
        "For it the red crest (+1.0), against it the gray tail (-4.0), the wing (-3.0) and the eye (-1.5)."
    )
    assert absent(contributions, reasons=1, objections=2).endswith(
        "For it the red crest (+1.0) and the short beak (+0.50), against it the gray tail (-4.0)."
    )
    assert absent(contributions, coverage=0.6, measure="share").endswith(
        "For it the red crest (10 %), against it the gray tail (-40 %) and the wing (-30 %)."
    )
    assert absent(contributions, objections=0, reasons=1).endswith("%. Against it the gray tail (-4.0).")
    assert absent(contributions, objections=0, reasons=0).endswith("%.")
    assert absent([-1.0], noun="part").endswith("For it no part, against it the red crest (-1.0).")
