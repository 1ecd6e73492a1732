"""An own explanation beside post-hoc methods as a matplotlib figure: how good each is, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from attrs import frozen
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox

from explainkit.errors import InputError
from explainkit.metrics.posthoc_comparison import PostHocComparison
from explainkit.metrics.results import AREA, ORACLE, Score
from explainkit.rendering.figures import AGAINST, FOR, NEUTRAL, legible

LINES = (ORACLE, AREA, "random")
"""The trivial rows that are drawn, as lines across the figure."""

FONT = 7
"""Points of all labels."""

LEADER = {"arrowstyle": "-", "color": NEUTRAL, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}

PAD = 2.0
"""Points that are kept free about a label."""


@frozen(kw_only=True)
class _Point:
    """A row of the table: its label, passes an image, score, and whether it differs from the own one."""

    label: str
    passes: float
    score: Score
    differs: bool


def draw_posthoc_comparison(
    comparison: PostHocComparison, size: float = 3.0, *, metric: str = "shapley-correlation"
) -> Figure:
    """A metric over passes an image, the own explanation in red, trivial rows as lines."""
    own, *others = _points(comparison, metric)
    trivial = [
        (name, score.mean) for name in LINES for score in [comparison.table.score(name, metric)]
        if not math.isnan(score.mean)
    ]  # fmt: skip
    figure = Figure(figsize=(size * 2.1, size * 1.4))
    axes = figure.add_axes((0.1, 0.2, 0.765, 0.715))
    _set_limits(axes, [own, *others], [value for _, value in trivial])
    _show_trivial(axes, trivial)
    axes.axhspan(*own.score.interval, color=FOR, alpha=0.1, linewidth=0, zorder=0)
    for point in others:
        _show_point(axes, point, AGAINST)
    _show_point(axes, own, FOR, marker="D", large=True)
    _label_points(axes, [own, *others])
    arrow = {"higher": " (higher is better)", "lower": " (lower is better)", None: ""}[own.score.better]
    axes.set_xlabel("passes an image: forward + backward, each counted as one", fontsize=8)
    axes.set_ylabel(f"{metric}{arrow}", fontsize=8)
    axes.tick_params(labelsize=FONT)
    axes.spines[["top", "right"]].set_visible(False)
    table = comparison.table
    title = (
        f"{comparison.own} beside post-hoc methods, {table.images} images ({table.dataset}, {table.split})"
    )
    axes.set_title(legible(title), fontsize=9, parse_math=False)
    figure.text(
        0.5, 0.015,
        "Bars, and the band of the own explanation: 95 % intervals. Filled: the interval of the paired "
        "difference from it excludes 0.\n"
        + _left_out(comparison, others),
        ha="center", va="bottom", fontsize=6, color=NEUTRAL, parse_math=False,
    )  # fmt: skip
    return figure


def _points(comparison: PostHocComparison, metric: str) -> list[_Point]:
    """The own row, and the methods that have a value and a cost."""
    table, labels = comparison.table, _labels(comparison.methods)
    points = [
        _Point(
            label=labels.get(name, name),
            passes=sum(table.score(name, f"{way}-passes").mean for way in ("forward", "backward")),
            score=table.score(name, metric),
            differs=name == comparison.own or comparison.differences[name][metric].excludes_zero,
        )
        for name in (comparison.own, *comparison.methods)
    ]
    drawn = [point for point in points if point.passes > 0 and not math.isnan(point.score.mean)]
    if not drawn or drawn[0] is not points[0]:
        reason = points[0].score.reason or table.score(comparison.own, "forward-passes").reason
        raise InputError(f"Expected {metric} and passes of {comparison.own}, to be drawn; got none. {reason}")
    return drawn


def _labels(methods: Sequence[str]) -> dict[str, str]:
    """Methods without their plugin's name, where that leaves names that differ."""
    short = {method: method.rpartition("/")[2] for method in methods}
    return short if len(set(short.values())) == len(short) else {method: method for method in methods}


def _left_out(comparison: PostHocComparison, drawn: Sequence[_Point]) -> str:
    """How many methods are not in the figure, and why."""
    counts = {
        "equal to the own explanation": len(comparison.coinciding),
        "unavailable": len(comparison.unavailable),
        "without a value": len(comparison.methods) - len(drawn),
    }
    words = [f"{count} {what}" for what, count in counts.items() if count]
    return f"Not drawn: {', '.join(words)}." if words else ""


def _set_limits(axes: Axes, points: Sequence[_Point], trivial: Sequence[float]) -> None:
    """Room for every bar and line; fixed before labels are placed."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    passes = [point.passes for point in points]
    axes.set_xlim(min(passes) / 2, max(passes) * 2.5)
    ends = [*trivial, *(end for point in points for end in point.score.interval)]
    margin = 0.06 * ((max(ends) - min(ends)) or 1.0)
    axes.set_ylim(min(ends) - margin, max(ends) + margin)


def _show_point(axes: Axes, point: _Point, color: str, marker: str = "o", large: bool = False) -> None:
    mean, (low, high) = point.score.mean, point.score.interval
    axes.plot([point.passes] * 2, [low, high], color=color, linewidth=1.6 if large else 0.9, zorder=2)
    axes.plot(
        [point.passes], [mean], marker, color=color, markersize=7 if large else 4.5, zorder=3,
        markerfacecolor=color if point.differs else "white",
    )  # fmt: skip


def _show_trivial(axes: Axes, trivial: Sequence[tuple[str, float]]) -> None:
    """Thin lines, named beyond the right edge at heights that do not overlap."""
    to_points = _Transform(axes)
    heights = [to_points(axes.get_xlim()[1], value)[1] for _, value in trivial]
    step = FONT + PAD
    placed = sorted(range(len(trivial)), key=lambda index: heights[index])
    free = -math.inf
    right = to_points(axes.get_xlim()[1], trivial[0][1])[0] if trivial else 0.0
    for index in placed:
        name, value = trivial[index]
        axes.axhline(value, color=NEUTRAL, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1)
        height = max(heights[index], free + step)
        free = height
        axes.annotate(
            f"{name} {value:.2f}", (right + 3, height), xycoords="figure points", fontsize=FONT,
            color=NEUTRAL, va="center", annotation_clip=False, parse_math=False,
        )  # fmt: skip


def _label_points(axes: Axes, points: Sequence[_Point]) -> None:
    """Each label beside its point, at the nearest place where it covers no other label, point or bar."""
    to_points = _Transform(axes)
    inside = Bbox([to_points(*corner) for corner in zip(axes.get_xlim(), axes.get_ylim(), strict=True)])
    taken = [_marker_box(to_points, point) for point in points]
    for index, point in enumerate(points):
        x, y = to_points(point.passes, point.score.mean)
        weight = "bold" if index == 0 else "normal"
        width = _width(legible(point.label, 40), weight)
        box, is_beside = _free_place(x, y, width, inside, taken)
        taken.append(box)
        if not is_beside:
            near = (box.x0 if box.x0 > x else box.x1, (box.y0 + box.y1) / 2)
            axes.annotate(
                "", (x, y), near, xycoords="figure points", textcoords="figure points",
                arrowprops=LEADER, zorder=1,
            )  # fmt: skip
        axes.annotate(
            legible(point.label, 40), (box.x0 + PAD / 2, (box.y0 + box.y1) / 2), xycoords="figure points",
            fontsize=FONT, va="center", fontweight=weight, color=FOR if index == 0 else "black",
            parse_math=False, path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip


def _free_place(x: float, y: float, width: float, inside: Bbox, taken: Sequence[Bbox]) -> tuple[Bbox, bool]:
    """The nearest box of a label that overlaps nothing, else the first; whether it is beside its point."""
    height = FONT + PAD
    places = [
        Bbox.from_bounds(left, y + rise - height / 2, width + PAD, height)
        for left, rise in _offsets(x, width + PAD, height)
    ]
    boxes = [box for box in places if inside.containsx(box.x0) and inside.containsx(box.x1)]
    boxes = [box for box in boxes if inside.containsy(box.y0) and inside.containsy(box.y1)] or places
    chosen = next((box for box in boxes if not any(box.overlaps(other) for other in taken)), boxes[0])
    return chosen, abs((chosen.y0 + chosen.y1) / 2 - y) < 1 and min(
        abs(chosen.x0 - x), abs(chosen.x1 - x)
    ) < 8


def _offsets(x: float, width: float, height: float) -> Iterator[tuple[float, float]]:
    """Left edges and rises, the nearest first: right and left of the point, then further up, down and out."""
    places = [
        (x + gap if side > 0 else x - gap - width, lines * height / 2, gap + abs(lines) * height / 2)
        for gap in (5, 14, 28, 48, 100, 150, 200, 250)
        for lines in range(-30, 31)
        for side in (1, -1)
    ]
    yield from ((left, rise) for left, rise, _ in sorted(places, key=lambda place: place[2]))


def _marker_box(to_points: _Transform, point: _Point) -> Bbox:
    """What a point and its bar cover."""
    x, y = to_points(point.passes, point.score.mean)
    ends = [to_points(point.passes, end)[1] for end in point.score.interval]
    return Bbox([[x - 3, min(*ends, y - 3)], [x + 3, max(*ends, y + 3)]])


class _Transform:
    """From data to points of the figure, once the limits of the axes are fixed."""

    def __init__(self, axes: Axes) -> None:
        self.axes, self.scale = axes, 72 / axes.figure.dpi

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        across, up = self.axes.transData.transform((x, y)) * self.scale
        return float(across), float(up)


def _width(text: str, weight: str) -> float:
    """Of a label in points."""
    return float(TextPath((0, 0), text, size=FONT, prop=FontProperties(weight=weight)).get_extents().width)
