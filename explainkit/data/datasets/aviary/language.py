"""Words for birds: captions whose every phrase knows what it refers to, and names for the species.

The same scene can be described in many ways (`paraphrase`); which one is a hash of the scene. A hard negative
is the same sentence with one word changed, so that it is wrong in exactly one attribute of one part.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations, product
from string import Formatter
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from attrs import evolve

from explainkit.data.datasets.aviary.grammar import (
    ATTRIBUTES,
    COLORS,
    PARTS,
    PATTERNED,
    PATTERNS,
    SHAPES,
    Codes,
    Grammar,
)
from explainkit.data.datasets.aviary.scenes import (
    PLUMAGES,
    THEMES,
    Booleans,
    Floats,
    Scenes,
    chances,
)
from explainkit.data.datasets.aviary.words import (
    COLOR_WORDS,
    NOUNS,
    PATTERN_WORDS,
    PLURALS,
    SHAPE_WORDS,
    SPECIES_ADJECTIVES,
    SPECIES_NOUNS,
    THEME_PHRASES,
)
from explainkit.data.random_keys import random_keys
from explainkit.errors import InputError

if TYPE_CHECKING:  # data.types imports torch
    from explainkit.data.types import Caption, Phrase

_FORMS = (
    "{body} with {parts}.",
    "This bird, seen {theme}, has {parts}.",
    "Seen {theme}: a bird with {parts}.",
    "Look for {parts} on {body}.",
)
_MENTIONS = ((0, 1, 2), (0, 1, 2), (0, 1), (0, 1), (1, 2), (0, 2), (1,), (0,))
"""Which attributes a phrase mentions, in order; where there is no pattern to mention, the rest."""

_NO_PARTS = "{body}, seen {theme}."
_ARTICLE = re.compile(r"\ban? $")
Choice = TypeVar("Choice")


def captions(scenes: Scenes, paraphrase: int = 0, bird: int = 0) -> "tuple[Caption, ...]":
    """One sentence a scene on two to four parts of a bird, and on its body or the background.

    Parameters
    ----------
    paraphrase : int
        Another number, another choice of words and parts.
    """
    dice = chances(random_keys(scenes.keys, paraphrase), "caption", 48)
    return tuple(_caption(scenes, row, bird, _Dice(dice[row])) for row in range(len(scenes)))


def hard_negatives(
    sentences: "Sequence[Caption]", scenes: Scenes, paraphrase: int = 0
) -> "tuple[Caption, ...]":
    """Each sentence with one attribute of one part wrong, chosen by the scene's hash."""
    dice = chances(random_keys(scenes.keys, paraphrase), "negative", 4)
    return tuple(_hard_negative(sentence, _Dice(dice[row])) for row, sentence in enumerate(sentences))


def contradict(caption: "Caption", phrase: int, attribute: str, value: str) -> "Caption":
    """`caption` with `attribute` of its phrase number `phrase` given as `value`; all else stands.

    Raises
    ------
    InputError
        Where the phrase does not mention that attribute.
    """
    original = caption.phrases[phrase]
    if original.part is None or attribute not in original.attributes:
        raise InputError(
            f"Expected one of {sorted(original.attributes)} for {original.text!r}; got {attribute!r}."
        )
    synonyms = _attribute_words(original.part, attribute)
    words = [
        synonyms[value][0] if word in synonyms[original.attributes[attribute]] else word
        for word in original.text.split()
    ]
    replacement = evolve(original, text=" ".join(words), attributes={**original.attributes, attribute: value})
    sentence, end = _Sentence(), 0
    for i, old in enumerate(caption.phrases):
        new = replacement if i == phrase else old
        sentence.add_text(_ARTICLE.sub(_article(new.text), caption.text[end : old.start]))
        sentence.add_phrase(new.text, new.part, new.attributes)
        end = old.end
    sentence.add_text(caption.text[end:])
    return sentence.caption()


@cache
def vocabulary() -> tuple[str, ...]:
    """Every phrase that a caption can use."""
    parts = (phrase for part in PARTS for phrase in _part_phrases(part))
    bodies = (f"{plumage} bird" for plumage in PLUMAGES)
    themes = (phrase for theme in THEMES for phrase in THEME_PHRASES[theme])
    return tuple(dict.fromkeys([*parts, *bodies, *themes]))


@cache
def synonyms() -> Mapping[str, str]:
    """Each word to the first that stands for the same, where it stands for that in every part."""
    groups = [*NOUNS.values(), *COLOR_WORDS.values(), *PATTERN_WORDS.values()]
    groups += [words for shapes in SHAPE_WORDS.values() for words in shapes.values()]
    firsts: dict[str, set[str]] = {}
    for words in groups:
        for word in words:
            firsts.setdefault(word, set()).add(words[0])
    return {
        word: next(iter(first)) for word, first in firsts.items() if len(first) == 1 and word not in first
    }


def species_names(grammar: Grammar) -> tuple[str, ...]:
    """A name for every species, such as "yellow-winged forktail"; no two are the same."""
    names: dict[str, None] = {}
    parts = [part for part, has_part in zip(PARTS, grammar.has_parts, strict=True) if has_part]
    heads = [part for part in SPECIES_NOUNS if part in parts]
    # Where species have some of the parts only, a part is called by its color if that differs among them.
    is_colored = np.full(len(PARTS), grammar.relevant[1])
    if len(parts) < len(PARTS):
        is_colored &= (grammar.codes[..., 1] != grammar.codes[0, :, 1]).any(0)
    for species, codes in enumerate(grammar.codes):
        turn = species % len(heads)
        candidates = _candidate_names(codes, is_colored, heads[turn:] + heads[:turn], parts)
        names.setdefault(next(name for name in candidates if name not in names))
    return tuple(names)


class _Dice:
    """Numbers of the hash, used one after the other."""

    def __init__(self, values: Floats) -> None:
        self._values: Iterator[float] = iter(values.tolist())

    def pick(self, choices: Sequence[Choice]) -> Choice:
        return choices[int(next(self._values) * len(choices))]

    def shuffled(self, choices: Sequence[Choice]) -> list[Choice]:
        order = sorted(range(len(choices)), key=lambda _: next(self._values))
        return [choices[i] for i in order]


class _Sentence:
    """Text that grows, and the phrases in it."""

    def __init__(self) -> None:
        self._text = ""
        self._phrases: list[Phrase] = []

    def add_text(self, text: str) -> None:
        self._text += text

    def add_phrase(self, text: str, part: str | None, attributes: Mapping[str, str]) -> None:
        from explainkit.data.types import Phrase

        start = len(self._text)
        self._text += text
        self._phrases.append(
            Phrase(text=text, start=start, end=len(self._text), part=part, attributes=dict(attributes))
        )

    def caption(self) -> "Caption":
        from explainkit.data.types import Caption

        return Caption(text=self._text, phrases=tuple(self._phrases))


def _caption(scenes: Scenes, row: int, bird: int, dice: _Dice) -> "Caption":
    codes, present = scenes.codes[row, bird], scenes.present[row, bird]
    shuffled = dice.shuffled([p for p, is_present in enumerate(present.tolist()) if is_present])
    parts = shuffled[: dice.pick((2, 3, 3, 4))]
    form = dice.pick(_FORMS) if parts else _NO_PARTS
    sentence = _Sentence()
    for literal, slot, _, _ in Formatter().parse(form):
        sentence.add_text(literal)
        if slot == "theme":
            sentence.add_phrase(dice.pick(THEME_PHRASES[THEMES[scenes.themes[row]]]), None, {})
        elif slot == "body":
            plumage = PLUMAGES[scenes.plumages[row, bird]]
            article = _article(plumage)
            sentence.add_text(article if literal else article.capitalize())
            sentence.add_phrase(f"{plumage} bird", None, {"color": plumage})
        elif slot == "parts":
            _add_parts(sentence, [(PARTS[p], codes[p].tolist()) for p in parts], dice)
    return sentence.caption()


def _add_parts(sentence: _Sentence, parts: list[tuple[str, list[int]]], dice: _Dice) -> None:
    for i, (part, (shape, color, pattern)) in enumerate(parts):
        if i:
            sentence.add_text(" and " if i == len(parts) - 1 else ", ")
        values = SHAPES[part][shape], COLORS[color], PATTERNS[pattern]
        noun, mention = dice.pick(NOUNS[part]), _without_plain(dice.pick(_MENTIONS), values)
        words = [dice.pick(_attribute_words(part, ATTRIBUTES[a])[values[a]]) for a in mention]
        if noun not in PLURALS:
            sentence.add_text(_article(words[0]))
        sentence.add_phrase(" ".join([*words, noun]), part, {ATTRIBUTES[a]: values[a] for a in mention})


def _without_plain(mention: Sequence[int], values: Sequence[str]) -> list[int]:
    return [a for a in mention if values[a] != "plain"]


def _hard_negative(caption: "Caption", dice: _Dice) -> "Caption":
    phrases = [i for i, phrase in enumerate(caption.phrases) if phrase.part]
    if not phrases:
        return caption
    i = dice.pick(phrases)
    phrase = caption.phrases[i]
    attribute = dice.pick(list(phrase.attributes))
    true_value = phrase.attributes[attribute]
    values = [value for value in _attribute_words(str(phrase.part), attribute) if value != true_value]
    return contradict(caption, i, attribute, dice.pick(values))


def _attribute_words(part: str, attribute: str) -> Mapping[str, tuple[str, ...]]:
    """The words for each value of an attribute of a part."""
    if attribute == "shape":
        return SHAPE_WORDS[part]
    if attribute == "color":
        return COLOR_WORDS
    return {PATTERNS[p]: PATTERN_WORDS[PATTERNS[p]] for p in PATTERNED.get(part, ()) if p}


def _article(word: str) -> str:
    return "an " if word[0] in "aeiou" else "a "


def _part_phrases(part: str) -> Iterator[str]:
    """Every phrase that can describe a part."""
    words_by_attribute = [
        [word for words in _attribute_words(part, attribute).values() for word in words]
        for attribute in ATTRIBUTES
    ]
    for mention in dict.fromkeys(_MENTIONS):
        for attributes in {mention, tuple(a for a in mention if a != 2)}:
            for words in product(*[words_by_attribute[a] for a in attributes], NOUNS[part]):
                yield " ".join(words)


def _candidate_names(
    codes: Codes, is_colored: Booleans, heads: Sequence[str], named: Sequence[str]
) -> Iterator[str]:
    """Names from the plainest to the longest, after one of `heads` and some of the other parts `named`."""
    shapes = {part: SHAPES[part][code[0]] for part, code in zip(PARTS, codes, strict=True)}
    colors = {part: COLORS[code[1]] for part, code in zip(PARTS, codes, strict=True)}
    adjectives = {
        part: COLOR_WORDS[colors[part]][0] if has_color else SHAPE_WORDS[part][shapes[part]][0]
        for part, has_color in zip(PARTS, is_colored, strict=True)
    }
    modifying = [part for part in SPECIES_ADJECTIVES if part in named]
    for length in range(1, len(modifying) + 1):
        for head in heads:
            for parts in combinations([part for part in modifying if part != head], length):
                modifiers = " ".join(f"{adjectives[part]}-{SPECIES_ADJECTIVES[part]}" for part in parts)
                yield f"{modifiers} {SPECIES_NOUNS[head][shapes[head]]}"
