"""How ProtoPNet is drawn: this looks like that, and counts so much; for, against, all others, and the sum."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from explainkit import Evidence, Explanation
from explainkit.rendering.figures import AGAINST, FOR, NEUTRAL, legible, show_evidence, show_image
from explainkit.rendering.pictures import Pixels, framed
from explainkit_protopnet.projection import activation_boxes

SIDE = 160
"""Pixels of a picture in the ledger."""

SUM = 5.6
"""Where the column of sums ends, in pictures."""


def draw(explanation: Explanation, figure: Figure) -> None:
    """The image and where its evidence lies; beside them a ledger of prototypes that adds up to the logit."""
    supporting, opposing = _largest(explanation, 1, 4), _largest(explanation, -1, 2)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, max(height * 1.6, height * 0.28 * (len(supporting) + len(opposing) + 2)))
    halves = figure.subfigures(1, 2, squeeze=False, width_ratios=[1, 1.9])
    left, right = halves[0, 0], halves[0, 1]
    image, evidence = left.subplots(2, 1)
    show_image(explanation, image)
    show_evidence(explanation, evidence)
    _show_ledger(explanation, right.subplots(), [*supporting, *opposing])


def _largest(explanation: Explanation, sign: int, count: int) -> list[Evidence]:
    """The prototypes that add most for (1) or against (-1)."""
    top = (sign * explanation.contributions).topk(min(count, len(explanation.contributions)))
    return [explanation.evidence_of(unit) for unit in top.indices[top.values > 0].tolist()]


def _show_ledger(explanation: Explanation, axes: Axes, items: Sequence[Evidence]) -> None:
    """A row a prototype, one picture high, then all others and the total: a column that adds up."""
    axes.set_axis_off()
    for text, x, align in (
        ("this", 0.5, "center"),
        ("looks like that", 1.6, "center"),
        ("adds", SUM, "right"),
    ):
        axes.text(x, -0.08, text, fontsize=8, color=NEUTRAL, ha=align, va="bottom")
    line = 0.0
    for item in items:
        _show_row(explanation, axes, item, line)
        line += 1.08
    others = explanation.contributions.sum().item() - sum(item.contribution for item in items)
    other_count = len(explanation.contributions) - len(items)
    foil_name, label = explanation.foil_name, f"logit of {explanation.target_name}"
    if foil_name:
        label = f"{explanation.target_name}: margin over {foil_name}"
    if other_count:
        _show_sum(axes, f"all {other_count} others", others, line)
        line += 0.42
    axes.plot([0, SUM], [line + 0.06] * 2, color="black", linewidth=0.9)
    _show_sum(axes, legible(label), explanation.explained_output, line + 0.06, "bold")
    axes.set_xlim(-0.05, SUM + 0.05)
    axes.set_ylim(line + 0.5, -0.4)
    axes.set_aspect("equal", anchor="NW")


def _show_row(explanation: Explanation, axes: Axes, item: Evidence, top: float) -> None:
    source = next((picture for picture in item.pictures if picture.image is not None), None)
    if item.map is not None:
        box = activation_boxes(item.map[None], explanation.image.shape[1:], "peak")[0].tolist()
        _show_picture(axes, framed(explanation.image, tuple(box), side=SIDE), 0, top)
    if source is not None and source.image is not None:
        _show_picture(axes, framed(source.image, source.box, side=SIDE), 1.1, top)
    color = FOR if item.contribution > 0 else AGAINST
    factors = f"similarity {item.score:.2f} \N{MULTIPLICATION SIGN} weight {item.weight:+.2f}"
    origin = "" if source is None else f"training image {source.id}"
    for text, down, size, shade in (
        (legible(item.text), 0.2, 8.5, "black"),
        (factors, 0.5, 7.5, NEUTRAL),
        (origin, 0.78, 7.5, NEUTRAL),
    ):
        axes.text(2.25, top + down, text, fontsize=size, color=shade, va="center", parse_math=False)
    axes.text(SUM, top + 0.5, f"{item.contribution:+.2f}", fontsize=9, color=color, ha="right", va="center")


def _show_sum(axes: Axes, text: str, value: float, top: float, weight: str = "normal") -> None:
    axes.text(0, top + 0.22, text, fontsize=8.5, va="center", weight=weight, parse_math=False)
    axes.text(SUM, top + 0.22, f"{value:+.2f}", fontsize=9, va="center", ha="right", weight=weight)


def _show_picture(axes: Axes, picture: Pixels, left: float, top: float) -> None:
    """A picture as high as a row, its upper edge at `top`."""
    height, width = picture.shape[:2]
    axes.imshow(picture, extent=(left, left + min(1.0, width / height), top + min(1.0, height / width), top))
