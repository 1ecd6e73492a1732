"""Drawings show the sum, examples and the certificate."""

from copy import copy

from senn_networks import fitted_explainer

from explainkit.testing import tiny_images


def test_drawing_shows_sum_examples_strip_and_certificate():
    model = copy(fitted_explainer())
    model.with_instability = True
    explanation = model.explain(tiny_images())[0]

    figure = explanation.figure()
    figure.canvas.draw()

    labels = [axes.get_xlabel() for axes in figure.axes]
    assert any(f"{explanation.diagnostics['instability']:.2f} of the slope" in label for label in labels)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    evidence = explanation.top(1)[0]
    assert evidence.text in texts and f"{evidence.contribution:+.2f}" in texts
