"""How explanations by some units are put in words, as data: it travels with the explanations."""

from __future__ import annotations

from typing import Any, Literal, get_args

from attrs import asdict, frozen

from explainkit.errors import InputError
from explainkit.explanations.json_values import JsonValue

AbsentScores = Literal["low", "high"]
"""Which scores say that what a unit stands for is not there: low ones, or as of distances high ones."""

Measure = Literal["logit", "share"]
"""What is said of a reason: its contribution, or that as a share of all evidence, for and against."""


@frozen(kw_only=True)
class Phrasing(JsonValue):
    """How explanations by these units are put in words.

    `measure`, `reasons`, `objections`, `coverage` and `min_objection` are of the sentences of images. Those
    of classes are in logits, of at most three units for a class and one against it, 5 % of the evidence for
    it each. The words are of all sentences.

    Attributes
    ----------
    measure : {"logit", "share"}
        The number behind a reason: its contribution, or ``contribution / sum |contribution|`` in per cent.
    reasons, objections : int
        Units that are named for the class, and against it, at most; of a label that does not hold the
        other way round.
    coverage : float or None, in (0, 1]
        Reasons are named until they are this share of the evidence for the class; ``None``: those that are
        5 % of it each.
    min_objection : float
        The size from which on evidence against the class is named: as a share of the evidence for it, or
        with measure ``"share"`` of all evidence.
    absent_scores : {"low", "high"} or None
        Which scores say that what a unit stands for is not there, so that "the lack of" it is named; ``None``
        where scores say nothing of that, as attributions to pixels.
    noun, plural : str or None
        What units are called where they are not named: "3 other filters"; the units' kind unless given.

    Examples
    --------
    >>> Phrasing(measure="share", reasons=5, coverage=0.9).measure
    'share'
    """

    measure: Measure = "logit"
    reasons: int = 3
    objections: int = 1
    coverage: float | None = None
    min_objection: float = 0.05
    absent_scores: AbsentScores | None = "low"
    noun: str | None = None
    plural: str | None = None

    def __attrs_post_init__(self) -> None:
        counts = (self.reasons, self.objections)
        shares = (self.min_objection, 1.0 if self.coverage is None else self.coverage)
        words = (self.noun, self.plural)
        if self.measure not in get_args(Measure):
            raise InputError(f"Expected measure as one of {get_args(Measure)}; got {self.measure!r}.")
        if self.absent_scores not in (*get_args(AbsentScores), None):
            raise InputError(f"Expected absent_scores as 'low', 'high' or None; got {self.absent_scores!r}.")
        if not all(type(count) is int and count >= 0 for count in counts):
            raise InputError(f"Expected reasons and objections as numbers of units; got {counts}.")
        if not all(type(share) in (int, float) and 0 <= share <= 1 for share in shares) or not shares[1]:
            raise InputError(f"Expected min_objection and coverage as shares in 0 … 1; got {shares}.")
        if not all(word is None or (isinstance(word, str) and word.strip()) for word in words):
            raise InputError(f"Expected noun and plural as words; got {words}.")

    def others(self, count: int, kind: str) -> str:
        """What `count` units that are not named are called, such as "3 other filters"."""
        noun = self.noun or kind
        return f"{count} other {noun if count == 1 else self.plural or noun + 's'}"

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)
