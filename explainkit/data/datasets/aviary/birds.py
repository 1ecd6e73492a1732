"""How a bird is put together on the canvas, from tail to eye."""

import math
from collections.abc import Sequence

import numpy as np
from attrs import field, frozen
from numpy.typing import ArrayLike

from explainkit.data.datasets.aviary.canvas import Canvas, Sprites, cosine_sine
from explainkit.data.datasets.aviary.grammar import PARTS, PATTERNED, SHAPES
from explainkit.data.datasets.aviary.palette import (
    BODIES,
    EYE_WHITE,
    FEATHERS,
    PUPIL,
)
from explainkit.data.datasets.aviary.scenes import (
    STANCE,
    Floats,
    Integers,
    Scenes,
)
from explainkit.data.datasets.aviary.shapes import atlas

BODY = 8
"""Identity of body and head; part p of the first bird is p + 1."""
NEXT_BIRD = 16
"""Added to the identities of the bird before."""

_BEAK_LENGTHS = np.array([0.38, 0.52, 0.42, 0.52, 0.50, 0.52], np.float32)  # as in SHAPES["beak"]
_BEAK_HEIGHTS = np.array([0.30, 0.26, 0.36, 0.40, 0.30, 0.42], np.float32)


def draw_birds(canvas: Canvas, scenes: Scenes, key_points: Floats) -> None:
    """Draw every bird, the first one last, and write where its parts are to `key_points` (N, I, P, 2)."""
    for bird in reversed(range(scenes.shown.shape[1])):
        rows = np.flatnonzero(scenes.shown[:, bird])
        if len(rows):
            _Bird.from_scenes(canvas, scenes, rows, bird, key_points).draw()


@frozen(eq=False, kw_only=True)
class _Bird:
    """Bird `number` of n scenes; its own frame has x to the front, y up, and `unit` as its length."""

    canvas: Canvas
    scenes: Scenes
    rows: Integers
    number: int
    key_points: Floats
    stance: dict[str, Floats]
    x: Floats
    y: Floats
    unit: Floats
    facing: Floats
    roll: Floats
    colors: Floats = field(repr=False)  # (n, P + 1, 3)

    @classmethod
    def from_scenes(
        cls, canvas: Canvas, scenes: Scenes, rows: Integers, number: int, key_points: Floats
    ) -> "_Bird":
        x, y, unit, facing = scenes.positions[rows, number].T
        stance = dict(zip(STANCE, scenes.stance[rows, number].T, strict=True))
        untinted = np.concatenate(
            [FEATHERS[scenes.codes[rows, number, :, 1]], BODIES[scenes.plumages[rows, number]][:, None]], 1
        )
        tints = scenes.tints[rows, number]
        brightness = np.array([0.16] * len(PARTS) + [0.10], np.float32)[:, None]
        hue = np.array([0.08] * len(PARTS) + [0.05], np.float32)[:, None]
        colors = np.clip(untinted * (1 + brightness * tints[..., :1]) * (1 + hue * tints[..., 1:]), 0, 1)
        return cls(
            canvas=canvas,
            scenes=scenes,
            rows=rows,
            number=number,
            key_points=key_points,
            stance=stance,
            x=x,
            y=y,
            unit=unit,
            facing=facing,
            roll=0.22 * stance["roll"],
            colors=colors,
        )

    def draw(self) -> None:
        pose = self.stance
        self._draw_part(
            "tail", (-0.80, -0.14), (0.60 + 0.06 * pose["tail_length"], 0.50), _tail_angle(pose), (-0.85, 0)
        )
        self._draw_part("feet", (0.02, -0.52), (0.48, 0.38), -0.8 * self.roll, (0, 0.80), ink=0.55)
        pitch = 0.10 * pose["pitch"]
        self._draw_part("crest", self._on_head(-0.08, 0.30), (0.36, 0.42), pitch + 0.25, (0, -0.75))
        beak = self._codes("beak")[:, 0]
        lengths = _BEAK_LENGTHS[beak], _BEAK_HEIGHTS[beak]
        self._draw_part("beak", self._on_head(0.30, -0.04), lengths, pitch - 0.05, (-0.85, 0))
        self._draw_body()
        self._draw_part("breast", (0.46, -0.10), (0.44, 0.50), 0.25, (0, 0), clipped=True)
        wing = math.pi + 0.12 + 0.20 * pose["wing_angle"]
        self._draw_part("wing", (0.20, 0.16), (0.62 + 0.05 * pose["wing_length"], 0.46), wing, (-0.62, 0))
        self._draw_eye()

    def _codes(self, part: str) -> Integers:
        return self.scenes.codes[self.rows, self.number, PARTS.index(part)].astype(np.int64)

    def _present(self, part: str) -> Integers:
        return np.flatnonzero(self.scenes.present[self.rows, self.number, PARTS.index(part)])

    def _identity(self, part: str) -> int:
        return NEXT_BIRD * self.number + PARTS.index(part) + 1

    def _on_image(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """From the bird's own frame."""
        cosine, sine = cosine_sine(self.roll)
        along, up = x * cosine - y * sine, x * sine + y * cosine
        return self.x + self.facing * self.unit * along, self.y - self.unit * up

    def _on_head(self, x: float, y: float) -> tuple[Floats, Floats]:
        """From the head's frame to the bird's."""
        head_x, head_y, radius = self._head()
        cosine, sine = cosine_sine(0.10 * self.stance["pitch"])
        scale = radius / np.float32(0.44)
        return head_x + (x * cosine - y * sine) * scale, head_y + (x * sine + y * cosine) * scale

    def _head(self) -> tuple[Floats, Floats, Floats]:
        pose = self.stance
        return 0.74 + 0.05 * pose["head_x"], 0.72 + 0.06 * pose["head_y"], 0.44 + 0.03 * pose["head_size"]

    def _draw_part(
        self,
        part: str,
        joint: tuple[ArrayLike, ArrayLike],
        half: tuple[ArrayLike, ArrayLike],
        angle: ArrayLike,
        anchor: tuple[float, float],
        *,
        ink: float = 1.0,
        clipped: bool = False,
    ) -> None:
        """Stamp one part, so that the point `anchor` of its shape lies on `joint`."""
        p = PARTS.index(part)
        scale = 1 + np.float32(0.18) * self.scenes.sizes[self.rows, self.number, p]
        half_width, half_height = (self._broadcast(length) * scale for length in half)
        cosine, sine = cosine_sine(self._broadcast(angle))
        across, upright = anchor[0] * half_width, anchor[1] * half_height
        x, y = self._on_image(
            self._broadcast(joint[0]) - across * cosine + upright * sine,
            self._broadcast(joint[1]) - across * sine - upright * cosine,
        )
        codes, present = self._codes(part), self._present(part)
        table = np.array([atlas().rows.get(f"{part}.{shape}", 0) for shape in SHAPES[part]])
        sprites = Sprites(
            rows=self.rows,
            shapes=table[codes[:, 0]],
            x=x,
            y=y,
            half_width=half_width * self.unit,
            half_height=half_height * self.unit,
            angle=self._broadcast(angle) + self.roll,
            colors=self.colors[:, p],
            mirrored=self.facing < 0,
            patterns=codes[:, 2] if part in PATTERNED else None,
            ink=ink,
        )
        leg = np.float32(-0.42 if part == "feet" else 0)  # between two feet there is nothing to see
        self._write_key_point(part, *self._move_along(x, y, leg * half_width, sprites.angle))
        self.canvas.stamp(sprites[present], self._identity(part), clipped=clipped)

    def _move_along(self, x: Floats, y: Floats, along: Floats, angle: Floats) -> tuple[Floats, Floats]:
        """A position on the image, moved along a shape that is turned by `angle`."""
        cosine, sine = cosine_sine(angle)
        return x + self.facing * self.unit * along * cosine, y - self.unit * along * sine

    def _broadcast(self, value: ArrayLike) -> Floats:
        return np.broadcast_to(np.asarray(value, np.float32), self.rows.shape)

    def _write_key_point(self, part: str, x: Floats, y: Floats) -> None:
        self.key_points[self.rows, self.number, PARTS.index(part)] = np.stack([x, y], 1)

    def _draw_body(self) -> None:
        """An ellipse and a circle, smoothly joined (Quilez's polynomial minimum)."""
        unit, size = self.unit, self.canvas.size
        middle = self._on_image(self._broadcast(0.12), self._broadcast(0.18))
        window = self.canvas.window_about(self.rows, *middle, unit * 1.30)
        ahead = (window.columns / size - self.x[:, None]) * (self.facing / unit)[:, None]
        above = (self.y[:, None] - window.lines / size) / unit[:, None]
        x, y = _rotate(ahead[:, None, :], above[:, :, None], self.roll)
        along, across = _rotate(x, y, 0.30 + 0.10 * self.stance["tilt"])
        long, high = np.float32(0.90), (0.66 * (1 + 0.12 * self.stance["plumpness"]))[:, None, None]
        along /= long
        across /= high
        trunk = (np.sqrt(along * along + across * across) - 1) * np.sqrt(long * high)
        head_x, head_y, radius = (value[:, None, None] for value in self._head())
        head = np.sqrt((x - head_x) ** 2 + (y - head_y) ** 2) - radius
        blend = np.float32(0.30)
        overlap = np.maximum(blend - np.abs(trunk - head), 0)
        distance = np.minimum(trunk, head) - overlap * overlap * (np.float32(0.25) / blend)
        distance *= (-unit * size)[:, None, None]
        light = np.float32(0.95) + np.float32(0.13) * y
        self.canvas.fill(window, distance, self.colors[:, -1], light, NEXT_BIRD * self.number + BODY)

    def _draw_eye(self) -> None:
        present = self._present("eye")
        x, y = self._on_image(*self._on_head(0.12, 0.08))
        self._write_key_point("eye", x, y)
        kind, identity = self._codes("eye")[:, 0], self._identity("eye")
        unit, facing, colors = self.unit, self.facing, self.colors[:, PARTS.index("eye")]
        for shape, across, down, half in (
            ("striped", 0, 0, (0.48, 0.36)),
            ("cheeked", -0.10, 0.26, (0.20, 0.16)),
        ):
            patch = Sprites(
                rows=self.rows,
                shapes=np.full(len(self.rows), atlas().rows["eye.stripe" if shape == "striped" else "disc"]),
                x=x + across * facing * unit,
                y=y + down * unit,
                half_width=half[0] * unit,
                half_height=half[1] * unit,
                angle=0.10 * self.stance["pitch"] + self.roll,
                colors=colors,
                mirrored=facing < 0,
            )
            self.canvas.stamp(patch[present[kind[present] == SHAPES["eye"].index(shape)]], identity)
        ringed = kind == SHAPES["eye"].index("ringed")
        ball = np.where(ringed[:, None], colors, EYE_WHITE)
        self._draw_disc(present, x, y, np.where(ringed, np.float32(0.27), np.float32(0.15)), ball, identity)
        black, white = np.broadcast_to(PUPIL, ball.shape), np.ones_like(ball)
        self._draw_disc(present, x + 0.012 * facing * unit, y, self._broadcast(0.105), black, identity)
        self._draw_disc(
            present, x + 0.04 * facing * unit, y - 0.04 * unit, self._broadcast(0.04), white, identity
        )

    def _draw_disc(
        self, birds: Integers, x: Floats, y: Floats, radius: Floats, colors: Floats, identity: int
    ) -> None:
        radius = radius * self.unit
        self.canvas.dot(self.rows[birds], x[birds], y[birds], radius[birds], colors[birds], identity)


def _tail_angle(pose: dict[str, Floats]) -> Floats:
    return math.pi + 0.16 + 0.22 * pose["tail_angle"]


def _rotate(x: Floats, y: Floats, angle: Floats) -> Sequence[Floats]:
    """Coordinates (n, height, width) in a frame that is turned by `angle` (n,) against the clock."""
    cosine, sine = (value[:, None, None] for value in cosine_sine(angle))
    return x * cosine + y * sine, y * cosine - x * sine
