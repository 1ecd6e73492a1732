"""Explanations as figures, HTML for notebooks, and pages."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from matplotlib.figure import Figure

from explainkit.explanations.class_level import ClassExplanation
from explainkit.explanations.counterfactuals import Counterfactual
from explainkit.explanations.intervention_curve import InterventionCurve
from explainkit.explanations.single import Explanation
from explainkit.metrics.posthoc_comparison import PostHocComparison
from explainkit.rendering.class_figures import draw_class
from explainkit.rendering.counterfactual_figures import draw_counterfactual
from explainkit.rendering.curve_figures import draw_curve
from explainkit.rendering.figures import draw
from explainkit.rendering.html import (
    Fact,
    TableView,
    batch_fragment,
    class_fragment,
    counterfactual_fragment,
    image_fragment,
    report,
    text_fragment,
)
from explainkit.rendering.posthoc_figures import draw_posthoc_comparison

__all__ = ["Fact", "TableView", "figure", "markup", "report"]


Drawable = Explanation | ClassExplanation | Counterfactual | InterventionCurve | PostHocComparison


def figure(value: Drawable, size: float, **options: Any) -> Figure:
    """A matplotlib figure of one value; `size` in inches a panel, `options` of the kind of value."""
    if isinstance(value, PostHocComparison):
        return draw_posthoc_comparison(value, size, **options)
    if isinstance(value, ClassExplanation):
        return draw_class(value, size)
    if isinstance(value, InterventionCurve):
        return draw_curve(value, size)
    return draw_counterfactual(value, size) if isinstance(value, Counterfactual) else draw(value, size)


def markup(value: Any) -> str:
    """HTML of one value, of the first of several, or of text."""
    if isinstance(value, str):
        return text_fragment(value)
    if isinstance(value, Explanation):
        return image_fragment(value)
    if isinstance(value, ClassExplanation):
        return class_fragment(value)
    if isinstance(value, Counterfactual):
        return counterfactual_fragment(value)
    batch: Sized = value
    return batch_fragment(value, len(batch))
