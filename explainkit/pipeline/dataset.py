"""A folder of explanations, read lazily: as explanations, as tables, and filtered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import evolve, field, frozen

from explainkit.errors import FormatError, InputError, MissingPackageError, UnknownNameError
from explainkit.explanations.batch import Explanations
from explainkit.explanations.provenance import Provenance
from explainkit.explanations.serialization import in_brief
from explainkit.explanations.units import Units
from explainkit.pipeline.manifest import Manifest, read_manifest
from explainkit.pipeline.parts import all_parts, part_files, read_footer
from explainkit.pipeline.restoring import Restorer
from explainkit.pipeline.row_schema import COLUMNS, arrow_schema, require_arrow

if TYPE_CHECKING:
    import pandas
    import pyarrow

AT_ONCE = 4
"""Files that are read at once."""

ROWS = 256
"""Rows that become explanations at once."""


@frozen(eq=False)
class ExplanationDataset:
    """The explanations that `explainkit.explain_dataset` wrote to a folder.

    Nothing but the manifest is read before it is asked for; the whole of it need not fit into memory.

    Parameters
    ----------
    folder : path

    Raises
    ------
    InputError
        For a folder without a manifest.
    FormatError
        For one that is damaged, foreign, or of another schema version.
    MissingPackageError
        Without pyarrow: ``pip install 'explainkit-sdk[arrow]'``.
    """

    folder: Path = field(converter=Path)
    _expression: Any = field(default=None, kw_only=True, repr=False)
    _manifest: Manifest = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        require_arrow("pyarrow.dataset")
        object.__setattr__(self, "_manifest", read_manifest(self.folder))

    def __repr__(self) -> str:
        filtered = "" if self._expression is None else f" where {self._expression}"
        done = "" if self.is_complete else f", {len(self.missing)} of {self._num_parts} files missing"
        explainer = self.provenance.explainer
        return f"<explanations of {self.num_images:,} images by {explainer}{filtered}{done}>"

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The model, its units, the settings, the source and the versions, as JSON values."""
        return self._manifest.facts

    @property
    def num_images(self) -> int:
        """Of the source; some may have several rows, and one that could not be explained has a row too."""
        return self._manifest.count

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.manifest["model"]["classes"])

    @property
    def units(self) -> Units:
        """What the units are."""
        return self._manifest.units

    @property
    def provenance(self) -> Provenance:
        """Which explainer explained, with what, when the folder was begun."""
        return self._manifest.provenance

    @property
    def missing(self) -> tuple[tuple[int, int], ...]:
        """The images that no file has yet, as first and last of each file, half-open."""
        there = {path.name for path in part_files(self.folder)}
        parts = all_parts(self.num_images, self._manifest.images_per_file)
        return tuple((part.start, part.stop) for part in parts if part.name not in there)

    @property
    def is_complete(self) -> bool:
        """Whether all shards have been written."""
        return not self.missing

    def __len__(self) -> int:
        """Rows: explanations, and images that there is none of."""
        with self._reading():
            return int(self._scanner(["id"]).count_rows())

    def __iter__(self) -> Iterator[Explanations]:
        """The explanations, some hundred at a time; images that there is none of are left out.

        A row has the units that were kept, and the sum of all others, which is one more unit here: "all other
        units". The scores of units that a row has not are not known, and 0; all sums are what they were.
        Images are not kept, and `saliency` is that of the grid, resized.

        Raises
        ------
        InputError
            Where the logits of all classes were not kept.
        """
        compute = require_arrow("pyarrow.compute")
        settings = self.manifest["settings"]
        grid = settings["saliency"]
        restorer = Restorer(
            units=self.units, top=settings["top"], facts=self.manifest["model"], provenance=self.provenance,
            saliency=None if grid is None else (grid[0], grid[1]),
        )  # fmt: skip
        for table in self._tables(compute.field("error").is_null()):
            for rows in _of_one_size(table):
                yield restorer.explanations(rows)

    def filter(self, expression: Any = None, /, **values: Any) -> ExplanationDataset:
        """The rows for which something holds, as a data set again; nothing is read yet.

        Parameters
        ----------
        expression : pyarrow.compute.Expression or None
            As ``pyarrow.compute.field("residual") > 1e-5``.
        **values
            What a column is: a value, a list of some, or ``None``.

        Raises
        ------
        UnknownNameError
            For a column that there is not.

        Examples
        --------
        >>> dataset.filter(label="robin", is_label=False)  # doctest: +SKIP
        """
        compute, kept = require_arrow("pyarrow.compute"), self._expression
        conditions = [] if expression is None else [expression]
        for name, value in values.items():
            self._check_columns([name])
            column = compute.field(name)
            if value is None:
                conditions.append(column.is_null())
            elif isinstance(value, list | tuple | set | frozenset):
                conditions.append(column.isin(list(value)))
            else:
                conditions.append(column == value)
        for condition in conditions:
            if not isinstance(condition, compute.Expression):
                raise InputError(
                    "Expected an expression of pyarrow, as pyarrow.compute.field('residual') > 1e-5; got "
                    f"{type(condition).__name__}."
                )
            kept = condition if kept is None else kept & condition
        return evolve(self, expression=kept)

    def to_arrow(self, columns: Sequence[str] | None = None) -> pyarrow.Table:
        """All rows in one table of Arrow, in the order of images; of `columns` alone where given.

        Raises
        ------
        UnknownNameError
            For a column that there is not.
        FormatError
            For a file that is damaged.
        """
        self._check_columns(columns or ())
        with self._reading():
            return self._scanner(columns).to_table().replace_schema_metadata(None)

    def to_pandas(self, columns: Sequence[str] | None = None) -> pandas.DataFrame:
        """The same as a data frame.

        Raises
        ------
        MissingPackageError
            Without pandas: ``pip install 'explainkit-sdk[pandas]'``.
        """
        try:
            import pandas  # noqa: F401
        except ImportError as error:
            raise MissingPackageError(
                "A data frame needs pandas, which is not installed: pip install 'explainkit-sdk[pandas]'."
            ) from error
        frame: pandas.DataFrame = self.to_arrow(columns).to_pandas()
        return frame

    def check(self) -> ExplanationDataset:
        """The same, once all files are found to be there, whole, and of one run.

        Raises
        ------
        FormatError
            Naming a file that is not.
        InputError
            Where files are missing.
        """
        for path in part_files(self.folder):
            facts = read_footer(path)
            if facts is None or facts.get("run") != self._manifest.run:
                raise FormatError(
                    f"{str(path)!r} is damaged, or of another run: remove it, and explain_dataset writes it "
                    "again."
                )
        if not self.is_complete:
            start, stop = self.missing[0]
            raise InputError(
                f"Expected all {self._num_parts} files; {len(self.missing)} are missing, the first for "
                f"images {start} to {stop - 1}. Run explain_dataset again, or the other shards."
            )
        return self

    @cached_property
    def _num_parts(self) -> int:
        return len(all_parts(self.num_images, self._manifest.images_per_file))

    def _scanner(self, columns: Sequence[str] | None) -> Any:
        """All files that are there, of which `columns` are read."""
        return self._opened([str(path) for path in part_files(self.folder)]).scanner(
            columns=None if columns is None else list(columns), filter=self._expression,
            fragment_readahead=AT_ONCE,
        )  # fmt: skip

    def _tables(self, condition: Any) -> Iterator[Any]:
        """The rows for which `condition` holds too, at most `ROWS` at a time, in the order of images."""
        if self._expression is not None:
            condition = condition & self._expression
        for path in part_files(self.folder):
            with self._reading():
                table = self._opened([str(path)]).to_table(filter=condition)
            for start in range(0, len(table), ROWS):
                yield table.slice(start, ROWS)

    def _opened(self, paths: list[str]) -> Any:
        dataset = require_arrow("pyarrow.dataset")
        is_double = self.provenance.dtype == "float64"
        with self._reading():
            return dataset.dataset(paths, schema=arrow_schema(is_double=is_double), format="parquet")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What pyarrow says of damaged files, as a FormatError."""
        try:
            yield
        except (OSError, require_arrow().ArrowInvalid) as error:
            raise FormatError(
                f"Expected whole files in {str(self.folder)!r}: {in_brief(error)} Call check(), which names "
                "one that is damaged."
            ) from None

    def _check_columns(self, names: Sequence[str]) -> None:
        """Refuse a column that there is not, with those that there are."""
        columns = [item.name for item in COLUMNS]
        for name in names:
            if name not in columns:
                raise UnknownNameError(f"No column is called {name!r}. There are: {', '.join(columns)}.")


def _of_one_size(table: Any) -> Iterator[Any]:
    """The rows of a table, apart where the size of images changes."""
    sizes = [table[name].combine_chunks().to_numpy() for name in ("height", "width")]
    ends = [0, *(np.flatnonzero((np.diff(sizes[0]) != 0) | (np.diff(sizes[1]) != 0)) + 1), len(table)]
    for start, stop in pairwise(ends):
        if stop > start:
            yield table.slice(start, stop - start)
