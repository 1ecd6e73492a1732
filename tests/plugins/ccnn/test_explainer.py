"""Training, image sizes, and networks trained elsewhere."""

import copy
import re

import pytest
import torch
from attrs import evolve
from ccnn_networks import (
    captions_of,
    fit_quietly,
    fitted_explainer,
    small_network,
    tiny_explainer,
    with_captions,
)
from plugin_cases import uniform
from torch import nn

import explainkit as ek
from explainkit.errors import UnsupportedNetworkError
from explainkit.testing import tiny_dataset, tiny_images


def test_images_need_not_be_square_and_may_be_of_another_size_when_explained():
    dataset = tiny_dataset()
    splits = {name: evolve(split, images=split.images[:, :, :24]) for name, split in dataset.splits.items()}
    model = fit_quietly(tiny_explainer(), evolve(dataset, size=(24, 32), splits=splits))

    assert model.network.visual.shape[0] == 6 * 8
    assert model.explain(uniform(2, 3, 40, 36)).check_additivity().maps.shape[2:] == (10, 9)


def test_networks_of_another_form_are_refused():
    with pytest.raises(UnsupportedNetworkError, match="Expected a CCNNNetwork for CCNN; got Linear"):
        ek.explainer("ccnn", network=nn.Linear(3, 3), classes=["a", "b", "c"])


def test_a_network_trained_elsewhere_is_explained_by_its_filters():
    model = ek.explainer("ccnn", network=small_network(), classes=["a", "b", "c"])

    explanations = model.explain(tiny_images()).check_additivity()

    assert explanations.units.phrases is None and model.confounded == {}
    assert "filter" in explanations[0].sentence()


def test_it_learns_what_phrases_mean():
    dataset = tiny_dataset()
    texts = [re.sub(" and .*", "", text) for text in captions_of(dataset)]
    dataset = with_captions(dataset, "train", texts)

    model = fit_quietly(tiny_explainer(guided_epochs=6, last_epochs=2), dataset)

    assert model.evaluate(dataset, ("test",))["test"]["accuracy"] == 1
    batch = dataset.test.batch(torch.arange(24))
    scores = model.network.eval().decompose(batch.images).scores
    for k, color in enumerate(("blue", "green", "red")):
        assert model.units.phrases[k] == f"{color} square"
        has_color = batch.labels == {"red": 0, "green": 1, "blue": 2}[color]
        assert scores[has_color, k].min() > scores[~has_color, k].max()


def test_a_phrase_that_is_switched_off_supports_nothing(tmp_path):
    model, images = copy.deepcopy(fitted_explainer()), tiny_images()
    strongest = model.explain(images)[0].top(1)[0]
    assert strongest.phrase in model.explain(images)[0].sentence()

    model.disable_units(strongest.phrase)
    explanation = model.explain(images, int(model.explain(images).targets[0]))[0]

    assert model.disabled_units == (strongest.name,)
    assert strongest.phrase not in explanation.sentence()
    assert ek.load(ek.save(model, tmp_path / "m")).disabled_units == (strongest.name,)
