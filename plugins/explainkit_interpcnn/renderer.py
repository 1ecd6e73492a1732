"""How InterpCNN is drawn: each of the strongest filters at its one place, by number, and the sum."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from explainkit import Evidence, Explanation
from explainkit.explanations.spatial import FAINTEST
from explainkit.rendering.figures import AGAINST, FOR, NEUTRAL, legible, show_evidence, show_image, show_sum
from explainkit.rendering.pictures import pixels, spotlight

SHOWN = 5
"""Filters that are numbered and shown."""

SIDE = 160
"""Pixels of the picture of a filter."""


def draw(explanation: Explanation, figure: Figure) -> None:
    """The image with numbered places, the evidence and the bars; below, the surroundings of each place."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height * 1.85)
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 0.8])
    image, evidence, bars = halves[0, 0].subplots(1, 3, width_ratios=[1, 1.2, 1.5])
    items = explanation.top(SHOWN)
    show_image(explanation, image)
    _mark_places(explanation, image, items)
    show_evidence(explanation, evidence)
    show_sum(explanation, bars, count=SHOWN)
    for axes, (number, item) in zip(halves[1, 0].subplots(1, SHOWN), enumerate(items, 1), strict=False):
        _show_filter(explanation, axes, number, item)
    for axes in halves[1, 0].axes:
        axes.set_axis_off()


def place_of(item: Evidence) -> tuple[float, float] | None:
    """The middle of a filter's strongest cell, as shares of width and height; ``None`` where it is silent."""
    if item.map is None or not item.map.max() > FAINTEST:
        return None
    row, column = divmod(int(item.map.argmax()), item.map.shape[1])
    return (column + 0.5) / item.map.shape[1], (row + 0.5) / item.map.shape[0]


def _mark_places(explanation: Explanation, axes: Axes, items: Sequence[Evidence]) -> None:
    """A ring where each filter fires, with its number; filters at one place share a ring."""
    numbers: dict[tuple[float, float], list[int]] = {}
    for number, item in enumerate(items, 1):
        place = place_of(item)
        if place is not None:
            numbers.setdefault(place, []).append(number)
    height, width = pixels(explanation.image).shape[:2]
    for (across, down), at_place in numbers.items():
        x, y = across * width - 0.5, down * height - 0.5
        color = FOR if items[at_place[0] - 1].contribution > 0 else AGAINST
        axes.plot(x, y, "o", markersize=9, markerfacecolor="none", markeredgecolor="white", markeredgewidth=3)
        axes.plot(x, y, "o", markersize=9, markerfacecolor="none", markeredgecolor=color, markeredgewidth=1.5)
        is_right = across > 0.8
        axes.annotate(
            ",".join(map(str, at_place)), (x, y), (-7 if is_right else 7, 0), textcoords="offset points",
            ha="right" if is_right else "left", va="center", fontsize=8, color="white", fontweight="bold",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": color, "edgecolor": "none", "alpha": 0.9},
        )  # fmt: skip


def _show_filter(explanation: Explanation, axes: Axes, number: int, item: Evidence) -> None:
    """What a filter saw: the image faded but for the surroundings of its place, a dot on that place."""
    place = place_of(item)
    color = FOR if item.contribution > 0 else AGAINST
    name = legible(item.text, 48).replace(" of ", "\nof ", 1)
    axes.set_title(f"{number}: {name}", fontsize=8, color=color, parse_math=False)
    if place is None or item.map is None:
        picture = pixels(explanation.image, SIDE)
        axes.imshow(picture, alpha=0.15)
        below = "silent: adds nothing"
    else:
        picture = spotlight(explanation.image, item.map, side=SIDE)
        axes.imshow(picture)
        height, width = picture.shape[:2]
        axes.plot(
            place[0] * width - 0.5, place[1] * height - 0.5, "o", markersize=4, markerfacecolor=color,
            markeredgecolor="white", markeredgewidth=0.8,
        )  # fmt: skip
        below = f"{item.contribution:+.2f} = {item.score:.3f} \N{MULTIPLICATION SIGN} {item.weight:+.1f}"
    axes.text(0.5, -0.03, below, ha="center", va="top", fontsize=7, color=NEUTRAL, transform=axes.transAxes)
