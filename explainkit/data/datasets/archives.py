"""Unpacked archives of third parties: where they are, what their lists say, and no file outside of them."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

from explainkit.errors import FormatError, InputError

Numbers = NDArray[np.float64]

LARGEST = 2**27
"""Bytes of a list; the longest of CUB's has one million."""


def find_existing(paths: Sequence[Path], what: str) -> Path:
    """The first of `paths` where there is a file or a folder.

    Raises
    ------
    InputError
        Where there is none, with `what` was looked for.
    """
    for path in paths:
        if path.exists():
            return path
    raise InputError(f"Expected {what} at {' or '.join(repr(str(path)) for path in paths)}; there is none.")


def read_lines(path: Path, errors: str = "strict") -> list[str]:
    """The lines of a text file that say something.

    Parameters
    ----------
    errors : str
        What becomes of bytes that are no UTF-8, as `bytes.decode` has it.

    Raises
    ------
    InputError
        For a file that is missing.
    FormatError
        For one that is no text.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe may never end
            raise OSError(0, "it is no file")
        if path.stat().st_size > LARGEST:
            raise FormatError(f"Expected at most {LARGEST:,} bytes of text at {str(path)!r}.")
        text = path.read_text(encoding="utf-8", errors=errors)
    except OSError as error:
        raise InputError(f"Expected a text file at {str(path)!r}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise FormatError(f"Expected a text file; {str(path)!r} is none: {error}.") from None
    return [line for line in text.splitlines() if line.strip()]


def read_names(path: Path) -> dict[int, str]:
    """A list of lines ``number name``, in the order of numbers.

    Raises
    ------
    FormatError
        For a line of another form, a number that comes twice, and an empty list.
    """
    names: dict[int, str] = {}
    for line in read_lines(path):
        row = re.fullmatch(r"\s*([0-9]{1,9})\s+(\S.*?)\s*", line)
        if row is None or int(row[1]) in names:
            raise FormatError(
                f"Expected a number of its own and a name in each line of {str(path)!r}; got {line!r}."
            )
        names[int(row[1])] = row[2]
    if not names:
        raise FormatError(f"Expected numbers and names in {str(path)!r}; it is empty.")
    return dict(sorted(names.items()))


def read_table(path: Path, columns: int) -> Numbers:
    """A list of lines of so many numbers, (rows, columns).

    Raises
    ------
    FormatError
        For a line of another form, numbers that are not finite, and an empty list.
    """
    lines = read_lines(path)
    try:
        numbers = np.loadtxt(lines, ndmin=2, comments=None) if lines else np.empty((0, 0))
    except ValueError as error:
        raise FormatError(f"Expected {columns} numbers in each line of {str(path)!r}: {error}.") from None
    if numbers.shape[1] != columns or not np.isfinite(numbers).all():
        raise FormatError(
            f"Expected {columns} numbers in each line of {str(path)!r}, all of them finite; "
            f"got {numbers.shape[1]} or others."
        )
    return numbers


def safe_path(folder: Path, name: str) -> Path:
    """The file that a list calls `name`, with slashes, in `folder`.

    Raises
    ------
    FormatError
        For a name that leads out of the folder: lists come from third parties.
    """
    relative = PureWindowsPath(name)  # which knows the ways out of other systems too
    if relative.anchor or ".." in relative.parts or not relative.parts or not name.isprintable():
        raise FormatError(f"Expected the name of a file in {str(folder)!r}; got {name!r}.")
    return folder.joinpath(*relative.parts)


def require_files(files: Iterable[Path]) -> None:
    """Refuse a list of files of which some do not exist; each folder is listed once.

    Raises
    ------
    InputError
        For the first that is not, and how many others are missing.
    """
    names: dict[Path, set[str]] = {}
    missing = []
    for file in files:
        if file.parent not in names:
            names[file.parent] = _file_names(file.parent)
        if file.name not in names[file.parent]:
            missing.append(file)
    if missing:
        others = f" and {len(missing) - 1} other files" if len(missing) > 1 else ""
        raise InputError(
            f"Expected {str(missing[0])!r}{others}; not there. Is the archive unpacked completely?"
        )


def _file_names(folder: Path) -> set[str]:
    try:
        return {file.name for file in folder.iterdir()}
    except OSError:  # there is none, or it is closed to us: then none of its files can be read
        return set()
