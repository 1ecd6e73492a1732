"""The files of a data set by name, in a folder or inside a zip archive, which is never unpacked."""

from __future__ import annotations

import lzma
import os
import re
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol
from zipfile import BadZipFile, ZipFile

from explainkit.data.datasets.archives import require_files, safe_path
from explainkit.data.reading import DAMAGE
from explainkit.errors import FormatError, InputError

_PLAIN = re.compile(r"([\w-][\w.-]*/)*[\w-][\w.-]*")
_BROKEN = (*DAMAGE, BadZipFile, zlib.error, lzma.LZMAError)


class Files(Protocol):
    """Files by their names with slashes, below the folder of a data set."""

    def locate(self, name: str) -> str:
        """Where a file is, for messages."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names of the files in `folder`, in order; none where there is no such folder."""
        ...

    def has_folder(self, folder: str) -> bool:
        """Whether there is such a folder."""
        ...

    def require(self, names: Iterable[str]) -> None:
        """Refuse files that are not there with an `InputError` that names the first."""
        ...

    def read(self, name: str, largest: int) -> bytes:
        """A file of at most `largest` bytes.

        Raises
        ------
        InputError
            For a file that is missing, damaged, or none.
        FormatError
            For one that is larger.
        """
        ...


def open_files(path: Path, marker: str, name: str) -> Files:
    """The files of the data set called `name` at `path`.

    Parameters
    ----------
    path : Path
        Its folder, the one that the folder lies in, or its zip archive.
    marker : str
        A file that its folder has.

    Raises
    ------
    InputError
        Where there is none.
    FormatError
        For a file that is no zip archive, or has names that lead out of it.
    """
    if path.is_file():
        return ZipFiles(path, marker)
    roots = [path, path / name]
    root = next((root for root in roots if (root / marker).exists()), None)
    if root is None:
        places = " or ".join(repr(str(root / marker)) for root in roots)
        raise InputError(f"Expected {marker} of {name} at {places}, or its zip archive; there is none.")
    return FolderFiles(root)


class FolderFiles:
    """The files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def locate(self, name: str) -> str:
        """Its path."""
        return str(self.root / name)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.root / name).is_file()

    def names(self, folder: str) -> list[str]:
        """The names of the files in `folder`, in order."""
        path = self.root / folder
        return sorted(file.name for file in path.iterdir()) if path.is_dir() else []

    def has_folder(self, folder: str) -> bool:
        """Whether there is such a folder."""
        return (self.root / folder).is_dir()

    def require(self, names: Iterable[str]) -> None:
        """Refuse files that are not there."""
        require_files(self.root / name for name in names)

    def read(self, name: str, largest: int) -> bytes:
        """A file of at most `largest` bytes."""
        path = self.root / name
        if not os.path.isfile(path):  # a pipe may never end
            raise InputError(f"Expected a file at {str(path)!r}; there is none.")
        if path.stat().st_size > largest:
            raise FormatError(f"Expected at most {largest:,} bytes at {str(path)!r}.")
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"Expected a file at {str(path)!r}: {error.strerror}.") from None


class ZipFiles:
    """The files below one folder of a zip archive.

    Parameters
    ----------
    path : Path
    marker : str
        A file in that folder, which is the top of the archive or a folder there.

    Raises
    ------
    InputError
        For an archive without `marker`.
    FormatError
        For what is no zip archive, and for names that lead out of it or are there twice.
    """

    def __init__(self, path: Path, marker: str) -> None:
        self.path, self.marker = path, marker
        self._lock = threading.Lock()
        self._opened: tuple[int, ZipFile] | None = None
        members = [name for name in self._archive().namelist() if not name.endswith("/")]
        for name in members:
            if not _PLAIN.fullmatch(name):  # else there is nothing to parse, in 76,000 names of FunnyBirds
                safe_path(path, name)
        if len(set(members)) < len(members):
            raise FormatError(f"Expected each file once in {str(path)!r}; some are there twice.")
        tops = [name for name in members if name.split("/")[-1] == marker and name.count("/") < 2]
        if not tops:
            raise InputError(
                f"Expected {marker} at the top of {str(path)!r}, or in a folder there; it is not."
            )
        self._root = min(tops, key=len).removesuffix(marker)
        self._members = {
            name.removeprefix(self._root) for name in members if name.startswith(self._root)
        }  # below the root

    def __reduce__(self) -> tuple[type[ZipFiles], tuple[Path, str]]:
        return ZipFiles, (self.path, self.marker)  # opened anew where it arrives

    def locate(self, name: str) -> str:
        """The archive's path and the file's name in it."""
        return f"{self.path}/{self._root}{name}"

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self._members

    def names(self, folder: str) -> list[str]:
        """The names of the files in `folder`, in order."""
        return sorted(name.rpartition("/")[2] for name in self._members if name.rpartition("/")[0] == folder)

    def has_folder(self, folder: str) -> bool:
        """Whether there is a file in such a folder, or below."""
        return any(name.startswith(f"{folder}/") for name in self._members)

    def require(self, names: Iterable[str]) -> None:
        """Refuse files that are not there."""
        missing = [name for name in names if name not in self._members]
        if missing:
            others = f" and {len(missing) - 1} other files" if len(missing) > 1 else ""
            raise InputError(
                f"Expected {self.locate(missing[0])!r}{others}; not there. Is the archive whole?"
            )

    def read(self, name: str, largest: int) -> bytes:
        """A file of at most `largest` bytes."""
        if name not in self._members:
            raise InputError(f"Expected a file at {self.locate(name)!r}; there is none.")
        archive = self._archive()
        if archive.getinfo(self._root + name).file_size > largest:
            raise FormatError(f"Expected at most {largest:,} bytes at {self.locate(name)!r}.")
        try:
            return archive.read(self._root + name)
        except _BROKEN as error:
            raise InputError(f"Expected a whole file at {self.locate(name)!r}: {error}.") from None

    def _archive(self) -> ZipFile:
        """The archive as this process opened it: one that was inherited shares its position in the file."""
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                try:
                    self._opened = os.getpid(), ZipFile(self.path)
                except _BROKEN as error:
                    raise FormatError(
                        f"Expected a folder or a zip archive at {str(self.path)!r}: {error}. "
                        "Unpack archives of other kinds."
                    ) from None
            return self._opened[1]
