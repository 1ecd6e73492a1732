"""Shapes as signed-distance textures: drawn once from the catalog, stamped for ever after."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from explainkit.data.datasets.aviary.catalog import CATALOG

Distance = NDArray[np.float64]
"""(RESOLUTION, RESOLUTION), rows along v; negative inside."""
Point = tuple[float, float]

RESOLUTION = 128
SHRINK = 0.93
"""Shapes are drawn this much smaller than their texture, so that none touches its border."""

_TEXEL = (np.arange(RESOLUTION) + 0.5) / RESOLUTION * 2 - 1
_U, _V = np.meshgrid(_TEXEL / SHRINK, _TEXEL / SHRINK)
_CORNER_CUTS = {"smooth": 3, "cut": 2, "polygon": 0}


@frozen(eq=False)
class Atlas:
    """All shapes of the catalog.

    Attributes
    ----------
    rows : dict of str to int
        From a name such as ``"beak.cone"`` to a row of `textures`.
    textures : array, (shapes, RESOLUTION, RESOLUTION), float32
        Signed distance in local units.
    """

    rows: dict[str, int]
    textures: NDArray[np.floating[Any]] = field(repr=False)


@cache
def atlas() -> Atlas:
    """The textures of every shape, drawn at first use (0.2 s, 3 MB)."""
    textures = np.stack([_shape(text) for text in CATALOG.values()]) * SHRINK
    # A steep wall at 0.9: what lies beyond the texture is surely outside, however large the window.
    wall = 3.5 * (np.maximum(np.abs(_TEXEL)[:, None], np.abs(_TEXEL)[None]) - 0.9)
    textures = np.maximum(textures, wall).astype(np.float32)
    textures.flags.writeable = False
    return Atlas({name: row for row, name in enumerate(CATALOG)}, textures)


def _shape(text: str) -> Distance:
    return np.minimum.reduce([_pen(*stroke.split(maxsplit=1)) for stroke in text.split(";")])


def _pen(tool: str, values: str) -> Distance:
    if tool in _CORNER_CUTS:
        return _polygon(_cut_corners(values.split(","), _CORNER_CUTS[tool]))
    numbers = [float(value) for value in values.split()]
    if tool == "ellipse":
        return _ellipse(*numbers)
    if tool == "stroke":
        return _stroke(*numbers)
    repeated: dict[str, Callable[[int], Distance]] = {"fan": _fan, "flower": _flower, "star": _star}
    return repeated[tool](int(numbers[0]))


def _cut_corners(points: list[str], rounds: int) -> list[Point]:
    """Chaikin's corner cutting; a point marked by ``!`` counts three times and so stays sharp."""
    ends = np.array(
        [point.strip(" !").split() for point in points for _ in range(3 if "!" in point else 1)], float
    )
    for _ in range(rounds):
        following = np.roll(ends, -1, 0)
        ends = np.stack([0.75 * ends + 0.25 * following, 0.25 * ends + 0.75 * following], 1).reshape(-1, 2)
        ends = ends[np.abs(ends - np.roll(ends, 1, 0)).sum(1) > 1e-9]
    return [(float(u), float(v)) for u, v in ends]


def _polygon(corners: list[Point]) -> Distance:
    squared, inside = np.full(_U.shape, 9.0), np.zeros(_U.shape, bool)
    for (au, av), (bu, bv) in zip(corners, corners[1:] + corners[:1], strict=True):
        squared = np.minimum(squared, _to_segment(au, av, bu, bv)[0])
        if av != bv:
            level = (min(av, bv) <= _V) & (max(av, bv) > _V)
            inside ^= level & (au + (bu - au) * (_V - av) / (bv - av) > _U)
    return np.where(inside, -np.sqrt(squared), np.sqrt(squared))


def _to_segment(au: float, av: float, bu: float, bv: float) -> tuple[Distance, Distance]:
    """Squared distance to a segment, and how far along it (0 … 1) the nearest point lies."""
    eu, ev = bu - au, bv - av
    along = np.clip(((_U - au) * eu + (_V - av) * ev) / (eu * eu + ev * ev + 1e-12), 0, 1)
    return (_U - au - eu * along) ** 2 + (_V - av - ev * along) ** 2, along


def _ellipse(u: float, v: float, radius: float, height: float = 1.0) -> Distance:
    return (np.sqrt((_U - u) ** 2 + ((_V - v) / height) ** 2) - radius) * min(1.0, height)


def _stroke(au: float, av: float, bu: float, bv: float, start: float, end: float | None = None) -> Distance:
    squared, along = _to_segment(au, av, bu, bv)
    return np.sqrt(squared) - (start + ((start if end is None else end) - start) * along)


def _fan(feathers: int, spread: float = 0.5, width: float = 0.27) -> Distance:
    strokes = []
    for angle in np.linspace(-spread, spread, feathers):
        length = 1.62 * (1 - 0.1 * abs(angle))
        u, v = length * math.cos(angle), length * math.sin(angle)
        middle, tip = (0.45 * u - 0.85, 0.45 * v), (0.86 * u - 0.85, 0.86 * v)
        strokes.append(_stroke(-0.82, 0, *middle, 0.07, width * 0.62))
        strokes.append(_stroke(*middle, *tip, width * 0.62, width * 0.8))
    return np.minimum.reduce(strokes)


def _flower(petals: int) -> Distance:
    angles = [2 * math.pi * i / petals + 0.3 for i in range(petals)]
    leaves = [_ellipse(0.42 * math.cos(angle), 0.42 * math.sin(angle), 0.36) for angle in angles]
    return np.minimum.reduce([_ellipse(0, 0, 0.3), *leaves])


def _star(points: int, outer: float = 0.88, inner: float = 0.42) -> Distance:
    angles = [math.pi / 2 + math.pi * i / points for i in range(2 * points)]
    radii = [outer, inner] * points
    return _polygon(
        [(r * math.cos(angle), r * math.sin(angle)) for r, angle in zip(radii, angles, strict=True)]
    )
