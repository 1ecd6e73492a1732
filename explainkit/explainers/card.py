"""What an explainer is, claims, answers and learns from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

from attrs import Attribute, field, frozen

from explainkit.errors import InputError
from explainkit.explanations.decomposition import Additivity

if TYPE_CHECKING:
    from explainkit.explainers.interface import Explainer

Question = Literal["image", "class", "counterfactual"]
"""Why a decision was made, what a class is to the model, what would change a decision."""

LearnsFrom = Literal["training images", "concept examples"]
"""A data set with labels; or images of each of several concepts."""

NO_ANSWER: Mapping[Question, str] = {
    "image": (
        "Expected an explainer of single images; what {title} says has a meaning only in the mean over a "
        "class. Call explain_class(dataset)."
    ),
    "class": (
        "Expected an explainer whose contributions have a meaning in the mean over images; those of {title} "
        "add up to nothing. Explain single images."
    ),
    "counterfactual": (
        "Expected an architecture that explains itself; {title} attributes a decision after it was made: "
        "there are no scores that the decision is made by, and so none to change."
    ),
}
"""What is said to who asks a question that an explainer does not answer."""


def default_answers(additivity: Additivity, learns_from: LearnsFrom | None) -> frozenset[Question]:
    """The questions that an explainer answers by what it claims, unless its card says otherwise.

    Examples
    --------
    >>> sorted(default_answers("exact", "training images"))
    ['class', 'counterfactual', 'image']
    >>> sorted(default_answers("exact", None)), sorted(default_answers("none", None))
    (['class', 'image'], ['image'])
    """
    answers: set[Question] = {"image"}
    if additivity != "none":
        answers.add("class")
    if additivity == "exact" and learns_from == "training images":  # an architecture, which has scores
        answers.add("counterfactual")
    return frozenset(answers)


def _is_text(_: object, attribute: Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"Expected {attribute.name} of a card as a text; got {value!r}.")


def _answers_of(answers: object) -> frozenset[str] | None:
    if answers is None:
        return None
    if isinstance(answers, str) or not isinstance(answers, (tuple, list, set, frozenset)):
        raise InputError(f"Expected answers of a card as a set of {get_args(Question)}; got {answers!r}.")
    others = [answer for answer in answers if not isinstance(answer, str)]
    if others:
        raise InputError(f"Expected answers of a card among {get_args(Question)}; one is {others[0]!r}.")
    return frozenset(answers)


@frozen(kw_only=True)
class Card:
    """What an explainer is, claims, answers and learns from; the conformance kit holds it to this.

    Attributes
    ----------
    title, citation : str
        Its name, and authors, venue and arXiv number of its source.
    additivity : {"exact", "approximate", "none"}
        Whether contributions add up to the logit.
    unit_kind : str
        What its units are: ``"filters"``, ``"prototypes"``, ``"concepts"``, ``"parts"``, ``"pixels"`` …
    answers : frozenset of {"image", "class", "counterfactual"}
        The questions that it answers; `default_answers` unless given.
        Evidence of a method that answers ``{"class"}`` alone has a meaning only in the mean over a class.
    learns_from : {"training images", "concept examples"} or None
        What `fit` takes; ``None`` for a method that learns nothing.

    Raises
    ------
    InputError
        For a part that is empty or unknown.
    """

    title: str = field(validator=_is_text)
    citation: str = field(validator=_is_text)
    additivity: Additivity
    unit_kind: str = field(validator=_is_text)
    answers: frozenset[Question] = field(default=None, converter=_answers_of)
    learns_from: LearnsFrom | None = None

    def __attrs_post_init__(self) -> None:
        if self.additivity not in get_args(Additivity):
            raise InputError(
                f"Expected additivity of {self.title} as one of {get_args(Additivity)}; got "
                f"{self.additivity!r}."
            )
        if self.answers is None:
            object.__setattr__(self, "answers", default_answers(self.additivity, self.learns_from))
        if not self.answers or not self.answers <= set(get_args(Question)):
            raise InputError(
                f"Expected answers of {self.title} among {get_args(Question)}; got {sorted(self.answers)}."
            )
        if self.learns_from not in (*get_args(LearnsFrom), None):
            raise InputError(
                f"Expected learns_from of {self.title} as one of {get_args(LearnsFrom)}, or None; got "
                f"{self.learns_from!r}."
            )


def check_card(explainer: type[Explainer]) -> None:
    """Refuse a class of explainers without a card, where it is defined.

    Abstract ones need none, nor those whose names begin with an underscore, which are bases of others.

    Raises
    ------
    InputError
    """
    members = (getattr(explainer, name, None) for name in dir(explainer))
    if explainer.__name__.startswith("_") or any(
        getattr(member, "__isabstractmethod__", False) for member in members
    ):
        return
    card = getattr(explainer, "card", None)
    if not isinstance(card, Card):
        raise InputError(
            f"Expected {explainer.__name__}.card as an explainkit.Card(title=…, citation=…, additivity=…, "
            f"unit_kind=…); got {card!r}."
        )
