"""Where images come from: the split of a data set, files, or bytes in Parquet; always in the same order.

A source is asked in the main process for what it takes to decode a run of images, which is little: numbers,
paths or bytes. Its decoder makes images of that, in the main process or in others.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from attrs import define, field, frozen
from torch import Tensor

from explainkit.data.datasets.folder import FileSplit
from explainkit.data.reading import SUFFIXES
from explainkit.data.types import Batches, ImageDataset
from explainkit.errors import InputError, NormalizationWarning
from explainkit.explainers.interface import Explainer
from explainkit.explanations.serialization import canonical
from explainkit.pipeline.decoding import BytesDecoder, Decoder, FileDecoder, SplitDecoder
from explainkit.pipeline.parquet_images import PARQUET, ParquetImages
from explainkit.protocols import Split

Sources = ImageDataset | Batches | Split | str | Path | Sequence[str | Path]
"""What `explain_dataset` takes."""

WAYS = (
    "Give an ImageDataset (its test images), dataset.batches('train'), a split, a folder of pictures, a list "
    "of files, or Parquet files with a column of image bytes."
)


class Source(Protocol):
    """Images in an order that does not change."""

    @property
    def name(self) -> str:
        """What it is called, or where it is."""
        ...

    @property
    def decoder(self) -> Decoder:
        """Makes images of what `payload` returns; it is sent to other processes."""
        ...

    def __len__(self) -> int: ...

    def facts(self) -> dict[str, Any]:
        """What kind it is, how many images it has, and a digest of which, as JSON values."""
        ...

    def payload(self, start: int, stop: int) -> Any:
        """What it takes to decode images `start` to `stop`; asked for in ascending order."""
        ...


@define(eq=False, kw_only=True)
class SplitSource:
    """A split of a data set, whose images are fetched by id."""

    split: Split
    name: str
    num_classes: int
    decoder: SplitDecoder = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.decoder = SplitDecoder(split=self.split, num_classes=self.num_classes)

    def __len__(self) -> int:
        return len(self.split)

    def facts(self) -> dict[str, Any]:
        """Its name, and a digest of all labels, and of the first image and the last."""
        ends = [0, len(self) - 1] if len(self) else []
        digest = hashlib.sha256(torch.as_tensor(self.split.labels).cpu().numpy().tobytes())
        for index in ends:
            window = self.decoder((index, index + 1))
            digest.update(b"" if window.images is None else window.images.numpy().tobytes())
        return {"kind": "split", "count": len(self), "digest": digest.hexdigest()}

    def payload(self, start: int, stop: int) -> tuple[int, int]:
        """The ids."""
        return start, stop


@define(eq=False, kw_only=True)
class FileSource:
    """Image files.

    Attributes
    ----------
    root : str or None
        The folder that `paths` are in; ``None`` for paths as they were given.
    paths : tuple of str
    labels : Tensor or None, (N,)
    """

    root: str | None
    paths: tuple[str, ...] = field(repr=False)
    labels: Tensor | None = field(repr=False)
    decoder: FileDecoder

    @property
    def name(self) -> str:
        """The folder, or the first file."""
        return self.root or (self.paths[0] if self.paths else "")

    def __len__(self) -> int:
        return len(self.paths)

    def facts(self) -> dict[str, Any]:
        """How many files there are, and a digest of their paths."""
        digest = hashlib.sha256("\0".join(self.paths).encode(errors="surrogateescape")).hexdigest()
        return {"kind": "files", "count": len(self), "digest": digest}

    def payload(self, start: int, stop: int) -> tuple[int, tuple[str, ...], Tensor | None]:
        """The paths."""
        return start, self.paths[start:stop], None if self.labels is None else self.labels[start:stop]


@define(eq=False, kw_only=True)
class ParquetSource:
    """Bytes of image files in a column of Parquet."""

    table: ParquetImages
    decoder: BytesDecoder

    @property
    def name(self) -> str:
        """The folder, or the first file."""
        return self.table.name

    def __len__(self) -> int:
        return self.table.count

    def facts(self) -> dict[str, Any]:
        """Its columns, and a digest of its files' names and numbers of rows."""
        table = self.table
        rows = [
            [os.path.basename(path), count] for path, count in zip(table.paths, table.counts, strict=True)
        ]
        digest = hashlib.sha256(canonical({"rows": rows, "columns": table.columns}).encode()).hexdigest()
        return {"kind": "parquet", "count": len(self), "digest": digest}

    def payload(self, start: int, stop: int) -> Any:
        """The bytes."""
        return self.table.rows(start, stop)


@frozen(kw_only=True)
class Wanted:
    """How an explainer wants images, and what it calls its classes."""

    size: tuple[int, int] | None
    channels: int
    labels: Mapping[str, int]
    with_digests: bool


def open_source(source: Any, explainer: Explainer, *, with_digests: bool) -> Source:
    """The images of `source`, as `explainer` takes them.

    Raises
    ------
    InputError
        For what is no source, and for one without images; the message says what is one.
    """
    spec = explainer.input_spec
    if spec.is_vector:
        raise InputError(
            f"Expected an explainer of images; {explainer.card.title} explains rows of a table. "
            "Call explain(rows).to_arrow()."
        )
    names = explainer.decision.class_names(explainer.classes)
    size = None if spec.size is None else (spec.size[0], spec.size[1])
    wanted = Wanted(
        size=size, channels=spec.channels, with_digests=with_digests,
        labels={name: number for number, name in enumerate(names)},
    )  # fmt: skip
    opened = _opened(source, explainer, wanted)
    if not len(opened):
        raise InputError(f"Expected at least one image to explain; there is none in {source!r:.200}.")
    return opened


def _opened(source: Any, explainer: Explainer, wanted: Wanted) -> Source:
    if isinstance(source, ImageDataset):
        explainer.check_classes(source)
        return _split_source(source.test, f"{source.name}/test", wanted)
    if isinstance(source, Batches):
        return _split_source(source.split, source.name, wanted)
    if isinstance(source, str | Path):
        return _path_source(Path(source), explainer, wanted)
    if all(hasattr(source, name) for name in ("batch", "labels", "__len__")):  # a split
        return _split_source(source, type(source).__name__, wanted)
    if not isinstance(source, Sequence) or not all(isinstance(item, str | Path) for item in source):
        raise InputError(f"Expected images that can be read again; got {type(source).__name__}. {WAYS}")
    paths = [str(path) for path in source]
    if paths and all(path.lower().endswith(PARQUET) for path in paths):
        return _parquet_source(paths, paths[0], explainer, wanted)
    return _file_source(None, paths, None, explainer, wanted)


def _split_source(split: Any, name: str, wanted: Wanted) -> Source:
    """The split; its files where it is made of some, which are then decoded one by one, and not kept."""
    if isinstance(split, FileSplit) and wanted.channels == 3:
        paths = tuple(str(path) for path in split.files)
        decoder = FileDecoder(root=None, size=split.size, channels=3, with_digests=wanted.with_digests)
        return FileSource(root=None, paths=paths, labels=split.labels, decoder=decoder)
    return SplitSource(split=split, name=name, num_classes=len(wanted.labels))


def _path_source(path: Path, explainer: Explainer, wanted: Wanted) -> Source:
    if path.is_file():
        paths = [str(path)]
        if path.name.lower().endswith(PARQUET):
            return _parquet_source(paths, str(path), explainer, wanted)
        return _file_source(None, paths, None, explainer, wanted)
    if not path.is_dir():
        raise InputError(f"Expected a folder of pictures at {str(path)!r}, or a file; there is none. {WAYS}")
    names = list_files(path, (*SUFFIXES, PARQUET))
    tables = [name for name in names if name.lower().endswith(PARQUET)]
    if not names:
        raise InputError(f"Expected pictures ({', '.join(sorted(SUFFIXES))}) or Parquet in {str(path)!r}; "
                         "found none.")  # fmt: skip
    if len(tables) == len(names):
        return _parquet_source([str(path / name) for name in tables], str(path), explainer, wanted)
    pictures = [name for name in names if not name.lower().endswith(PARQUET)]
    folders = [os.path.basename(os.path.dirname(name)) for name in pictures]
    labels = [wanted.labels.get(folder, len(wanted.labels)) for folder in folders]
    return _file_source(str(path), pictures, torch.tensor(labels), explainer, wanted)


def list_files(folder: Path, suffixes: Sequence[str]) -> list[str]:
    """The files with these suffixes in `folder` and below it, relative to it, in order of name.

    Links to folders are not followed, and what begins with a dot is left out.

    Raises
    ------
    InputError
        For a folder that cannot be searched.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"Expected a folder that can be searched at {str(folder)!r}: {error}.")

    found: list[str] = []
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(place, folder)
        prefix = "" if below == "." else below.replace(os.sep, "/") + "/"
        found += [
            prefix + name
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes
        ]
    return sorted(found)


def _file_source(
    root: str | None, paths: Sequence[str], labels: Tensor | None, explainer: Explainer, wanted: Wanted
) -> FileSource:
    size = _checked_size(explainer, wanted)
    decoder = FileDecoder(root=root, size=size, channels=wanted.channels, with_digests=wanted.with_digests)
    return FileSource(root=root, paths=tuple(paths), labels=labels, decoder=decoder)


def _parquet_source(paths: Sequence[str], name: str, explainer: Explainer, wanted: Wanted) -> ParquetSource:
    size = _checked_size(explainer, wanted)
    decoder = BytesDecoder(size=size, channels=wanted.channels, with_digests=wanted.with_digests)
    return ParquetSource(table=ParquetImages.open(paths, name, wanted.labels), decoder=decoder)


def _checked_size(explainer: Explainer, wanted: Wanted) -> tuple[int, int]:
    """The size that files are resized to, once it is known that files can be read for the network."""
    if wanted.channels not in (1, 3):
        raise InputError(
            f"Expected a network of 1 or 3 channels to read files for; it takes {wanted.channels}. "
            "Give a split, whose batch(ids) has such images."
        )
    if wanted.size is None:
        raise InputError(
            "Expected a size that files are resized to; the explainer states none. Make it with "
            "size=(height, width), as ek.explainer(name, network=…, size=(224, 224))."
        )
    if explainer.input_spec.is_assumed:
        warnings.warn(
            "Files are read as [0, 1], and nothing says whether the network was trained on such images. "
            "Give mean=… and std=…, or value_range=(0, 1) where it was.",
            NormalizationWarning,
            stacklevel=6,
        )
    return wanted.size
