"""MATLAB files: what SciPy writes is read as SciPy reads it, and what nobody wrote is refused in words."""

import struct
import time
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from explainkit.data.datasets.pascal_part.matlab import DEPTH, read_variable
from explainkit.errors import FormatError, InputError

HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
MASK = np.random.default_rng(0).integers(0, 2, (5, 7), dtype=np.uint8)


def structs(rows):
    """A struct array of 1 x n, as MATLAB has it."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for index, row in enumerate(rows):
        array[0, index] = tuple(row.values())
    return array


VARIABLE = structs(
    [
        {
            "imname": "2008_000001",
            "objects": structs(
                [
                    {"class": "cat", "class_ind": np.uint8(8), "mask": MASK, "parts": np.empty((0, 0))},
                    {
                        "class": "dög",
                        "class_ind": 12.0,
                        "mask": MASK > 0,
                        "parts": structs([{"part_name": "leye", "mask": MASK.astype(float)}]),
                    },
                ]
            ),
        }
    ]
)


@pytest.fixture(params=[True, False], ids=["packed", "plain"])
def written(request, tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"other": [1, 2], "anno": VARIABLE}, do_compression=request.param, long_field_names=True)
    return path


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def array(kind, shape, *content, name=b"anno"):
    head = element(6, struct.pack("<II", kind, 0)), element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, b"".join([*head, element(1, name), *content]))


def test_structs_texts_and_arrays_are_read_as_scipy_reads_them(written):
    (anno,) = read_variable(written, "anno")

    expected = loadmat(written)["anno"][0, 0]
    assert anno["imname"] == expected["imname"][0]
    assert len(anno["objects"]) == 2
    for read, saved in zip(anno["objects"], expected["objects"][0], strict=True):
        assert read["class"] == saved["class"][0]
        assert read["class_ind"].tolist() == saved["class_ind"].tolist()
        assert np.array_equal(read["mask"], saved["mask"])
    assert anno["objects"][0]["parts"].size == 0
    (part,) = anno["objects"][1]["parts"]
    assert part["part_name"] == "leye"
    assert np.array_equal(part["mask"], MASK)
    assert read_variable(written, "other").tolist() == [[1, 2]]


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_numbers_of_every_type_are_read(tmp_path, kind):
    values = np.arange(6, dtype=kind).reshape(2, 3)
    savemat(tmp_path / "a.mat", {"anno": values, "cells": np.array([values, "text"], dtype=object)})

    assert np.array_equal(read_variable(tmp_path / "a.mat", "anno"), values)
    assert read_variable(tmp_path / "a.mat", "cells")[1] == "text"


def test_files_of_the_other_byte_order_are_read(tmp_path):
    def big(kind, data):
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    parts = big(6, struct.pack(">II", 6, 0)), big(5, struct.pack(">ii", 1, 2)), big(1, b"anno")
    variable = big(14, b"".join([*parts, big(9, struct.pack(">dd", 1.5, -2))]))
    (tmp_path / "a.mat").write_bytes(HEADER[:126] + b"MI" + variable)

    assert read_variable(tmp_path / "a.mat", "anno").tolist() == [[1.5, -2]]


def test_a_field_that_was_never_set_is_an_empty_array(tmp_path):
    fields = element(5, struct.pack("<i", 8)), element(1, b"mask\0\0\0\0")
    (tmp_path / "a.mat").write_bytes(HEADER + array(2, (1, 1), *fields, element(14, b"")))

    assert read_variable(tmp_path / "a.mat", "anno")[0]["mask"].size == 0


def nested(depth):
    inner = array(6, (1, 1), element(9, struct.pack("<d", 1)))
    for _ in range(depth):
        inner = array(1, (1, 1), inner)
    return inner


def packed(data):
    return struct.pack("<II", 15, len(data)) + data


HOSTILE = {
    "empty": b"",
    "text": b"no annotation at all" * 20,
    "other header": b"MATLAB 5.0".ljust(126) + b"??" + nested(0),
    "version 4": struct.pack("<5i", 0, 1, 1, 0, 5) + b"anno\0" + struct.pack("<d", 1) + bytes(200),
    "no variable": HEADER,
    "another variable": HEADER + array(6, (1, 1), element(9, bytes(8)), name=b"annot"),
    "cut off": HEADER + nested(1)[:-9],
    "not packed": HEADER + packed(b"not packed"),
    "packed and cut off": HEADER + packed(zlib.compress(nested(1))[:-2]),
    "bomb": HEADER + packed(zlib.compress(bytes(257 * 2**20), 1)),
    "deep": HEADER + nested(20_000),
    "a little too deep": HEADER + nested(DEPTH + 1),
    "many cells": HEADER + array(1, (30_000, 30_000)),
    "many structs": HEADER + array(2, (2**31 - 1, 1), element(5, struct.pack("<i", 8)), element(1, b"")),
    "many small cells": HEADER + array(1, (1, 300_000), element(14, b"") * 300_000),
    "negative size": HEADER + array(6, (-1, -1), element(9, bytes(8))),
    "wrong size": HEADER + array(6, (9, 9), element(9, bytes(8))),
    "half a number": HEADER + array(6, (1, 1), element(9, bytes(4))),
    "text of numbers": HEADER + array(4, (1, 1), element(9, bytes(8))),
    "no fields": HEADER + array(2, (1, 1), element(5, struct.pack("<i", 0)), element(1, b"mask")),
    "sparse": HEADER + array(5, (1, 1), element(9, bytes(8))),
    "a function": HEADER + array(16, (1, 1), element(9, bytes(8))),
    "not utf-8": HEADER + array(4, (1, 1), element(16, b"\xff\xfe\xff\xfe")),
    "long element": HEADER + struct.pack("<II", 14, 2**32 - 1) + bytes(64),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_annotation_is_refused_quickly_and_in_words(tmp_path, what):
    path = tmp_path / "a.mat"
    path.write_bytes(HOSTILE[what])
    start = time.perf_counter()

    with pytest.raises(FormatError, match=r"Expected a MATLAB file.*a\.mat"):
        read_variable(path, "anno")

    assert time.perf_counter() - start < 5


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "a.mat", tmp_path):
        with pytest.raises(InputError, match="Expected a MATLAB file at"):
            read_variable(path, "anno")


@pytest.mark.parametrize(
    "content", [b"MATLAB 7.3 MAT-file, HDF5 schema 1.00 .".ljust(600), bytes(512) + b"\x89HDF\r\n\x1a\n"]
)
def test_version_7_3_is_refused_with_the_way_out(tmp_path, content):
    (tmp_path / "a.mat").write_bytes(content)

    with pytest.raises(FormatError, match=r"version 5 to 7;.*-v7"):
        read_variable(tmp_path / "a.mat", "anno")


def test_changed_bytes_are_read_or_refused_and_nothing_else(written):
    chance = np.random.default_rng(0)
    whole = written.read_bytes()
    refused = 0

    for _ in range(1500):
        changed = bytearray(whole)
        for offset in chance.integers(100, len(whole), chance.integers(1, 4)):
            changed[offset] = chance.integers(256)
        written.write_bytes(changed[: chance.integers(1, len(whole)) if chance.random() < 0.2 else None])
        try:
            read_variable(written, "anno")
        except FormatError:
            refused += 1

    assert 300 < refused < 1500
