"""Crops on the image, what each part adds, and what it sees."""

from macnn_networks import explainer, fitted_explainer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from plugin_cases import uniform

from explainkit.testing import tiny_images
from explainkit_macnn.parts import part_boxes, part_sentence
from explainkit_macnn.renderer import draw


def drawn(explanation):
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    draw(explanation, figure)
    figure.canvas.draw()
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    titles = [axes.get_title() for axes in figure.axes]
    return figure, " ".join([*texts, *titles, figure._supxlabel.get_text()])


def test_a_drawing_shows_every_part_where_it_is_and_what_it_adds():
    explanations = fitted_explainer().explain(tiny_images())

    figure, text = drawn(explanations[1])

    frames = [
        patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and not patch.get_fill()
    ]
    assert len(frames) == 2 and len({frame.get_edgecolor() for frame in frames}) == 2
    scale = 224 / 32
    for frame, (x0, y0, x1, _) in zip(frames, part_boxes(explanations)[1].tolist(), strict=True):
        assert frame.get_xy() == (x0 * scale - 0.5, y0 * scale - 0.5)
        assert frame.get_width() == (x1 - x0) * scale
    for name, value in explanations[1].parent_contributions.items():
        assert f"{name}: {value:+.2f}" in text and f"{value:+.2f} " in text
        assert f"alone {explanations[1].diagnostics[f'p by {name}']:.0%} sure" in text
        assert f"alone right in {explanations[1].diagnostics[f'accuracy of {name}']:.0%}" in text
    assert part_sentence(explanations[1]) in text


def test_contrasts_few_maps_one_part_and_many_parts_are_drawn():
    explanations = explainer().explain(uniform(2, 3, 32, 32))

    assert "rather than" in drawn(explanations.contrast(1)[0])[1]
    assert "not all maps" in drawn(explanations.keep_maps(3)[0])[1]
    for parts in (1, 9):
        figure, text = drawn(explainer(parts=parts).explain(uniform(1, 3, 32, 32))[0])
        assert "part 1" in text and len(figure.axes) >= 4 + 2 * min(parts, 6)
    drawn(explanations.without_images()[0])
