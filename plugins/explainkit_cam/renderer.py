"""How CAM is drawn: the class activation map, the strongest filters in place, and the sum."""

from matplotlib.figure import Figure

from explainkit import Explanation
from explainkit.rendering.figures import show_evidence, show_image, show_sum, show_units


def draw(explanation: Explanation, figure: Figure) -> None:
    """Image, map and bars; below them the four strongest filters, each where it responded."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height * 1.7)
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 0.7])
    upper, lower = halves[0, 0], halves[1, 0]
    image, evidence, bars = upper.subplots(1, 3, width_ratios=[1, 1.2, 1.6])
    show_image(explanation, image)
    show_evidence(explanation, evidence)
    show_sum(explanation, bars)
    filters = explanation.top(4)
    show_units(explanation, list(lower.subplots(1, 4)), filters)
