"""Counterfactual explanations as matplotlib figures."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from explainkit.explanations.counterfactuals import Counterfactual
from explainkit.explanations.edits import Change
from explainkit.rendering.figures import AGAINST, FOR, legible
from explainkit.rendering.pictures import Pixels, outlined, pixels

CHANGES = 8
"""Changes of scores that are drawn."""


def draw_counterfactual(counterfactual: Counterfactual, size: float = 3.0) -> Figure:
    """The image before; where edits are from, and after them; and the scores that would have to change."""
    batch = counterfactual.batch
    if batch.explanations.is_tabular:
        figure = Figure(figsize=(size * 2.2, size * 1.2), layout="constrained")
        show_changes(counterfactual, counterfactual.changes[:CHANGES], figure.subplots())
        return figure
    panels = [panel for method in batch.image_edits for panel in _panels(counterfactual, method)]
    count, has_bars = len(panels) + 1, bool(batch.score_edits)
    figure = Figure(figsize=(size * (0.85 * count + 1.25 * has_bars), size * 1.2), layout="constrained")
    axes = figure.subplots(1, count + has_bars, squeeze=False, width_ratios=[1] * count + [1.6] * has_bars)[0]
    before = (pixels(counterfactual.explanation.image), f"{counterfactual.predicted_name}, as it is")
    for each, (picture, title) in zip(axes, [before, *panels], strict=False):
        each.imshow(picture)
        each.set_title(legible(title), fontsize=8, parse_math=False)
        each.set_axis_off()
    if has_bars:
        show_changes(counterfactual, counterfactual.changes[:CHANGES], axes[-1])
    return figure


def _panels(counterfactual: Counterfactual, method: str) -> list[tuple[Pixels, str]]:
    """Pictures with their titles: where one method's edit is from, and the image after it."""
    edits, row = counterfactual.batch.image_edits[method], counterfactual.index
    success = counterfactual.edits[method].success
    is_edited = success and int(edits.size[row]) > 0
    images = [(edits.images[row], counterfactual.target_name if success else f"no {method} does")]
    if edits.sources is not None:
        images.insert(0, (edits.sources[row], f"{edits.source_label} {counterfactual.target_name}"))
    regions = edits.regions
    return [
        (outlined(image, regions[row], 224) if is_edited and regions is not None else pixels(image), title)
        for image, title in images
    ]


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
