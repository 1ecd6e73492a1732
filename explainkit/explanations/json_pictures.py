"""Images and pictures in JSON: bytes as PNG that a page can show, other numbers as base64, without loss.

A text takes at most `RATIO` numbers of memory for each of its characters: PNG that are smaller are refused,
and are not written.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from explainkit.explanations.images import absent_images, are_absent, as_levels, from_levels
from explainkit.explanations.json_values import DTYPES, json_form
from explainkit.explanations.serialization import in_brief

RATIO = 64
"""Bytes in a picture for each character of its text, at most."""

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""What Pillow calls a picture of so many channels."""

HEAD = "data:image/png;base64,"

DAMAGE = (OSError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises for a picture that is not whole, beside what Python raises."""

PICTURE = {"type": ["string", "null"], "pattern": f"^{HEAD}", "description": "A PNG of bytes."}
"""JSON Schema of a picture."""

IMAGES = {
    "type": "object",
    "description": "Images (N, D, H, W) or rows (N, F): as PNG where they came from bytes; as base64 of all "
    "numbers, little-endian, else; as neither where they are left out.",
    "properties": {
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "dtype": {"type": "string"},
        "png": {"type": "array", "items": {"type": "string", "pattern": f"^{HEAD}"}},
        "base64": {"type": "string", "contentEncoding": "base64"},
    },
    "required": ["shape", "dtype"],
}
"""JSON Schema of images."""


def picture_to_json(picture: Tensor) -> str:
    """Bytes (D, H, W) of one to four channels as a data URI."""
    channels, height, width = picture.shape
    array = picture.permute(1, 2, 0).cpu().numpy().reshape(height, width, channels)
    image = Image.fromarray(array[..., 0] if channels == 1 else array)
    for options in ({"optimize": True}, {"compress_level": 0}):
        buffer = io.BytesIO()
        image.save(buffer, format="png", **options)
        text = HEAD + base64.b64encode(buffer.getvalue()).decode("ascii")
        if picture.numel() <= RATIO * len(text):
            break
    return text


def picture_from_json(text: Any) -> Tensor:
    """Bytes (3, H, W) from the data URI that `picture_to_json` made.

    Raises
    ------
    TypeError, ValueError
        For text that is none, and for a picture that is far larger than its text.
    """
    return _decoded(text, None)


def images_to_json(images: Tensor) -> dict[str, Any]:
    """Images (N, D, H, W), rows (N, F), or their shape alone where they are left out."""
    written: dict[str, Any] = {
        "shape": list(images.shape), "dtype": str(images.dtype).removeprefix("torch."),
    }  # fmt: skip
    if are_absent(images) or not images.numel():
        return written
    levels = as_levels(images)
    if levels.dtype == torch.uint8 and images.ndim == 4 and images.shape[1] in MODES:
        return written | {"png": [picture_to_json(picture) for picture in levels]}
    content = images.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return written | {"base64": base64.b64encode(content).decode("ascii")}


def images_from_json(written: Any) -> Tensor:
    """What `images_to_json` wrote.

    Raises
    ------
    LookupError, TypeError, ValueError
        For what is none of it.
    """
    if not isinstance(written, Mapping):
        raise TypeError(f"images are {in_brief(repr(written), 60)}")
    shape, dtype = written["shape"], DTYPES[written["dtype"]]
    if not all(type(side) is int and 0 <= side <= 2**20 for side in shape) or not dtype.is_floating_point:
        raise TypeError(f"images are said to be of {in_brief(shape, 60)} and {dtype}")
    if (pictures := written.get("png")) is not None:
        count, *size = shape
        if len(pictures) != count or not count:
            raise ValueError(f"{len(pictures)} pictures are said to be {count}")
        return from_levels(torch.stack([_decoded(picture, size) for picture in pictures]), dtype)
    if (text := written.get("base64")) is not None:
        content = _bytes_of(text)
        if len(content) != math.prod(shape) * dtype.itemsize or not content:
            raise ValueError(f"{len(content):,} bytes of images are said to be {in_brief(shape, 60)}")
        return torch.frombuffer(bytearray(content), dtype=dtype).view(shape)
    return absent_images(shape, torch.empty(0, dtype=dtype))


def _bytes_of(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"base64 is {in_brief(repr(text), 60)}")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"it is no base64: {error}") from None


def _decoded(text: Any, shape: list[int] | None) -> Tensor:
    """The picture in a data URI as bytes (D, H, W), of `shape` unless that is to be three channels."""
    if not isinstance(text, str) or not text.startswith(HEAD):
        raise TypeError(f"a picture is {in_brief(repr(text), 60)}")
    content = _bytes_of(text.removeprefix(HEAD))
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            channels, height, width = shape or (3, *image.size[::-1])
            is_as_said = (image.mode, image.size) == (MODES.get(channels), (width, height))
            if not is_as_said or channels * height * width > RATIO * len(text):
                raise ValueError(f"a picture is {image.mode} of {image.size} in {len(text):,} characters")
            array = np.array(image)
    except DAMAGE as error:
        raise ValueError(f"a picture is damaged: {in_brief(error)}") from None
    return torch.from_numpy(array.reshape(height, width, channels)).permute(2, 0, 1).contiguous()


PICTURE_FORM = json_form(picture_to_json, picture_from_json, PICTURE)
"""How a field that is a picture is put in JSON."""

IMAGES_FORM = json_form(images_to_json, images_from_json, IMAGES)
"""How a field of images is put in JSON."""
