"""Class explanations as matplotlib figures."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from explainkit.explanations.class_level import ClassEvidence, ClassExplanation
from explainkit.explanations.units import UnitPicture
from explainkit.rendering.figures import AGAINST, FOR, NEUTRAL, legible
from explainkit.rendering.pictures import crop

UNITS = 6
"""Units of a class that are drawn."""


def draw_class(class_explanation: ClassExplanation, size: float = 3.0) -> Figure:
    """Units of a class: what each adds on average, from where to where, and images that have most of it."""
    items = class_explanation.top(UNITS)
    portraits = [portrait_of(class_explanation, item) for item in items]
    first = max(map(len, portraits), default=0)
    has_pictures = bool(first) or any(each.image is not None for item in items for each in item.pictures)
    width = 2.0 + has_pictures * (0.9 + 0.45 * first)
    figure = Figure(figsize=(size * width, size * 1.25), layout="constrained")
    if not has_pictures:
        show_class(class_explanation, items, figure.subplots())
        return figure
    left, right = list(figure.subfigures(1, 2, squeeze=False, width_ratios=[1.5, 1 + 0.5 * first])[0])
    show_class(class_explanation, items, left.subplots())
    grid = right.subplots(len(items), first + 3, squeeze=False)
    for row, item, portrait in zip(grid, items, portraits, strict=True):
        for axes in row:
            axes.set_axis_off()
        for start, pictures in ((0, portrait), (first, item.pictures)):
            shown = [(each.image, each.box) for each in pictures if each.image is not None]
            for axes, (image, box) in zip(row[start:], shown, strict=False):
                axes.imshow(crop(image, box, 96))
    if first:
        grid[0, 0].set_title("decoded, and\nnearest to it", fontsize=8, color=NEUTRAL, loc="left")
    grid[0, first + 1].set_title("most of it in the class", fontsize=8, color=NEUTRAL)
    return figure


def portrait_of(class_explanation: ClassExplanation, item: ClassEvidence) -> tuple[UnitPicture, ...]:
    """The one picture that a unit is decoded to, and the training image nearest to it; none of other units.

    Units that are decoded to several, as from little to much of them, have no one portrait.
    """
    of_units = class_explanation.batch.units.pictures
    pictures = () if of_units is None else of_units[item.unit]
    decoded = [picture for picture in pictures if picture.kind == "decoded" and picture.image is not None]
    nearest = [picture for picture in pictures if picture.kind == "training" and picture.image is not None]
    return (*decoded, *nearest[:1]) if len(decoded) == 1 else ()


def show_class(class_explanation: ClassExplanation, items: list[ClassEvidence], axes: Axes) -> None:
    """Mean contributions as bars, with lines from their 5 % to their 95 % quantiles."""
    values = [item.contribution for item in items]
    positions = range(len(items))
    axes.barh(positions, values, color=[FOR if value > 0 else AGAINST for value in values], height=0.6)
    if class_explanation.foil is None:
        axes.hlines(
            positions, [item.low for item in items], [item.high for item in items], color="#18181b", lw=1
        )
    axes.set_yticks(positions, [legible(item.text) for item in items], fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0, color=NEUTRAL, linewidth=0.8)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    foil = f" rather than {legible(class_explanation.foil_name)}" if class_explanation.foil_name else ""
    what = "margin" if class_explanation.foil_name else "logit"
    of_mean = f"mean {what} {class_explanation.explained_output:.2f}"
    if class_explanation.batch.additivity == "none":
        of_mean = "means, not in logits,"
    axes.set_title(
        f"{legible(class_explanation.name)}{foil}\n{of_mean} over {class_explanation.count} images",
        fontsize=9,
        parse_math=False,
    )
