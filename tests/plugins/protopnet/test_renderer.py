"""Drawings show each pair, and a column that adds up."""

import pytest
from protopnet_networks import fitted_explainer

from explainkit.testing import tiny_images


def test_drawing_shows_each_pair_and_a_column_that_adds_up():
    explanation = fitted_explainer().explain(tiny_images())[0]

    figure = explanation.figure()
    figure.canvas.draw()
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]

    values = [float(text) for text in texts if text[:1] in "+-" and text[1:2].isdigit()]
    assert sum(values[:-1]) == pytest.approx(values[-1], abs=0.005 * len(values))
    assert values[-1] == pytest.approx(explanation.explained_output, abs=0.005)
    assert "this" in texts and "looks like that" in texts
