"""What lies behind the birds: sky, sun, clouds, hills, plants and distractors."""

import math
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from explainkit.data.aviary.canvas import Canvas, Sprites
from explainkit.data.aviary.palette import FEATHERS, LANDSCAPES, MOON, SUN
from explainkit.data.aviary.scenes import BACKDROP, DISTRACTORS, THEMES, Floats, Integers, Scenes
from explainkit.data.aviary.shapes import atlas
from explainkit.data.keyed import keyed, uniforms

DISTRACTOR = 9
"""Identity of every distractor."""

_PLANTS = ("tree", "pine", "reed", "cactus", "pine", "bush", "pine", "bush")  # as in THEMES
_NIGHT, _STUDIO = THEMES.index("night"), THEMES.index("studio")
_GRAIN = 512


def draw_backdrop(canvas: Canvas, scenes: Scenes) -> None:
    """Fill the canvas."""
    look = dict(zip(BACKDROP, scenes.backdrop.T, strict=True))
    colours = LANDSCAPES[scenes.themes]  # (N, 5, 3)
    colours = colours * (1 + np.float32(0.10) * (look["brightness"] - 0.5))[:, None, None]
    colours *= 1 + np.float32(0.06) * (np.stack([look["red"], look["green"], look["blue"]], 1)[:, None] - 0.5)
    _sky(canvas, colours)
    _sun(canvas, look, scenes.themes)
    for name in ("cloud", "cloud_2"):
        _cloud(canvas, look, name, scenes.themes, colours)
    _hills(canvas, look, "hill", 0.62, colours[:, 2])
    for name in ("plant", "plant_2"):
        _plant(canvas, look, name, scenes.themes, colours[:, 4])
    _hills(canvas, look, "hill_2", 0.78, colours[:, 3])
    corner = ((look[f"grain_{axis}"] * (_GRAIN - canvas.size)).astype(np.int64) for axis in "yx")
    canvas.pixels[:] += sliding_window_view(_grain(), (canvas.size, canvas.size))[*corner][:, None]


def draw_distractors(canvas: Canvas, scenes: Scenes) -> None:
    """Scatter things in the colours of the birds, so that colour alone says little."""
    table = np.array([atlas().rows[f"distractor.{name}"] for name in DISTRACTORS])
    for d in range(scenes.distractors.shape[1]):
        rows = np.flatnonzero(scenes.distractors[:, d] >= 0)
        x, y, size, angle = scenes.distractor_places[rows, d].T
        half = np.float32(0.05) + np.float32(0.075) * size
        things = Sprites(
            rows=rows,
            shapes=table[scenes.distractors[rows, d]],
            x=np.float32(0.04) + np.float32(0.92) * x,
            y=np.float32(0.06) + np.float32(0.90) * y,
            half_width=half,
            half_height=half,
            angle=(angle - np.float32(0.5)) * np.float32(2.4),
            colours=FEATHERS[scenes.distractor_colours[rows, d]],
            mirrored=np.zeros(len(rows), bool),
        )
        canvas.stamp(things, DISTRACTOR)


def light_up(canvas: Canvas, scenes: Scenes) -> None:
    """The light of the hour falls on everything alike."""
    look = dict(zip(BACKDROP, scenes.backdrop.T - np.float32(0.5), strict=True))
    bright, warm, shady = 0.30 * look["light"], 0.10 * look["warmth"], 0.10 * look["shadow"]
    canvas.pixels[:] *= (1 + np.stack([bright + warm, bright + shady, bright - warm - shady], 1))[
        :, :, None, None
    ]


def _sky(canvas: Canvas, colours: Floats) -> None:
    down = np.minimum(1, _centres(canvas) / np.float32(0.75))
    sky = colours[:, 0, :, None] + (colours[:, 1] - colours[:, 0])[:, :, None] * down
    canvas.pixels[:] = sky[..., None]


def _sun(canvas: Canvas, look: dict[str, Floats], themes: Integers) -> None:
    rows = np.flatnonzero((look["sun"] < 0.5) & (themes != _STUDIO))
    colours = np.where((themes[rows] == _NIGHT)[:, None], MOON, SUN)
    x, y, radius = (look[name][rows] for name in ("sun_x", "sun_y", "sun_size"))
    canvas.dot(rows, _between(0.1, 0.9, x), _between(0.06, 0.28, y), _between(0.05, 0.1, radius), colours)


def _cloud(canvas: Canvas, look: dict[str, Floats], name: str, themes: Integers, colours: Floats) -> None:
    rows = np.flatnonzero((look[name] < 0.6) & (themes != _STUDIO) & (themes != _NIGHT))
    x, y, size = (look[f"{name}_{what}"][rows] for what in ("x", "y", "size"))
    white = colours[rows, 1] * np.float32(0.25) + np.float32(0.74)
    half = _between(0.08, 0.16, size)
    _scenery(
        canvas, rows, "cloud", (x, _between(0.06, 0.32, y)), (half * np.float32(1.25), half), white, 0.05
    )


def _hills(canvas: Canvas, look: dict[str, Floats], name: str, level: float, colours: Floats) -> None:
    x = _centres(canvas).astype(np.float64)
    wave, shift, ripple = (look[f"{name}_{what}"][:, None] for what in ("wave", "shift", "ripple"))
    ridge = 0.045 * np.sin(2 * math.pi * (x * (1 + 1.2 * wave) + shift)) + 0.018 * np.sin(
        2 * math.pi * (3.1 * x + ripple)
    )
    ridge = (ridge + level + 0.1 * (look[name][:, None] - 0.5)).astype(np.float32)
    above = int(canvas.size * 0.40)
    depth = (_centres(canvas)[above:, None] - ridge[:, None, :]) * canvas.size
    coverage = np.clip(depth + np.float32(0.5), 0, 1)[:, None]
    canvas.pixels[:, :, above:] += coverage * (colours[:, :, None, None] - canvas.pixels[:, :, above:])


def _plant(canvas: Canvas, look: dict[str, Floats], name: str, themes: Integers, colours: Floats) -> None:
    half = _between(0.09, 0.16, look[f"{name}_size"])
    x, y = _between(0.05, 0.95, look[f"{name}_x"]), np.float32(0.66) - np.float32(0.3) * half
    for kind in dict.fromkeys(_PLANTS):
        grows = np.array([plant == kind for plant in _PLANTS]) & (np.arange(len(THEMES)) != _STUDIO)
        rows = np.flatnonzero(grows[themes])
        size = half[rows] * np.float32(0.8), half[rows]
        _scenery(canvas, rows, kind, (x[rows], y[rows]), size, colours[rows], 0.12)


def _scenery(
    canvas: Canvas,
    rows: Integers,
    kind: str,
    place: tuple[Floats, Floats],
    half: tuple[Floats, Floats],
    colours: Floats,
    shade: float,
) -> None:
    upright = np.zeros(len(rows), np.float32)
    things = Sprites(
        rows=rows,
        shapes=np.full(len(rows), atlas().rows[f"scenery.{kind}"]),
        x=place[0],
        y=place[1],
        half_width=half[0],
        half_height=half[1],
        angle=upright,
        colours=colours,
        mirrored=upright > 0,
        ink=0,
        shade=shade,
    )
    canvas.stamp(things)


def _centres(canvas: Canvas) -> Floats:
    """(S,): the middle of every pixel, as a share of the image."""
    return (np.arange(canvas.size, dtype=np.float32) + np.float32(0.5)) / np.float32(canvas.size)


def _between(low: float, high: float, share: Floats) -> Floats:
    return np.float32(low) + np.float32(high - low) * share


@cache
def _grain() -> Floats:
    """Paper is never quite even; drawn from the hash of a counter, so that no library's generator matters."""
    chance = uniforms(keyed(0, np.arange(_GRAIN)), 4 * _GRAIN).reshape(_GRAIN, _GRAIN, 4)
    return (chance.sum(2) - np.float32(2)) * np.float32(0.012)  # nearly normal, a deviation of 0.007
