import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explainkit.data.datasets.aviary import interventions
from explainkit.data.datasets.aviary.grammar import (
    ATTRIBUTES,
    COLORS,
    PARTS,
    PATTERNED,
    PATTERNS,
    PRESETS,
    SHAPES,
    grammar,
)
from explainkit.data.datasets.aviary.language import (
    captions,
    contradict,
    hard_negatives,
    species_names,
    vocabulary,
)
from explainkit.data.datasets.aviary.scenes import (
    PLUMAGES,
    Casting,
    Scenes,
    compose,
)
from explainkit.data.datasets.aviary.words import (
    COLOR_WORDS,
    NOUNS,
    PATTERN_WORDS,
    SHAPE_WORDS,
)
from explainkit.data.types import Caption
from explainkit.errors import InputError

SPECIES = grammar(20)
SCENES = compose(SPECIES, np.arange(300), Casting(seed=3, dropout=0.5, variation=0.3))
VALUES = {"color": COLORS, "pattern": PATTERNS}


@given(st.integers(0, 5), st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_every_phrase_stands_where_its_span_says(paraphrase: int, index: int) -> None:
    scenes = compose(SPECIES, [index, index + 1], Casting(dropout=0.5))

    for caption in captions(scenes, paraphrase):
        ends = [0, *(phrase.end for phrase in caption.phrases)]
        assert all(caption.text[phrase.start : phrase.end] == phrase.text for phrase in caption.phrases)
        assert all(phrase.start >= end for phrase, end in zip(caption.phrases, ends, strict=False))


@pytest.mark.parametrize("paraphrase", [0, 1])
def test_phrases_are_true_of_present_parts(paraphrase: int) -> None:
    for n, caption in enumerate(captions(SCENES, paraphrase)):
        for phrase in caption.phrases:
            if phrase.part:
                p = PARTS.index(phrase.part)
                assert SCENES.present[n, 0, p]
                assert phrase.attributes.items() <= _true(SCENES, n, p).items()


def test_every_caption_has_a_phrase_irrelevant_to_the_class() -> None:
    sentences = captions(SCENES)

    assert all(any(phrase.part is None for phrase in caption.phrases) for caption in sentences)
    bodies = [p for caption in sentences for p in caption.phrases if p.part is None and p.attributes]
    assert {p.attributes["color"] for p in bodies} == set(PLUMAGES)


def test_captions_use_only_the_vocabulary() -> None:
    texts = {phrase.text for k in range(3) for caption in captions(SCENES, k) for phrase in caption.phrases}

    assert texts <= set(vocabulary())
    assert len(texts) > 500


def test_a_phrase_can_be_read_back_in_one_way() -> None:
    for part in PARTS:
        tables = [SHAPE_WORDS[part], COLOR_WORDS]
        if part in PATTERNED:
            tables.append(PATTERN_WORDS)
        words = [word for table in tables for synonyms in table.values() for word in synonyms]
        assert len(words) == len(set(words)), part
        assert set(SHAPE_WORDS[part]) == set(SHAPES[part])
    nouns = [noun for synonyms in NOUNS.values() for noun in synonyms]
    assert len(nouns) == len(set(nouns))


def test_paraphrases_differ_and_are_reproducible() -> None:
    first, second = captions(SCENES, 0), captions(SCENES, 1)

    assert sum(one.text == other.text for one, other in zip(first, second, strict=True)) < 10
    assert first == captions(SCENES, 0)


def test_a_caption_depends_on_its_scene_alone() -> None:
    order = np.random.default_rng(0).permutation(300)[:20]

    sentences = captions(SCENES)

    assert captions(SCENES[order]) == tuple(sentences[i] for i in order)


def test_hard_negatives_are_wrong_in_exactly_one_attribute() -> None:
    sentences = captions(SCENES)

    for n, (true, wrong) in enumerate(zip(sentences, hard_negatives(sentences, SCENES), strict=True)):
        differing = [(a, b) for a, b in zip(true.phrases, wrong.phrases, strict=True) if a.text != b.text]
        ((right, changed),) = differing
        assert right.part == changed.part and right.part is not None
        assert right.attributes.keys() == changed.attributes.keys()
        (attribute,) = [a for a in right.attributes if right.attributes[a] != changed.attributes[a]]
        truth = _true(SCENES, n, PARTS.index(right.part))
        assert changed.attributes[attribute] != truth[attribute]
        assert len(set(right.text.split()) ^ set(changed.text.split())) == 2
        assert all(wrong.text[p.start : p.end] == p.text for p in wrong.phrases)
        assert {p.text for p in wrong.phrases} <= set(vocabulary())


@pytest.mark.parametrize("describe", [captions, lambda scenes: hard_negatives(captions(scenes), scenes)])
def test_articles_fit_the_word_after_them(describe: object) -> None:
    for caption in describe(SCENES):  # type: ignore[operator]
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", caption.text), caption.text
        assert caption.text[0].isupper() and caption.text.endswith(".") and "  " not in caption.text


def test_a_bird_without_parts_has_a_caption() -> None:
    (caption,) = captions(interventions.remove(SCENES[:1], PARTS))

    assert "bird" in caption.text
    assert all(phrase.part is None for phrase in caption.phrases)
    assert hard_negatives((caption,), SCENES[:1]) == (caption,)


def test_contradicting_an_attribute_that_is_not_mentioned_is_refused() -> None:
    caption: Caption = next(c for c in captions(SCENES) if c.phrases[0].part is None)

    with pytest.raises(InputError, match="got 'shape'"):
        contradict(caption, 0, "shape", "hooked")


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("classes", [5, 20, 200])
def test_species_have_readable_names_of_their_own(preset: str, classes: int) -> None:
    names = species_names(grammar(classes, preset))

    assert len(set(names)) == classes
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*( [a-z-]+)+", name) for name in names)


def test_names_say_what_the_species_wears() -> None:
    for name, codes in zip(species_names(SPECIES), SPECIES.codes, strict=True):
        for color, part in re.findall(r"(\w+)-(winged|breasted)", name):
            p = PARTS.index({"winged": "wing", "breasted": "breast"}[part])
            assert COLORS[codes[p, 1]] == color


def _true(scenes: Scenes, n: int, p: int) -> dict[str, str]:
    shape, color, pattern = scenes.codes[n, 0, p]
    return dict(zip(ATTRIBUTES, (SHAPES[PARTS[p]][shape], COLORS[color], PATTERNS[pattern]), strict=True))
