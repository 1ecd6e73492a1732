"""Captions to phrases: what is found in a sentence, what tells classes apart, and that nothing leaks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import explainkit as ek
from explainkit.data.captions.phrases import (
    corpus_tagger,
    extract_phrases,
    mentions,
    phrasebook,
    tf_idf,
    tokenize,
)

CORPUS = [
    "A small bird with a long red bill and gray wings.",
    "This bird has a red and black bill; its crown is blue.",
    "The wings are black and white, the tail feathers are long.",
    "A bird with white tail feathers, a black bill and a blue crown.",
    "It has a yellow wing, a black and red bill and a short gray tail.",
    "A white bird, seen at night, with a long tail.",
]


def phrases_of(text, corpus=CORPUS):
    return {phrase for phrase, _ in extract_phrases([*corpus, text])[-1]}


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("a bird with a red bill", {"red bill"}),
        ("a long gray tail", {"long tail", "gray tail"}),
        ("a red and black bill", {"black and red bill"}),
        ("a black and red bill", {"black and red bill"}),
        ("a bill and black wings", {"black wing"}),
        ("its crown is blue", {"blue crown"}),
        ("the wings are black and white", {"black and white wing"}),
        ("the bill is long, the tail is gray", {"long bill", "gray tail"}),
        ("white tail feathers", {"white tail feathers"}),
        ("gray wings and a gray wing", {"gray wing"}),
        ("GRAY Wings!", {"gray wing"}),
        ("at night with the bird", set()),
        ("", set()),
        ("... , ; !", set()),
    ],
)
def test_the_phrases_of(text, phrases):
    assert phrases_of(text) == phrases


def test_hyphenated_words_are_one_and_synonyms_are_put_in_whole():
    assert tokenize("A dagger-like bill, pale-tipped.") == [
        "a",
        "dagger-like",
        "bill",
        ",",
        "pale-tipped",
        ".",
    ]
    assert tokenize("eye-ring and eye", {"eye": "iris"}) == ["eye-ring", "and", "iris"]
    assert tokenize("tail feathers", {"tail": "rear", "tail feathers": "tail"}) == ["rear"]  # longest first
    assert tokenize("an eye ring", {"eye ring": "eyering", "eye": "iris"}) == ["an", "eyering"]


def test_a_tagger_of_ones_own_decides():
    tags = {"glowing": "ADJ", "crow": "NOUN", "dark": "NOUN"}

    phrases = extract_phrases(
        ["a glowing dark, a glowing crow"],
        tagger=lambda sentences: [[tags.get(word, "X") for word in words] for words in sentences],
    )

    assert phrases == [{("glowing dark", "dark"), ("glowing crow", "crow")}]


def test_nouns_are_found_by_where_words_stand():
    (tags,) = corpus_tagger([tokenize("a red bill , a red crest and a blue crest .")])

    assert tags == ["X", "ADJ", "NOUN", "X", "X", "ADJ", "NOUN", "CCONJ", "X", "ADJ", "NOUN", "X"]


def test_almost_all_phrases_of_aviarys_parts_are_found_and_hardly_any_other():
    dataset = ek.dataset("aviary", train=1500, size=32)
    captions = dataset.train.batch(torch.arange(1500)).captions
    pairs = extract_phrases([caption.text for caption in captions])

    right = missed = others = 0
    for caption, phrases in zip(captions, pairs, strict=True):
        texts, true = {text for text, _ in phrases}, set()
        for phrase in caption.phrases:
            noun = next((n for n in ("tail feathers",) if phrase.text.endswith(n)), phrase.text.split()[-1])
            if phrase.part is not None:
                singular = {"wings": "wing", "eyes": "eye"}.get(noun, noun)
                true |= {f"{word} {singular}" for word in phrase.text.removesuffix(noun).split()}
        right, missed = right + len(true & texts), missed + len(true - texts)
        others += len({text for text in texts - true if not text.endswith(("bird", "wall", "hill"))})

    assert right > 0.99 * (right + missed) and others < 0.01 * right


def test_tf_idf_is_the_share_within_the_class_times_how_few_classes_have_it():
    counts = torch.tensor([[4.0, 1.0, 5.0], [0.0, 3.0, 1.0], [0.0, 0.0, 2.0]])

    scores = tf_idf(counts)

    assert scores[0, 0].item() == pytest.approx(4 / 10 * math.log(3 / 1))
    assert scores[1, 1].item() == pytest.approx(3 / 4 * math.log(3 / 2))
    assert not scores[:, 2].any()  # said of every class


CAPTIONS = [
    *["a bird with a red bill and a gray wing"] * 3,
    "a bird with a red bill and a long tail",
    *["a bird with a blue bill and a long tail"] * 4,
    "a bird with a blue bill and a gray wing",
    "a bird with a short tail",
]
LABELS = torch.tensor([0] * 4 + [1] * 5 + [1])


def test_a_phrasebook_has_what_tells_classes_apart_and_where_it_was_said():
    book = phrasebook(CAPTIONS, LABELS, 2, min_count=2)

    assert book.phrases == ("blue bill", "gray wing", "long tail", "red bill")
    assert book.of_classes.tolist() == [[False, True], [True, False], [False, True], [True, False]]
    assert book.of_images[0].tolist() == [False, True, False, True]
    assert book.of_images[3].tolist() == [False, False, False, True]  # its long tail is not of its class
    assert book.of_images[8].tolist() == [True, False, False, False]
    assert not book.of_images[9].any()


def test_a_phrase_said_of_all_classes_or_seldom_is_left_out():
    book = phrasebook(CAPTIONS, LABELS, 2, min_count=1)

    assert (
        "short tail" in book.phrases and "long tail" not in book.phrases and "gray wing" not in book.phrases
    )
    assert "short tail" not in phrasebook(CAPTIONS, LABELS, 2, min_count=2).phrases


def test_a_phrase_that_is_said_of_a_small_share_of_a_class_is_left_out():
    captions = [*["a red bill"] * 9, "a blue bill", *["a blue bill"] * 10]
    labels = torch.tensor([0] * 10 + [1] * 10)

    assert phrasebook(captions, labels, 2, min_count=1).phrases == ("red bill",)  # blue is said of both
    book = phrasebook(captions, labels, 2, min_count=1, min_doc_freq=0.2)

    assert book.phrases == ("blue bill", "red bill")
    assert book.of_classes.tolist() == [[False, True], [True, False]] and not book.of_images[9].any()


def test_at_most_so_many_phrases_are_chosen_for_a_class():
    book = phrasebook(CAPTIONS, LABELS, 2, min_count=2, phrases_per_class=1)

    assert (book.of_classes.sum(0) <= 1).all()


@given(st.lists(st.tuples(st.integers(0, 3), st.sets(st.sampled_from("abcdefg"), max_size=4)), min_size=1))
def test_every_phrasebook_keeps_to_its_rules(images):
    captions = [", ".join(f"a {letter}x thing" for letter in sorted(letters)) for _, letters in images]
    labels = torch.tensor([label for label, _ in images])
    tags = {f"{letter}x": "ADJ" for letter in "abcdefg"} | {"thing": "NOUN"}
    try:
        book = phrasebook(
            captions, labels, 4, phrases_per_class=2, min_count=2,
            tagger=lambda sentences: [[tags.get(word, "X") for word in words] for words in sentences],
        )  # fmt: skip
    except ek.InputError:
        return

    assert len(book) <= 2 * 4 and (book.of_classes.sum(0) <= 2).all() and book.of_classes.any(1).all()
    assert not (book.of_images & ~book.of_classes.T[labels]).any()
    for k, phrase in enumerate(book.phrases):
        counts = [
            sum(phrase[0] in letters for label, letters in images if label == number) for number in range(4)
        ]
        spread = sum(count >= 2 for count in counts)
        assert 0 < spread < 4  # what is said of all classes tells none
        assert all(counts[c] >= 2 for c in book.of_classes[k].nonzero()[:, 0].tolist())
        for i, (label, letters) in enumerate(images):
            assert book.of_images[i, k] == (phrase[0] in letters and bool(book.of_classes[k, label]))


def test_nouns_that_say_too_little_are_left_out():
    book = phrasebook(CAPTIONS, LABELS, 2, min_count=2, without=["bill"])

    assert book.phrases == ("gray wing", "long tail")


def test_other_captions_change_nothing_and_are_read_with_the_same_phrases():
    book = phrasebook(CAPTIONS, LABELS, 2, min_count=2)

    mentioned = mentions(
        book.phrases, ["a bird with a red bill and a purple crest", "", "a gray wing is long"]
    )

    assert mentioned.shape == (3, 4)
    assert mentioned[0].tolist() == [False, False, False, True] and not mentioned[1].any()


def test_phrases_that_cannot_be_learned_apart_are_named():
    captions = ["a bird with a red bill and a gray wing"] * 4 + ["a bird with a blue bill"] * 4
    labels = torch.tensor([0] * 4 + [1] * 4)

    alike = phrasebook(captions, labels, 2).confounded()

    assert alike == {"red bill": "gray wing", "gray wing": "red bill"}


def test_what_is_said_with_another_phrase_in_nearly_every_image_is_named():
    texts = ["red bill and a gray wing", "gray wing", "red bill and a long tail", "long tail", "long tail"]
    captions = [f"a bird with a {text}" for text in texts for _ in range(3)]
    labels = torch.tensor([0] * 3 + [1] * 3 + [0] * 3 + [2] * 6)

    book = phrasebook(captions, labels, 3)

    assert book.confounded(0.95) == {} and "red bill" in book.confounded(0.4)


def test_captions_without_a_telling_phrase_are_refused_in_words():
    with pytest.raises(ek.InputError, match="found none in 4 captions"):
        phrasebook(["a bird"] * 4, torch.tensor([0, 0, 1, 1]), 2)
    with pytest.raises(ek.InputError, match="Expected a caption an image, 2; got 1"):
        phrasebook(["a bird"], torch.tensor([0, 1]), 2)


@given(st.lists(st.text(alphabet="abc and,.-'\n\tÄß0", max_size=30), min_size=1, max_size=6))
def test_any_text_can_be_read(captions):
    phrases = extract_phrases(captions)

    assert len(phrases) == len(captions)
    assert all(text.endswith(noun) and len(text) > len(noun) for pairs in phrases for text, noun in pairs)
