"""The one door to rendering: values are drawn by a layer above them, which is imported when it is needed."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(value: Any, size: float) -> Figure:
    """A matplotlib figure of one explanation, class or counterfactual; `size` in inches a panel."""
    figure: Figure = rendering().figure(value, size)
    return figure


def markup(value: Any) -> str:
    """HTML for notebooks: of one of these, of a batch of them, or of a table as text."""
    return str(rendering().markup(value))


def rendering() -> ModuleType:
    """The package that draws."""
    from explainkit import rendering

    return rendering
