"""How PrototypeDNN is drawn: a ledger of prototypes, as decoded and beside the nearest training image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from explainkit import Evidence, Explanation
from explainkit.rendering.figures import AGAINST, FOR, NEUTRAL, legible, show_image
from explainkit.rendering.pictures import crop

SIDE = 160
"""Pixels of a picture in the ledger."""

SUM = 5.9
"""Where the column of sums ends, in pictures."""

SUPPORTING, OPPOSING = 4, 2
"""Prototypes that are drawn at most, for and against."""

BAR = (2.25, 4.5)
"""Where the scale of distances lies, in pictures."""


def draw(explanation: Explanation, figure: Figure) -> None:
    """The image; beside it a ledger of prototypes that adds up to the logit: no place, since it has none."""
    items = [*_largest(explanation, 1, SUPPORTING), *_largest(explanation, -1, OPPOSING)]
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, max(height * 1.1, height * 0.3 * (len(items) + 2)))
    halves = figure.subfigures(1, 2, squeeze=False, width_ratios=[1, 2.4])
    image = halves[0, 0].subplots()
    show_image(explanation, image)
    _show_note(explanation, image)
    _show_ledger(explanation, halves[0, 1].subplots(), items)


def _largest(explanation: Explanation, sign: int, count: int) -> list[Evidence]:
    """The prototypes that add most for (1) or against (-1)."""
    top = (sign * explanation.contributions).topk(min(count, len(explanation.contributions)))
    return [explanation.evidence_of(unit) for unit in top.indices[top.values > 0].tolist()]


def _show_note(explanation: Explanation, axes: Axes) -> None:
    """Below the image: how far the decoder can be trusted here, where that was measured."""
    error = explanation.diagnostics.get("reconstruction error")
    text = "prototypes are compared with the whole image"
    if error is not None:
        text += f"\nthe decoder misses {error:.3f} a pixel (root mean square)"
    if explanation.batch.has_images:
        axes.text(0.5, -0.02, text, ha="center", va="top", fontsize=7, transform=axes.transAxes)


def _show_ledger(explanation: Explanation, axes: Axes, items: Sequence[Evidence]) -> None:
    """A row a prototype, one picture high, then all others, the base and the total: a column that adds up."""
    axes.set_axis_off()
    for text, x, align in (
        ("prototype,\ndecoded", 0.5, "center"),
        ("nearest to it\nin training", 1.6, "center"),
        ("squared distance, and its mean in training (|)", BAR[0], "left"),
        ("adds", SUM, "right"),
    ):
        axes.text(x, -0.08, text, fontsize=7.5, color=NEUTRAL, ha=align, va="bottom")
    reference = explanation.batch.units.reference
    usual = torch.zeros_like(explanation.contributions) if reference is None else reference
    scores = explanation.batch.scores[explanation.index]
    units = [item.unit for item in items]
    longest = max([*scores[units].tolist(), *usual[units].tolist(), 1e-12])
    line = 0.0
    for item in items:
        _show_row(axes, item, line, usual[item.unit].item(), longest)
        line += 1.08
    others = explanation.contributions.sum().item() - sum(item.contribution for item in items)
    label = f"logit of {explanation.target_name}"
    if explanation.foil_name:
        label = f"{explanation.target_name}: margin over {explanation.foil_name}"
    count = len(explanation.contributions) - len(items)
    for text, value in (
        *([(f"all {count} others", others)] if count else []),
        ("base: all distances at their means", explanation.base),
    ):
        _show_sum(axes, text, value, line)
        line += 0.42
    axes.plot([0, SUM], [line + 0.06] * 2, color="black", linewidth=0.9)
    _show_sum(axes, legible(label), explanation.explained_output, line + 0.06, "bold")
    axes.set_xlim(-0.05, SUM + 0.05)
    axes.set_ylim(line + 0.5, -0.6)
    axes.set_aspect("equal", anchor="NW")


def _show_row(axes: Axes, item: Evidence, top: float, usual: float, longest: float) -> None:
    """Both pictures, the name, the distance on a scale that all rows share, and what it adds."""
    for kind, left in (("decoded", 0.0), ("training", 1.1)):
        picture = next((each for each in item.pictures if each.kind == kind and each.image is not None), None)
        if picture is not None and picture.image is not None:
            _show_picture(axes, picture.image, picture.box, left, top)
    color = FOR if item.contribution > 0 else AGAINST
    axes.text(BAR[0], top + 0.17, legible(item.name), fontsize=8.5, va="center", parse_math=False)
    start, scale = BAR[0], (BAR[1] - BAR[0]) / longest
    axes.barh(top + 0.48, item.score * scale, left=start, height=0.2, color=color)
    axes.plot([start + usual * scale] * 2, [top + 0.34, top + 0.62], color="black", linewidth=1.4)
    side = "nearer" if item.score < usual else "farther"
    factors = f"{item.score:.2f}, {side} than {usual:.2f}; weight {item.weight:+.2f}".replace(
        "-", "\N{MINUS SIGN}"
    )
    axes.text(BAR[0], top + 0.82, factors, fontsize=7.5, color=NEUTRAL, va="center", parse_math=False)
    axes.text(SUM, top + 0.5, f"{item.contribution:+.2f}", fontsize=9, color=color, ha="right", va="center")


def _show_sum(axes: Axes, text: str, value: float, top: float, weight: str = "normal") -> None:
    axes.text(0, top + 0.22, text, fontsize=8.5, va="center", weight=weight, parse_math=False)
    axes.text(SUM, top + 0.22, f"{value:+.2f}", fontsize=9, va="center", ha="right", weight=weight)


def _show_picture(
    axes: Axes, image: torch.Tensor, box: tuple[int, int, int, int], left: float, top: float
) -> None:
    """A picture as high as a row, its upper edge at `top`."""
    picture = crop(image, box, SIDE)
    height, width = picture.shape[:2]
    axes.imshow(picture, extent=(left, left + min(1.0, width / height), top + min(1.0, height / width), top))
