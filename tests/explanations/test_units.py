"""What units are: present or absent by their scores, parts of larger ones, of classes, and put in words."""

import pickle

import pytest
import torch
from explanation_cases import drawn, make_explanations, make_units

import explainkit as ek
from explainkit.errors import InputError
from explainkit.explanations.units import NEAR


def ranges(low, high):
    """Plausible scores of one unit for two classes, (2, 2, 1)."""
    return torch.tensor([[[low], [low]], [[high / 2], [high]]])


@pytest.mark.parametrize(
    ("score", "fields", "is_absent"),
    [
        (-0.1, {}, True),
        (0.0, {}, True),
        (1e-6, {}, False),
        (0.9, {"reference": torch.tensor([1.0])}, True),
        (1.1, {"reference": torch.tensor([1.0])}, False),
        (NEAR * 4 * 0.99, {"score_range": ranges(-1.0, 4.0)}, True),
        (NEAR * 4 * 1.01, {"score_range": ranges(-1.0, 4.0)}, False),
        (1 + NEAR * 3 * 0.99, {"score_range": ranges(0.0, 4.0), "reference": torch.tensor([1.0])}, True),
        (1 + NEAR * 3 * 1.01, {"score_range": ranges(0.0, 4.0), "reference": torch.tensor([1.0])}, False),
        (2.5, {"reference": torch.tensor([2.0]), "phrasing": ek.Phrasing(absent_scores="high")}, True),
        (1.5, {"reference": torch.tensor([2.0]), "phrasing": ek.Phrasing(absent_scores="high")}, False),
        (-3.0, {"phrasing": ek.Phrasing(absent_scores=None)}, False),
    ],
)
def test_a_unit_is_absent_at_its_reference_and_near_it(score, fields, is_absent):
    assert make_units(count=1, **fields).is_absent(0, score) == is_absent


def sentence(scores, weights, phrasing=None):
    """The sentence of one image; units have phrases of their own."""
    count = len(scores)
    phrases = ("green wing", "red crest", "short beak", "fan tail", "blue eye")[:count]
    fields = {} if phrasing is None else {"phrasing": phrasing}
    explanations = make_explanations(
        number=1, count=count, scores=torch.tensor([scores]).double(),
        weights=torch.tensor([weights]).double(), decomposition=None,
        units=make_units(count, phrases=phrases, **fields),
    )  # fmt: skip
    return explanations[0].sentence()


def test_a_sentence_names_the_lack_of_what_is_absent():
    assert sentence([-0.5, 1.0], [-0.48, 0.2]) == (
        "cardinal, mostly because of the lack of the green wing (+0.24), also the red crest (+0.20)."
    )
    assert sentence([1.0, -1.0], [1.0, 0.3]) == (
        "cardinal, because of the green wing (+1.0), despite the lack of the red crest (-0.30)."
    )


def test_evidence_of_pixels_is_never_a_lack_of_them():
    attribution = ek.Phrasing(absent_scores=None)

    assert "lack" not in sentence([1.0, -0.5], [1.0, 1.0], attribution)


def test_a_phrasing_says_shares_until_they_cover_enough():
    phrasing = ek.Phrasing(measure="share", reasons=3, coverage=0.8, min_objection=0.2, noun="part")

    assert sentence([5.0, 3.0, 2.0], [1.0, 1.0, 1.0], phrasing) == (
        "cardinal, because of the green wing (50 %) and the red crest (30 %)."
    )
    assert sentence([3.0, 2.0, 2.0, 2.0, 1.0], [1.0] * 5, phrasing) == (
        "cardinal, because of the green wing (30 %), the red crest (20 %), the short beak (20 %) and "
        "2 other parts (30 %)."
    )
    assert sentence([1.0, 3.0], [-1.0, -1.0], phrasing).startswith("cardinal, though no part supports it")
    assert "despite" not in sentence([9.0, 1.0], [1.0, -1.0], phrasing)
    assert "despite the red crest (-20 %)" in sentence([8.0, 2.0], [1.0, -1.0], phrasing)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"measure": "percent"}, "measure as one of .* got 'percent'"),
        ({"reasons": -1}, "reasons and objections"),
        ({"coverage": 0.0}, "shares in 0 … 1"),
        ({"min_objection": 2.0}, "shares in 0 … 1"),
        ({"absent_scores": "none"}, "'low', 'high' or None; got 'none'"),
        ({"noun": 3}, "noun and plural as words"),
    ],
)
def test_a_phrasing_refuses(fields, message):
    with pytest.raises(InputError, match=message):
        ek.Phrasing(**fields)


def test_contributions_of_parents_are_the_sums_of_their_units():
    parent = torch.tensor([1, 0, 1, 2, 1])
    units = make_units(parent=parent, parents=("head", "wing", "tail"))
    explanations = make_explanations(units=units)

    by_hand = torch.stack(
        [
            sum(explanations.contributions[:, k] for k in range(5) if parent[k] == number)
            for number in range(3)
        ],
        1,
    )
    torch.testing.assert_close(explanations.parent_contributions, by_hand)
    assert explanations[1].parent_contributions == dict(
        zip(("head", "wing", "tail"), explanations.parent_contributions[1].tolist(), strict=True)
    )
    assert make_explanations().parent_contributions is None
    assert make_explanations()[0].parent_contributions == {}


def test_evidence_says_how_much_its_unit_belongs_to_the_class():
    affinity = drawn(5, 3, seed=4)
    explanations = make_explanations(units=make_units(class_affinity=affinity))

    for row, explanation in enumerate(explanations):
        for item in explanation.evidence:
            assert item.class_affinity == affinity[item.unit, int(explanations.targets[row])].item()
    assert make_explanations()[0].evidence[0].class_affinity is None


def test_class_affinity_of_other_classes_is_refused():
    with pytest.raises(InputError, match=r"units.class_affinity of \(5, 3\); got \(5, 2\)"):
        make_explanations(units=make_units(class_affinity=drawn(5, 2)))


def test_what_units_are_is_pickled_and_moved_with_them():
    units = make_units(
        parent=torch.zeros(5).long(), parents=("head",), class_affinity=drawn(5, 3),
        phrasing=ek.Phrasing(measure="share"),
    )  # fmt: skip

    for other in (pickle.loads(pickle.dumps(units)), units.to("cpu")):
        assert torch.equal(other.parent, units.parent) and other.parents == ("head",)
        assert torch.equal(other.class_affinity, units.class_affinity)
        assert other.phrasing == units.phrasing
