"""Words as vectors: from a file that was trained, or from a hash where none is at hand."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from explainkit.data.random_keys import random_keys, uniform
from explainkit.errors import FormatError, InputError

LONGEST = 2**20
"""Letters of a line that are read at once."""

WordVectors = Callable[[str], Tensor | None]
"""A word to its vector (E,), or ``None`` where it is not known."""


def hashed_vector(word: str, size: int = 50) -> Tensor:
    """A unit vector (E,) that the word alone decides: nearly orthogonal to all others, and always the same.

    It tells which words phrases share, and nothing of what words mean.
    """
    keys = np.atleast_1d(random_keys(*word.encode()))
    numbers = torch.from_numpy(uniform(keys, 2 * size)).double()[0]
    radius, angle = (-2 * numbers[:size].clamp(min=1e-12).log()).sqrt(), 2 * np.pi * numbers[size:]
    normal = radius * angle.cos()  # Box and Muller, Annals of Mathematical Statistics 29, 1958
    return (normal / normal.norm()).float()


def read_vectors(path: str | Path, words: Iterable[str]) -> dict[str, Tensor]:
    """The vectors of `words` in a text file of GloVe or word2vec: a word and its numbers a line.

    Raises
    ------
    InputError
        For a file that cannot be read.
    FormatError
        For a line that is no word with numbers, or with more or fewer of them than the others.
    """
    vocabulary, vectors, size = set(words), dict[str, Tensor](), 0
    try:
        if Path(path).exists() and not Path(path).is_file():  # a pipe may never end
            raise OSError(0, "it is no file")
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(iter(partial(file.readline, LONGEST), ""), 1):
                word, _, rest = line.rstrip().partition(" ")
                is_header = number == 1 and rest.isdigit()  # word2vec begins with its size
                if word not in vocabulary or is_header:
                    continue
                try:
                    values = torch.tensor([float(value) for value in rest.split()])
                except ValueError:
                    raise FormatError(
                        f"Expected a word and numbers in {str(path)!r}, line {number}."
                    ) from None
                size = size or len(values)
                if not size or len(values) != size or not values.isfinite().all():
                    raise FormatError(
                        f"Expected {size or 'some'} finite numbers in {str(path)!r}, line {number}; "
                        f"got {len(values)}."
                    )
                vectors[word] = values
    except OSError as error:
        raise InputError(f"Expected word vectors at {str(path)!r}: {error.strerror}.") from None
    return vectors


def phrase_vectors(phrases: Sequence[str], vectors: WordVectors | None = None) -> Tensor:
    """Each phrase as the sum of its words' vectors, without "and": (K, E).

    Parameters
    ----------
    vectors : WordVectors or None
        Words that it does not know get a hashed vector of the same size and of the known ones' mean length;
        ``None``: all do.
    """
    words_by_phrase = [phrase_words(phrase) for phrase in phrases]
    trained = {word: vectors(word) if vectors else None for words in words_by_phrase for word in words}
    available = [vector for vector in trained.values() if vector is not None]
    size = len(available[0]) if available else 50
    length = torch.stack([vector.norm() for vector in available]).mean() if available else torch.tensor(1.0)
    table = {
        word: hashed_vector(word, size) * length if vector is None else vector
        for word, vector in trained.items()
    }
    return torch.stack([torch.stack([table[word] for word in words]).sum(0) for words in words_by_phrase])


def phrase_words(phrase: str) -> list[str]:
    """The words of a phrase that have a vector: those joined by hyphens one by one, and no "and"."""
    return [word for word in phrase.replace("-", " ").split() if word != "and"]
