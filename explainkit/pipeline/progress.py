"""A bar in the terminal: images, images a second, and the time that is left."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self


class ImageProgress:
    """A bar for a run over images, where there is a terminal to show it; silent elsewhere.

    Parameters
    ----------
    total, done : int
        Images of the run, and those that an earlier one has done.
    is_shown : bool or None
        ``None``: where there is a terminal.
    """

    def __init__(self, total: int, done: int, is_shown: bool | None) -> None:
        self._is_shown = sys.stderr.isatty() if is_shown is None else is_shown
        self._total, self._done = total, done
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._is_shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.text import Text

            class Rate(TextColumn):
                """Images a second, of late."""

                def render(self, task: Any) -> Text:
                    return Text("" if not task.speed else f"{task.speed:,.0f} images/s")

            self._bar = Progress(
                TextColumn("explaining"), BarColumn(), MofNCompleteColumn(), Rate(""), TimeRemainingColumn(),
                TextColumn("left {task.fields[errors]}"), console=Console(stderr=True),
                speed_estimate_period=60,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, completed=self._done, errors="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, images: int, errors: int) -> None:
        """So many images more are done; `errors` of the run could not be explained so far."""
        if self._bar is not None:
            text = f" · {errors} could not be explained" if errors else ""
            self._bar.update(self._task, advance=images, errors=text)
