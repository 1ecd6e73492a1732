"""Intervention curves as matplotlib figures."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from explainkit.explanations.intervention_curve import InterventionCurve
from explainkit.rendering.figures import FOR, NEUTRAL, legible


def draw_curve(curve: InterventionCurve, size: float = 3.0) -> Figure:
    """Accuracy over the number of units that are set, beside that in random order."""
    figure = Figure(figsize=(size * 1.5, size), layout="constrained")
    axes = figure.subplots()
    show_curve(curve, f"by {curve.order_by}", FOR, axes)
    if curve.baseline is not None:
        show_curve(curve.baseline, "in random order", NEUTRAL, axes)
    axes.set_xlabel(f"units {curve.intervention}", fontsize=8)
    axes.set_ylabel("accuracy", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    axes.set_title(f"{legible(curve.explainer)}, {curve.num_images} images", fontsize=9, parse_math=False)
    return figure


def show_curve(curve: InterventionCurve, label: str, color: str, axes: Axes) -> None:
    """Its accuracy as a line, with two standard errors to either side."""
    accuracy, error = curve.accuracy.numpy(), 2 * curve.accuracy_std_error.numpy()
    axes.plot(curve.num_units, accuracy, color=color, label=label)
    axes.fill_between(
        curve.num_units, accuracy - error, accuracy + error, color=color, alpha=0.2, linewidth=0
    )
