"""What rows depend on beside the model and the source."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from explainkit.errors import InputError
from explainkit.explanations.counts import check_count, is_whole

BATCHES_PER_FILE = 16
"""How many batches share a file by default."""


@frozen(kw_only=True)
class Settings:
    """What rows depend on beside the model and the source; see `explain_dataset`."""

    targets: int | str | None
    foils: int | str | None
    top: int | None
    saliency: tuple[int, int] | None
    logits: bool
    sentences: bool
    records: bool
    batch_size: int
    images_per_file: int

    @classmethod
    def checked(cls, **values: Any) -> Settings:
        """These settings, once they are found to be in range."""
        batch_size = check_count("batch_size", values["batch_size"])
        if values["top"] is not None:
            values["top"] = check_count("top", values["top"], 0)
        if (grid := values["saliency"]) is not None:
            is_pair = isinstance(grid, tuple | list) and len(grid) == 2
            if not is_pair or not all(is_whole(side) and side > 0 for side in grid):
                raise InputError(f"Expected saliency as height and width of a grid, or None; got {grid!r}.")
            values["saliency"] = (int(grid[0]), int(grid[1]))
        for name in ("targets", "foils"):
            if not (values[name] is None or isinstance(values[name], str) or is_whole(values[name])):
                raise InputError(
                    f"Expected {name} as one class for all images, by name or index; got "
                    f"{values[name]!r:.80}."
                )
        if values["images_per_file"] is None:
            values["images_per_file"] = BATCHES_PER_FILE * batch_size
        images = check_count("images_per_file", values["images_per_file"])
        if images % batch_size:
            raise InputError(
                f"Expected images_per_file as a multiple of batch_size, {batch_size}, so that batches are "
                f"the same wherever a run begins; got {images}."
            )
        return cls(**values)

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "targets": self.targets, "foils": self.foils, "top": self.top, "saliency": self.saliency,
            "logits": self.logits, "sentences": self.sentences, "records": self.records,
            "batch_size": self.batch_size,
            "images_per_file": self.images_per_file,
        }  # fmt: skip
