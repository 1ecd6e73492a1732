"""Drawings show the strongest phrases."""

from ccnn_networks import fitted_explainer

from explainkit.testing import tiny_images


def test_drawing_shows_the_strongest_phrases():
    explanation = fitted_explainer().explain(tiny_images())[0]

    figure = explanation.figure()
    figure.canvas.draw()

    texts = []
    for axes in figure.axes:
        texts += [axes.get_title(), *(text.get_text() for text in axes.texts + axes.get_yticklabels())]
    assert explanation.top(1)[0].phrase in " ".join(texts).replace("\n", " ")
