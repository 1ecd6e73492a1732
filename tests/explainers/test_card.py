"""Cards: every wrong or missing part of one fails where the class is defined."""

from typing import ClassVar

import pytest
from attrs import define

import explainkit as ek
from explainkit.errors import InputError

GOOD = {"title": "Made", "citation": "for tests", "additivity": "approximate", "unit_kind": "pixels"}


class _Method(ek.PostHocExplainer):
    def explain_batch(self, images, targets, foils): ...


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"title": ""}, "title of a card as a text; got ''"),
        ({"citation": None}, "citation of a card as a text; got None"),
        ({"unit_kind": 3}, "unit_kind of a card as a text; got 3"),
        ({"additivity": "proven"}, "additivity of Made as one of .* got 'proven'"),
        ({"answers": "image"}, "answers of a card as a set"),
        ({"answers": ()}, "answers of Made among"),
        ({"answers": {"image", "why"}}, r"answers of Made among .* got \['image', 'why'\]"),
        ({"answers": [["image"]]}, r"answers of a card among .* one is \['image'\]"),
        ({"answers": {1, "image"}}, "answers of a card among .* one is 1"),
        ({"learns_from": "images"}, "learns_from of Made as one of .* got 'images'"),
    ],
)
def test_a_card_refuses(fields, message):
    with pytest.raises(InputError, match=message):
        ek.Card(**GOOD | fields)


@pytest.mark.parametrize(
    ("additivity", "answers"),
    [
        ("exact", {"image", "class"}),
        ("approximate", {"image", "class"}),
        ("none", {"image"}),
    ],
)
def test_answers_follow_from_what_is_claimed_unless_given(additivity, answers):
    assert ek.Card(**GOOD | {"additivity": additivity}).answers == answers
    assert ek.Card(**GOOD | {"answers": ["class"]}).answers == {"class"}
    architecture = GOOD | {"additivity": additivity, "learns_from": "training images"}
    more = {"counterfactual"} if additivity == "exact" else set()
    assert ek.Card(**architecture).answers == answers | more


@pytest.mark.parametrize("card", [None, "a card", {"title": "Made"}])
def test_a_class_without_a_card_is_refused_where_it_is_defined(card):
    with pytest.raises(InputError, match=r"Expected Careless.card as an explainkit.Card"):

        class Careless(_Method):
            pass

        Careless.card = card  # not reached

    with pytest.raises(InputError, match=r"Expected Wrong.card as an explainkit.Card\(.*; got"):
        type("Wrong", (_Method,), {"card": card})


def test_a_method_that_says_it_learns_must_be_able_to():
    with pytest.raises(InputError, match="Forgetful to have learn"):

        @define(eq=False, kw_only=True)
        class Forgetful(_Method):
            card: ClassVar[ek.Card] = ek.Card(**GOOD, learns_from="concept examples")

    with pytest.raises(InputError, match="Silent to have learn"):

        @define(eq=False, kw_only=True)
        class Silent(_Method):
            card: ClassVar[ek.Card] = ek.Card(**GOOD)

            def learn(self, examples): ...


def test_an_architecture_learns_from_training_images():
    with pytest.raises(InputError, match=r"'training images' on the card of Network, .* got None"):

        @define(eq=False, kw_only=True)
        class Network(ek.InterpretableExplainer):
            card: ClassVar[ek.Card] = ek.Card(**GOOD)

            def build(self, task): ...
            def phases(self): ...
            def describe_units(self, network): ...
