"""Files, whole or not at all: safetensors with one canonical JSON text; no pickle."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from explainkit.errors import FormatError, InputError
from explainkit.version import __version__

SCHEMA = "1.0"
"""Files of the same major number can be read; a higher minor number only adds."""

KEY = "explainkit"
"""The one metadata key: several are written in random order, so that bytes would differ from run to run."""


def pack(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """Tensors and JSON facts as the bytes of one safetensors file."""
    ready = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return to_bytes(ready, metadata={KEY: canonical(facts)})


def unpack(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `pack` made of them; `path` is for the error, a FormatError."""
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        return from_bytes(content), json.loads(header["__metadata__"][KEY])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{str(path)!r} is damaged, or not a file of explainkit: {error}") from None


def check_schema(facts: Mapping[str, Any], kind: str, path: Path) -> None:
    """Refuse, as FormatError, facts of another kind or of another major schema version."""
    schema = str(facts.get("schema", "")) if isinstance(facts, Mapping) else ""
    found, _, number = schema.partition("/")
    if found != kind:
        raise FormatError(f"Expected {kind} at {str(path)!r}; got {schema or 'no schema'!r}.")
    if number.partition(".")[0] != SCHEMA.partition(".")[0]:
        raise FormatError(
            f"{str(path)!r} has schema {number}; explainkit {__version__} reads "
            f"{SCHEMA.partition('.')[0]}.x. Read it with the release that wrote it."
        )


def canonical(facts: Mapping[str, Any], indent: int | None = None) -> str:
    """One text for equal facts: sorted keys, no NaN."""
    return json.dumps(facts, sort_keys=True, allow_nan=False, ensure_ascii=False, indent=indent, default=list)


def read(path: Path) -> bytes:
    """The bytes of a file, or an InputError that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"Expected a file of explainkit at {str(path)!r}: {error.strerror}.") from None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, empty where it holds something else; FormatError where it is damaged."""
    content = read(path)
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{str(path)!r} is damaged: {error}") from None
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
