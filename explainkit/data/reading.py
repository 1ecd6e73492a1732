"""Pictures from files, PIL and arrays, as the tensors that networks take."""

import io
import os
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from explainkit.errors import MISFITS, InputError
from explainkit.protocols import Readable

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""What counts as an image file when a folder is searched."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is read, whatever the suffix; of the others that Pillow knows, some start programs."""

LARGEST_SIDE = 2**14
"""Pixels of a side of the images that a data set or a network may ask for."""

GRAY = torch.tensor([[0.299, 0.587, 0.114]], dtype=torch.float32)
"""What each color adds to gray (ITU-R BT.601), as Pillow has it."""

DAMAGE = (OSError, SyntaxError, EOFError, struct.error, *MISFITS)
"""What Pillow raises for a file that is not whole."""


def read_images(items: Sequence[Readable], size: tuple[int, int] | None, channels: int = 3) -> Tensor:
    """Images (N, D, H, W) in [0, 1], each resized to `size` (H, W) by antialiased bilinear interpolation.

    Gray, palette, CMYK and transparent pictures become RGB (transparency over white); EXIF orientation is
    obeyed.

    Parameters
    ----------
    size : (int, int) or None
        ``None`` takes images as they are; they must then agree.
    channels : int
        D. Pictures become gray for 1; other numbers than 1 and 3 have no pictures, but arrays and tensors.

    Raises
    ------
    InputError
        For a file that is missing, damaged, or no image, and for a picture of over 179 megapixels.
    """
    if not items:
        raise InputError("Expected at least one image; got an empty list.")
    images = [_to_tensor(_to_picture(item, channels), size) for item in items]
    shapes = {tuple(image.shape[-2:]) for image in images}
    if len(shapes) > 1:
        raise InputError(
            f"Expected images of one size; got {sorted(shapes)}. Give the size to resize them to."
        )
    return torch.stack(images)


def read_picture(path: str | Path, *, upright: bool = True) -> Image.Image:
    """The picture in a file, in RGB.

    Parameters
    ----------
    upright : bool
        Obey the EXIF orientation; ``False`` where annotations refer to pixels as they are stored.

    Raises
    ------
    InputError
        For a file that is missing, damaged, no image, or far too large to be a photograph.
    """
    path = Path(path)
    if not os.path.isfile(path) or not path.stat().st_size:  # some files of the system are empty without end
        raise InputError(f"Expected an image file; there is none at {str(path)!r}, or an empty one.")
    return _decode(path, str(path), upright)


def decode_picture(content: bytes, name: str, *, upright: bool = True) -> Image.Image:
    """The picture in the bytes of a file, in RGB; `name` and `upright` as `read_picture` has them.

    Raises
    ------
    InputError
        For what is damaged, no image, or far too large to be a photograph.
    """
    return _decode(io.BytesIO(content), name, upright)


def _decode(file: Path | io.BytesIO, name: str, upright: bool) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as picture:
                picture.load()
                if upright:
                    ImageOps.exif_transpose(picture, in_place=True)
                return _to_rgb(picture)
    except Image.DecompressionBombError as error:
        raise InputError(f"Expected an image of ordinary size at {name!r}: {error}") from None
    except UnidentifiedImageError:
        raise InputError(f"Expected an image file; {name!r} is none, or of an unknown format.") from None
    except DAMAGE as error:
        raise InputError(f"Expected a whole image file; {name!r} is damaged: {error}.") from None


def list_images(folder: Path) -> list[Path]:
    """The image files in a folder and in all below it, in order of name; links to folders are not followed.

    Raises
    ------
    InputError
        For a folder that cannot be read, or is nested without end.
    """
    try:
        return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    except (OSError, RecursionError) as error:
        raise InputError(f"Expected a folder that can be searched at {str(folder)!r}: {error}.") from None


def picture_bytes(
    picture: Image.Image, size: tuple[int, int], crop: tuple[int, int, int, int] | None = None
) -> Tensor:
    """A picture, or the part of it in `crop` (x0, y0, x1, y1), resized to `size`: (D, H, W), uint8."""
    if crop is not None:
        picture = picture.crop(crop)
    if picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(picture, dtype=np.uint8))
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1)


def height_width(size: int | Sequence[int]) -> tuple[int, int]:
    """The setting `size` of a data set, one number for both or two, as height and width.

    Raises
    ------
    InputError
        For what is neither.
    """
    pair = size if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(type(pixels) is int and 0 < pixels <= LARGEST_SIDE for pixels in pair):
        raise InputError(
            f"Expected a size in pixels, or a height and a width, up to {LARGEST_SIDE}; got {size!r}."
        )
    return pair[0], pair[1]


def _to_picture(item: Readable, channels: int) -> Image.Image | Tensor:
    if isinstance(item, Tensor):
        if item.ndim != 3 or item.shape[0] != channels or not item.is_floating_point():
            raise InputError(
                f"Expected a float image of ({channels}, H, W); got {item.dtype} {tuple(item.shape)}."
            )
        return item
    if channels not in (1, 3):
        return _from_channels(item, channels)
    if isinstance(item, str | Path):
        picture: Image.Image | Tensor = read_picture(item)
    elif isinstance(item, Image.Image):
        try:
            picture = _to_rgb(ImageOps.exif_transpose(item))
        except DAMAGE as error:  # files are read when first looked at
            raise InputError(f"Expected a whole picture; {item!r} is damaged: {error}.") from None
    elif isinstance(item, np.ndarray):
        picture = _from_array(item)
    else:
        raise InputError(f"Expected a file, a PIL image or an array; got {type(item).__name__}.")
    if channels == 3:
        return picture
    return (
        picture.convert("L")
        if isinstance(picture, Image.Image)
        else (GRAY @ picture.flatten(1)).view(1, *picture.shape[1:])
    )


def _from_channels(item: Readable, channels: int) -> Tensor:
    """An array (H, W, channels) of bytes or of floats in [0, 1] as a tensor (channels, H, W)."""
    if not isinstance(item, np.ndarray):
        raise InputError(
            f"Expected an array (H, W, {channels}) or a tensor ({channels}, H, W), as the network has "
            f"{channels} channels; got {item if isinstance(item, str | Path) else type(item).__name__!r}."
        )
    if item.ndim != 3 or item.shape[2] != channels or 0 in item.shape:
        raise InputError(f"Expected an image array of (H, W, {channels}); got {item.shape}.")
    if item.dtype == np.uint8:
        item = item.astype(np.float32) / 255
    return torch.from_numpy(np.ascontiguousarray(_unit_floats(item).transpose(2, 0, 1), dtype=np.float32))


def _unit_floats(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`array`, once it is found to hold floats in [0, 1]."""
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"Expected an image array of uint8, or of floats in [0, 1]; got {array.dtype}.")
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise InputError(
            "Expected an image array of floats in [0, 1]; got values outside. Divide bytes by 255."
        )
    return array


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image | Tensor:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise InputError(f"Expected an image array of (H, W), (H, W, 3) or (H, W, 4); got {array.shape}.")
    if array.dtype == np.uint8:
        return _to_rgb(Image.fromarray(array))
    array = _unit_floats(array)
    rgb = np.repeat(array[..., None], 3, 2) if array.ndim == 2 else array[..., :3]
    if array.shape[2:] == (4,):
        rgb = rgb * array[..., 3:] + 1 - array[..., 3:]  # over white
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1), dtype=np.float32))


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    if picture.mode.startswith("I"):  # 16 or 32 bits of gray, which convert("RGB") would clip
        gray = np.array(picture, dtype=np.float32)
        gray *= 255 / 65535 if picture.mode.startswith("I;16") or gray.max() > 255 else 1
        return Image.fromarray(gray.clip(0, 255, out=gray).astype(np.uint8)).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _to_tensor(picture: Image.Image | Tensor, size: tuple[int, int] | None) -> Tensor:
    if isinstance(picture, Tensor):
        if size is None or tuple(picture.shape[-2:]) == tuple(size):
            return picture.float()
        return torch.nn.functional.interpolate(
            picture[None].float(), size=size, mode="bilinear", antialias=True, align_corners=False
        )[0].clamp(0, 1)
    return picture_bytes(picture, size or (picture.height, picture.width)).float() / 255
