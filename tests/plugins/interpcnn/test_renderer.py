"""Drawings mark the one place of each filter, and say of silent ones that they are."""

import torch
from interpcnn_networks import fitted_explainer, fixed_network

import explainkit as ek
from explainkit.testing import tiny_images
from explainkit_interpcnn.explainer import filter_places
from explainkit_interpcnn.renderer import draw, place_of


def texts_of(figure):
    figure.canvas.draw()
    return [text.get_text() for axes in figure.axes for text in [*axes.texts, axes.title]]


def drawn(explanation):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.8, 3.4), layout="constrained")
    draw(explanation, figure)
    return figure


def test_the_strongest_filters_are_numbered_at_their_places():
    explanations = fitted_explainer().explain(tiny_images())

    texts = texts_of(drawn(explanations[0]))

    places = filter_places(explanations)[0] / torch.tensor([32.0, 32.0])
    numbers = []
    for number, item in enumerate(explanations[0].top(5), 1):
        assert any(text.startswith(f"{number}: filter {item.unit}") for text in texts)
        assert torch.allclose(torch.tensor(place_of(item)), places[item.unit])
        numbers.append(str(number))
    labels = [text for text in texts if set(text) <= set("12345, ") and text]
    assert sorted(", ".join(labels).split(", ")) == numbers


def test_silent_filters_have_no_place_in_the_drawing():
    features = torch.zeros(1, 6, 4, 4)
    features[0, 3, 1, 2] = 5
    explainer = ek.explainer("interp-cnn", network=fixed_network(features), size=(16, 16))

    texts = texts_of(drawn(explainer.explain(torch.zeros(1, 3, 16, 16))[0]))

    assert texts.count("silent: adds nothing") == 4 and texts.count("1") == 1
