"""How RA-CNN is drawn: boxes within boxes on the image, what is seen in each, and what each look adds."""

from collections.abc import Sequence
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from explainkit import Explanation
from explainkit.rendering.figures import AGAINST, FOR, NEUTRAL, show_evidence, show_sum
from explainkit.rendering.pictures import crop, pixels
from explainkit_racnn.explainer import scale_names

EDGES = ("#111827", "#d97706", "#7c3aed")
"""Colors of the boxes, from the whole image to the closest look."""


def draw(explanation: Explanation, figure: Figure) -> None:
    """The image with its boxes, the evidence of all looks, and the sum; below, each look and what it adds."""
    boxes = explanation.batch.boxes
    if boxes is None:
        show_sum(explanation, figure.subplots())
        return
    corners = boxes[explanation.index].tolist()
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height * 1.9)
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 0.85])
    upper, lower = halves[0, 0], halves[1, 0]
    image, evidence, bars = upper.subplots(1, 3, width_ratios=[1, 1.2, 1.6])
    _show_boxes(explanation, image, corners)
    show_evidence(explanation, evidence)
    show_sum(explanation, bars, count=5)
    below = lower.subplots(1, len(corners) + 1, width_ratios=[*([1.0] * len(corners)), 1.5])
    for number, (axes, name) in enumerate(zip(below, scale_names(len(corners)), strict=False)):
        _show_look(explanation, axes, corners[number], name, EDGES[number % len(EDGES)])
    _show_shares(explanation, below[-1])


def _show_boxes(explanation: Explanation, axes: Axes, boxes: Sequence[Sequence[float]]) -> None:
    picture = pixels(explanation.image)
    scale = picture.shape[1] / explanation.image.shape[2]
    axes.imshow(picture)
    for color, (x0, y0, x1, y1) in zip(cycle(EDGES), boxes, strict=False):
        corner = (x0 * scale - 0.5, y0 * scale - 0.5)
        size = ((x1 - x0) * scale, (y1 - y0) * scale)
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=color, linewidth=2.2))
    axes.set_title(explanation.target_name, fontsize=9, parse_math=False)
    axes.set_axis_off()


def _show_look(explanation: Explanation, axes: Axes, box: Sequence[float], name: str, color: str) -> None:
    """What is seen at one scale."""
    height, width = explanation.image.shape[1:]
    x0, y0, x1, y1 = (round(end) for end in box)
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    axes.imshow(crop(explanation.image, (x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)), 128))
    axes.set_xticks([]), axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_edgecolor(color)
        spine.set_linewidth(2.2)
    confidence = explanation.diagnostics.get(f"p by {name}")
    note = f"\nalone {confidence:.0%} sure" if confidence is not None else ""
    axes.set_title(f"{name}{note}", fontsize=8)


def _show_shares(explanation: Explanation, axes: Axes) -> None:
    """What each look adds to the logit."""
    sums = explanation.parent_contributions | {"base": explanation.base}
    values, names = list(sums.values()), list(sums)
    axes.barh(range(len(values)), values, color=[FOR if value > 0 else AGAINST for value in values])
    axes.set_yticks(range(len(values)), names, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color=NEUTRAL, linewidth=0.8)
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.margins(x=0.25)
    for row, value in enumerate(values):
        axes.annotate(
            f" {value:+.2f} ", (value, row), va="center", ha="left" if value >= 0 else "right", fontsize=7
        )
    axes.set_title("what each look adds", fontsize=9)
