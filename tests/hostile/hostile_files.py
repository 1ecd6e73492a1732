"""Ways to spoil a file, whatever it holds: shared by the tests of every kind of file that is read."""

import gzip
import io
import json
import os
import pickle
import resource
import zipfile
from pathlib import Path

import numpy as np

SPRUNG = "sprung"
"""What a payload leaves behind in the working folder, if anything ever runs it."""


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path(SPRUNG),))


def zipped(**files):
    """A zip archive, as torch.save writes them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def array_of_objects():
    """A NumPy file whose elements are pickled."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


FOREIGN = {
    "a pickle": pickle.dumps(Payload()),
    "an old pickle": pickle.dumps(Payload(), protocol=0),
    "a pickle as torch saves it": zipped(
        **{"archive/data.pkl": pickle.dumps(Payload()), "archive/version": "3"}
    ),
    "an array of objects": array_of_objects(),
    "a zip bomb": zipped(zeros=bytes(20_000_000)),
    "a gzip bomb": gzip.compress(bytes(20_000_000)),
    "a script": b"#!/bin/sh\ntouch sprung\n",
    "a module": b"import pathlib\npathlib.Path('sprung').touch()\n",
    "a page": b"<!doctype html><script>alert(1)</script>",
    "a program": b"\x7fELF\x02\x01\x01" + bytes(200),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(200),
    "YAML": b"!!python/object/apply:os.system ['touch sprung']\n",
    "nothing": b"",
    "one byte": b"\x00",
    "seven bytes": b"\x01" * 7,
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "spaces": b" " * 4096,
    "noise": np.random.default_rng(0).bytes(4096),
}
"""Files of other kinds under the name of the one that is read."""


def parts(content):
    """The header of a safetensors file, as text, and its values."""
    length = int.from_bytes(content[:8], "little")
    return content[8 : 8 + length].decode(), content[8 + length :]


def whole(header, values, length=None):
    """A safetensors file of any header, said to be of any `length`."""
    header = header if isinstance(header, bytes) else header.encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + values


def cut(share):
    return lambda content: content[: int(len(content) * share)]


def turned(byte, bit):
    """One bit turned over."""

    def turn(content):
        spoiled = bytearray(content)
        spoiled[min(byte, len(content) - 1)] ^= 1 << bit
        return bytes(spoiled)

    return turn


def turned_at(share, bit):
    """One bit turned over at a share of the way through."""
    return lambda content: turned(int(len(content) * share), bit)(content)


def instead(other):
    return lambda _: other


def measured(length):
    """The header's length given as `length` of the true one and of the file's."""

    def tell(content):
        header, values = parts(content)
        return whole(header, values, length(len(header), len(content)))

    return tell


def headed(text):
    """Another header before the same values."""
    return lambda content: whole(text, parts(content)[1])


def rewritten(change):
    """The header's text changed."""

    def rewrite(content):
        header, values = parts(content)
        return whole(change(header), values)

    return rewrite


def described(change):
    """The header's JSON changed: `change` gets it, and the entry of one tensor in it."""

    def describe(content):
        header, values = parts(content)
        facts = json.loads(header)
        change(facts, facts[max(name for name in facts if name != "__metadata__")])
        return whole(json.dumps(facts), values)

    return describe


def entry(**fields):
    """One tensor described otherwise."""
    return described(lambda _, tensor: tensor.update(fields))


def metadata(value):
    """Other metadata in the header."""
    return described(lambda facts, _: facts.update(__metadata__=value))


def text(value):
    """Another text under our key in the metadata."""
    return metadata({"explainkit": value})


def doubled(header):
    """The first name of the header twice."""
    return header[:-1] + "," + header[1:]


SPOILED = {
    **{f"cut at {share}": cut(share) for share in (0.001, 0.01, 0.1, 0.3, 0.6, 0.9, 0.99, 0.9999)},
    "longer by a byte": lambda content: content + b"\0",
    "longer by a megabyte": lambda content: content + bytes(2**20),
    "twice": lambda content: content * 2,
    "backwards": lambda content: content[::-1],
    "a header of nothing": lambda content: whole("", b""),
    "a header without end": measured(lambda *_: 2**64 - 1),
    "a header of half of all": measured(lambda *_: 2**63),
    "a header of four gigabytes": measured(lambda *_: 2**32),
    "a header of a hundred megabytes": measured(lambda *_: 100_000_000),
    "a header as long as the file": measured(lambda _, file: file),
    "a header one short": measured(lambda header, _: header - 1),
    "a header one over": measured(lambda header, _: header + 1),
    "a header that is a list": headed("[]"),
    "a header that is a number": headed("1"),
    "a header that is a word": headed('"a"'),
    "a header that is null": headed("null"),
    "a header that is empty": headed("{}"),
    "a header that is no JSON": headed("{a: 1}"),
    "a header of NaN": headed('{"a": NaN}'),
    "a header in Latin": headed('{"ä": 1}'.encode("latin-1")),
    "a header in UTF-16": headed("{}".encode("utf-16")),
    "a header with a mark before it": headed("\ufeff{}"),
    "a header of half a character": headed('{"\\ud800": 1}'),
    "a deep header": headed("[" * 400_000),
    "a deep header of objects": headed('{"a":' * 200_000),
    "a header and more": rewritten(lambda header: header + "}"),
    "a name twice in the header": rewritten(doubled),
    "no metadata": described(lambda facts, _: facts.pop("__metadata__")),
    "metadata that is null": metadata(None),
    "metadata that is a list": metadata([]),
    "metadata that is a word": metadata("explainkit"),
    "metadata that is a number": metadata(3),
    "metadata of others": metadata({"format": "pt"}),
    "metadata within metadata": metadata({"explainkit": {"schema": "a"}}),
    "no text": text(""),
    "a text that is null": text("null"),
    "a text that is a list": text("[]"),
    "a text that is a number": text("1e999"),
    "a text that is no JSON": text("{"),
    "a text of NaN": text('{"schema": NaN}'),
    "a text of a name twice": text('{"schema": 1, "schema": 2}'),
    "a text of half a character": text('{"schema": "\\ud800"}'),
    "a deep text": text("[" * 200_000),
    "a text not quite too deep": text("[" * 900 + "]" * 900),
    "a long number": text("9" * 100_000),
    "offsets below zero": entry(data_offsets=[-4, 0]),
    "offsets the wrong way round": entry(data_offsets=[8, 4]),
    "offsets beyond the file": entry(data_offsets=[0, 2**40]),
    "offsets beyond all": entry(data_offsets=[2**63, 2**64]),
    "offsets of fractions": entry(data_offsets=[0.5, 4.5]),
    "offsets of words": entry(data_offsets=["0", "4"]),
    "offsets that are one": entry(data_offsets=[0]),
    "offsets that are three": entry(data_offsets=[0, 4, 8]),
    "offsets that are null": entry(data_offsets=None),
    "offsets over another's": entry(data_offsets=[0, 4]),
    "an unknown kind": entry(dtype="F31"),
    "a kind in small letters": entry(dtype="f32"),
    "a kind that is a number": entry(dtype=32),
    "a kind that is null": entry(dtype=None),
    "a kind of half the size": entry(dtype="F16"),
    "a kind of four bits": entry(dtype="F4"),
    "a kind of eight bits": entry(dtype="F8_E4M3"),
    "a kind of two numbers": entry(dtype="C64"),
    "a shape too large": entry(shape=[2**20, 2**20]),
    "a shape beyond all": entry(shape=[2**62, 4]),
    "a shape that overflows": entry(shape=[2**64]),
    "a shape below zero": entry(shape=[-1]),
    "a shape of fractions": entry(shape=[1.5]),
    "a shape of words": entry(shape=["1"]),
    "a shape that is null": entry(shape=None),
    "a shape of many axes": entry(shape=[1] * 1000),
    "a shape of nothing and all": entry(shape=[0, 2**62]),
    "a name of nothing": described(lambda facts, tensor: facts.update({"": tensor})),
    "a name of a path": described(lambda facts, tensor: facts.update({"../../etc/passwd": tensor})),
    "a name of a megabyte": described(lambda facts, tensor: facts.update({"a" * 2**20: tensor})),
    "a name with an end": described(lambda facts, tensor: facts.update({"a\0b": tensor})),
    "a tensor that is null": described(lambda facts, _: facts.update(a=None)),
    "an empty tensor of wide sides": described(
        lambda facts, tensor: facts.update(
            zz={"dtype": "F32", "shape": [0, 10**9, 10**9], "data_offsets": [tensor["data_offsets"][1]] * 2}
        )
    ),
    **{f"bit {bit} of byte {byte} turned": turned(byte, bit)
       for byte, bit in ((0, 0), (0, 7), (3, 1), (7, 0), (8, 0), (9, 5), (20, 3))},
    **{f"what is {name}": instead(foreign) for name, foreign in FOREIGN.items()},
}  # fmt: skip
"""Safetensors files that are none: each is refused."""

CHANGED = {
    f"bit {bit} turned at {share}": turned_at(share, bit)
    for share in (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1)
    for bit in (0, 4, 7)
}
"""Safetensors files that may be whole, with other values in them: refused where there is a digest."""


def fifo(path):
    os.mkfifo(path)


def sparse(path):
    path.touch()
    os.truncate(path, 2**40)


PLACES = {
    "a pipe": fifo,
    "a folder": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to zeros without end": lambda path: path.symlink_to("/dev/zero"),
    "a link to noise without end": lambda path: path.symlink_to("/dev/urandom"),
    "a link to the terminal": lambda path: path.symlink_to("/dev/tty"),
    "a link to what the kernel says": lambda path: path.symlink_to("/proc/kmsg"),
    "a link to memory": lambda path: path.symlink_to("/proc/self/mem"),
    "a link to secrets": lambda path: path.symlink_to("/etc/passwd"),
    "a terabyte of nothing": sparse,
}
"""What may stand where a file should; each but the link to secrets would never end, or never begin."""

WRONG = {
    "null": None, "a truth": True, "a number": 3, "a negative": -1, "a fraction": 0.5, "a huge one": 10**300,
    "a word": "word", "no letter": "", "markup": "<script>alert(1)</script>", "a list": [], "numbers": [1, 2],
    "lists": [[]], "an object": {}, "objects": {"a": {"b": []}},
    "a deep list": json.loads("[" * 500 + "]" * 500),
}  # fmt: skip
"""Values that may stand where others should."""


def peak():
    """The most memory that this process has had, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
