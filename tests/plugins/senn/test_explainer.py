"""Presets, settings and foreign networks."""

import pytest
from plugin_cases import uniform, whole_split
from torch import nn

import explainkit as ek
from explainkit.errors import UnsupportedNetworkError
from explainkit.testing import tiny_dataset


@pytest.mark.parametrize("preset", ek.explainer("senn").presets)
def test_every_preset_builds_and_has_phases(preset):
    model = ek.explainer("senn", preset=preset)
    shape = {"table": (4,), "paper": (3, 28, 28), "mnist": (3, 28, 28)}.get(preset, (3, 64, 64))

    network = model.build(ek.Task(classes=3, size=shape[-2:]))

    assert network(uniform(2, *shape)).shape == (2, 3)
    assert [phase.name for phase in model.phases()][-2:] == ["steady", "settle"]


def test_the_papers_network_learns_from_gray_images_of_28_pixels():
    dataset = tiny_dataset(size=28)
    model = ek.explainer("senn", preset="paper", settle_epochs=1, batch_size=48)

    model.fit(dataset, device="cpu", progress=False)

    terms = {"cross_entropy", "sparsity", "reconstruction", "robustness"}
    assert set(model.history[-1].train_losses) == terms
    assert model.network.parametrizer.cells == 16 and model.network.channels == 1
    explanations = model.explain(whole_split(dataset, "test")).check_additivity()
    bounded = model.network.parametrizer(whole_split(dataset, "test").images)
    assert bounded.abs().max() < 1 and explanations.units.pictures[0][-1].image.shape == (3, 28, 28)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"concepts": 0}, "concepts"), ({"channels": 2}, "channels"),
        ({"robustness_fraction": 1.5}, "robustness_fraction"),
        ({"robustness": -1.0}, "robustness"), ({"sparsity": float("inf")}, "sparsity"),
        ({"dropout": 2.0}, "dropout"), ({"learn_epochs": -1}, "learn_epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"concepts": 2.5}, "concepts"), ({"robustness": "much"}, "robustness"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_in_words(settings, word):
    with pytest.raises(ek.InputError, match=f"Expected {word} of SENN"):
        ek.explainer("senn", **settings)


def test_networks_of_another_kind_are_refused():
    with pytest.raises(UnsupportedNetworkError, match="Expected a SENNNetwork for SENN; got Linear"):
        ek.explainer("senn", network=nn.Linear(3, 3), classes=["a", "b", "c"])
