"""Boxes in boxes, and what each look adds."""

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from racnn_networks import fitted_explainer, small_network

import explainkit as ek
from explainkit.testing import tiny_dataset, tiny_images
from explainkit_racnn.renderer import draw


def test_drawing_shows_boxes_in_boxes_and_what_each_look_adds():
    explanations = fitted_explainer().explain(tiny_images())

    figure = Figure(figsize=(9, 3))
    draw(explanations[1], figure)
    figure.canvas.draw()

    frames = [
        patch
        for axes in figure.axes
        for patch in axes.patches
        if isinstance(patch, Rectangle) and not patch.get_fill()
    ]
    assert len(frames) == 3
    scale = 224 / 32
    for frame, (x0, y0, x1, y1) in zip(frames, explanations.boxes[1].tolist(), strict=True):
        drawn = (*frame.get_xy(), frame.get_width(), frame.get_height())
        expected = (x0 * scale - 0.5, y0 * scale - 0.5, (x1 - x0) * scale, (y1 - y0) * scale)
        assert drawn == pytest.approx(expected, abs=1e-3)
    assert len({frame.get_edgecolor() for frame in frames}) == 3
    texts = [text.get_text().strip() for axes in figure.axes for text in axes.texts]
    for value in explanations[1].parent_contributions.values():
        assert f"{value:+.2f}" in texts
    titles = " ".join(axes.get_title() for axes in figure.axes)
    assert f"alone {explanations[1].diagnostics['p by closest']:.0%} sure" in titles


def test_two_looks_are_drawn_under_the_names_of_their_diagnostics():
    model = ek.explainer("ra-cnn", network=small_network(scales=2), classes=tiny_dataset().classes)
    explanation = model.explain(tiny_images())[0]

    figure = Figure(figsize=(9, 3))
    draw(explanation, figure)

    titles = " ".join(axes.get_title() for axes in figure.axes)
    for name in ("scale 1", "scale 2"):
        assert f"{name}\nalone {explanation.diagnostics[f'p by {name}']:.0%} sure" in titles
    assert "closer" not in titles
