"""Image bytes in Parquet files, read in order and a few at a time."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Self

import torch
from attrs import define, field

from explainkit.errors import InputError
from explainkit.explanations.serialization import in_brief
from explainkit.pipeline.row_schema import require_arrow

PARQUET = ".parquet"

IMAGE_COLUMNS = ("image", "bytes", "content", "image_bytes", "img", "jpg", "jpeg", "png")
"""What a column of image bytes is called, unless it is the only one of bytes."""

NAME_COLUMNS = ("path", "file_name", "filename", "key", "__key__", "name", "id")
"""What a column is called that says what an image is called."""

LABEL_COLUMN = "label"

READ = 32
"""Rows that are read at once: photographs are large."""


@define(eq=False, kw_only=True)
class ParquetImages:
    """Rows of Parquet files with a column of image bytes.

    That column holds bytes, or structs of ``bytes`` and ``path`` as data sets on the Hugging Face Hub have.

    Attributes
    ----------
    paths : tuple of str
        The files, in order.
    counts : tuple of int
        Their rows.
    name : str
        What they are together, for messages.
    image, path, label : str or None
        The columns.
    classes : mapping of str to int
        The numbers of class names.
    """

    paths: tuple[str, ...]
    counts: tuple[int, ...]
    name: str
    image: str
    path: str | None
    label: str | None
    classes: Mapping[str, int] = field(repr=False)
    _stream: Iterator[list[dict[str, Any]]] = field(factory=lambda: iter(()), init=False, repr=False)
    _rows: list[dict[str, Any]] = field(factory=list, init=False, repr=False)
    _next: int = field(default=0, init=False)

    @classmethod
    def open(cls, paths: Sequence[str], name: str, classes: Mapping[str, int]) -> Self:
        """The rows of `paths`.

        Raises
        ------
        InputError
            For a file that is damaged or missing, and for one without image bytes.
        """
        parquet = require_arrow("pyarrow.parquet")
        counts, schema = [], None
        for path in paths:
            try:
                file = parquet.ParquetFile(path)
            except (OSError, require_arrow().ArrowException) as error:
                raise InputError(f"Expected a Parquet file at {path!r}: {in_brief(error)}") from None
            with file:
                counts.append(file.metadata.num_rows)
                schema = schema or file.schema_arrow
        image = _image_column(schema, name)
        columns = [] if schema is None else [column for column in schema.names if column != image]
        path_column = next((column for column in NAME_COLUMNS if column in columns), None)
        return cls(
            paths=tuple(paths), counts=tuple(counts), name=name, image=image, path=path_column,
            label=LABEL_COLUMN if LABEL_COLUMN in columns else None, classes=classes,
        )  # fmt: skip

    @property
    def count(self) -> int:
        """Of all rows."""
        return sum(self.counts)

    @property
    def columns(self) -> list[str]:
        """Those that are read."""
        return [name for name in (self.image, self.path, self.label) if name is not None]

    def rows(self, start: int, stop: int) -> tuple[int, list[bytes | None], list[str | None], Any]:
        """Number of the first row, bytes, names, and labels (N,) of rows `start` to `stop`.

        Asked for in ascending order, files are read once.
        """
        if start != self._next or not self._next:
            self._stream, self._rows, self._next = self._read(start), [], start
        while len(self._rows) < stop - start and (chunk := next(self._stream, None)) is not None:
            self._rows += chunk
        taken, self._rows = self._rows[: stop - start], self._rows[stop - start :]
        self._next = stop
        contents = [row[self.image] for row in taken]
        names = [None if self.path is None else _text(row[self.path]) for row in taken]
        if contents and any(isinstance(item, dict) for item in contents):
            inner = [item.get("path") if isinstance(item, dict) else None for item in contents]
            names = inner if self.path is None else names
            contents = [item.get("bytes") if isinstance(item, dict) else None for item in contents]
        labels = None
        if self.label is not None:
            labels = torch.tensor([self._label(row[self.label]) for row in taken])
        return start, contents, names, labels

    def _label(self, value: Any) -> int:
        """The number of a class that is given by number or by name; the number of classes for any other."""
        unknown = len(self.classes)
        if isinstance(value, str):
            return self.classes.get(value, unknown)
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return value if is_number and 0 <= value < unknown else unknown

    def _read(self, start: int) -> Iterator[list[dict[str, Any]]]:
        """Rows from number `start` on, some at a time."""
        parquet, ends = require_arrow("pyarrow.parquet"), list(accumulate(self.counts))
        first = bisect.bisect_right(ends, start)
        for number in range(first, len(self.paths)):
            skipped = start - (ends[number] - self.counts[number]) if number == first else 0
            try:
                with parquet.ParquetFile(self.paths[number]) as file:
                    sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
                    groups = list(range(len(sizes)))
                    while groups and skipped >= sizes[groups[0]]:
                        skipped -= sizes[groups.pop(0)]
                    for batch in file.iter_batches(READ, row_groups=groups, columns=self.columns):
                        rows = batch.slice(min(skipped, batch.num_rows)).to_pylist()
                        skipped -= batch.num_rows - len(rows)
                        yield rows
            except (OSError, require_arrow().ArrowException) as error:
                raise InputError(
                    f"Expected a whole Parquet file at {self.paths[number]!r}: {in_brief(error)}"
                ) from None


def _image_column(schema: Any, name: str) -> str:
    """The column of image bytes."""
    types = require_arrow("pyarrow.types")

    def has_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(item.name == "bytes" and has_bytes(item.type) for item in kind)
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    fitting = [item.name for item in schema if has_bytes(item.type)]
    named = [column for column in IMAGE_COLUMNS if column in fitting]
    if not named and len(fitting) != 1:
        raise InputError(
            f"Expected one column of image bytes in {name!r}, called {', '.join(IMAGE_COLUMNS[:3])} or the "
            f"only one of bytes; there are {fitting or 'none'} among {schema.names}."
        )
    return (named or fitting)[0]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
