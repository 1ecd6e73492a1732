"""How MA-CNN is drawn: crops on the image, the logit by part; below, what each part sees and adds."""

from __future__ import annotations

from itertools import cycle, islice

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from explainkit import Explanation
from explainkit.explanations.factored_maps import FactoredMaps
from explainkit.explanations.spatial import upsample
from explainkit.rendering.figures import (
    AGAINST,
    FOR,
    NEUTRAL,
    TITLE_Y,
    legible,
    show_evidence,
    show_image,
    show_sum,
)
from explainkit.rendering.pictures import Pixels, crop, pixels
from explainkit_macnn.parts import part_boxes, part_sentence

COLORS = ("#d97706", "#7c3aed", "#059669", "#db2777", "#0891b2", "#65a30d")
"""Of parts, on the image and below."""

COLUMNS = 6
"""Parts that are shown below, at most."""


def draw(explanation: Explanation, figure: Figure) -> None:
    """The image with the parts, the evidence, and what each part adds; below, a column for each part."""
    batch = explanation.batch
    names = batch.units.parents or ()
    has_places = isinstance(batch.maps, FactoredMaps) and batch.has_images
    width, height = figure.get_size_inches()
    figure.set_size_inches(width * 1.1, height * 2.3)
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 1.25])
    image, evidence, by_part, by_unit = halves[0, 0].subplots(1, 4, width_ratios=[1, 1.2, 0.9, 1.1])
    one = batch[explanation.index : explanation.index + 1]
    boxes = part_boxes(one)[0].tolist() if has_places else []
    show_image(explanation, image)
    _show_places(explanation, image, boxes)
    show_evidence(explanation, evidence)
    _show_parts(explanation, by_part)
    show_sum(explanation, by_unit, count=5)
    shown = min(len(names), COLUMNS)
    columns = halves[1, 0].subplots(2, max(shown, 1), squeeze=False)
    for number in range(shown):
        _show_crop(explanation, columns[0, number], number, boxes)
        _show_attention(explanation, columns[1, number], number)
    figure.supxlabel(legible(part_sentence(explanation), 300), fontsize=8.5, parse_math=False)


def color_of(number: int) -> str:
    """The color of part number `number`."""
    return next(islice(cycle(COLORS), number, None))


def _show_places(explanation: Explanation, axes: Axes, boxes: list[list[int]]) -> None:
    """The crop of each part, with its number in a corner of its own where crops lie on each other."""
    scale = pixels(explanation.image).shape[1] / explanation.image.shape[2]
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        corner, side = (x0 * scale - 0.5, y0 * scale - 0.5), ((x1 - x0) * scale, (y1 - y0) * scale)
        color = color_of(number)
        axes.add_patch(Rectangle(corner, *side, fill=False, edgecolor=color, linewidth=2))
        right, low = number % 2, number // 2 % 2
        axes.annotate(
            str(number + 1), (corner[0] + right * side[0], corner[1] + low * side[1]), ha="center",
            va="center", fontsize=7, color="white", fontweight="bold",
            bbox={"boxstyle": "circle,pad=0.15", "facecolor": color, "edgecolor": "white", "linewidth": 0.6},
        )  # fmt: skip


def _show_parts(explanation: Explanation, axes: Axes) -> None:
    """What each part adds, and the base: bars that add up to what is explained."""
    rows = [*explanation.parent_contributions.items(), ("base", explanation.base)]
    values = [value for _, value in rows]
    axes.barh(range(len(rows)), values, color=[FOR if value > 0 else AGAINST for value in values])
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    for number, label in enumerate(axes.get_yticklabels()[:-1]):
        label.set_color(color_of(number))
    axes.invert_yaxis()
    axes.axvline(0, color=NEUTRAL, linewidth=0.8)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.margins(x=0.35)
    for row, value in enumerate(values):
        align = "left" if value >= 0 else "right"
        axes.annotate(f" {value:+.2f} ", (value, row), va="center", ha=align, fontsize=7)
    axes.set_title("what each part adds", fontsize=9, y=TITLE_Y)


def _show_crop(explanation: Explanation, axes: Axes, number: int, boxes: list[list[int]]) -> None:
    """What a part sees near its peak, what it adds, and how sure and how right it is alone."""
    name, value = list(explanation.parent_contributions.items())[number]
    if boxes:
        x0, y0, x1, y1 = boxes[number]
        axes.imshow(crop(explanation.image, (x0, y0, x1, y1), 128))
    axes.set_xticks([]), axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_edgecolor(color_of(number))
        spine.set_linewidth(2.2)
    axes.set_title(f"{name}: {value:+.2f}", fontsize=9, y=TITLE_Y, color=FOR if value > 0 else AGAINST)
    notes = []
    sure = explanation.diagnostics.get(f"p by {name}")
    accuracy = explanation.diagnostics.get(f"accuracy of {name}")
    if sure is not None:
        notes.append(f"alone {sure:.0%} sure")
    if accuracy is not None:
        notes.append(f"alone right in {accuracy:.0%}")
    axes.text(0.5, -0.04, "\n".join(notes), ha="center", va="top", fontsize=7, transform=axes.transAxes)


def _show_attention(explanation: Explanation, axes: Axes, number: int) -> None:
    """The image as bright as the part's attention, and the filters that add most there."""
    axes.set_axis_off()
    maps = explanation.batch.maps
    if isinstance(maps, FactoredMaps):
        axes.imshow(_lit(explanation.image, maps.attention[explanation.index, number]))
    else:
        axes.text(0.5, 0.5, "not all maps\nwere kept", ha="center", va="center", fontsize=8, color=NEUTRAL)
    units = explanation.batch.units
    contributions = explanation.contributions
    assert units.parent is not None
    own = (units.parent.to(contributions.device) == number).nonzero()[:, 0]
    order = contributions[own].abs().argsort(descending=True, stable=True)[:2]
    lines = []
    for unit in own[order].tolist():
        item = explanation.evidence_of(unit)
        text = legible(item.phrase or item.name.removesuffix(f" of {(units.parents or ())[number]}"), 26)
        lines.append(f"{text} {item.contribution:+.2f}")
    axes.text(
        0.5, -0.04, "\n".join(lines), ha="center", va="top", fontsize=7, transform=axes.transAxes,
        parse_math=False,
    )  # fmt: skip


def _lit(image: Tensor, attention: Tensor) -> Pixels:
    """An image whose brightness follows attention (h, w), from a third to all of it, (H', W', 3)."""
    ground = torch.from_numpy(pixels(image, 128).copy()).float() / 255
    lit = upsample(attention.detach().cpu().float()[None], ground.shape[:2])[0]
    share = (lit / lit.max().clamp(min=1e-12)).sqrt()
    picture: Pixels = (ground * (0.35 + 0.65 * share[..., None]) * 255).round().byte().numpy()
    return picture
