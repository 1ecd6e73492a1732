"""What is said of fixed weights and images stays what it was: to the bit here, within rounding elsewhere."""

import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest
import torch

spec = importlib.util.spec_from_file_location("recording", Path(__file__).parent / "recording.py")
recording = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recording)

RELATIVE = 1e-3
"""Of a tensor's largest number: float32 convolutions, and what follows from them, on another processor."""

SOLVED = 5e-2
"""The same of surrogates that are fitted by least squares or the lasso: badly conditioned systems."""

FITTED = ("captum/kernel-shap", "captum/lime")

CHOSEN = re.compile(r"region-swap/|class/(ids|cells|boxes|sign_agreement|decisive_rate|confusion)|score-edit")
"""Choices among nearly equal values: compared to the bit, or by their shares."""


REWORDED = {
    "nothing speaks for it": "nothing supports it",
    "no phrase speaks for it": "no phrase supports it",
}
"""What sentences of the first edition say in the second."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def golden():
    return recording.load_golden()


@cache
def found(name):
    weights = golden()[0]
    if name in recording.ARCHITECTURES:
        return recording.of_architecture(name, weights)
    return recording.of_method(name)


def is_same_machine():
    return golden()[2]["environment"] == recording.environment()


@pytest.mark.parametrize("name", (*recording.ARCHITECTURES, *recording.METHODS))
def test_the_numbers_are_the_golden_ones(name):
    _, tensors, facts = golden()
    expected = {key for key in tensors if key.startswith(f"{name}/")}
    given = {f"{name}/{key}": value for key, value in found(name)[0].items()}

    assert given.keys() == expected
    for key, value in given.items():
        if is_same_machine():
            assert recording.digest(value) == facts["digests"][key], key
        else:
            size = tensors[key.replace("residual", "explained_output")]  # what a residual is rounding of
            agrees(key, recording.thinned(value), tensors[key], size)


def agrees(key, value, golden_value, size):
    assert value.shape == golden_value.shape, key
    value, golden_value = value.double(), golden_value.double()
    if CHOSEN.search(key):
        scale = golden_value.abs().max().clamp(min=1e-9)
        differ = ((value - golden_value).abs() > RELATIVE * scale).double().mean()
        assert differ <= 0.1, f"{key}: {differ:.0%} of the choices differ"
        return
    relative = SOLVED if key.startswith(FITTED) else RELATIVE
    scale = size[size.isfinite()].abs().max() if len(size) else 1.0
    torch.testing.assert_close(value, golden_value, rtol=0, atol=relative * float(scale) + 1e-7, msg=key)


@pytest.mark.parametrize("name", (*recording.ARCHITECTURES, *recording.METHODS))
def test_the_sentences_are_the_golden_ones(name):
    said, golden_words = found(name)[1], reworded(golden()[2]["words"][name])

    assert said.keys() == golden_words.keys()
    for question, sentences in said.items():
        if is_same_machine():
            assert sentences == golden_words[question]
            continue
        apart = sum(
            without_numbers(one) != without_numbers(other)
            for one, other in zip(sentences, golden_words[question], strict=True)
        )
        assert apart <= max(1, len(sentences) // 5), f"{question}: {apart} of {len(sentences)} differ"


def reworded(words):
    for old, new in REWORDED.items():
        words = {
            question: [sentence.replace(old, new) for sentence in said] for question, said in words.items()
        }
    return words


def without_numbers(sentence):
    return re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "#", sentence)


@pytest.mark.parametrize("name", recording.ARCHITECTURES)
def test_training_ends_at_the_golden_weights(name):
    if not is_same_machine():
        pytest.skip("Training amplifies rounding: weights are compared to the bit on one machine alone.")
    facts = golden()[2]

    trained = recording.weights_of(recording.trained(name))

    assert {f"{name}/{key}": recording.digest(value) for key, value in trained.items()} == {
        key: value for key, value in facts["trained"].items() if key.startswith(f"{name}/")
    }
