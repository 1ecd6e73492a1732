"""How Region-CNN is drawn: the image as its regions, the sum, and each region with its attention."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from explainkit import Evidence, Explanation
from explainkit.explanations.factored_maps import dense_maps
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
from explainkit.rendering.pictures import Pixels, pixels
from explainkit_regioncnn.agreement import hard_regions
from explainkit_regioncnn.explainer import is_background_name

SHOWN = 5
"""Regions that are shown one by one."""

SIDE = 192
"""Pixels of the pictures."""

NEAR = 0.09
"""Share of the image's width below which the numbers of two regions would overlap."""

TINT, FAINT = 0.6, 0.15
"""How much of a pixel is its region's color: of a region of the object, and of the background."""


def draw(explanation: Explanation, figure: Figure) -> None:
    """The image, its regions, the evidence and the sum; below, the regions that count most."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width * 1.15, height * 1.95)
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 0.85])
    image, regions, evidence, bars = halves[0, 0].subplots(1, 4, width_ratios=[1, 1, 1.2, 1.5])
    show_image(explanation, image)
    labels = region_labels(explanation)
    _show_regions(explanation, regions, labels)
    show_evidence(explanation, evidence)
    show_sum(explanation, bars, count=SHOWN + 1)
    shown = halves[1, 0].subplots(1, SHOWN)
    for axes, item in zip(shown, explanation.top(SHOWN), strict=False):
        _show_region(explanation, axes, item, labels)
    for axes in shown:
        axes.set_axis_off()


def region_labels(explanation: Explanation) -> Pixels | None:
    """The region of each pixel of the picture, (h, w); ``None`` where not all maps were kept."""
    batch = explanation.batch
    if batch.maps is None or batch.map_units is not None:
        return None
    shares = dense_maps(batch.maps[[explanation.index]])
    height, width = pixels(explanation.image, SIDE).shape[:2]
    labels: Pixels = hard_regions(shares.detach().cpu(), (height, width))[0].numpy().astype(np.uint8)
    return labels


def colors_of(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """A color for each of `count` regions, (count, 3), in [0, 1]."""
    if count <= 10:
        return np.asarray(colormaps["tab10"](np.arange(count)))[:, :3]
    return np.asarray(colormaps["hsv"](np.arange(count) / count))[:, :3]


def segmented(explanation: Explanation, labels: Pixels) -> Pixels:
    """The image in gray under the colors of its regions, with dark lines between these; background faint."""
    ground = pixels(explanation.image, SIDE).astype(np.float64) / 255
    gray = (ground @ np.array([0.299, 0.587, 0.114]))[..., None]
    names = explanation.batch.units.names
    tint = np.array([FAINT if is_background_name(name) else TINT for name in names])[labels][..., None]
    picture = gray * (1 - tint) + colors_of(len(names))[labels] * tint
    edge = np.zeros(labels.shape, dtype=bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    picture[edge] = picture[edge] * 0.4
    return (picture * 255).round().astype(np.uint8)


def _show_regions(explanation: Explanation, axes: Axes, labels: Pixels | None) -> None:
    """The segmentation, each region numbered at its middle."""
    axes.set_axis_off()
    axes.set_title("regions, by number", fontsize=9, y=TITLE_Y)
    if labels is None:
        axes.text(0.5, 0.5, "not all maps\nwere kept", ha="center", va="center", fontsize=8, color=NEUTRAL)
        return
    axes.imshow(segmented(explanation, labels))
    names = explanation.batch.units.names
    placed = np.empty((0, 2))
    for unit in np.unique(labels).tolist():
        if is_background_name(names[unit]):
            continue
        place = _place_of(labels == unit, placed)
        placed = np.vstack([placed, place])
        box = {"boxstyle": "round,pad=0.1", "facecolor": "#18181b", "alpha": 0.8, "lw": 0}
        axes.text(
            place[1], place[0], str(unit), ha="center", va="center", fontsize=7, color="white",
            fontweight="bold", bbox=box,
        )  # fmt: skip


def _place_of(region: np.ndarray[Any, Any], placed: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The row and column of a region nearest to its middle and, where there is one, not near to others."""
    pixels_of = np.argwhere(region)
    apart = np.linalg.norm(pixels_of[:, None] - placed, axis=2).min(1, initial=np.inf)
    is_free = apart > NEAR * region.shape[1]
    candidates = pixels_of[is_free] if is_free.any() else pixels_of
    return candidates[np.linalg.norm(candidates - pixels_of.mean(0), axis=1).argmin()]


def _show_region(explanation: Explanation, axes: Axes, item: Evidence, labels: Pixels | None) -> None:
    """One region, all else faded: its attention, what that is worth, what it adds."""
    color = FOR if item.contribution > 0 else AGAINST
    axes.set_title(legible(item.text, 40), fontsize=8, y=TITLE_Y, color=color, parse_math=False)
    if labels is not None:
        ground = pixels(explanation.image, SIDE).astype(np.float64)
        inside = (labels == item.unit)[..., None]
        axes.imshow(np.where(inside, ground, ground * 0.2 + 255 * 0.72).round().astype(np.uint8))
        if not inside.any():
            axes.text(
                0.5,
                0.5,
                "no cell is\nmostly of it",
                ha="center",
                va="center",
                fontsize=8,
                color=NEUTRAL,
                transform=axes.transAxes,
            )
    note = f"{item.contribution:+.2f} = {item.score:.0%} attention \N{MULTIPLICATION SIGN} {item.weight:+.1f}"
    axes.text(0.5, -0.03, note, ha="center", va="top", fontsize=7, color=NEUTRAL, transform=axes.transAxes)
