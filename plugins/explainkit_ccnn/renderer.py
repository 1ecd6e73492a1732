"""How CCNN is drawn: the image, the phrases as bars, and where each of the strongest was found."""

from matplotlib.figure import Figure

from explainkit import Explanation
from explainkit.rendering.figures import show_evidence, show_image, show_sum, show_units


def draw(explanation: Explanation, figure: Figure) -> None:
    """Image, map and phrases; below, the region of each of the strongest phrases."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height * 1.75)
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 0.72])
    image, evidence, bars = halves[0, 0].subplots(1, 3, width_ratios=[1, 1.2, 1.7])
    show_image(explanation, image)
    show_evidence(explanation, evidence)
    show_sum(explanation, bars, count=7)
    phrases = explanation.top(5)
    show_units(explanation, list(halves[1, 0].subplots(1, 5)), phrases)
