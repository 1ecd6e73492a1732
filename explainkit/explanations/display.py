"""The one door to rendering: values are drawn by a layer above them, which is imported when it is needed."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(value: Any, size: float, **options: Any) -> Figure:
    """A matplotlib figure of one value; `size` in inches a panel, `options` of the kind of value."""
    figure: Figure = rendering().figure(value, size, **options)
    return figure


def markup(value: Any) -> str:
    """HTML for notebooks: of one of these, of a batch of them, or of a table as text."""
    return str(rendering().markup(value))


def rendering() -> ModuleType:
    """The package that draws."""
    from explainkit import rendering

    return rendering
