"""What is recorded while a network learns: a bar in the terminal, rows in files."""

import csv
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from explainkit.errors import InputError, MissingPackageError
from explainkit.training.phases import Epoch


class CSVLogger:
    """One row an epoch in ``folder/log.csv``, always a whole file; a column for every term seen so far."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "log.csv"
        self._rows: list[dict[str, Any]] = []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"Expected a folder for logs that can be written; got {str(folder)!r}: {error}."
            ) from None

    def log(self, epoch: Epoch) -> None:
        """Add the epoch's row."""
        self._rows.append(row(epoch))
        columns = list(dict.fromkeys(name for entry in self._rows for name in entry))
        partial = self.path.with_suffix(".csv.part")
        try:
            with partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(self._rows)
            os.replace(partial, self.path)
        except OSError as error:
            message = f"Expected a log that can be written; got {str(self.path)!r}: {error}."
            raise InputError(message) from None

    def close(self) -> None:
        """Nothing is left to do: every row is on disk."""


class TensorBoardLogger:
    """Every figure of every epoch as a TensorBoard scalar in `folder`, over epochs of the whole run.

    Raises
    ------
    MissingPackageError
        Without tensorboard: ``pip install 'explainkit-sdk[tensorboard]'``.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingPackageError(
                "TensorBoard is not installed: pip install 'explainkit-sdk[tensorboard]'."
            ) from error
        try:
            self._writer = SummaryWriter(str(folder), purge_step=0)  # a resumed run records its epochs again
        except OSError as error:
            raise InputError(
                f"Expected a folder for logs that can be written; got {str(folder)!r}: {error}."
            ) from None
        self._epochs = 0

    def log(self, epoch: Epoch) -> None:
        """Add the epoch's scalars, terms beneath their phase."""
        self._epochs += 1
        for name, value in row(epoch).items():
            if isinstance(value, float):
                self._writer.add_scalar(name.replace("train/", f"{epoch.phase}/"), value, self._epochs)
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()


def row(epoch: Epoch) -> dict[str, Any]:
    """An epoch as a flat row, terms prefixed with ``train/``."""
    return {
        "phase": epoch.phase,
        "epoch": epoch.epoch,
        "validation/accuracy": epoch.val_accuracy,
        "validation/loss": epoch.val_loss,
        **{f"train/{name}": value for name, value in epoch.train_losses.items()},
        **{f"validation/{name}": value for name, value in epoch.val_metrics.items()},
        "seconds": epoch.seconds,
    }


class Progress:
    """A bar for one phase, where there is a terminal to show it; silent elsewhere."""

    def __init__(self, phase: str, epochs: int, is_shown: bool | None) -> None:
        self._is_shown = sys.stderr.isatty() if is_shown is None else is_shown
        self._phase, self._epochs = phase, epochs
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._is_shown and self._epochs:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[losses]}"),
                TimeElapsedColumn(), console=Console(stderr=True),
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task(self._phase, total=float(self._epochs), losses="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, epoch: int, share: float, terms: Mapping[str, float]) -> None:
        """`share` of epoch number `epoch` is done; `terms` are those of the last step."""
        if self._bar is not None:
            losses = " ".join(f"{name} {value:.3f}" for name, value in terms.items())
            self._bar.update(
                self._task, completed=epoch - 1 + share, losses=f"{epoch}/{self._epochs} {losses}"
            )
