"""Counterfactual explanations as matplotlib figures."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from explainkit.explanations.counterfactuals import Change, Counterfactual
from explainkit.rendering.figures import AGAINST, FOR, legible
from explainkit.rendering.pictures import outlined, pixels

CHANGES = 8
"""Changes of scores that are drawn."""


def draw_counterfactual(counterfactual: Counterfactual, size: float = 3.0) -> Figure:
    """Before, where regions were taken from, after; and the scores that would have to change."""
    if counterfactual.batch.explanations.is_tabular:
        figure = Figure(figsize=(size * 2.2, size * 1.2), layout="constrained")
        show_changes(counterfactual, counterfactual.changes[:CHANGES], figure.subplots())
        return figure
    figure = Figure(figsize=(size * 3.8, size * 1.2), layout="constrained")
    before, source, after, bars = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.6])
    regions = counterfactual.batch.edits["region-swap"].regions[counterfactual.index]
    for axes, image, title in (
        (before, counterfactual.explanation.image, f"{counterfactual.predicted_name}, as it is"),
        (
            source,
            counterfactual.batch.edits["region-swap"].sources[counterfactual.index],
            f"from {counterfactual.target_name}",
        ),
        (
            after,
            counterfactual.image,
            counterfactual.target_name if counterfactual.success else "no swap does",
        ),
    ):
        shown = (
            counterfactual.success
            and counterfactual.regions
            and image is not counterfactual.explanation.image
        )
        axes.imshow(outlined(image, regions, 224) if shown else pixels(image))
        axes.set_title(legible(title), fontsize=8, parse_math=False)
        axes.set_axis_off()
    show_changes(counterfactual, counterfactual.changes[:CHANGES], bars)
    return figure


def show_changes(counterfactual: Counterfactual, changes: list[Change], axes: Axes) -> None:
    """Scores before and after: an arrow each."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="x", labelsize=7)
    positions = range(len(changes))
    axes.set_yticks(positions, [legible(item.text) for item in changes], fontsize=8, parse_math=False)
    for position, item in enumerate(changes):
        color = FOR if item.after > item.before else AGAINST
        axes.annotate(
            "", (item.after, position), (item.before, position),
            arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.6, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        axes.plot([item.before, item.after], [position, position], ".", color=color, markersize=3)
    axes.invert_yaxis()
    more = len(counterfactual.changes) - len(changes)
    if not counterfactual.feasible:
        title = f"no plausible scores make it {counterfactual.target_name}"
    else:
        title = f"scores that would have to change{f', and {more} others' if more else ''}"
    axes.set_title(legible(title), fontsize=8, parse_math=False)
