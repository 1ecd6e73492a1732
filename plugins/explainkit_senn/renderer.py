"""How SENN is drawn: the sum, and what each concept looks like, in training images and by the decoder."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from explainkit import Evidence, Explanation, UnitPicture
from explainkit.rendering.figures import AGAINST, FOR, NEUTRAL, show_image, show_sum
from explainkit.rendering.pictures import Pixels, crop

SHOWN = 4
"""Concepts that are shown."""

EXAMPLES = 4
"""Training images of each."""


def draw(explanation: Explanation, figure: Figure) -> None:
    """The image and the sum; below, a row a concept: what it adds, examples, from little to much of it."""
    if explanation.batch.is_tabular:
        bars = figure.subplots()
        show_sum(explanation, bars, count=12)
        _show_instability(explanation, bars)
        return
    items = [item for item in explanation.top(SHOWN) if item.pictures]
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height * (1 + 0.42 * len(items)))
    ratios = [1.0, 0.42 * len(items)] if items else [1.0]
    halves = figure.subfigures(len(ratios), 1, squeeze=False, height_ratios=ratios)[:, 0]
    image, bars = halves[0].subplots(1, 2, width_ratios=[1, 2.2])
    show_image(explanation, image)
    show_sum(explanation, bars)
    _show_instability(explanation, bars)
    if items:
        rows = halves[1].subplots(len(items), 3, squeeze=False, width_ratios=[1, 1.5, 1.9])
        for row, item in zip(rows, items, strict=True):
            _show_concept(row, item)
        rows[0, 1].set_title("training images with as much of it", fontsize=8, color=NEUTRAL)
        rows[0, 2].set_title("drawn with little … much of it", fontsize=8, color=NEUTRAL)


def _show_instability(explanation: Explanation, bars: Axes) -> None:
    """How far the weights drift around the input, where that is known."""
    if "instability" in explanation.diagnostics:
        kind = "row" if explanation.batch.is_tabular else "image"
        bars.set_xlabel(
            f"the weights drift around the {kind} by "
            f"{explanation.diagnostics['instability']:.2f} of the slope",
            fontsize=7,
            color=NEUTRAL,
        )


def _show_concept(row: Sequence[Axes], item: Evidence) -> None:
    """What a concept adds, its examples and its strip."""
    for axes in row:
        axes.set_axis_off()
    color = FOR if item.contribution > 0 else AGAINST
    row[0].text(0, 0.72, item.text, fontsize=9, transform=row[0].transAxes, parse_math=False)
    row[0].text(
        0, 0.4, f"{item.score:+.2f} of it \N{MULTIPLICATION SIGN} weight {item.weight:+.2f}", fontsize=7.5,
        color=NEUTRAL, transform=row[0].transAxes,
    )  # fmt: skip
    row[0].text(
        0, 0.08, f"{item.contribution:+.2f}", fontsize=9, color=color, transform=row[0].transAxes
    )  # fmt: skip
    kind = "training" if item.score >= 0 else "least"
    examples = [picture for picture in item.pictures if picture.kind == kind][:EXAMPLES]
    decoded = [picture for picture in item.pictures if picture.kind == "decoded"]
    for axes, pictures in ((row[1], examples), (row[2], decoded)):
        if pictures:
            axes.imshow(_side_by_side(pictures))


def _side_by_side(pictures: Sequence[UnitPicture], gap: int = 4) -> Pixels:
    """Pictures in a row, a little apart."""
    crops = [crop(item.image, item.box, 96) for item in pictures if item.image is not None]
    white = np.full((crops[0].shape[0], gap, 3), 255, np.uint8)
    columns = [column for picture in crops for column in (picture, white)]
    return np.concatenate(columns[:-1], 1)
