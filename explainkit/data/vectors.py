"""Words as vectors: from a file that was trained, or from a hash where none is at hand."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from explainkit.data.keyed import keyed, uniforms
from explainkit.errors import FormatError, InputError

LONGEST = 2**20
"""Letters of a line that are read at once."""

WordVectors = Callable[[str], Tensor | None]
"""A word to its vector (E,), or ``None`` where it is not known."""


def hashed(word: str, size: int = 50) -> Tensor:
    """A unit vector (E,) that is the word's alone: nearly at right angles to all others, and always the same.

    It tells which words phrases share, and nothing of what words mean.
    """
    letters = keyed(*word.encode())
    chance = torch.from_numpy(uniforms(np.atleast_1d(letters), 2 * size)).double()[0]
    radius, angle = (-2 * chance[:size].clamp(min=1e-12).log()).sqrt(), 2 * np.pi * chance[size:]
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
    wanted, found, size = set(words), dict[str, Tensor](), 0
    try:
        if Path(path).exists() and not Path(path).is_file():  # a pipe may never end
            raise OSError(0, "it is no file")
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(iter(partial(file.readline, LONGEST), ""), 1):
                word, _, rest = line.rstrip().partition(" ")
                if word not in wanted or (number == 1 and rest.isdigit()):  # word2vec begins with its size
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
                found[word] = values
    except OSError as error:
        raise InputError(f"Expected word vectors at {str(path)!r}: {error.strerror}.") from None
    return found


def phrase_vectors(phrases: Sequence[str], vectors: WordVectors | None = None) -> Tensor:
    """Each phrase as the sum of its words' vectors, without "and": (K, E).

    Parameters
    ----------
    vectors : WordVectors or None
        Words that it does not know get a hashed vector of the same size and of the known ones' mean length;
        ``None``: all do.
    """
    spoken = [words_in(phrase) for phrase in phrases]
    known = {word: vectors(word) if vectors else None for words in spoken for word in words}
    given = [value for value in known.values() if value is not None]
    size = len(given[0]) if given else 50
    length = torch.stack([value.norm() for value in given]).mean() if given else torch.tensor(1.0)
    table = {word: hashed(word, size) * length if value is None else value for word, value in known.items()}
    return torch.stack([torch.stack([table[word] for word in words]).sum(0) for words in spoken])


def words_in(phrase: str) -> list[str]:
    """The words of a phrase that have a vector: those joined by hyphens one by one, and no "and"."""
    return [word for word in phrase.replace("-", " ").split() if word != "and"]
