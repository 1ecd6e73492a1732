"""Unpacked archives of others: where they are, what their lists say, and no file outside of them."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

from explainkit.errors import FormatError, InputError

Numbers = NDArray[np.float64]


LARGEST = 2**27
"""Bytes of a list; the longest of CUB's has one million."""


def located(places: Sequence[Path], what: str) -> Path:
    """The first of `places` where there is a file or a folder.

    Raises
    ------
    InputError
        Where there is none, with `what` was looked for.
    """
    for place in places:
        if place.exists():
            return place
    raise InputError(
        f"Expected {what} at {' or '.join(repr(str(place)) for place in places)}; there is none."
    )


def lines(path: Path, errors: str = "strict") -> list[str]:
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


def named(path: Path) -> dict[int, str]:
    """A list of lines ``number name``, in the order of numbers.

    Raises
    ------
    FormatError
        For a line of another form, a number that comes twice, and an empty list.
    """
    told: dict[int, str] = {}
    for line in lines(path):
        row = re.fullmatch(r"\s*([0-9]{1,9})\s+(\S.*?)\s*", line)
        if row is None or int(row[1]) in told:
            raise FormatError(
                f"Expected a number of its own and a name in each line of {str(path)!r}; got {line!r}."
            )
        told[int(row[1])] = row[2]
    if not told:
        raise FormatError(f"Expected numbers and names in {str(path)!r}; it is empty.")
    return dict(sorted(told.items()))


def table(path: Path, columns: int) -> Numbers:
    """A list of lines of so many numbers, (rows, columns).

    Raises
    ------
    FormatError
        For a line of another form, numbers that are not finite, and an empty list.
    """
    told = lines(path)
    try:
        numbers = np.loadtxt(told, ndmin=2, comments=None) if told else np.empty((0, 0))
    except ValueError as error:
        raise FormatError(f"Expected {columns} numbers in each line of {str(path)!r}: {error}.") from None
    if numbers.shape[1] != columns or not np.isfinite(numbers).all():
        raise FormatError(
            f"Expected {columns} numbers in each line of {str(path)!r}, all of them finite; "
            f"got {numbers.shape[1]} or others."
        )
    return numbers


def inside(folder: Path, name: str) -> Path:
    """The file that a list calls `name`, with slashes, in `folder`.

    Raises
    ------
    FormatError
        For a name that leads out of the folder: lists come from strangers.
    """
    plain = PureWindowsPath(name)  # which knows the ways out of other systems too
    if plain.anchor or ".." in plain.parts or not plain.parts or not name.isprintable():
        raise FormatError(f"Expected the name of a file in {str(folder)!r}; got {name!r}.")
    return folder.joinpath(*plain.parts)


def require(files: Iterable[Path]) -> None:
    """Look whether files are there, one look a folder.

    Raises
    ------
    InputError
        For the first that is not, and how many others are missing.
    """
    listed: dict[Path, set[str]] = {}
    missing = []
    for file in files:
        if file.parent not in listed:
            listed[file.parent] = _names(file.parent)
        if file.name not in listed[file.parent]:
            missing.append(file)
    if missing:
        others = f" and {len(missing) - 1} other files" if len(missing) > 1 else ""
        raise InputError(
            f"Expected {str(missing[0])!r}{others}; not there. Is the archive unpacked completely?"
        )


def _names(folder: Path) -> set[str]:
    try:
        return {file.name for file in folder.iterdir()}
    except OSError:  # there is none, or it is closed to us: then none of its files can be read
        return set()
