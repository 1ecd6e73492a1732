"""How fast aviary draws, beside a plain Pillow renderer of the same scenes in the same run.

Pillow draws each bird as outlined polygons and ellipses at three times the size and shrinks the picture, with
the label map beside it. It is spared patterns, shading, grain and the light of the hour.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from functools import cache

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from explainkit.data.datasets.aviary.backdrop import DISTRACTOR
from explainkit.data.datasets.aviary.birds import BODY
from explainkit.data.datasets.aviary.catalog import CATALOG
from explainkit.data.datasets.aviary.grammar import PARTS, grammar
from explainkit.data.datasets.aviary.palette import (
    BODIES,
    FEATHERS,
    INK,
    LANDSCAPES,
    SUN,
)
from explainkit.data.datasets.aviary.rendering import render
from explainkit.data.datasets.aviary.scenes import (
    BACKDROP,
    DISTRACTORS,
    Casting,
    Scenes,
    compose,
)
from explainkit.data.datasets.aviary.shapes import atlas

OVER = 3
Color = tuple[int, int, int]


def with_pillow(scenes: Scenes, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (N, S, S, 3) and label maps (N, S, S)."""
    drawn = [_one(scenes, n, size) for n in range(len(scenes))]
    return np.stack([image for image, _ in drawn]), np.stack([labels for _, labels in drawn])


def _one(scenes: Scenes, n: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    large = size * OVER
    image, labels = Image.new("RGB", (large, large)), Image.new("L", (size, size))
    pens = ImageDraw.Draw(image), ImageDraw.Draw(labels)
    look = dict(zip(BACKDROP, scenes.backdrop[n].tolist(), strict=True))
    _landscape(pens[0], LANDSCAPES[scenes.themes[n]], look, large)
    for d in np.flatnonzero(scenes.distractors[n] >= 0):
        x, y, half, angle = scenes.distractor_positions[n, d]
        outline = _outline(f"distractor.{DISTRACTORS[scenes.distractors[n, d]]}")
        points = _placed(outline, (x, y), 0.05 + 0.075 * half, (angle - 0.5) * 2.4, 1)
        _polygon(pens, points, large, _rgb(FEATHERS[scenes.distractor_colors[n, d]]), DISTRACTOR)
    _bird(pens, scenes, n, large)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX)), np.asarray(labels)


def _landscape(
    pen: ImageDraw.ImageDraw, colors: NDArray[np.floating], look: dict[str, float], large: int
) -> None:
    for y in range(0, large, OVER):
        share = min(1.0, y / large / 0.75)
        pen.rectangle((0, y, large, y + OVER), _rgb(colors[0] + (colors[1] - colors[0]) * share))
    if look["sun"] < 0.5:
        x, y, radius = look["sun_x"] * large, 0.3 * look["sun_y"] * large, 0.08 * large
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), _rgb(SUN))
    for cloud in ("cloud", "cloud_2"):
        if look[cloud] < 0.6:
            center = look[f"{cloud}_x"], 0.06 + 0.26 * look[f"{cloud}_y"]
            _scenery(pen, "scenery.cloud", center, 0.08 + 0.08 * look[f"{cloud}_size"], colors[1], large)
    _hill(pen, 0.62, look["hill_shift"], colors[2], large)
    for plant in ("plant", "plant_2"):
        _scenery(pen, "scenery.pine", (look[f"{plant}_x"], 0.62), 0.12, colors[4], large)
    _hill(pen, 0.78, look["hill_2_shift"], colors[3], large)


def _hill(
    pen: ImageDraw.ImageDraw, level: float, shift: float, color: NDArray[np.floating], large: int
) -> None:
    xs = np.linspace(0, 1, 33)
    ridge = level + 0.045 * np.sin(6.28 * (1.5 * xs + shift)) + 0.018 * np.sin(6.28 * (3.1 * xs + shift))
    pen.polygon([(0, large), *zip(xs * large, ridge * large, strict=True), (large, large)], _rgb(color))


def _scenery(
    pen: ImageDraw.ImageDraw,
    name: str,
    center: tuple[float, float],
    half: float,
    color: NDArray[np.floating],
    large: int,
) -> None:
    outline = _placed(_outline(name), center, half, 0.0, 1)
    pen.polygon((outline * large).ravel().tolist(), _rgb(color))


def _bird(pens: tuple[ImageDraw.ImageDraw, ImageDraw.ImageDraw], scenes: Scenes, n: int, large: int) -> None:
    x, y, unit, facing = scenes.positions[n, 0].tolist()
    joints = {  # center, half, angle in the bird's frame
        "tail": ((-1.3, -0.2), 0.6, 3.3), "feet": ((0.02, -0.8), 0.45, 0.0), "crest": ((0.66, 1.3), 0.4, 0.3),
        "beak": ((1.45, 0.68), 0.45, 0.0), "breast": ((0.46, -0.1), 0.45, 0.25),
        "wing": ((-0.2, 0.1), 0.6, 3.2), "eye": ((0.86, 0.8), 0.27, 0.0),
    }  # fmt: skip
    for part, (joint, half, angle) in joints.items():
        if part == "breast":
            _body(pens, (x, y), unit, facing, _rgb(BODIES[scenes.plumages[n, 0]]), large)
        shape, color, _ = scenes.codes[n, 0, PARTS.index(part)]
        rows = [name for name in CATALOG if name.startswith(f"{part}.")] or ["disc"]
        center = (x + facing * unit * joint[0], y - unit * joint[1])
        outline = _placed(_outline(rows[shape % len(rows)]), center, half * unit, angle, facing)
        _polygon(pens, outline, large, _rgb(FEATHERS[color]), PARTS.index(part) + 1)


def _body(
    pens: tuple[ImageDraw.ImageDraw, ImageDraw.ImageDraw],
    center: tuple[float, float],
    unit: float,
    facing: float,
    color: Color,
    large: int,
) -> None:
    head = center[0] + facing * 0.74 * unit, center[1] - 0.72 * unit
    for (x, y), wide, high in ((center, 0.9 * unit, 0.66 * unit), (head, 0.44 * unit, 0.44 * unit)):
        for pen, scale, fill, ink in (
            (pens[0], large, color, _rgb(INK)),
            (pens[1], large // OVER, BODY, BODY),
        ):
            corners = ((x - wide) * scale, (y - high) * scale, (x + wide) * scale, (y + high) * scale)
            pen.ellipse(corners, fill, ink, width=OVER if scale == large else 1)


@cache
def _outline(name: str) -> NDArray[np.floating]:
    """A closed line of 24 points round a shape of the catalog."""
    texture = atlas().textures[atlas().rows[name]]
    v, u = np.nonzero(texture < 0)
    center, angles = np.array([u.mean(), v.mean()]), np.linspace(-np.pi, np.pi, 25)[:-1]
    offsets = np.stack([u, v], 1) - center
    sector = ((np.arctan2(offsets[:, 1], offsets[:, 0]) + np.pi) / (2 * np.pi) * 24).astype(int) % 24
    reach = [np.linalg.norm(offsets[sector == s], axis=1).max(initial=3) for s in range(24)]
    ring = center + np.stack([np.cos(angles), np.sin(angles)], 1) * np.array(reach)[:, None]
    return ring / 64 - 1


def _placed(
    outline: NDArray[np.floating], center: tuple[float, float], half: float, angle: float, facing: float
) -> NDArray[np.floating]:
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y = outline[:, 0] * cosine - outline[:, 1] * sine, outline[:, 0] * sine + outline[:, 1] * cosine
    return np.stack([center[0] + facing * half * x, center[1] - half * y], 1)


def _polygon(
    pens: tuple[ImageDraw.ImageDraw, ImageDraw.ImageDraw],
    outline: NDArray[np.floating],
    large: int,
    color: Color,
    identity: int,
) -> None:
    points = (outline * large).ravel().tolist()
    pens[0].polygon(points, color, _rgb(INK), width=OVER)
    pens[1].polygon((outline * (large // OVER)).ravel().tolist(), identity)


def _rgb(color: NDArray[np.floating]) -> Color:
    red, green, blue = (np.clip(color, 0, 1) * 255).astype(int).tolist()
    return red, green, blue


def rates(draw: Callable[[Scenes, int], object], scenes: Scenes, size: int, repeats: int) -> Iterator[float]:
    """Images a second of processor time, run by run."""
    for _ in range(repeats):
        started = time.process_time()
        draw(scenes, size)
        yield len(scenes) / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--images", type=int, default=512)
    options = parser.parse_args()
    scenes = compose(grammar(20), np.arange(options.images), Casting())
    print(f"{'pixels':>7}{'aviary img/s':>15}{'Pillow img/s':>15}{'ratio':>8}")
    for size in options.sizes:
        render(scenes[:32], size), with_pillow(scenes[:32], size)
        pairs = zip(rates(render, scenes, size, 3), rates(with_pillow, scenes, size, 3), strict=True)
        aviary, pillow = np.median(list(pairs), 0)
        print(f"{size:7}{aviary:15.0f}{pillow:15.0f}{aviary / pillow:8.1f}", flush=True)


if __name__ == "__main__":
    main()
