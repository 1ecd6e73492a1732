"""Files, whole or not at all: safetensors with one canonical JSON text; no pickle."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from explainkit.errors import MISFITS, ExplainKitError, FormatError, InputError
from explainkit.version import __version__

SCHEMA = "2.0"
"""Files of the same major number can be read; a higher minor number only adds."""

LARGEST_TEXT = 2**26
"""Bytes of JSON that are read: no description of a network comes near."""

DEEPEST = 32
"""Levels of lists and objects in JSON that is read."""

KEY = "explainkit"
"""The one metadata key: several are written in random order, so that bytes would differ from run to run."""


def pack(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """Tensors and JSON facts as the bytes of one safetensors file."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return to_bytes(plain, metadata={KEY: canonical(facts)})


def unpack(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `pack` made of them; `path` is for the error, a FormatError."""
    try:
        length = int.from_bytes(content[:8], "little")
        if length > LARGEST_TEXT:
            raise ValueError(f"its header is said to have {length} bytes")
        header = parse_json(content[8 : 8 + length])
        tensors, facts = from_bytes(content), parse_json(header["__metadata__"][KEY])
        if not isinstance(facts, dict):
            raise TypeError("its text is no JSON object")
        for name, value in tensors.items():
            if max(value.shape, default=0) > len(content):  # of no bytes at all, with one side of 0
                raise ValueError(f"{name!r} is said to be of {tuple(value.shape)}")
    except (SafetensorError, ValueError, KeyError, TypeError, ArithmeticError, RuntimeError) as error:
        raise FormatError(
            f"{str(path)!r} is damaged, or not a file of explainkit: {in_brief(error)}"
        ) from None
    return tensors, facts


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def content_digest(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of everything in a file: its facts, which are as JSON gives them back, and its tensors."""
    return hashlib.sha256(f"{canonical(facts)}{tensors_digest(tensors)}".encode()).hexdigest()


def parse_json(text: str | bytes) -> Any:
    """JSON as `canonical` writes it.

    Raises
    ------
    ValueError
        Also for a name twice in one object, for what is no finite number, and for half a character.
    RecursionError
        For what is nested too deeply.
    """
    value = json.loads(text, object_pairs_hook=_unique_keys)
    _check_depth(value, DEEPEST)
    canonical(value).encode()
    return value


def as_json(facts: Any) -> Any:
    """`facts` as a file gives them back."""
    return parse_json(canonical(facts))


def check_schema(facts: Mapping[str, Any], kind: str, path: Path | str) -> None:
    """Refuse, as FormatError, facts of another kind or of another major schema version."""
    value = facts.get("schema") if isinstance(facts, Mapping) else None
    schema = in_brief(value) if isinstance(value, str) else ""
    name, _, number = schema.partition("/")
    if name != kind:
        raise FormatError(f"Expected {kind} at {str(path)!r}; got {schema or 'no schema'!r}.")
    if number.partition(".")[0] != SCHEMA.partition(".")[0]:
        raise FormatError(
            f"{str(path)!r} has schema {number}; explainkit {__version__} reads "
            f"{SCHEMA.partition('.')[0]}.x. Make it anew, or read it with the release that wrote it."
        )


def canonical(facts: Mapping[str, Any], indent: int | None = None) -> str:
    """One text for equal facts: sorted keys, no NaN."""
    return json.dumps(facts, sort_keys=True, allow_nan=False, ensure_ascii=False, indent=indent, default=list)


@contextmanager
def as_format_error(message: str) -> Iterator[None]:
    """What goes wrong while a file's content is put to use, as a FormatError that begins with `message`."""
    try:
        yield
    except ExplainKitError as error:
        if type(error) not in (InputError, FormatError):
            error.args = (in_brief(error, 900),)
            raise
        raise FormatError(f"{message}: {in_brief(error)}") from None
    except MISFITS as error:
        raise FormatError(f"{message}: {in_brief(repr(error))}.") from None


def in_brief(value: object, length: int = 300) -> str:
    """An error, or a value in a file, as text on one line that is not much longer than `length`."""
    text = " ".join(str(value).split())
    return text if len(text) <= length else f"{text[:length]} …"


def read(path: Path, largest: int = sys.maxsize) -> bytes:
    """The bytes of a file, at most `largest`; pipes and devices, which may never end, are not waited for.

    Raises
    ------
    InputError
        For a path that is not there, or no file; the message names it.
    FormatError
        For a file that is too large.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "it is no file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, largest))
    except (OSError, ValueError) as error:  # a ValueError for a path that cannot be
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"Expected a file of explainkit at {str(path)!r}: {reason}.") from None
    except MemoryError:
        raise FormatError(f"{str(path)!r} does not fit into memory.") from None
    if size > largest:
        raise FormatError(f"Expected at most {largest:,} bytes at {str(path)!r}; got {size:,}.")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, empty where it holds something else; FormatError where it is damaged."""
    content = read(path, LARGEST_TEXT)
    try:
        facts = parse_json(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{str(path)!r} is damaged: {in_brief(error)}") from None
    return facts if isinstance(facts, dict) else {}


def write(path: Path, content: bytes) -> None:
    """The whole file under its name, or nothing; a link is followed, and what is no file is left alone."""
    path = Path(os.path.realpath(path))
    half = path.with_name(f".{path.name}.{os.getpid()}.part") if path.name else path
    if not path.name or (path.exists() and not path.is_file()):
        raise InputError(f"Expected a path that can be written; {str(path)!r} is no file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(content)
        os.replace(half, path)
    except OSError as error:
        with suppress(OSError):
            half.unlink()
        raise InputError(
            f"Expected a path that can be written; got {str(path)!r}: {error.strerror}."
        ) from None


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `folder` when it is full."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    except OSError as error:
        raise InputError(
            f"Expected a folder that can be written; got {str(folder)!r}: {error.strerror}."
        ) from None
    try:
        yield half
        half.chmod(0o755)
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(half, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"Expected a folder that can be written; got {str(folder)!r}: {error.strerror}."
        ) from None
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of a JSON object, which names each thing once."""
    facts = dict(pairs)
    if len(facts) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return facts


def _check_depth(value: Any, levels_left: int) -> None:
    if levels_left < 0:
        raise RecursionError(f"it is nested more than {DEEPEST} deep")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(item, dict | list):
            _check_depth(item, levels_left - 1)
