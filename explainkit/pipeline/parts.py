"""The files of a folder: each of a fixed range of images, there whole or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import frozen

from explainkit.errors import InputError
from explainkit.explanations.serialization import KEY, SCHEMA, canonical, write
from explainkit.pipeline.manifest import Manifest
from explainkit.pipeline.row_schema import DATASET, require_arrow

ABANDONED = 600
"""Seconds after which a half-written file belongs to a process that was killed."""

WORDS = ("path", "label", "prediction", "target", "foil", "sentence", "error")
"""Columns whose values repeat, so that a dictionary is worth it; beside them names and phrases of units."""


@frozen(kw_only=True)
class Part:
    """Images number `start` to `stop`, which share a file.

    Attributes
    ----------
    number : int
    start, stop : int
        Half-open.
    """

    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Of its file, so that names are in the order of images."""
        return f"part-{self.number:08d}.parquet"

    @property
    def records_name(self) -> str:
        """Of the file of its decision records."""
        return f"part-{self.number:08d}.jsonl"


def all_parts(count: int, images_per_file: int) -> list[Part]:
    """The parts of `count` images; they depend on nothing else."""
    return [
        Part(number=number, start=start, stop=min(start + images_per_file, count))
        for number, start in enumerate(range(0, count, images_per_file))
    ]


def shard_parts(parts: Sequence[Part], shard: tuple[int, int]) -> Sequence[Part]:
    """Those of shard (i, n): every part is in one of the n shards, and neighbors are together.

    Examples
    --------
    >>> parts = all_parts(10, 2)
    >>> [[part.number for part in shard_parts(parts, (index, 2))] for index in range(2)]
    [[0, 1], [2, 3, 4]]
    """
    index, count = shard
    return parts[len(parts) * index // count : len(parts) * (index + 1) // count]


def windows(part: Part, batch_size: int) -> Iterator[tuple[int, int]]:
    """The batches of a part, as first and last image: they too depend on the numbers of images alone."""
    for start in range(part.start, part.stop, batch_size):
        yield start, min(start + batch_size, part.stop)


def write_part(
    folder: Path, part: Part, batches: Sequence[Any], records: Sequence[str] | None, manifest: Manifest
) -> None:
    """Write the rows of a part, whole or not at all; before them its records, where there are to be some."""
    if records is not None:
        write(folder / part.records_name, "".join(records).encode())
    arrow, parquet = require_arrow(), require_arrow("pyarrow.parquet")
    table = arrow.Table.from_batches(batches)
    facts = {
        "schema": f"{DATASET}/{SCHEMA}", "run": manifest.run,
        "part": [part.number, part.start, part.stop],
    }  # fmt: skip
    buffer = arrow.BufferOutputStream()
    parquet.write_table(
        table.replace_schema_metadata({KEY: canonical(facts)}), buffer, compression="zstd",
        use_dictionary=[*WORDS, "units.list.element.name", "units.list.element.phrase"],
        write_statistics=["id", "label", "prediction", "target", "foil"], row_group_size=max(1, len(table)),
    )  # fmt: skip
    write(folder / part.name, buffer.getvalue().to_pybytes())


def is_done(folder: Path, part: Part, manifest: Manifest) -> bool:
    """Whether the file of `part` is there; one that is damaged is not, and is written again.

    Raises
    ------
    InputError
        For a file of another run.
    """
    path = folder / part.name
    has_records = not manifest.facts["settings"]["records"] or (folder / part.records_name).exists()
    if not path.exists() or not has_records:
        return False
    facts = read_footer(path)
    if facts is None:
        return False
    if facts.get("run") != manifest.run or facts.get("part") != [part.number, part.start, part.stop]:
        raise InputError(
            f"Expected files of one run in {str(folder)!r}; {part.name} is of another. Take another folder."
        )
    return True


def read_footer(path: Path) -> dict[str, Any] | None:
    """What a file says of itself; ``None`` where it is damaged, or none of ours."""
    try:
        metadata = require_arrow("pyarrow.parquet").read_metadata(path).metadata or {}
        facts = json.loads(metadata[KEY.encode()])
    except (OSError, KeyError, ValueError, require_arrow().ArrowException):
        return None
    return facts if isinstance(facts, dict) else None


def part_files(folder: Path) -> list[Path]:
    """The files that are there, in the order of images."""
    return sorted(folder.glob("part-*.parquet"))


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left half-written."""
    for path in folder.glob(".part-*.part"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
