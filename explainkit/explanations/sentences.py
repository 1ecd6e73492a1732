"""Explanations in words: lists, signs and articles, and from what size on a sentence says what.

A sentence claims no more than its numbers carry: its words have thresholds, which stand here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from torch import Tensor

from explainkit.errors import InputError

if TYPE_CHECKING:
    from explainkit.explanations.class_level import ClassEvidence, ClassExplanation
    from explainkit.explanations.single import Evidence, Explanation
    from explainkit.explanations.units import Units

TELLING = 0.05
"""The share of all evidence of a side below which a unit is not named as a reason, the first one apart."""

MOSTLY = 0.5
"""The share of all evidence for a class above which it is so "mostly" because of one unit."""

DESPITE = 0.05
"""The share of the evidence for a class from which on evidence against it is worth a "despite"."""

MANY = 0.5
"""Where the reasons named are less than this share of the evidence for a class, the others' sum is given."""

USUALLY = 0.75
"""The share of images from which on something is "usually" so."""

Item = TypeVar("Item", "Evidence", "ClassEvidence")

ItemOut = TypeVar("ItemOut", covariant=True)


class _HasEvidence(Protocol[ItemOut]):
    """What gives the evidence of a unit."""

    def evidence_of(self, unit: int) -> ItemOut:
        """What unit number `unit` adds."""
        ...


def listed(items: Sequence[str]) -> str:
    """``"a"``, ``"a and b"``, ``"a, b and c"``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def signed(value: float) -> str:
    """Two significant digits with a sign, never in scientific notation unless tiny."""
    if value == 0:
        return "+0.0"
    if not abs(value) < 0.95:
        return f"{value:+.1f}"
    digits = max(2, 1 - math.floor(math.log10(abs(value))))
    return f"{value:+.{digits}f}" if digits <= 4 else f"{value:+.1e}"


def number(value: float) -> str:
    """The same without a plus sign."""
    return signed(value).removeprefix("+")


def apart(one: float, other: float) -> tuple[str, str]:
    """Two numbers, with as many digits as it takes to tell them apart."""
    texts = number(one), number(other)
    for digits in range(3, 18):
        if texts[0] != texts[1] or one == other:
            break
        texts = f"{one:.{digits}g}", f"{other:.{digits}g}"
    return texts


def percent(share: float) -> str:
    """A share in [-1, 1] as whole per cent; what is neither none nor all is not rounded to it.

    Examples
    --------
    >>> percent(0.001), percent(0.999), percent(-0.001), percent(-0.999)
    ('under 1 %', 'over 99 %', 'over -1 %', 'under -99 %')
    """
    text = f"{abs(share) * 100:.0f} %"
    is_negative = share < 0
    if text == "0 %" and share:
        return "over -1 %" if is_negative else "under 1 %"
    if text == "100 %" and abs(share) < 1:
        return "under -99 %" if is_negative else "over 99 %"
    return f"-{text}" if is_negative else text


def counted(count: int, one: str, many: str | None = None) -> str:
    """``"1 image"``, ``"3 images"``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def called(name: str, phrase: str | None, *, shared: bool = False, missing: bool = False) -> str:
    """What a unit is called inside a sentence: "the" before a phrase, nothing before "filter 3".

    Of a phrase that it shares with others of the sentence, "the fan tail of filter 3"; where its score says
    that what the phrase names is not there, "the lack of the fan tail".
    """
    if phrase is None:
        return name
    article = "" if phrase.split(" ", 1)[0].lower() in ("the", "a", "an") else "the "
    lack = "the lack of " if missing else ""
    return f"{lack}{article}{phrase}{f' of {name}' if shared and name != phrase else ''}"


def repeated(words: Sequence[str]) -> set[str]:
    """Those of `words` that stand there more than once."""
    return {word for word, count in Counter(words).items() if count > 1}


def capital(text: str) -> str:
    """`text` with its first letter large; the rest is left alone."""
    return text[:1].upper() + text[1:]


def image_sentence(explanation: Explanation, supporting: int | None, opposing: int | None) -> str:
    """`Explanation.sentence`."""
    for name, count in {"supporting": supporting, "opposing": opposing}.items():
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
            raise InputError(f"Expected {name} as a number of reasons, 0 or more; got {count!r}.")
    decision, has_foil = explanation.batch.decision, explanation.foil_name is not None
    if not decision.is_exclusive and not explanation.says_target and not has_foil:
        return _absent_sentence(explanation, supporting, opposing)
    units, contributions = explanation.batch.units, explanation.contributions
    scale = _measure(explanation)
    total = contributions.clamp(min=0).sum().item()
    reasons = _reasons(explanation, contributions, supporting)
    count = units.phrasing.objections if opposing is None else opposing
    objections = _largest(explanation, -contributions, count)
    if opposing is None:
        least = units.phrasing.min_objection * (total if scale is None else scale)
        objections = [item for item in objections if -item.contribution >= least]
    foil = f" rather than {explanation.foil_name}" if explanation.foil_name else ""
    because = f", {_because(explanation, reasons, total, scale)}" if reasons else ""
    if not reasons and total <= 0:
        because = f", though {_nothing(units)} supports it"
    despite = f", despite {listed(_summed_by_phrase(objections, scale))}" if objections else ""
    return f"{explanation.target_name}{foil}{_how_much(explanation)}{because}{despite}."


def _measure(explanation: Explanation) -> float | None:
    """What contributions are said as shares of; ``None`` where they are said in logits."""
    if explanation.batch.units.phrasing.measure == "logit":
        return None
    return max(explanation.contributions.abs().sum().item(), 1e-12)


def _reasons(explanation: Explanation, contributions: Tensor, count: int | None) -> list[Evidence]:
    """The units to be named for what is said: `count` of them, or as many as the units' phrasing says.

    It is said because of `contributions` (K,) above zero: of a label that does not hold, those against it.
    """
    phrasing = explanation.batch.units.phrasing
    total = contributions.clamp(min=0).sum().item()
    reasons = _largest(explanation, contributions, phrasing.reasons if count is None else count)
    if count is not None:
        return reasons
    if phrasing.coverage is None:
        return _telling(reasons, total)
    enough, covered = phrasing.coverage * total, 0.0
    for length, item in enumerate(reasons):
        if covered >= enough:
            return reasons[:length]
        covered += abs(item.contribution)
    return reasons


def _how_much(explanation: Explanation) -> str:
    """The probability of a label, or the number that an output is; nothing for one class of several."""
    decision = explanation.batch.decision
    if decision.rule == "softmax" or explanation.foil_name:
        return ""
    probability = explanation.probability
    value = number(explanation.explained_output) if probability is None else odds(probability)
    return f": {value}"


def _absent_sentence(explanation: Explanation, supporting: int | None, opposing: int | None) -> str:
    """Of a label that does not hold: what is for it, and what is against it."""
    decision, name = explanation.batch.decision, explanation.target_name
    subject = decision.absent(name)
    if not explanation.batch.holds[explanation.index].any() and len(explanation.batch.classes) > 1:
        subject = f"{explanation.prediction_name}; {name}"
    elif decision.negative is not None:
        subject = f"{decision.negative}; {name}"
    phrasing = explanation.batch.units.phrasing
    few = phrasing.objections if supporting is None else supporting
    many = phrasing.reasons if opposing is None else opposing
    reasons = _largest(explanation, explanation.contributions, few)
    objections = _reasons(explanation, -explanation.contributions, opposing)
    scale = _measure(explanation)
    supports, opposes = _summed_by_phrase(reasons, scale), _summed_by_phrase(objections, scale)
    base = explanation.base
    if explanation.batch.additivity != "none" and abs(base) > MANY * abs(explanation.explained_output):
        (supports if base > 0 else opposes).append(f"its base ({signed(base)})")
    if (few, many) == (0, 0):
        return f"{subject}: {_probability(explanation)}."
    nothing = [_nothing(explanation.batch.units)]
    sides = [
        f"{side} {listed(items or nothing)}"
        for side, count, items in (("for it", few, supports), ("against it", many, opposes))
        if count or items
    ]
    return f"{subject}: {_probability(explanation)}. {capital(', '.join(sides))}."


def _probability(explanation: Explanation) -> str:
    """That of a label, in words."""
    probability = explanation.probability
    assert probability is not None  # a label has one
    return odds(probability)


def odds(probability: float) -> str:
    """A probability in per cent, with the digits that tell it from none and from certainty.

    Examples
    --------
    >>> odds(0.123), odds(0.000175), odds(0.99983), odds(0.0)
    ('12 %', '0.02 %', '99.98 %', 'under 0.0001 %')
    """
    share = 100 * min(probability, 1 - probability)
    if share >= 1:
        return f"{100 * probability:.0f} %"
    if share < 1e-4:
        return "under 0.0001 %" if probability < 0.5 else "over 99.9999 %"
    digits = -math.floor(math.log10(share))
    return f"{100 * probability:.{digits}f} %"


def class_sentence(explanation: ClassExplanation) -> str:
    """`ClassExplanation.sentence`."""
    contributions = explanation.contributions
    total = contributions.clamp(min=0).sum().item()
    reasons = _telling(_largest(explanation, contributions, 3), total)
    objections = _largest(explanation, -contributions, 1)
    objections = [item for item in objections if -item.contribution >= DESPITE * total]
    foil = f" rather than {explanation.foil_name}" if explanation.foil is not None else ""
    subject = f"{capital(explanation.name)}{foil}, on average over {counted(explanation.count, 'image')}"
    shared = repeated([item.text for item in (*reasons, *objections)])
    opposing = "".join(
        f" Against it: {_class_reason(explanation, item, item.text in shared)}." for item in objections
    )
    if not reasons:
        base = "" if explanation.batch.additivity == "none" else f"; its base is {signed(explanation.base)}"
        return f"{subject}. For it: {_nothing(explanation.batch.units)}{base}.{opposing}"
    parts = [_class_reason(explanation, item, item.text in shared) for item in reasons]
    left = total - sum(item.contribution for item in reasons)
    others = int((contributions > 0).sum()) - len(reasons)
    if others and left > (1 - MANY) * total:
        parts.append(_others(explanation.batch.units, others, left))
    supporting = listed(parts)
    if len(parts) > 1 and reasons[0].contribution > MOSTLY * total:
        supporting = f"mostly {parts[0]}, also {listed(parts[1:])}"
    return f"{subject}. For it: {supporting}.{opposing}"


def _because(explanation: Explanation, reasons: Sequence[Evidence], total: float, scale: float | None) -> str:
    """The reasons, how much the first is of the whole, and what the others sum to where that is much."""
    units = explanation.batch.units
    named = sum(item.contribution for item in reasons)
    others = int((explanation.contributions > 0).sum()) - len(reasons)
    parts = _summed_by_phrase(reasons, scale)
    if others and named < (units.phrasing.coverage or MANY) * total:
        parts.append(_others(units, others, total - named, scale))
    first = sum(item.contribution for item in reasons if item.text == reasons[0].text)
    if scale is None and len(parts) > 1 and first > MOSTLY * total:
        return f"mostly because of {parts[0]}, also {listed(parts[1:])}"
    return f"because of {listed(parts)}"


def _nothing(units: Units) -> str:
    """What is said where no unit is for something, or against it."""
    return f"no {units.phrasing.noun}" if units.phrasing.noun else "nothing"


def _others(units: Units, count: int, contribution: float, scale: float | None = None) -> str:
    """The sum of the units that are not named."""
    together = " together" if count > 1 and scale is None else ""
    return f"{units.phrasing.others(count, units.kind)} ({_size(contribution, scale)}{together})"


def _size(contribution: float, scale: float | None) -> str:
    """A contribution in logits, or as a share of `scale`."""
    return signed(contribution) if scale is None else percent(contribution / scale)


def _summed_by_phrase(items: Sequence[Evidence], scale: float | None = None) -> list[str]:
    """What each unit adds; units of one phrase are summed, in the place of the first."""
    groups: dict[str, list[Evidence]] = {}
    for item in items:
        groups.setdefault(called(item.name, item.phrase, missing=item.is_absent), []).append(item)
    return [
        f"{name} ({_size(sum(item.contribution for item in group), scale)}"
        f"{f' in {len(group)} {group[0].kind}s' if len(group) > 1 else ''})"
        for name, group in groups.items()
    ]


def _class_reason(explanation: ClassExplanation, item: ClassEvidence, shared: bool) -> str:
    """What a unit adds to a class, and in how many of its images."""
    facts = [signed(item.contribution)]
    if explanation.foil is None:
        if item.decisive_rate is not None and item.decisive_rate > 0:
            facts.append(f"decisive in {percent(item.decisive_rate)}")
        if item.sign_agreement < USUALLY:
            facts.append(f"of that sign in only {percent(item.sign_agreement)}")
    name = called(item.name, item.phrase, shared=shared, missing=item.is_absent)
    return f"{name} ({', '.join(facts)})"


def _telling(reasons: list[Item], total: float) -> list[Item]:
    """The first reason, and those of the others that are at least `TELLING` of the total."""
    return reasons[:1] + [item for item in reasons[1:] if abs(item.contribution) >= TELLING * total]


def _largest(explanation: _HasEvidence[Item], contributions: Tensor, count: int) -> list[Item]:
    """The units with the `count` largest of `contributions` (K,), of those above zero."""
    order = contributions.argsort(descending=True, stable=True)[:count]
    return [explanation.evidence_of(unit) for unit in order[contributions[order] > 0].tolist()]
