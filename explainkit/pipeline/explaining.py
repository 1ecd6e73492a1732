"""Explain any number of images: batch by batch, file by file, and go on after a crash where it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from attrs import define, frozen
from torch import Tensor

from explainkit.errors import ExplainKitError, InputError
from explainkit.explainers.decisions import given_targets
from explainkit.explainers.interface import Explainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.counts import check_count, is_whole
from explainkit.explanations.units import Units
from explainkit.explanations.validation import foil_indices
from explainkit.networks.precision import reference_tensor
from explainkit.pipeline.columns import Rows, in_order
from explainkit.pipeline.dataset import ExplanationDataset
from explainkit.pipeline.decoding import decoded
from explainkit.pipeline.manifest import Manifest, describe_run, enter_folder
from explainkit.pipeline.parts import (
    Part,
    all_parts,
    is_done,
    remove_abandoned,
    shard_parts,
    windows,
    write_part,
)
from explainkit.pipeline.progress import ImageProgress
from explainkit.pipeline.row_schema import arrow_schema, require_arrow
from explainkit.pipeline.sources import Source, Sources, open_source
from explainkit.pipeline.windows import Window

BATCH_SIZE = 64
"""How many images are explained at once by default."""

BATCHES_PER_FILE = 16
"""How many batches share a file by default."""

LONGEST_ERROR = 500
"""Letters of an error that a row keeps."""


def explain_dataset(
    model: Explainer,
    source: Sources,
    folder: str | Path,
    *,
    targets: int | str | None = None,
    foils: int | str | None = None,
    top: int | None = 10,
    saliency: tuple[int, int] | None = (8, 8),
    logits: bool = True,
    sentences: bool = False,
    batch_size: int = BATCH_SIZE,
    images_per_file: int | None = None,
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
    on_error: Literal["record", "raise"] = "record",
    resume: bool = True,
    progress: bool | None = None,
) -> ExplanationDataset:
    """Explain all images of a source, and write the explanations to Parquet files in `folder`.

    Memory does not grow with the number of images. What a killed run has written whole is kept, and the next
    one goes on from there; on the same machine, the rows are the same, bit for bit. They depend on no shard
    and on no cut, because batches and files depend on the numbers of images alone.

    Parameters
    ----------
    model : Explainer
    source
        An `ImageDataset` (its test images), ``dataset.batches("train")`` or a split; a folder of pictures, or
        a list of files; Parquet files with a column of image bytes, or a folder of them. A picture whose
        folder is called like a class has that label.
    folder : path
        New, empty, or of an earlier run by the same model, with the same source and settings.
    targets, foils : int, str or None
        As for `Explainer.explain`, the same for all images.
    top : int or None
        Units of a row, the strongest; the others are summed. ``None``: all of them.
    saliency : (int, int) or None
        Height and width of the grid that contributions are kept on; ``None`` keeps none.
    logits : bool
        Whether rows have the logits of all classes, without which they cannot become `Explanations` again.
    sentences : bool
        Whether rows have sentences, which take longest.
    batch_size : int
        How many images are explained at once.
    images_per_file : int or None
        A multiple of `batch_size`; 16 batches unless given. What a killed run loses is at most one file.
    workers : int
        Processes that read and decode images; 0 does so between batches.
    shard : (int, int)
        Which of how many processes this one is: (0, 4) to (3, 4). All write to the same folder.
    on_error : {"record", "raise"}
        What an image that cannot be read or explained becomes: a row with its error, or the run's end.
    resume : bool
        Go on where files of this shard are there; ``False`` refuses them.
    progress : bool or None
        A bar in the terminal; ``None``: where there is one.

    Returns
    -------
    ExplanationDataset
        What `folder` holds, of all shards.

    Raises
    ------
    InputError
        For a source without images, a folder of something else or of another run, a setting out of range;
        with ``on_error="raise"`` for the first image that cannot be read; and where no image of a whole batch
        can be explained.
    UnknownNameError
        For a class that the network does not know.
    MissingPackageError
        Without pyarrow: ``pip install 'explainkit-sdk[arrow]'``.
    """
    require_arrow("pyarrow.parquet")
    model.check_answers("image")
    settings = Settings.checked(
        targets=targets, foils=foils, top=top, saliency=saliency, logits=logits, sentences=sentences,
        batch_size=batch_size, images_per_file=images_per_file,
    )  # fmt: skip
    workers, shard = check_count("workers", workers, 0), _checked_shard(shard)
    if on_error not in ("record", "raise"):
        raise InputError(f"Expected on_error as 'record' or 'raise'; got {on_error!r}.")
    explainer = model.snapshot()
    _check_classes(explainer, targets, foils)
    images = open_source(source, explainer, with_digests=False)
    units = explainer.units or _units_of(explainer)
    manifest = describe_run(explainer, units, settings.facts(), images)
    folder = Path(folder)
    enter_folder(folder, manifest)
    run = Run(
        explainer=explainer, source=images, folder=folder, settings=settings, manifest=manifest,
        on_error=on_error,
    )  # fmt: skip
    run.write(shard_parts(all_parts(len(images), settings.images_per_file), shard), workers, resume, progress)
    return ExplanationDataset(folder)


@frozen(kw_only=True)
class Settings:
    """What rows depend on beside the model and the source; see `explain_dataset`."""

    targets: int | str | None
    foils: int | str | None
    top: int | None
    saliency: tuple[int, int] | None
    logits: bool
    sentences: bool
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
            "logits": self.logits, "sentences": self.sentences, "batch_size": self.batch_size,
            "images_per_file": self.images_per_file,
        }  # fmt: skip


@define(eq=False, kw_only=True)
class Run:
    """One process's share of the work."""

    explainer: Explainer
    source: Source
    folder: Path
    settings: Settings
    manifest: Manifest
    on_error: str
    errors: int = 0

    def write(self, parts: Sequence[Part], workers: int, resume: bool, progress: bool | None) -> None:
        """Write those of `parts` that are not there yet."""
        done = [part for part in parts if is_done(self.folder, part, self.manifest)]
        if done and not resume:
            raise InputError(
                f"Expected none of this shard's files in {str(self.folder)!r}; {len(done)} are there. Go on "
                "with resume=True, or take another folder."
            )
        remove_abandoned(self.folder)
        numbers = {part.number for part in done}
        left = [part for part in parts if part.number not in numbers]
        total = sum(part.stop - part.start for part in parts)
        finished = total - sum(part.stop - part.start for part in left)
        rows = self._rows()
        payloads = _Payloads(self.source, left, self.settings.batch_size)
        stream = decoded(self.source.decoder, payloads, workers)
        with ImageProgress(total, finished, progress) as bar:
            for part in left:
                batches = []
                for _ in windows(part, self.settings.batch_size):
                    window = next(stream)
                    batches.append(self._explain(window, rows))
                    bar.advance(len(window), self.errors)
                write_part(self.folder, part, batches, self.manifest)

    def _rows(self) -> Rows:
        explainer, settings = self.explainer, self.settings
        return Rows(
            schema=arrow_schema(is_double=reference_tensor(explainer.network).dtype == torch.float64),
            top=settings.top, saliency=settings.saliency, logits=settings.logits,
            sentences=settings.sentences, labels=explainer.decision.class_names(explainer.classes),
        )  # fmt: skip

    def _explain(self, window: Window, rows: Rows) -> Any:
        """The rows of one window."""
        errors = dict(window.errors)
        if errors and self.on_error == "raise":
            place, error = next(iter(errors.items()))
            raise InputError(f"Image {window.start + place} cannot be read: {error}")
        batches = []
        if window.images is not None:
            inputs = self.explainer.input_spec.from_unit(_as_floats(window.images))
            explanations = self._explain_batch(inputs, window.start, errors)
            position = _positions(explanations)
            if errors:
                is_explained = torch.ones(len(window), dtype=torch.bool)
                is_explained[list(errors)] = False
                kept = is_explained[position].nonzero()[:, 0]
                explanations, position = explanations[kept], position[kept]
            batches.append(rows.explained(explanations, window, position))
        if errors:
            errors = {place: errors[place][:LONGEST_ERROR] for place in sorted(errors)}
            batches.append(rows.failed(window, errors))
            self.errors += len(errors)
        return in_order(batches)

    def _explain_batch(self, images: Tensor, start: int, errors: dict[int, str]) -> Explanations:
        """The explanations of a batch; what stops them is replaced by another image, and in `errors`."""
        try:
            return self._ask(images)
        except ExplainKitError as error:
            if self.on_error == "raise" or len(images) == 1:
                raise
            faults = self._faults(images)
            good = [place for place in range(len(images)) if place not in faults]
            if not faults or not good:
                raise
            for place in faults:
                errors.setdefault(place, faults[place])
            index = torch.arange(len(images))
            index[list(faults)] = good[0]
            try:
                return self._ask(images[index])
            except ExplainKitError as again:
                raise InputError(f"Images from number {start} on cannot be explained: {again}") from error

    def _faults(self, images: Tensor) -> dict[int, str]:
        """Which images cannot be explained, each for itself, and why."""
        faults = {}
        for place, image in enumerate(images.split(1)):
            try:
                self._ask(image)
            except ExplainKitError as error:
                faults[place] = str(error)
        return faults

    def _ask(self, images: Tensor) -> Explanations:
        settings = self.settings
        return self.explainer.explain(
            images, settings.targets, foils=settings.foils, batch_size=settings.batch_size
        )


@frozen(eq=False)
class _Payloads:
    """What it takes to decode each batch of some parts, in order."""

    source: Source
    parts: Sequence[Part]
    batch_size: int

    def __iter__(self) -> Iterator[Any]:
        for part in self.parts:
            for start, stop in windows(part, self.batch_size):
                yield self.source.payload(start, stop)

    def __len__(self) -> int:
        return sum(-((part.start - part.stop) // self.batch_size) for part in self.parts)


def _as_floats(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.float() / 255


def _positions(explanations: Explanations) -> Tensor:
    """Which image of the batch each explanation is of, (M,)."""
    index = explanations.image_index
    return torch.arange(len(explanations)) if index is None else index.cpu()


def _checked_shard(shard: Any) -> tuple[int, int]:
    """Which of how many, once that makes sense."""
    is_pair = isinstance(shard, tuple | list) and len(shard) == 2 and all(map(is_whole, shard))
    if not is_pair or not 0 <= shard[0] < shard[1]:
        raise InputError(f"Expected shard as which of how many, as (0, 4) to (3, 4); got {shard!r}.")
    return int(shard[0]), int(shard[1])


def _check_classes(explainer: Explainer, targets: Any, foils: Any) -> None:
    """Refuse a class that the network does not know before anything is explained."""
    explainer.network  # refuses what has none, in words  # noqa: B018
    if targets is not None and explainer.classes:
        given_targets(explainer.decision, explainer.classes, targets, 1, torch.device("cpu"))
    if foils is not None and explainer.classes:
        foil_indices(foils, explainer.classes, 1)


def _units_of(explainer: Explainer) -> Units:
    """The units of an explainer that learns them from its first image."""
    spec = explainer.input_spec
    height, width = spec.size or (64, 64)
    gray = torch.full((1, spec.channels, height, width), 0.5)
    return explainer.explain(spec.from_unit(gray)).units
