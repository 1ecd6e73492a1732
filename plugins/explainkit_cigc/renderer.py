"""How CI-GC is drawn: the evidence and its sum, and below what training held in place, cell by cell."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from explainkit import Explanation
from explainkit.rendering.figures import TITLE_Y, show_evidence, show_image, show_sum, show_units
from explainkit.rendering.pictures import pixels
from explainkit_cigc.certificate import attention

SHOWN_UNITS = 3


def draw(explanation: Explanation, figure: Figure) -> None:
    """Image, map and bars; below them the shares that the loss compares, and the strongest filters."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height * 1.8)
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 0.8])
    image, evidence, bars = halves[0, 0].subplots(1, 3, width_ratios=[1, 1.2, 1.6])
    show_image(explanation, image)
    show_evidence(explanation, evidence)
    show_sum(explanation, bars)
    below = halves[1, 0].subplots(1, 1 + SHOWN_UNITS, width_ratios=[1.25, *[1.0] * SHOWN_UNITS])
    _show_attention(explanation, below[0])
    show_units(explanation, list(below[1:]), explanation.top(SHOWN_UNITS))


def _title(explanation: Explanation, has_attention: bool) -> str:
    """Training holds what speaks for one class, and no margin over another."""
    foil = explanation.foil_name
    if foil is not None:
        rest = f"for this class over {foil}"
        return f"what speaks {rest}" if has_attention else f"nothing speaks {rest}"
    if not has_attention:
        return "nothing speaks for this class"
    is_held = explanation.batch.provenance.settings.get("consistency") != 0
    return "attention, held in place by training" if is_held else "attention"


def _show_attention(explanation: Explanation, axes: Axes) -> None:
    """Which share of what speaks for the class each cell has; and how that stood up in composites."""
    axes.set_axis_off()
    batch = explanation.batch[[explanation.index]]
    if batch.boxes is not None or (batch.maps is None and batch.remainder_map is None):
        axes.set_title("no maps were kept", fontsize=8, y=TITLE_Y)
        return
    shares = attention(batch)[0].detach().cpu().double().numpy()
    picture = pixels(explanation.image).astype(float) / 255
    gray = (picture @ np.array([0.299, 0.587, 0.114])) * 0.8 + 0.2
    height, width = gray.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(gray, cmap="gray", vmin=0, vmax=1)
    top = shares.max()
    shown = axes.imshow(
        shares, cmap="Reds", extent=extent, vmin=0, vmax=top or 1.0, interpolation="nearest",
        alpha=np.sqrt(shares / (top or 1.0)) * 0.9,
    )  # fmt: skip
    if top > 0:
        bar = axes.figure.colorbar(shown, ax=axes, shrink=0.8, ticks=[0, top / 2, top])
        bar.ax.set_yticklabels([f"{share:.1%}" for share in (0, top / 2, top)], fontsize=7)
        bar.set_label("of all attention, per cell", fontsize=7)
    axes.set_title(_title(explanation, top > 0), fontsize=8, y=TITLE_Y)
    overlap = explanation.diagnostics.get("map overlap")
    if overlap is not None and overlap == overlap and explanation.foil_name is None:
        inside = explanation.diagnostics.get("map inside", float("nan"))
        text = f"among other images: {inside:.0%} stays here, overlap {overlap:.0%}"
        axes.text(0.5, -0.03, text, ha="center", va="top", fontsize=7, transform=axes.transAxes)
