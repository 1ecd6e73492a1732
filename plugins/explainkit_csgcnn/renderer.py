"""How CSG-CNN is drawn: the class activation map beside its gated part, the sum, and the gate."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from explainkit import Evidence, Explanation
from explainkit.rendering.figures import (
    AGAINST,
    FOR,
    NEUTRAL,
    TITLE_Y,
    legible,
    show_image,
    show_sum,
)
from explainkit.rendering.pictures import common_grid, overlay, rounded_limit, spotlight
from explainkit.rendering.place import SQUARE, strongest_cell_box
from explainkit_csgcnn.evidence import gated_saliency, purity_sentence, split_evidence

FILTERS = 4
"""Filters that are shown in place."""

ROWS = 6
"""Filters in the bars, and rows of the gate beside them."""

LABELED = 12
"""Up to so many classes have their names below the gate; of more, the class that is explained alone."""


def draw(explanation: Explanation, figure: Figure) -> None:
    """Image, both maps on one scale, the logit in two parts; below, the strongest filters, their classes."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width * 1.15, height * 2.05)
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 1.12])
    image, plain, gated, parts = halves[0, 0].subplots(1, 4, width_ratios=[1, 1, 1.2, 1.15])
    show_image(explanation, image)
    _show_maps(explanation, plain, gated)
    _show_parts(explanation, parts)
    items = explanation.top(ROWS)
    table, pictures = halves[1, 0].subfigures(1, 2, squeeze=False, width_ratios=[1.45, 1])[0]
    bars, gate = table.subplots(1, 2, width_ratios=[1, 1.1])
    show_sum(explanation, bars, count=ROWS)
    others = [label.get_text() for label in bars.get_yticklabels()[len(items) :]]
    bars.set_yticks(bars.get_yticks(), [*(f"filter {item.unit}" for item in items), *others], fontsize=8)
    _show_gate(explanation, gate, items)
    gate.set_ylim(bars.get_ylim())
    shown = list(pictures.subplots(2, 2).flat)
    for axes, item in zip(shown, items, strict=False):
        _show_filter(explanation, axes, item)
    for axes in shown[len(items) :]:
        axes.set_axis_off()
    figure.supxlabel(legible(purity_sentence(explanation), 300), fontsize=8.5, parse_math=False)


def _show_parts(explanation: Explanation, axes: Axes) -> None:
    """The logit as its base, what the class's own filters add, and what all others do."""
    split = split_evidence(explanation.batch[explanation.index : explanation.index + 1])
    values = [split.specific.item(), split.leakage.item(), explanation.base]
    axes.barh(range(3), values, color=[FOR if value > 0 else AGAINST for value in values])
    own, rest = "its own\nfilters", "all other\nfilters"
    if explanation.foil_name:
        own, rest = "own filters,\neach class's", "all else"
    axes.set_yticks(range(3), [own, rest, "base"], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color=NEUTRAL, linewidth=0.8)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    for row, value in enumerate(values):
        align = "left" if value >= 0 else "right"
        axes.annotate(f" {value:+.2f} ", (value, row), va="center", ha=align, fontsize=7)
    axes.margins(x=0.3)
    what = "margin" if explanation.foil_name else explanation.batch.unit
    purity = "" if split.purity.isnan().any() else f", purity {split.purity.item():.2f}"
    axes.set_title(f"{what} {explanation.explained_output:.2f}{purity}", fontsize=9, y=TITLE_Y)


def _show_maps(explanation: Explanation, plain: Axes, gated: Axes) -> None:
    """The class activation map, and the part of it that is the class's own filters', in the same colors."""
    batch = explanation.batch[explanation.index : explanation.index + 1]
    grids = [common_grid(explanation.saliency())]
    has_all_maps = batch.maps is not None and batch.map_units is None
    if has_all_maps:
        grids.append(common_grid(gated_saliency(batch)[0]))
    limit = max(rounded_limit(grid) for grid in grids)
    square = strongest_cell_box(explanation)
    whose = "each class's" if explanation.foil_name else "its"
    titles = ("evidence for (red), against (blue)", f"of {whose} own filters alone")
    for axes, title, grid in zip((plain, gated), titles, grids, strict=False):
        axes.imshow(overlay(explanation.image, grid, limit, square=square if axes is plain else None))
        axes.set_title(title, fontsize=9, y=TITLE_Y)
    for axes in (plain, gated):
        axes.set_axis_off()
    if square is not None:
        plain.text(0.5, -0.02, SQUARE, ha="center", va="top", fontsize=7, transform=plain.transAxes)
    if not has_all_maps:
        gated.text(0.5, 0.5, "not all maps\nwere kept", ha="center", va="center", fontsize=8, color=NEUTRAL)
    bar = gated.figure.colorbar(
        ScalarMappable(FuncNorm((_root, _square), -limit, limit), "RdBu_r"), ax=gated, shrink=0.8,
        ticks=[-limit, -limit / 4, 0, limit / 4, limit], format="%.2g",
    )  # fmt: skip
    bar.set_label(f"{explanation.batch.unit} per cell", fontsize=7)
    bar.ax.tick_params(labelsize=7)


def _root(values: Any) -> Any:
    return np.sign(values) * np.sqrt(np.abs(values))


def _square(values: Any) -> Any:
    return np.sign(values) * np.square(values)


def _show_filter(explanation: Explanation, axes: Axes, item: Evidence) -> None:
    """Where a filter responded, what that adds, and how much it is the class's own."""
    axes.set_axis_off()
    if item.map is not None:
        axes.imshow(spotlight(explanation.image, item.map, side=128))
    color = FOR if item.contribution > 0 else AGAINST
    name = textwrap.fill(textwrap.shorten(legible(item.text), 56, placeholder="…"), 30)
    axes.set_title(f"{name}\n{item.contribution:+.2f}", fontsize=8, y=TITLE_Y, color=color, parse_math=False)


def _show_gate(explanation: Explanation, axes: Axes, items: Sequence[Evidence]) -> None:
    """Rows of the gate: which classes each of the strongest filters serves, white none and black wholly."""
    affinity = explanation.batch.units.class_affinity
    if affinity is None or not items:
        axes.set_axis_off()
        return
    rows = affinity[[item.unit for item in items]].detach().cpu().float()
    axes.imshow(rows.numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axes.set_yticks([])
    names = explanation.batch.classes
    shown = range(len(names)) if len(names) <= LABELED else [explanation.target]
    for number in shown:
        axes.text(
            number, len(items) - 0.3, _shortened(legible(names[number])), fontsize=7, rotation=35, ha="right",
            va="top", weight="bold" if number == explanation.target else "normal", parse_math=False,
        )  # fmt: skip
    axes.set_xticks([])
    target = explanation.target
    frame = Rectangle((target - 0.5, -0.5), 1, len(items), fill=False, edgecolor=FOR, linewidth=1.6)
    axes.add_patch(frame)
    axes.spines[:].set_visible(False)
    if len(names) <= LABELED:
        _write_values(axes, rows)
    axes.set_title("gate: the classes that each filter serves (0 to 1)", fontsize=9, y=TITLE_Y)
    axes.tick_params(length=0)


def _shortened(name: str, length: int = 30) -> str:
    """The end of a name, which tells "green-winged fantail" from "green-winged daggerbill"."""
    return name if len(name) <= length else f"…{name[-length:]}"


def _write_values(axes: Axes, rows: Tensor) -> None:
    """The gate's values that are not nearly 0, in their cells."""
    for row, column in (rows >= 0.05).nonzero().tolist():
        value = float(rows[row, column])
        color = "white" if value > 0.6 else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=color)
