"""Matplotlib figures of one explanation: its plugin's own drawing, or the generic one."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from explainkit import registry
from explainkit.data.types import ImageDataset
from explainkit.explanations.colors import channels_note
from explainkit.explanations.single import Evidence, Explanation
from explainkit.rendering.pictures import Pixels, common_grid, overlay, pixels, rounded_limit, spotlight
from explainkit.rendering.place import SQUARE, strongest_cell_box

TITLE_Y = 1.0
"""Where titles stand above axes, in shares of their height: given, matplotlib need not measure every tick."""

ABSENT = "the image was left out"

FOR, AGAINST, NEUTRAL = "#b2182b", "#2166ac", "#71717a"


def draw(explanation: Explanation, size: float = 3.0) -> Figure:
    """A figure by the renderer of the explainer's plugin, where it is installed and has one."""
    figure = Figure(figsize=(size * 3.6, size * 1.15), layout="constrained")
    renderer = registry.renderer_for(explanation.batch.provenance.explainer) or generic
    renderer(explanation, figure)
    return figure


def drawn(explanation: Explanation, size: float = 3.0, dots: int = 90) -> Pixels | None:
    """The figure by the plugin's own renderer as a picture; ``None`` where it has none."""
    renderer = registry.renderer_for(explanation.batch.provenance.explainer)
    if renderer is None:
        return None
    canvas = FigureCanvasAgg(draw(explanation, size))
    canvas.figure.set_dpi(dots)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph"
        )  # names may hold what no font has; it would go to a terminal
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def generic(explanation: Explanation, figure: Figure) -> None:
    """The image, its evidence in place, and the sum as bars: right for any explainer."""
    if explanation.batch.is_tabular:
        show_sum(explanation, figure.subplots(), count=12)
        return
    image, evidence, bars = figure.subplots(1, 3, width_ratios=[1, 1.2, 1.6])
    show_image(explanation, image)
    show_evidence(explanation, evidence)
    show_sum(explanation, bars)


def show_image(explanation: Explanation, axes: Axes) -> None:
    """The image, titled with the class that is explained."""
    axes.imshow(pixels(explanation.image))
    foil = f"\nrather than {legible(explanation.foil_name)}" if explanation.foil_name else ""
    title = legible(explanation.target_name)
    if not explanation.says_target and not foil and not explanation.batch.decision.is_exclusive:
        title = f"{legible(explanation.prediction_name)}\nexplained: {title}"
    axes.set_title(f"{title}{foil}", fontsize=9, y=TITLE_Y, parse_math=False)
    axes.set_axis_off()
    if note := image_note(explanation):
        axes.text(0.5, -0.02, note, ha="center", va="top", fontsize=7, transform=axes.transAxes)


def image_note(explanation: Explanation) -> str:
    """What is said beside the image: that it is left out, or which of its channels are shown."""
    if not explanation.batch.has_images:
        return ABSENT
    return channels_note(explanation.image.shape[0])


def show_evidence(explanation: Explanation, axes: Axes) -> None:
    """The saliency over the image, with numbers on its color bar: logit per cell of an 8 x 8 grid."""
    grid = common_grid(explanation.saliency())
    limit = rounded_limit(grid)
    square = strongest_cell_box(explanation)
    axes.imshow(overlay(explanation.image, grid, limit, square=square))
    axes.set_axis_off()
    if square is not None:
        axes.text(0.5, -0.02, SQUARE, ha="center", va="top", fontsize=7, transform=axes.transAxes)
    axes.set_title("evidence for (red) and against (blue)", fontsize=9, y=TITLE_Y)
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import FuncNorm

    bar = axes.figure.colorbar(
        ScalarMappable(FuncNorm((_root, _square), -limit, limit), "RdBu_r"),
        ax=axes, shrink=0.8, ticks=[-limit, -limit / 4, 0, limit / 4, limit], format="%.2g",
    )  # fmt: skip
    is_sum = explanation.batch.additivity != "none"
    bar.set_label(f"{explanation.batch.unit} per cell" if is_sum else "not in logits", fontsize=7)
    bar.ax.tick_params(labelsize=7)


def _root(values: Any) -> Any:
    return np.sign(values) * np.sqrt(np.abs(values))


def _square(values: Any) -> Any:
    return np.sign(values) * np.square(values)


def show_sum(explanation: Explanation, axes: Axes, count: int = 6) -> None:
    """The strongest units, all others, the base and what is left: bars that add up to the logit."""
    items = explanation.top(count)
    others = explanation.contributions.sum().item() - sum(item.contribution for item in items)
    rows = [(_labeled(item), item.contribution) for item in items]
    if len(explanation.contributions) > len(items):
        rows.append((f"{len(explanation.contributions) - len(items)} others", others))
    if explanation.batch.additivity != "none":
        rows.append(("base", explanation.base))
    if explanation.batch.additivity == "approximate":
        rows.append(("residual", explanation.residual or 0.0))
    names, values = [name for name, _ in rows], [value for _, value in rows]
    axes.barh(range(len(rows)), values, color=[FOR if value > 0 else AGAINST for value in values])
    axes.set_yticks(range(len(rows)), names, fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0, color=NEUTRAL, linewidth=0.8)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    for row, value in enumerate(values):
        axes.annotate(
            f" {value:+.2f} ", (value, row), va="center", ha="left" if value >= 0 else "right", fontsize=7
        )
    axes.margins(x=0.25)
    what = "margin" if explanation.foil_name else explanation.batch.unit
    additivity = explanation.batch.additivity
    axes.set_title(
        "shares (claims no sum)"
        if additivity == "none"
        else f"sum = {what} {explanation.explained_output:.2f} ({additivity})",
        fontsize=9,
        y=TITLE_Y,
    )


def show_units(explanation: Explanation, axes: Sequence[Axes], items: Sequence[Evidence]) -> None:
    """One picture a unit: where in the image it was found, and what it adds."""
    for axis, item in zip(axes, items, strict=False):
        axis.set_axis_off()
        if item.map is not None:
            axis.imshow(spotlight(explanation.image, item.map, side=128))
        color = FOR if item.contribution > 0 else AGAINST
        title = f"{_labeled(item)}\n{item.contribution:+.2f}"
        axis.set_title(title, fontsize=8, y=TITLE_Y, color=color, parse_math=False)


def _labeled(item: Evidence) -> str:
    """A unit's text, with a note where its phrase names what is absent."""
    return f"{legible(item.text)}{' (absent)' if item.is_absent and item.phrase else ''}"


def class_sheet(dataset: ImageDataset, each: int = 6) -> Figure:
    """The first `each` test images of every class, a row a class, at most 20 classes."""
    labels = dataset.test.labels
    classes = list(range(min(len(dataset.classes), 20)))
    figure = Figure(figsize=(each + 1.6, len(classes)), layout="constrained")
    grid = figure.subplots(len(classes), each, squeeze=False)
    for row, label in zip(grid, classes, strict=True):
        ids = (labels == label).nonzero()[:each, 0]
        images = dataset.test.batch(ids).images
        for axis in row:
            axis.set_axis_off()
        for axis, image in zip(row, images, strict=False):
            axis.imshow(pixels(image, 96))
        row[0].set_title(legible(dataset.classes[label]), fontsize=8, loc="left", parse_math=False)
    return figure


def legible(name: str, length: int = 80) -> str:
    """A name as a figure can show it: Unicode, and cut where it is far too long."""
    text = name.encode(errors="backslashreplace").decode()
    return text if len(text) <= length else f"{text[:length]}…"
