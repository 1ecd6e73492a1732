"""MATLAB files of third parties: their variables, or an error that says why there are none.

SciPy's `loadmat` trusts a file: one changed byte can end the process, or keep it busy for ever. Here every
element must lie within the one around it, and numbers are views of the file's bytes, so that a length that is
a lie costs nothing. The format is that of versions 5 to 7 (The MathWorks: MAT-File Format).
"""

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, frozen
from numpy.typing import NDArray

from explainkit.errors import FormatError, InputError

UNPACKED = 256 * 2**20
"""Bytes of a variable at most: masks of hundreds of parts."""
ELEMENTS = 200_000
"""Parts of a variable at most; an array has four or more."""
DEPTH = 16
"""Arrays within arrays at most."""

_HEADER = 128
_INT32, _UINT32, _MATRIX, _COMPRESSED = 5, 6, 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16-*", 16: "utf-8", 17: "utf-16-*", 18: "utf-32-*"}
_CELL, _STRUCT, _CHAR, _FIRST_NUMBER, _LAST_NUMBER = 1, 2, 4, 6, 15


def read_variable(path: Path, name: str) -> Any:
    """The variable `name` of a MATLAB file.

    Structs are lists of dicts, of one where there is one; cells are lists, texts are str, and all else is
    arrays, which share the memory of the whole variable.

    Raises
    ------
    InputError
        For a file that is missing.
    FormatError
        For one that is damaged, of another kind or version, or without the variable.
    """
    try:
        if path.stat().st_size > UNPACKED:
            raise FormatError(f"Expected a MATLAB file of annotations; {str(path)!r} is far too large.")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"Expected a MATLAB file at {str(path)!r}: {error.strerror}.") from None
    if data.startswith(b"MATLAB 7.3") or data[512:520] == b"\x89HDF\r\n\x1a\n":
        raise FormatError(
            f"Expected a MATLAB file of version 5 to 7; {str(path)!r} is of 7.3 (HDF5). In MATLAB, save it "
            "again with -v7."
        )
    try:
        return _find_variable(data, name)
    except (ValueError, zlib.error) as error:
        raise FormatError(
            f"Expected a MATLAB file with the variable {name!r}; {str(path)!r} is none, or damaged: {error}."
        ) from None


def _find_variable(data: bytes, name: str) -> Any:
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("its header is of another kind")
    order = "<" if data[126:128] == b"IM" else ">"
    file = _Elements(data=data, order=order)
    offset = _HEADER
    while offset < len(data):
        element = file.element(offset, len(data))
        variable, offset = file, element.stop  # what is packed has no padding
        if element.kind == _COMPRESSED:
            variable = _Elements(data=_decompress(data[element.start : element.stop]), order=order)
            element = variable.element(0, len(variable.data))
        if element.kind == _MATRIX and variable.is_named(element, name):
            return variable.value(element)
    raise ValueError("it has other variables, or none")


def _decompress(compressed: bytes) -> bytes:
    stream = zlib.decompressobj()
    data = stream.decompress(compressed, UNPACKED)
    if not stream.eof:
        raise ValueError("a variable is cut off, or far too large")
    return data


@frozen
class _Element:
    """Its type, where its data are, and where the next one begins."""

    kind: int
    start: int
    stop: int
    following: int


@define(kw_only=True)
class _Elements:
    """The bytes of one variable, or of a file, and what they mean."""

    data: bytes
    order: str
    num_read: int = 0

    def element(self, offset: int, end: int) -> _Element:
        """What begins at `offset`, all of it before `end`."""
        self.num_read += 1
        if offset + 8 > end or self.num_read > ELEMENTS:
            raise ValueError("an array ends too early, or has too many parts")
        kind, size = np.frombuffer(self.data, f"{self.order}u4", 2, offset).tolist()
        start, following = offset + 8, offset + 8 + -(-size // 8) * 8
        if kind >> 16:  # a small one: two short numbers, and its data in the same eight bytes
            kind, size, start, following = kind & 0xFFFF, kind >> 16, offset + 4, offset + 8
        if start + size > (end if start == offset + 8 else following):
            raise ValueError("an element is longer than what it lies in")
        return _Element(kind, start, start + size, following)

    def header(self, array: _Element) -> tuple[_Element, _Element, _Element]:
        """What each array begins with: its class, its size, its name."""
        flags = self.element(array.start, array.stop)
        sizes = self.element(flags.following, array.stop)
        return flags, sizes, self.element(sizes.following, array.stop)

    def is_named(self, array: _Element, name: str) -> bool:
        """Whether an array is the variable `name`."""
        own_name = self.header(array)[2]
        return self.data[own_name.start : own_name.stop] == name.encode()

    def value(self, array: _Element, depth: int = 0) -> Any:
        """What is in an array that lies in `depth` others."""
        if array.kind != _MATRIX or depth > DEPTH:
            raise ValueError(f"type {array.kind} stands where an array should, {depth} arrays deep")
        if array.start == array.stop:  # a field that was never set
            return np.empty((0, 0))
        flags, sizes, name = self.header(array)
        kind = int(self.numbers(flags, _UINT32)[0]) & 0xFF
        shape = self.numbers(sizes, _INT32).tolist()
        if min(shape) < 0:
            raise ValueError(f"an array has the size {shape}")
        if kind == _CELL:
            return self.values(name.following, array.stop, math.prod(shape), depth)
        if kind == _STRUCT:
            return self.structs(name.following, array.stop, math.prod(shape), depth)
        content = self.element(name.following, array.stop)
        if kind == _CHAR:
            return self.text(content)
        if not _FIRST_NUMBER <= kind <= _LAST_NUMBER:
            raise ValueError(f"MATLAB's class number {kind} is not for pictures")
        return self.numbers(content).reshape(shape, order="F")

    def values(self, offset: int, end: int, count: int, depth: int) -> list[Any]:
        """`count` arrays one after the other."""
        values = []
        for _ in range(count):
            array = self.element(offset, end)
            values.append(self.value(array, depth + 1))
            offset = array.following
        return values

    def structs(self, offset: int, end: int, count: int, depth: int) -> list[dict[str, Any]]:
        """The names of fields, and then these of `count` structs."""
        width = self.element(offset, end)
        names = self.element(width.following, end)
        length = int(self.numbers(width, _INT32)[0])
        text = self.data[names.start : names.stop]
        if not 0 < length <= 64 or len(text) % length or count > ELEMENTS:
            raise ValueError("the fields of a struct have no names")
        fields = [text[i : i + length].split(b"\0")[0].decode() for i in range(0, len(text), length)]
        values = iter(self.values(names.following, end, count * len(fields), depth))
        return [{field: next(values) for field in fields} for _ in range(count)]

    def text(self, element: _Element) -> str:
        """Characters, in any of the encodings."""
        if element.kind not in _TEXTS:
            raise ValueError(f"type {element.kind} stands where a text should")
        encoding = _TEXTS[element.kind].replace("*", "le" if self.order == "<" else "be")
        return self.data[element.start : element.stop].decode(encoding)

    def numbers(self, element: _Element, kind: int | None = None) -> NDArray[Any]:
        """Numbers (n,) as they are stored, often narrower than in MATLAB; of a `kind`, at least one."""
        size = element.stop - element.start
        if element.kind not in _NUMBERS or (kind is not None and (element.kind != kind or not size)):
            raise ValueError(f"type {element.kind} stands where numbers should")
        dtype = np.dtype(self.order + _NUMBERS[element.kind])
        if size % dtype.itemsize:
            raise ValueError("an array ends within a number")
        return np.frombuffer(self.data, dtype, size // dtype.itemsize, element.start)
