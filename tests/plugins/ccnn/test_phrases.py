"""The phrases of the captions, and their word vectors."""

import re
import warnings

import pytest
import torch
from ccnn_networks import captions_of, fit_quietly, fitted_explainer, tiny_explainer, with_captions
from plugin_cases import assert_near

import explainkit as ek
from explainkit.data.captions.phrases import phrasebook
from explainkit.data.captions.vectors import hashed_vector, phrase_vectors
from explainkit.errors import NotFittedError
from explainkit.explainers.inputs import InputSpec
from explainkit.testing import tiny_dataset, tiny_images
from explainkit_ccnn.explainer import ConfoundedWarning, SpeechlessWarning


def test_the_filters_are_the_phrases_of_the_training_captions_in_order():
    model, dataset = fitted_explainer(), tiny_dataset()

    book = phrasebook(captions_of(dataset), dataset.train.labels, 3, phrases_per_class=4, min_count=1)

    assert model.units.phrases == book.phrases and list(book.phrases) == sorted(book.phrases)
    assert torch.equal(model.network.of_classes, book.of_classes)
    assert_near(model.network.vectors, phrase_vectors(book.phrases))
    texts, labels = captions_of(dataset), dataset.train.labels.tolist()
    for k, phrase in enumerate(model.units.phrases):  # names and columns are of one order
        classes = {label for text, label in zip(texts, labels, strict=True) if phrase in text.lower()}
        assert classes == set(model.network.of_classes[k].nonzero()[:, 0].tolist())


def test_every_phrase_of_a_sentence_is_in_the_vocabulary_and_keeps_its_filter(tmp_path):
    model = fitted_explainer()
    explanations = model.explain(tiny_images())

    loaded = ek.load(ek.save(model, tmp_path / "model"))

    assert loaded.units.phrases == model.units.phrases
    assert torch.equal(loaded.network.concepts.weight, model.network.concepts.weight)
    texts = {text.lower() for text in captions_of(tiny_dataset())}
    for explanation, same in zip(explanations, loaded.explain(tiny_images()), strict=True):
        assert explanation.sentence() == same.sentence()
        for phrase in re.findall(r"the ([a-z ]+?) \(", explanation.sentence()):
            unit = model.units.phrases.index(phrase)
            assert explanation.evidence_of(unit).phrase == phrase and any(phrase in text for text in texts)


def test_captions_of_other_splits_change_nothing():
    dataset = tiny_dataset()
    other = with_captions(dataset, "test", ["A picture with a purple square."] * 24)
    other = with_captions(other, "validation", None)

    model, expected = fit_quietly(tiny_explainer(), other), fitted_explainer()

    assert model.units.phrases == expected.units.phrases
    for name, value in expected.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], value), name


@pytest.mark.parametrize(("min_doc_freq", "classes"), [(0.0, [0, 2]), (0.1, [2])])
def test_what_is_seldom_mentioned_of_a_class_is_no_phrase_of_it(min_doc_freq, classes):
    dataset = tiny_dataset()
    texts = captions_of(dataset)
    texts[:6] = [text.replace("red", "blue") for text in texts[:6]]  # two of the 32 of square 0

    model = fit_quietly(tiny_explainer(min_doc_freq=min_doc_freq), with_captions(dataset, "train", texts))

    k = model.units.phrases.index("blue square")
    assert model.network.of_classes[k].nonzero()[:, 0].tolist() == classes


def test_images_without_captions_are_refused_in_words():
    with pytest.raises(ek.InputError, match=r"captions of the training images.*tiny has none"):
        fit_quietly(tiny_explainer(), with_captions(tiny_dataset(), "train", None))


def test_phrases_are_needed_before_training_is_planned():
    with pytest.raises(ek.InputError, match=r"call fit\(dataset\)"):
        tiny_explainer().phases()
    with pytest.raises(ek.InputError, match=r"call fit\(dataset\)"):
        tiny_explainer().build(ek.Task(classes=3, size=32))


def test_a_class_without_phrases_is_named():
    dataset = tiny_dataset()
    texts = ["" if "blue" in text else text for text in captions_of(dataset)]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = tiny_explainer().fit(with_captions(dataset, "train", texts), device="cpu", progress=False)

    messages = [str(warning.message) for warning in caught if warning.category is SpeechlessWarning]
    assert len(messages) == 1 and "no phrase that tells square 2 from other classes" in messages[0]
    assert model.explain(tiny_images(), "square 2").check_additivity()


def test_phrases_that_may_be_mistaken_are_named_and_remembered(tmp_path):
    dataset = tiny_dataset()
    with pytest.warns(ConfoundedWarning, match=r"\(like 'red square'\)") as caught:
        model = tiny_explainer().fit(dataset, device="cpu", progress=False)
    assert {warning.filename for warning in caught} == {__file__}  # where fit was called
    book = phrasebook(captions_of(dataset), dataset.train.labels, 3, phrases_per_class=4, min_count=1)

    loaded = ek.load(ek.save(model, tmp_path / "model"))

    assert loaded.confounded == model.confounded == book.confounded()
    assert loaded.confounded["first corner"] == "red square"


def test_phrases_that_can_be_distinguished_are_not_named():
    dataset = tiny_dataset()
    texts = [re.sub(" and .*", "", text) for text in captions_of(dataset)]

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConfoundedWarning)
        model = tiny_explainer().fit(with_captions(dataset, "train", texts), device="cpu", progress=False)

    assert model.confounded == {} and len(model.units) == 3


def test_before_training_no_phrase_is_known():
    with pytest.raises(NotFittedError):
        _ = tiny_explainer().confounded


def test_word_vectors_are_read_from_a_file_and_saved_with_the_network(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("red 1 0 0\ngreen 0 1 0\nsquare 0 0 2\nother 9 9 9\n", encoding="utf-8")
    model = fit_quietly(tiny_explainer(vectors=str(path)), tiny_dataset())

    folder = ek.save(model, tmp_path / "model")
    path.unlink()
    loaded = ek.load(folder)

    k = model.units.phrases.index("red square")
    assert model.network.vectors[k].tolist() == [1, 0, 2]
    corner = model.network.vectors[model.units.phrases.index("first corner")]
    assert_near(corner, (hashed_vector("first", 3) + hashed_vector("corner", 3)) * 4 / 3)
    assert torch.equal(loaded.network.vectors, model.network.vectors) and loaded.vectors == str(path)
    assert torch.equal(loaded.predict(tiny_images()), model.predict(tiny_images()))


def test_words_are_hashed_without_a_file():
    assert fitted_explainer().network.vectors.shape[1] == 50
    assert torch.equal(fitted_explainer().network.vectors, phrase_vectors(fitted_explainer().units.phrases))


@pytest.mark.parametrize(
    ("text", "message"),
    [("other 1 2\n", r"vectors of words such as blue, corner.*has none"), (None, "Expected word vectors at")],
)
def test_a_file_without_the_words_is_refused_in_words(tmp_path, text, message):
    path = tmp_path / "vectors.txt"
    if text:
        path.write_text(text, encoding="utf-8")

    with pytest.raises(ek.InputError, match=message):
        fit_quietly(tiny_explainer(vectors=str(path)), tiny_dataset())


def test_a_saved_state_without_phrases_is_refused_in_words():
    state = fitted_explainer().network.state_dict()
    for vectors in (None, torch.zeros(6), torch.zeros(0, 50)):
        spoiled = {name: value for name, value in state.items() if name != "vectors"}
        spoiled |= {} if vectors is None else {"vectors": vectors}
        with pytest.raises(ek.InputError, match=r"vectors \(K, E\)"):
            tiny_explainer().load_state(spoiled, tiny_dataset().classes, InputSpec(size=(32, 32)), None)
