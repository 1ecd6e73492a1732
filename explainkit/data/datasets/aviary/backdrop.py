"""What lies behind the birds: sky, sun, clouds, hills, plants and distractors."""

import math
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from explainkit.data.datasets.aviary.canvas import Canvas, Sprites
from explainkit.data.datasets.aviary.palette import (
    FEATHERS,
    LANDSCAPES,
    MOON,
    SUN,
)
from explainkit.data.datasets.aviary.scenes import (
    BACKDROP,
    DISTRACTORS,
    THEMES,
    Floats,
    Integers,
    Scenes,
)
from explainkit.data.datasets.aviary.shapes import atlas
from explainkit.data.random_keys import random_keys, uniform

DISTRACTOR = 9
"""Identity of every distractor."""

_PLANTS = ("tree", "pine", "reed", "cactus", "pine", "bush", "pine", "bush")  # as in THEMES
_NIGHT, _STUDIO = THEMES.index("night"), THEMES.index("studio")
_GRAIN = 512


def draw_backdrop(canvas: Canvas, scenes: Scenes) -> None:
    """Fill the canvas."""
    factors = dict(zip(BACKDROP, scenes.backdrop.T, strict=True))
    colors = LANDSCAPES[scenes.themes]  # (N, 5, 3)
    colors = colors * (1 + np.float32(0.10) * (factors["brightness"] - 0.5))[:, None, None]
    colors *= 1 + np.float32(0.06) * (
        np.stack([factors["red"], factors["green"], factors["blue"]], 1)[:, None] - 0.5
    )
    _draw_sky(canvas, colors)
    _draw_sun(canvas, factors, scenes.themes)
    for name in ("cloud", "cloud_2"):
        _draw_cloud(canvas, factors, name, scenes.themes, colors)
    _draw_hills(canvas, factors, "hill", 0.62, colors[:, 2])
    for name in ("plant", "plant_2"):
        _draw_plant(canvas, factors, name, scenes.themes, colors[:, 4])
    _draw_hills(canvas, factors, "hill_2", 0.78, colors[:, 3])
    corner = ((factors[f"grain_{axis}"] * (_GRAIN - canvas.size)).astype(np.int64) for axis in "yx")
    canvas.pixels[:] += sliding_window_view(_grain(), (canvas.size, canvas.size))[*corner][:, None]


def draw_distractors(canvas: Canvas, scenes: Scenes) -> None:
    """Scatter distractors in the colors of the birds, so that color alone says little."""
    table = np.array([atlas().rows[f"distractor.{name}"] for name in DISTRACTORS])
    for d in range(scenes.distractors.shape[1]):
        rows = np.flatnonzero(scenes.distractors[:, d] >= 0)
        x, y, size, angle = scenes.distractor_positions[rows, d].T
        half = np.float32(0.05) + np.float32(0.075) * size
        sprites = Sprites(
            rows=rows,
            shapes=table[scenes.distractors[rows, d]],
            x=np.float32(0.04) + np.float32(0.92) * x,
            y=np.float32(0.06) + np.float32(0.90) * y,
            half_width=half,
            half_height=half,
            angle=(angle - np.float32(0.5)) * np.float32(2.4),
            colors=FEATHERS[scenes.distractor_colors[rows, d]],
            mirrored=np.zeros(len(rows), bool),
        )
        canvas.stamp(sprites, DISTRACTOR)


def apply_lighting(canvas: Canvas, scenes: Scenes) -> None:
    """Multiply all pixels of an image by the color of its light."""
    factors = dict(zip(BACKDROP, scenes.backdrop.T - np.float32(0.5), strict=True))
    light, warmth, shadow = 0.30 * factors["light"], 0.10 * factors["warmth"], 0.10 * factors["shadow"]
    color = 1 + np.stack([light + warmth, light + shadow, light - warmth - shadow], 1)
    canvas.pixels[:] *= color[:, :, None, None]


def _draw_sky(canvas: Canvas, colors: Floats) -> None:
    down = np.minimum(1, _centers(canvas) / np.float32(0.75))
    sky = colors[:, 0, :, None] + (colors[:, 1] - colors[:, 0])[:, :, None] * down
    canvas.pixels[:] = sky[..., None]


def _draw_sun(canvas: Canvas, factors: dict[str, Floats], themes: Integers) -> None:
    rows = np.flatnonzero((factors["sun"] < 0.5) & (themes != _STUDIO))
    colors = np.where((themes[rows] == _NIGHT)[:, None], MOON, SUN)
    x, y, radius = (factors[name][rows] for name in ("sun_x", "sun_y", "sun_size"))
    canvas.dot(
        rows, _interpolate(0.1, 0.9, x), _interpolate(0.06, 0.28, y), _interpolate(0.05, 0.1, radius), colors
    )


def _draw_cloud(
    canvas: Canvas, factors: dict[str, Floats], name: str, themes: Integers, colors: Floats
) -> None:
    rows = np.flatnonzero((factors[name] < 0.6) & (themes != _STUDIO) & (themes != _NIGHT))
    x, y, size = (factors[f"{name}_{what}"][rows] for what in ("x", "y", "size"))
    white = colors[rows, 1] * np.float32(0.25) + np.float32(0.74)
    half = _interpolate(0.08, 0.16, size)
    _draw_scenery(
        canvas, rows, "cloud", (x, _interpolate(0.06, 0.32, y)), (half * np.float32(1.25), half), white, 0.05
    )


def _draw_hills(canvas: Canvas, factors: dict[str, Floats], name: str, level: float, colors: Floats) -> None:
    x = _centers(canvas).astype(np.float64)
    wave, shift, ripple = (factors[f"{name}_{what}"][:, None] for what in ("wave", "shift", "ripple"))
    ridge = 0.045 * np.sin(2 * math.pi * (x * (1 + 1.2 * wave) + shift)) + 0.018 * np.sin(
        2 * math.pi * (3.1 * x + ripple)
    )
    ridge = (ridge + level + 0.1 * (factors[name][:, None] - 0.5)).astype(np.float32)
    above = int(canvas.size * 0.40)
    depth = (_centers(canvas)[above:, None] - ridge[:, None, :]) * canvas.size
    coverage = np.clip(depth + np.float32(0.5), 0, 1)[:, None]
    canvas.pixels[:, :, above:] += coverage * (colors[:, :, None, None] - canvas.pixels[:, :, above:])


def _draw_plant(
    canvas: Canvas, factors: dict[str, Floats], name: str, themes: Integers, colors: Floats
) -> None:
    half = _interpolate(0.09, 0.16, factors[f"{name}_size"])
    x, y = _interpolate(0.05, 0.95, factors[f"{name}_x"]), np.float32(0.66) - np.float32(0.3) * half
    for kind in dict.fromkeys(_PLANTS):
        has_plant = np.array([plant == kind for plant in _PLANTS]) & (np.arange(len(THEMES)) != _STUDIO)
        rows = np.flatnonzero(has_plant[themes])
        size = half[rows] * np.float32(0.8), half[rows]
        _draw_scenery(canvas, rows, kind, (x[rows], y[rows]), size, colors[rows], 0.12)


def _draw_scenery(
    canvas: Canvas,
    rows: Integers,
    kind: str,
    center: tuple[Floats, Floats],
    half: tuple[Floats, Floats],
    colors: Floats,
    shade: float,
) -> None:
    zeros = np.zeros(len(rows), np.float32)
    sprites = Sprites(
        rows=rows,
        shapes=np.full(len(rows), atlas().rows[f"scenery.{kind}"]),
        x=center[0],
        y=center[1],
        half_width=half[0],
        half_height=half[1],
        angle=zeros,
        colors=colors,
        mirrored=zeros > 0,
        ink=0,
        shade=shade,
    )
    canvas.stamp(sprites)


def _centers(canvas: Canvas) -> Floats:
    """(S,): the middle of every pixel, as a share of the image."""
    return (np.arange(canvas.size, dtype=np.float32) + np.float32(0.5)) / np.float32(canvas.size)


def _interpolate(low: float, high: float, share: Floats) -> Floats:
    return np.float32(low) + np.float32(high - low) * share


@cache
def _grain() -> Floats:
    """The grain of the paper; drawn from the hash of a counter, so that no library's generator matters."""
    numbers = uniform(random_keys(0, np.arange(_GRAIN)), 4 * _GRAIN).reshape(_GRAIN, _GRAIN, 4)
    return (numbers.sum(2) - np.float32(2)) * np.float32(0.012)  # nearly normal, a deviation of 0.007
