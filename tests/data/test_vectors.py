"""Words as vectors, trained or hashed."""

import os

import pytest
import torch

import explainkit as ek
from explainkit.data.captions.vectors import (
    hashed_vector,
    phrase_vectors,
    phrase_words,
    read_vectors,
)
from explainkit.errors import FormatError


def test_a_hashed_word_is_a_unit_vector_always_the_same_and_far_from_others():
    words = [hashed_vector(word) for word in ("red", "head", "tail", "der", "reds")]
    table = torch.stack(words)

    assert torch.equal(hashed_vector("red"), words[0])
    assert torch.allclose(table.norm(dim=1), torch.ones(5))
    assert ((table @ table.T).fill_diagonal_(0).abs() < 0.5).all()


def test_hashed_vectors_are_spread_evenly():
    table = torch.stack([hashed_vector(f"word{number}", 20) for number in range(2000)])

    assert table.mean(0).abs().max() < 0.02
    assert (table.T @ table / 2000 - torch.eye(20) / 20).abs().max() < 0.01


def test_a_phrase_is_the_sum_of_its_words_without_and():
    red, black, head = hashed_vector("red"), hashed_vector("black"), hashed_vector("head")

    vectors = phrase_vectors(["red head", "black and red head"])

    assert torch.allclose(vectors, torch.stack([red + head, black + red + head]))
    assert torch.cosine_similarity(vectors[0], vectors[1], dim=0) > 0.7


def test_the_words_of_a_phrase_are_those_that_have_vectors():
    assert phrase_words("black and pale-tipped wing") == ["black", "pale", "tipped", "wing"]


def test_trained_vectors_are_read_and_unknown_words_are_hashed_at_their_length(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("2 3\nred 1 0 0\nhead 0 2 0\nother 5 5 5\n", encoding="utf-8")

    vectors = read_vectors(path, ["red", "head", "wing"])
    table = phrase_vectors(["red head", "wing"], vectors.get)

    assert sorted(vectors) == ["head", "red"]
    assert table[0].tolist() == [1, 2, 0]
    assert table[1].norm().item() == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("red 1 x 0", "word and numbers"),
        ("red 1 2\nhead 1", "Expected 2 finite"),
        ("red nan", "finite numbers"),
    ],
)
def test_damaged_vectors_are_refused_with_the_line(tmp_path, text, words):
    path = tmp_path / "vectors.txt"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(FormatError, match=rf"{words}.*line {text.count(chr(10)) + 1}"):
        read_vectors(path, ["red", "head"])


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(ek.InputError, match="it is no file"):
        read_vectors(tmp_path / "pipe", ["red"])


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(ek.InputError, match="Expected word vectors at"):
        read_vectors(tmp_path / "none.txt", ["red"])
