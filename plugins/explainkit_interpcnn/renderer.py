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

NEAR = 0.1
"""Share of the image's sides below which places are so near that their numbers would overlap."""


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
    """A ring where each filter fires; the numbers of filters that fire near each other stand in one label."""
    height, width = pixels(explanation.image).shape[:2]
    labels: dict[tuple[float, float], list[int]] = {}
    for number, item in enumerate(items, 1):
        place = place_of(item)
        if place is None:
            continue
        for edge, color in ((3, "white"), (1.5, _color(item))):
            axes.plot(
                place[0] * width - 0.5, place[1] * height - 0.5, "o", markersize=8, markerfacecolor="none",
                markeredgecolor=color, markeredgewidth=edge,
            )  # fmt: skip
        near = (each for each in labels if max(abs(each[0] - place[0]), abs(each[1] - place[1])) < NEAR)
        labels.setdefault(next(near, place), []).append(number)
    for (across, down), numbers in labels.items():
        is_right = across > 0.7
        axes.annotate(
            ", ".join(map(str, numbers)), (across * width - 0.5, down * height - 0.5),
            (-9 if is_right else 9, 0), textcoords="offset points", ha="right" if is_right else "left",
            va="center", fontsize=8, color="white", fontweight="bold",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "#18181b", "edgecolor": "white", "alpha": 0.9},
        )  # fmt: skip


def _show_filter(explanation: Explanation, axes: Axes, number: int, item: Evidence) -> None:
    """What a filter saw: half of the image around its place, faded but for where it fires."""
    name = legible(item.text, 48).replace(" of ", "\nof ", 1)
    axes.set_title(f"{number}: {name}", fontsize=8, color=_color(item), parse_math=False)
    place = place_of(item)
    if place is None or item.map is None:
        axes.imshow(pixels(explanation.image, SIDE), alpha=0.15)
        below = "silent: adds nothing"
    else:
        picture = spotlight(explanation.image, item.map, side=2 * SIDE)
        height, width = picture.shape[:2]
        x, y = place[0] * width - 0.5, place[1] * height - 0.5
        left, top = (round(min(max(at - side / 4, 0), side / 2)) for at, side in ((x, width), (y, height)))
        axes.imshow(picture[top : top + height // 2, left : left + width // 2])
        axes.plot(
            x - left, y - top, "o", markersize=4, markerfacecolor=_color(item), markeredgecolor="white",
            markeredgewidth=0.8,
        )  # fmt: skip
        below = f"{item.contribution:+.2f} = {item.score:.3f} \N{MULTIPLICATION SIGN} {item.weight:+.1f}"
    axes.text(0.5, -0.03, below, ha="center", va="top", fontsize=7, color=NEUTRAL, transform=axes.transAxes)


def _color(item: Evidence) -> str:
    return FOR if item.contribution > 0 else AGAINST
