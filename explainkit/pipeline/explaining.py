"""Explain any number of images: batch by batch, file by file, and go on after a crash where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from explainkit.errors import InputError
from explainkit.explainers.decisions import given_targets
from explainkit.explainers.interface import Explainer
from explainkit.explanations.counts import check_count, is_whole
from explainkit.explanations.units import Units
from explainkit.explanations.validation import foil_indices
from explainkit.pipeline.dataset import ExplanationDataset
from explainkit.pipeline.manifest import describe_run, enter_folder
from explainkit.pipeline.parts import all_parts, shard_parts
from explainkit.pipeline.row_schema import require_arrow
from explainkit.pipeline.run_settings import Settings
from explainkit.pipeline.runs import Run
from explainkit.pipeline.sources import Sources, open_source

BATCH_SIZE = 64
"""How many images are explained at once by default."""


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
    records: bool = False,
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
    records : bool
        Whether each file has another beside it with a JSON line for each decision, as `Explanations.records`
        has them; ``explainkit verify`` checks them.
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
        records=records, batch_size=batch_size, images_per_file=images_per_file,
    )  # fmt: skip
    workers, shard = check_count("workers", workers, 0), _checked_shard(shard)
    if on_error not in ("record", "raise"):
        raise InputError(f"Expected on_error as 'record' or 'raise'; got {on_error!r}.")
    explainer = model.snapshot()
    _check_classes(explainer, targets, foils)
    images = open_source(source, explainer, with_digests=records)
    units = explainer.units or _units_of(explainer)
    manifest = describe_run(explainer, units, settings.facts(), images)
    folder = Path(folder)
    manifest = enter_folder(folder, manifest)
    run = Run(
        explainer=explainer, source=images, folder=folder, settings=settings, manifest=manifest,
        on_error=on_error,
    )  # fmt: skip
    run.write(shard_parts(all_parts(len(images), settings.images_per_file), shard), workers, resume, progress)
    return ExplanationDataset(folder)


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
