"""How a class, and what would change a decision, are drawn: alike for every explainer."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from explainkit.questions.class_level import ClassEvidence, ClassExplanation
from explainkit.questions.counterfactual import Change, Counterfactual
from explainkit.rendering.figures import AGAINST, FOR, NEUTRAL, legible
from explainkit.rendering.pictures import crop, outlined, pixels

UNITS = 6
"""Units of a class that are drawn."""

CHANGES = 8
"""Changes of scores that are drawn."""


def draw_class(told: ClassExplanation, size: float = 3.0) -> Figure:
    """Units of a class: what each adds on average, from where to where, and images that have most of it."""
    items = told.strongest(UNITS)
    pictured = any(found.image is not None for item in items for found in item.exemplars)
    figure = Figure(figsize=(size * (2.9 if pictured else 2.0), size * 1.25), layout="constrained")
    if not pictured:
        show_class(told, items, figure.subplots())
        return figure
    left, right = list(figure.subfigures(1, 2, squeeze=False, width_ratios=[1.5, 1])[0])
    show_class(told, items, left.subplots())
    grid = right.subplots(len(items), 3, squeeze=False)
    for row, item in zip(grid, items, strict=True):
        for axes in row:
            axes.set_axis_off()
        shown = [(found.image, found.box) for found in item.exemplars if found.image is not None]
        for axes, (image, box) in zip(row, shown, strict=False):
            axes.imshow(crop(image, box, 96))
    grid[0, 1].set_title("most of it in the class", fontsize=8, color=NEUTRAL)
    return figure


def show_class(told: ClassExplanation, items: list[ClassEvidence], axes: Axes) -> None:
    """Mean contributions as bars, with lines from their 5 % to their 95 % quantiles."""
    values = [item.contribution for item in items]
    places = range(len(items))
    axes.barh(places, values, color=[FOR if value > 0 else AGAINST for value in values], height=0.6)
    if told.against is None:
        axes.hlines(
            places, [item.low for item in items], [item.high for item in items], color="#18181b", lw=1
        )
    axes.set_yticks(places, [legible(item.words) for item in items], fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0, color=NEUTRAL, linewidth=0.8)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    rival = f" rather than {legible(told.against_name)}" if told.against_name else ""
    what = "margin" if told.against_name else "logit"
    axes.set_title(
        f"{legible(told.name)}{rival}\nmean {what} {told.total:.2f} over {told.count} images", fontsize=9,
        parse_math=False,
    )  # fmt: skip


def draw_change(told: Counterfactual, size: float = 3.0) -> Figure:
    """Before, where regions were taken from, after; and the scores that would have to change."""
    if told.batch.explanations.of_rows:
        figure = Figure(figsize=(size * 2.2, size * 1.2), layout="constrained")
        show_changes(told, told.changes[:CHANGES], figure.subplots())
        return figure
    figure = Figure(figsize=(size * 3.8, size * 1.2), layout="constrained")
    before, source, after, bars = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.6])
    regions = told.batch.realised.regions[told.index]
    for axes, image, title in (
        (before, told.explanation.image, f"{told.predicted_name}, as it is"),
        (source, told.batch.realised.sources[told.index], f"from {told.target_name}"),
        (after, told.image, told.target_name if told.success else "no swap does"),
    ):
        shown = told.success and told.regions and image is not told.explanation.image
        axes.imshow(outlined(image, regions, 224) if shown else pixels(image))
        axes.set_title(legible(title), fontsize=8, parse_math=False)
        axes.set_axis_off()
    show_changes(told, told.changes[:CHANGES], bars)
    return figure


def show_changes(told: Counterfactual, changes: list[Change], axes: Axes) -> None:
    """Scores before and after: an arrow each."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="x", labelsize=7)
    places = range(len(changes))
    axes.set_yticks(places, [legible(item.words) for item in changes], fontsize=8, parse_math=False)
    for place, item in enumerate(changes):
        colour = FOR if item.after > item.before else AGAINST
        axes.annotate(
            "", (item.after, place), (item.before, place),
            arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        axes.plot([item.before, item.after], [place, place], ".", color=colour, markersize=3)
    axes.invert_yaxis()
    more = len(told.changes) - len(changes)
    if not told.feasible:
        title = f"no plausible scores make it {told.target_name}"
    else:
        title = f"scores that would have to change{f', and {more} others' if more else ''}"
    axes.set_title(legible(title), fontsize=8, parse_math=False)
