"""Words around numbers: lists, signs and articles, and from what size on a sentence says what.

A sentence claims no more than its numbers carry: its words have thresholds, which stand here.
"""

import math
from collections import Counter
from collections.abc import Sequence

TELLING = 0.05
"""The share of all evidence of a side below which a unit is no reason that is told, the first one apart."""

MOSTLY = 0.5
"""The share of all evidence for a class above which it is so "mostly" because of one unit."""

DESPITE = 0.05
"""The share of the evidence for a class from which on evidence against it is worth a "despite"."""

MANY = 0.5
"""Where the reasons told are less than this share of the evidence for a class, the others' sum is told."""

USUALLY = 0.75
"""The share of images from which on something is "usually" so."""


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
    told = number(one), number(other)
    for digits in range(3, 18):
        if told[0] != told[1] or one == other:
            break
        told = f"{one:.{digits}g}", f"{other:.{digits}g}"
    return told


def percent(share: float) -> str:
    """A share in [0, 1] as whole per cent; what is neither none nor all is not rounded to it."""
    told = f"{share * 100:.0f} %"
    if told == "0 %" and share > 0:
        return "under 1 %"
    return "over 99 %" if told == "100 %" and share < 1 else told


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
