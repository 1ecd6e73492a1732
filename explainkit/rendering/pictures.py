"""Pictures as bytes: an image, an image under its evidence, an image cut to a region."""

import base64
import io
import math
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from scipy import ndimage
from torch import Tensor

from explainkit.explanations.colors import as_rgb
from explainkit.explanations.spatial import activation_regions, bounding_boxes, resize, upsample

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

SLACK = 1e-2
"""How far outside [0, 1] the values of a picture may be, as swaps and resizing leave them."""

BLANK = 0.92
"""The gray that stands for an image that is left out."""

DASH = 5
"""Length of a dash, as a multiple of the line's width."""

GRID = (8, 8)
"""The common grid on which maps of different methods are compared: logit per cell."""


def pixels(image: Tensor, side: int = 224) -> Pixels:
    """An image (D, H, W) as (side', side'', 3) bytes, its longer edge at least `side`.

    Values in [0, 1] are shown as they are; others, which no file has, from the least to the largest. One
    channel is gray, and of more than three the first three are shown. Images that are left out are blank.
    """
    height, width = image.shape[-2:]
    image = as_rgb(image.detach().cpu().float())
    image = torch.where(image.isnan(), BLANK, image)
    low, high = (value.item() for value in image.aminmax())
    if low < -SLACK or high > 1 + SLACK:
        image = (image - low) / max(high - low, 1e-12)
    grow = max(1.0, side / max(height, width))
    size = (round(height * grow), round(width * grow))
    picture = Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC) if grow > 1 else picture)


def common_grid(saliency: Tensor, grid: tuple[int, int] = GRID) -> Tensor:
    """Saliency (..., H, W) summed to the cells of `grid`: what a shared color scale measures."""
    return resize(saliency, grid)


Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, half-open."""


def overlay(image: Tensor, grid: Tensor, limit: float, side: int = 224, square: Box | None = None) -> Pixels:
    """Evidence (h, w) over a grayed image: red for, blue against.

    Color goes with the square root of evidence, so that a method of many small shares can be seen beside
    one of few large ones: a quarter of `limit` has half of the color.

    Parameters
    ----------
    grid : Tensor, (h, w)
        Signed.
    limit : float
        The value that is drawn in full color, shared by whatever is to be compared.
    square : (int, int, int, int) or None
        x0, y0, x1, y1 in pixels of the image: drawn as a dashed line.
    """
    ground = pixels(image, side).astype(np.float64) / 255
    gray = (ground @ np.array([0.299, 0.587, 0.114]))[..., None] * 0.75 + 0.2
    values = upsample(grid.detach().cpu().double()[None], ground.shape[:2])[0].numpy()
    strength = root(values, limit)
    color = colormaps["RdBu_r"](strength / 2 + 0.5)[..., :3]
    cover = (np.abs(strength) * 0.9)[..., None]
    picture = np.asarray((gray * (1 - cover) + color * cover).clip(0, 1) * 255).round().astype(np.uint8)
    return picture if square is None else dashed(picture, square, picture.shape[1] / image.shape[-1])


def dashed(picture: Pixels, box: Box, scale: float) -> Pixels:
    """A picture with a dashed line within the edge of `box`, whose pixels are `scale` of the picture's each.

    Dark and light by turns, so that it is seen on any ground.
    """
    x0, y0, x1, y1 = (round(end * scale) for end in box)
    edge = max(1, max(picture.shape[:2]) // 160)
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    inside = (rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1)
    inner = (rows >= y0 + edge) & (rows < y1 - edge) & (columns >= x0 + edge) & (columns < x1 - edge)
    is_dark = ((rows - y0 + columns - x0) // (DASH * edge)) % 2 == 0
    drawn = picture.copy()
    drawn[inside & ~inner & is_dark], drawn[inside & ~inner & ~is_dark] = (24, 24, 27), (255, 255, 255)
    return drawn


def root(values: Any, limit: float) -> Any:
    """Signed square roots of ``values / limit``, within [-1, 1]: what colors go by."""
    shares = np.clip(np.asarray(values) / limit, -1, 1) if limit > 0 else np.zeros_like(values)
    return np.sign(shares) * np.sqrt(np.abs(shares))


def spotlight(image: Tensor, map: Tensor, side: int = 96, threshold: float = 0.5) -> Pixels:
    """An image with all but the region of `map` (h, w) faded, and the region's box drawn in."""
    ground = pixels(image, side).astype(np.float64)
    region = activation_regions(map[None].float().cpu(), ground.shape[:2], threshold)[0]
    faded = ground * 0.25 + 255 * 0.6
    picture = np.where(region.numpy()[..., None], ground, faded)
    x0, y0, x1, y1 = bounding_boxes(region).tolist()
    edge = max(1, side // 64)
    frame = np.zeros(picture.shape[:2], dtype=bool)
    frame[y0:y1, x0:x1] = True
    frame[y0 + edge : y1 - edge, x0 + edge : x1 - edge] = False
    picture[frame] = (24, 24, 27)
    return picture.round().astype(np.uint8)


def crop(image: Tensor, box: tuple[int, int, int, int], side: int = 96) -> Pixels:
    """The part of an image (3, H, W), bytes or [0, 1], inside `box`."""
    x0, y0, x1, y1 = box
    values = image.float() / 255 if image.dtype == torch.uint8 else image
    return pixels(values[:, y0:y1, x0:x1], side)


def framed(image: Tensor, box: tuple[int, int, int, int], side: int = 96) -> Pixels:
    """An image (3, H, W), bytes or [0, 1], with `box` drawn in and all outside it faded."""
    values = image.float() / 255 if image.dtype == torch.uint8 else image
    ground = pixels(values, side).astype(np.float64)
    scale, edge = ground.shape[1] / image.shape[2], max(1, side // 64)
    x0, y0, x1, y1 = (round(end * scale) for end in box)
    inside = (slice(y0 + edge, y1 - edge), slice(x0 + edge, x1 - edge))
    picture = ground * 0.35 + 255 * 0.5
    picture[y0:y1, x0:x1] = (24, 24, 27)
    picture[inside] = ground[inside]
    return picture.round().astype(np.uint8)


def data_uri(picture: Pixels, lossy: bool = False) -> str:
    """A picture inside a text, for pages that need no other file: a PNG, or a WebP a fifth as large.

    A `lossy` one keeps all colors, which a palette does not; it is for figures, not for pixels.
    """
    buffer = io.BytesIO()
    image, kind = Image.fromarray(picture), "webp" if lossy else "png"
    image.save(buffer, format=kind, **({"quality": 92, "method": 2} if lossy else {"optimize": True}))
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def rounded_limit(values: Tensor) -> float:
    """The largest |value|, rounded up to one significant digit and a half, for the ends of a color bar."""
    top = float(values.abs().max()) if values.numel() else 0.0
    if top <= 0 or not math.isfinite(top):
        return 1.0
    unit = 10 ** math.floor(math.log10(top))
    return math.ceil(top / unit * 2) / 2 * unit


def outlined(image: Tensor, regions: Tensor, side: int = 160) -> Pixels:
    """An image (3, H, W) with a line around its cells `regions` (h, w)."""
    picture = pixels(image, side).copy()
    rows = torch.arange(picture.shape[0]) * regions.shape[0] // picture.shape[0]
    columns = torch.arange(picture.shape[1]) * regions.shape[1] // picture.shape[1]
    inside = regions.cpu()[rows][:, columns].numpy()
    edge = max(1, side // 80)
    line = inside & ~ndimage.binary_erosion(inside, iterations=edge)
    outer = ndimage.binary_dilation(inside, iterations=edge) & ~inside
    picture[outer], picture[line] = (255, 255, 255), (24, 24, 27)
    return picture
