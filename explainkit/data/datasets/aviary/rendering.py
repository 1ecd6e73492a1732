"""From scenes to pixels, masks and key points."""

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from explainkit.data.datasets.aviary.backdrop import (
    DISTRACTOR,
    apply_lighting,
    draw_backdrop,
    draw_distractors,
)
from explainkit.data.datasets.aviary.birds import BODY, NEXT_BIRD, draw_birds
from explainkit.data.datasets.aviary.canvas import Canvas
from explainkit.data.datasets.aviary.grammar import PARTS
from explainkit.data.datasets.aviary.scenes import (
    BIRDS,
    Booleans,
    Floats,
    Scenes,
)
from explainkit.errors import InputError


@frozen(eq=False)
class Rendering:
    """N drawn scenes.

    Attributes
    ----------
    images : array, (N, 3, S, S), uint8
    identities : array, (N, S, S), uint8
        What is seen at each pixel: 0 the background, 1 … 7 the parts and 8 the body of the first bird, 16
        more for each further bird, 9 a distractor.
    key_points : array, (N, I, P, 3)
        x and y in pixels of each bird's parts, and 1 where the part is seen within a pixel of the point.
    """

    images: NDArray[np.uint8] = field(repr=False)
    identities: NDArray[np.uint8] = field(repr=False)
    key_points: Floats = field(repr=False)

    @property
    def masks(self) -> Booleans:
        """(N, P, S, S): where each part is seen, of all birds together."""
        return part_masks(self.identities)

    @property
    def birds(self) -> Booleans:
        """(N, I, S, S): where each bird is seen."""
        return np.stack([self._bird_mask(bird) for bird in range(BIRDS)], 1)

    @property
    def distractors(self) -> Booleans:
        """(N, S, S): where a distractor is seen."""
        return self.identities == DISTRACTOR

    @property
    def boxes(self) -> Floats:
        """(N, 4): x0, y0, x1, y1 of all birds together, half-open; zeros where there is none."""
        kind = self.identities % NEXT_BIRD
        bird = (kind > 0) & (kind <= BODY)
        (left, right), (top, bottom) = (_ends(np.asarray(bird.any(axis))) for axis in (1, 2))
        return np.stack([left, top, right, bottom], 1).astype(np.float32)

    def _bird_mask(self, bird: int) -> Booleans:
        relative = self.identities - np.uint8(NEXT_BIRD * bird)  # wraps round below 0
        return (relative > 0) & (relative <= BODY)


def _ends(line: Booleans) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the true values of lines (N, S) begin, and where they have ended."""
    length = line.shape[1]
    return line.argmax(1), np.where(line.any(1), length - line[:, ::-1].argmax(1), 0)


def part_masks(identities: NDArray[np.uint8]) -> Booleans:
    """(N, P, S, S) from (N, S, S): where each part is seen."""
    return (identities % NEXT_BIRD)[:, None] == np.arange(1, len(PARTS) + 1, dtype=np.uint8)[:, None, None]


def render(scenes: Scenes, size: int = 64) -> Rendering:
    """Draw `scenes`; each image is bit for bit the same in any order and any batch.

    Parameters
    ----------
    size : int
        Pixels a side, 32 … 224.
    """
    if not 32 <= size <= 224:
        raise InputError(f"Expected images of 32 … 224 pixels a side; got {size}.")
    count = len(scenes)
    rendering = Rendering(
        np.empty((count, 3, size, size), np.uint8),
        np.empty((count, size, size), np.uint8),
        np.zeros((count, BIRDS, len(PARTS), 3), np.float32),
    )
    chunk = 64 if size <= 96 else 8  # what stays in the cache
    for start in range(0, count, chunk):
        rows = slice(start, start + chunk)
        views = Rendering(rendering.images[rows], rendering.identities[rows], rendering.key_points[rows])
        _draw_into(views, scenes[rows])
    return rendering


def _draw_into(rendering: Rendering, scenes: Scenes) -> None:
    """Fill the arrays of `rendering`."""
    size = rendering.images.shape[-1]
    canvas = Canvas.blank(len(scenes), size)
    positions = rendering.key_points[..., :2]
    draw_backdrop(canvas, scenes)
    draw_distractors(canvas, scenes)
    draw_birds(canvas, scenes, positions)
    apply_lighting(canvas, scenes)
    canvas.pixels[:] *= np.float32(255)
    canvas.pixels[:] += np.float32(0.5)
    rendering.images[:] = np.clip(canvas.pixels, 0, 255, out=canvas.pixels)
    rendering.identities[:] = canvas.identities
    positions *= np.float32(size)
    rendering.key_points[..., 2] = _are_visible(rendering.identities, positions)


def _are_visible(identities: NDArray[np.uint8], positions: Floats) -> Booleans:
    """(N, I, P): whether a part is seen in the nine pixels about its point in `positions` (N, I, P, 2)."""
    size = identities.shape[-1]
    x, y = np.moveaxis(np.floor(positions).astype(np.int64), -1, 0)
    rows = np.arange(len(identities))[:, None, None]
    part_identities = NEXT_BIRD * np.arange(BIRDS)[:, None] + np.arange(1, len(PARTS) + 1)
    matches = [
        identities[rows, np.clip(y + down, 0, size - 1), np.clip(x + right, 0, size - 1)] == part_identities
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    ]
    return np.any(matches, 0) & (x >= 0) & (x < size) & (y >= 0) & (y < size)
