"""Captions to phrases that tell classes apart: captions to words to adjective-noun pairs to a vocabulary.

The steps are those of Wickramanayake, Hsu, Lee: Comprehensible Convolutional Neural Networks via Guided
Concept Learning, IJCNN 2021, arXiv:2101.03919, with a tagger that needs no trained model. Only the captions
that are given are read: hand over those of the training split, and nothing of the others leaks.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from attrs import field, frozen
from torch import Tensor

from explainkit.errors import InputError

Words = Sequence[str]
"""A sentence, word by word, in lower case; punctuation is a word of its own."""

Tagger = Callable[[Sequence[Words]], Sequence[Sequence[str]]]
"""Sentences to a part of speech a word: ``"ADJ"``, ``"NOUN"``, ``"CCONJ"``, ``"AUX"``, or anything else."""

_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*|[^\w\s]")

_FUNCTION_WORDS = """
a an the this that these those its his her their it he she they there which who what some any each every all
both no not of in on at by with without for from to into onto over under near along around across through
behind beside between above below against among amongst towards upon off up down out as than but or nor so
while when where if also very quite rather mostly mainly slightly somewhat too just only well has have had
having seen see look looks looking show shows showing feature features featuring sits sitting stands
standing perched perches flying flies holds holding eating swimming walking can could may might will would
do does did
"""
BREAKS = frozenset(_FUNCTION_WORDS.split())
"""Words that stand in no adjective-noun phrase: where one comes, a phrase has ended."""

NOUNS_END = 0.25
"""A word that ends more of its runs than this is a noun: some stand before others, as in "tail feathers"."""

COPULAS = frozenset({"is", "are", "was", "were", "be", "being", "been"})
"""Verbs after which adjectives refer to the noun before."""


@frozen(eq=False, kw_only=True)
class Phrasebook:
    """The phrases that tell classes apart, and where they were said.

    Attributes
    ----------
    phrases : tuple of str, K
        In alphabetical order.
    of_classes : Tensor, (K, C), bool
        For which classes a phrase was chosen.
    of_images : Tensor, (N, K), bool
        Which phrases of its own class each training image's captions have.
    """

    phrases: tuple[str, ...] = field(repr=lambda phrases: f"<{len(phrases)} phrases>")
    of_classes: Tensor = field(repr=False)
    of_images: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.phrases)

    def confounded(self, limit: float = 0.95) -> dict[str, str]:
        """The phrases that cannot be learned apart from another, with that other one.

        Two phrases are confounded where they were chosen for the very same classes, or where one is said in
        more than `limit` of the images in which the other is.
        """
        mentioned = self.of_images.double()
        joint = mentioned.T @ mentioned / mentioned.sum(0).clamp(min=1)[:, None]  # (K, K): P(column | row)
        same = (self.of_classes[:, None] == self.of_classes[None]).all(2)
        overlap = torch.maximum(joint, same.double()).fill_diagonal_(0)
        largest, other = overlap.max(1) if len(self) else (torch.zeros(0), torch.zeros(0, dtype=torch.long))
        return {
            self.phrases[k]: self.phrases[int(other[k])] for k in (largest > limit).nonzero()[:, 0].tolist()
        }


def phrasebook(
    captions: Sequence[str],
    labels: Tensor,
    classes: int,
    *,
    phrases_per_class: int = 20,
    min_count: int = 3,
    min_doc_freq: float = 0.0,
    without: Iterable[str] = ("body",),
    synonyms: Mapping[str, str] | None = None,
    tagger: Tagger | None = None,
) -> Phrasebook:
    """The phrases of each class with the highest tf-idf, as sections 2.1 and 2.2 of the paper choose them.

    Parameters
    ----------
    captions : sequence of str, N
        What is said of each training image; several sentences in one text.
    labels : Tensor, (N,), int64
    phrases_per_class : int
        Phrases of a class at most.
    min_count : int
        In how many images of a class a phrase must be said to count for it.
    min_doc_freq : float
        And in what share of them: where classes have hundreds of images, some are said to be what the class
        is not.
    without : iterable of str
        Nouns that say too little.
    synonyms : mapping of str to str or None
        Words, or runs of words, to the one that stands for them.
    tagger : Tagger or None
        ``None``: `corpus_tagger`.

    Raises
    ------
    InputError
        For captions and labels of different number, and where no phrase is left.
    """
    if len(captions) != len(labels):
        raise InputError(f"Expected a caption an image, {len(labels)}; got {len(captions)}.")
    pairs = extract_phrases(captions, synonyms=synonyms, tagger=tagger)
    excluded = set(without)
    texts = [{text for text, noun in of_image if noun not in excluded} for of_image in pairs]
    vocabulary = sorted(set().union(*texts))
    mentioned = _mention_matrix(vocabulary, texts)
    counts = torch.zeros(classes, len(vocabulary)).index_add_(0, labels, mentioned.float())
    images = torch.bincount(labels, minlength=classes)[:, None]
    scores = tf_idf(counts.where((counts >= min_count) & (counts >= min_doc_freq * images), 0.0))
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :phrases_per_class]
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True) & (scores > 0)
    columns = chosen.any(0).nonzero()[:, 0]
    if not len(columns):
        raise InputError(
            f"Expected captions with phrases that tell classes apart, each in at least {min_count} images "
            f"and {min_doc_freq:.0%} of a class; found none in {len(captions)} captions. Give more captions, "
            "a smaller min_count=… or min_doc_freq=…, or a tagger of your own."
        )
    return Phrasebook(
        phrases=tuple(vocabulary[k] for k in columns.tolist()),
        of_classes=chosen[:, columns].T,
        of_images=mentioned[:, columns] & chosen[labels][:, columns],
    )


def mentions(
    phrases: Sequence[str],
    captions: Sequence[str],
    *,
    synonyms: Mapping[str, str] | None = None,
    tagger: Tagger | None = None,
) -> Tensor:
    """Which of `phrases` (K,) each of any captions (N,) has, whatever its class: (N, K), bool."""
    pairs = extract_phrases(captions, synonyms=synonyms, tagger=tagger)
    return _mention_matrix(phrases, [{text for text, _ in of_image} for of_image in pairs])


def _mention_matrix(phrases: Sequence[str], texts: Sequence[set[str]]) -> Tensor:
    """(N, K), bool: which of `phrases` are in the texts of each image; other texts are ignored."""
    index = {phrase: k for k, phrase in enumerate(phrases)}
    entries = [(i, index[text]) for i, of_image in enumerate(texts) for text in of_image if text in index]
    mentioned = torch.zeros(len(texts), len(phrases), dtype=torch.bool)
    if entries:
        mentioned[tuple(torch.tensor(entries).T)] = True
    return mentioned


def tf_idf(counts: Tensor) -> Tensor:
    """How well a phrase tells a class: its share of what is said of the class, times ln(C / classes with it).

    Parameters
    ----------
    counts : Tensor, (C, P)
        In how many images of a class each phrase is said. One that is said of every class scores 0.
    """
    term_frequency = counts / counts.sum(1, keepdim=True).clamp(min=1)
    document_frequency = (counts > 0).sum(0)
    return term_frequency * torch.log(len(counts) / document_frequency.clamp(min=1))


def extract_phrases(
    captions: Sequence[str], *, synonyms: Mapping[str, str] | None = None, tagger: Tagger | None = None
) -> list[set[tuple[str, str]]]:
    """The adjective-noun phrases of each caption, each with its noun.

    "A red and black bill, its crown is blue" has "black and red bill" and "blue crown"; "a long gray tail"
    has "long tail" and "gray tail"; a plural counts as the singular where the captions have that too.
    """
    sentences = [tokenize(caption, synonyms) for caption in captions]
    tags = (tagger or corpus_tagger)(sentences)
    nouns = {
        word for words, parts in zip(sentences, tags, strict=True)
        for word, part in zip(words, parts, strict=True) if part == "NOUN"
    }  # fmt: skip
    return [set(_pairs(words, parts, nouns)) for words, parts in zip(sentences, tags, strict=True)]


def tokenize(caption: str, synonyms: Mapping[str, str] | None = None) -> list[str]:
    """A caption word by word, in lower case, `synonyms` put in; hyphenated words are one."""
    text = caption.lower()
    for phrase, synonym in sorted((synonyms or {}).items(), key=lambda pair: -len(pair[0])):
        text = re.sub(rf"(?<![\w-]){re.escape(phrase.lower())}(?![\w-])", synonym.lower(), text)
    return _WORD.findall(text)


def corpus_tagger(sentences: Sequence[Words]) -> list[list[str]]:
    """Parts of speech from where words stand: what often ends a run of content words is a noun.

    Runs end at punctuation and at small words (`BREAKS`). It knows no grammar, and is right about captions of
    the kind "a bird with a long red bill and gray wings"; for others give a tagger that was trained.
    """
    last, before = Counter[str](), Counter[str]()
    for words in sentences:
        for run in _runs(words):
            last[run[-1]] += 1
            before.update(run[:-1])

    def part(word: str) -> str:
        if word == "and":
            return "CCONJ"
        if word in COPULAS:
            return "AUX"
        if word in BREAKS or not word[0].isalpha():
            return "X"
        return "NOUN" if last[word] > NOUNS_END * (last[word] + before[word]) else "ADJ"

    return [[part(word) for word in words] for words in sentences]


def _runs(words: Words) -> Iterator[list[str]]:
    """Runs of content words that end in a noun: those that end at a break, and are not after a copula."""
    run: list[str] = []
    after_copula = False
    for word in [*words, "."]:
        if word == "and" or word in COPULAS or word in BREAKS or not word[0].isalpha():
            if run and not after_copula and not (word == "and" and len(run) == 1):
                yield run
            after_copula = word in COPULAS or (after_copula and word == "and")
            run = []
        else:
            run.append(word)


def _pairs(words: Words, parts: Sequence[str], nouns: set[str]) -> Iterator[tuple[str, str]]:
    """Every (phrase, noun) of a tagged sentence."""
    adjectives: list[str] = []
    subject, after_copula, position = "", False, 0
    while position < len(words):
        part = parts[position]
        is_joined = part == "CCONJ" and parts[position - 1 : position + 2 : 2] == ["ADJ", "ADJ"]
        if part == "ADJ":
            adjectives.append(words[position])
        elif is_joined and adjectives:
            adjectives[-1] = " and ".join(sorted((adjectives[-1], words[position + 1])))
            position += 1
        elif part == "NOUN":
            end = position
            while end + 1 < len(words) and parts[end + 1] == "NOUN":
                end += 1
            *modifiers, head = words[position : end + 1]
            subject = " ".join([*modifiers, _singular(head, nouns)])
            yield from ((f"{adjective} {subject}", subject) for adjective in adjectives)
            adjectives, after_copula, position = [], False, end
        elif part == "AUX" and subject:
            adjectives, after_copula = [], True
        else:
            if after_copula and adjectives:
                yield from ((f"{adjective} {subject}", subject) for adjective in adjectives)
                after_copula = False
            if not (after_copula and not adjectives and words[position] in BREAKS):
                after_copula = False
            adjectives = []
            if words[position] in ".;!?":
                subject = ""
        position += 1
    if after_copula:
        yield from ((f"{adjective} {subject}", subject) for adjective in adjectives)


def _singular(noun: str, nouns: set[str]) -> str:
    return noun[:-1] if noun.endswith("s") and noun[:-1] in nouns else noun
