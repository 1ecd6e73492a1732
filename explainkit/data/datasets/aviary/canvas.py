"""A pen for many images at once: a stroke of it lands on every image of a batch, each at its own position.

Distances become coverage, ink and fill; there is no loop over images. Only plain multiplications and
additions are used, for the rounding of matrix products depends on the size of the batch.
"""

from typing import TypeVar

import numpy as np
from attrs import evolve, field, frozen
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from explainkit.data.datasets.aviary.palette import INK, PAPER
from explainkit.data.datasets.aviary.scenes import Booleans, Floats, Integers
from explainkit.data.datasets.aviary.shapes import RESOLUTION, SHRINK, atlas

# Second color where A cos(fu u) + B cos(fv v) + C + D u > 0; rows as in PATTERNS, columns A B C D fu fv.
_PATTERNS = np.array(
    [
        (0, 0, -9, 0, 0, 0),
        (1, 0, -0.25, 0, 13, 0),
        (1, 1, -0.75, 0, 14, 14),
        (0, 1, -0.35, 0, 0, 15),
        (0, 0, -1, 5, 0, 0),
    ],
    np.float32,
)


Scalar = TypeVar("Scalar", bound=np.generic)


@frozen(eq=False, kw_only=True)
class Sprites:
    """n shapes to stamp, at most one an image; lengths and positions are shares of the image.

    Attributes
    ----------
    rows : array, (n,)
        The images they land on.
    shapes : array, (n,)
        Rows of the atlas.
    x, y, half_width, half_height, angle : array, (n,)
        The angle turns against the clock, before mirroring.
    colors : array, (n, 3)
    mirrored : array, (n,), bool
    patterns : array, (n,), or None
        In `PATTERNS`.
    ink : float
        Thickness of the outline, relative to the usual one; 0 for none.
    shade : float
        How much lighter the top is than the middle.
    """

    rows: Integers
    shapes: Integers
    x: Floats
    y: Floats
    half_width: Floats
    half_height: Floats
    angle: Floats
    colors: Floats
    mirrored: Booleans
    patterns: Integers | None = None
    ink: float = 1.0
    shade: float = 0.16

    def __getitem__(self, index: Booleans | Integers) -> "Sprites":
        columns = ["rows", "shapes", "x", "y", "half_width", "half_height", "angle", "colors", "mirrored"]
        if self.patterns is not None:
            columns.append("patterns")
        return evolve(self, **{name: getattr(self, name)[index] for name in columns})


@frozen(eq=False)
class Window:
    """The same rectangle, at another position in each of n images."""

    rows: Integers
    left: Integers
    top: Integers
    width: int
    height: int

    @property
    def columns(self) -> Floats:
        """(n, width): x of the pixels' centers."""
        return (self.left[:, None] + np.arange(self.width) + 0.5).astype(np.float32)

    @property
    def lines(self) -> Floats:
        """(n, height): y of the pixels' centers."""
        return (self.top[:, None] + np.arange(self.height) + 0.5).astype(np.float32)


@frozen(eq=False)
class Canvas:
    """N square images and the maps of what is where.

    Attributes
    ----------
    pixels : array, (N, 3, S, S), float32
        RGB, about [0, 1].
    identities : array, (N, S, S), uint8
        What covers a pixel by more than half.
    body : array, (N, S, S), float32
        How far a pixel lies inside the bird last drawn.
    """

    pixels: Floats = field(repr=False)
    identities: NDArray[np.uint8] = field(repr=False)
    body: Floats = field(repr=False)

    @classmethod
    def blank(cls, images: int, size: int) -> "Canvas":
        """An empty canvas."""
        square = images, size, size
        pixels = np.empty((images, 3, size, size), np.float32)
        return cls(pixels, np.zeros(square, np.uint8), np.zeros(square, np.float32))

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.pixels.shape[-1]

    @property
    def outline(self) -> np.float32:
        """Pixels of ink around a shape."""
        return np.float32(max(0.55, 0.011 * self.size))

    def stamp(self, sprites: Sprites, identity: int | None = None, *, clipped: bool = False) -> None:
        """Draw shapes of the atlas; `clipped` keeps them within the body of the bird last drawn."""
        if not len(sprites.rows):
            return
        half_width, half_height = (
            sprites.half_width / np.float32(SHRINK),
            sprites.half_height / np.float32(SHRINK),
        )
        cosine, sine = cosine_sine(sprites.angle)
        reach_x = 0.92 * (np.abs(cosine) * half_width + np.abs(sine) * half_height)
        reach_y = 0.92 * (np.abs(sine) * half_width + np.abs(cosine) * half_height)
        window = self._window(sprites.rows, sprites.x, sprites.y, reach_x, reach_y)
        right = window.columns / self.size - sprites.x[:, None]
        right *= np.where(sprites.mirrored, np.float32(-1), np.float32(1))[:, None]
        up = sprites.y[:, None] - window.lines / self.size
        half = np.float32(RESOLUTION / 2)
        per_u, per_v = half / half_width, half / half_height  # texels, from the shape's center
        u = (right * (cosine * per_u)[:, None])[:, None, :] + (up * (sine * per_u)[:, None])[:, :, None]
        v = (right * (-sine * per_v)[:, None])[:, None, :] + (up * (cosine * per_v)[:, None])[:, :, None]
        distance = _look_up(u, v, sprites.shapes)
        distance *= (np.sqrt(half_width * half_height) * -self.size)[:, None, None]
        distance += np.float32(0.5)
        coverage = np.clip(distance, 0, 1)
        if clipped:
            coverage *= _view(self.body, window)[window.rows, window.top, window.left]
        layers: list[tuple[Floats, Floats]] = []
        fill = coverage
        if sprites.ink:
            distance -= np.float32(sprites.ink) * self.outline
            fill = np.clip(distance, 0, 1, out=distance)
            fill *= coverage
            layers.append((INK[None], coverage - fill))
        light = v * np.float32(sprites.shade / RESOLUTION * 2)
        light += 1
        light *= fill
        if sprites.patterns is not None and sprites.patterns.any():
            marks = _pattern(u, v, sprites.patterns)
            marks *= light
            light -= marks
            layers.append((PAPER[None], marks))
        self._composite(window, coverage, [*layers, (sprites.colors, light)], identity)

    def dot(
        self,
        rows: Integers,
        x: Floats,
        y: Floats,
        radius: Floats,
        colors: Floats,
        identity: int | None = None,
    ) -> None:
        """Draw plain discs of `colors` (n, 3) or (3,)."""
        if not len(rows):
            return
        size = np.float32(self.size)
        window = self._window(rows, x, y, radius + 1 / size, radius + 1 / size)
        right, down = window.columns - (x * size)[:, None], window.lines - (y * size)[:, None]
        distance = np.sqrt((right * right)[:, None, :] + (down * down)[:, :, None])
        coverage = np.clip((radius * size + np.float32(0.5))[:, None, None] - distance, 0, 1)
        self._composite(window, coverage, [(np.atleast_2d(colors), coverage)], identity)

    def fill(self, window: Window, distance: Floats, colors: Floats, light: Floats, identity: int) -> None:
        """Draw what lies `distance` pixels (n, height, width) inside its edge, and store it as the body."""
        coverage = np.clip(distance + np.float32(0.5), 0, 1)
        inside = np.clip(distance + (np.float32(0.5) - self.outline), 0, 1)
        self._composite(
            window, coverage, [(INK[None], coverage - inside), (colors, light * inside)], identity
        )
        self.body[window.rows] = 0
        _view(self.body, window)[window.rows, window.top, window.left] = inside

    def window_about(self, rows: Integers, x: Floats, y: Floats, reach: Floats) -> Window:
        """A square window that holds what lies within `reach` of (x, y)."""
        return self._window(rows, x, y, reach, reach)

    def _window(self, rows: Integers, x: Floats, y: Floats, reach_x: Floats, reach_y: Floats) -> Window:
        size = self.size
        width = min(size, int(np.ceil(2 * float(reach_x.max()) * size)) + 3)
        height = min(size, int(np.ceil(2 * float(reach_y.max()) * size)) + 3)
        left = np.clip(np.round(x * size - width / 2).astype(np.int64), 0, size - width)
        top = np.clip(np.round(y * size - height / 2).astype(np.int64), 0, size - height)
        return Window(rows, left, top, width, height)

    def _composite(
        self, window: Window, coverage: Floats, layers: list[tuple[Floats, Floats]], identity: int | None
    ) -> None:
        """Composite layers of (color, amount) over what is there."""
        pixels, index = _view(self.pixels, window), (window.rows, slice(None), window.top, window.left)
        values = pixels[index]
        values *= (1 - coverage)[:, None]
        for channel in range(3):
            for colors, amount in layers:
                values[:, channel] += colors[:, channel, None, None] * amount
        pixels[index] = values
        if identity is not None:
            identities = _view(self.identities, window)
            window_identities = identities[window.rows, window.top, window.left]
            np.copyto(window_identities, np.uint8(identity), where=coverage > 0.5)
            identities[window.rows, window.top, window.left] = window_identities


def cosine_sine(angle: ArrayLike) -> tuple[Floats, Floats]:
    """In double precision first: the last bit of single-precision sines differs between processors."""
    angle = np.asarray(angle, np.float64)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def _view(array: NDArray[Scalar], window: Window) -> NDArray[Scalar]:
    """Every rectangle of the window's size, as a writeable view."""
    return sliding_window_view(array, (window.height, window.width), axis=(-2, -1), writeable=True)


def _look_up(u: Floats, v: Floats, shapes: Integers) -> Floats:
    """Distances at texels (u, v) from the center of `shapes` (n,); beyond the border, those of the border."""
    half = np.float32(RESOLUTION / 2)
    last = np.float32(RESOLUTION - 1)
    texels = np.clip(v + half, 0, last).astype(np.int32)
    texels *= RESOLUTION
    texels += np.clip(u + half, 0, last).astype(np.int32)
    texels += (shapes * RESOLUTION**2).astype(np.int32)[:, None, None]
    return atlas().textures.reshape(-1).take(texels)


def _pattern(u: Floats, v: Floats, patterns: Integers) -> Floats:
    """How much of the second color shows at texels (u, v) from the center, in [0, 1]."""
    along, across, offset, slope, wave_u, wave_v = _PATTERNS[patterns].T[..., None, None]
    local = np.float32(2 / RESOLUTION)
    marks = along * np.cos(u * (wave_u * local)) + across * np.cos(v * (wave_v * local)) + offset
    marks += u * (slope * local)
    marks *= 3
    marks += np.float32(0.5)
    return np.clip(marks, 0, 1, out=marks)
