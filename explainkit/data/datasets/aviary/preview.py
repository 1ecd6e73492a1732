"""A contact sheet: what aviary is, on one page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from explainkit.data.datasets.aviary import interventions
from explainkit.data.datasets.aviary.birds import BODY, NEXT_BIRD
from explainkit.data.datasets.aviary.grammar import COLORS, PARTS, SHAPES
from explainkit.data.datasets.aviary.rendering import Rendering
from explainkit.data.datasets.aviary.scenes import (
    THEMES,
    Casting,
    Scenes,
    compose,
)
from explainkit.data.types import Caption

if TYPE_CHECKING:
    from explainkit.data.datasets.aviary.dataset import Aviary

COLUMNS = 8
_PAGE, _TEXT, _FAINT = (251, 248, 241), (58, 48, 56), (140, 128, 132)
_PART_COLORS = ("#d1495b", "#8e5bb5", "#2a7f9e", "#2e8b57", "#c4861b", "#3a5fcd", "#b5527f")  # as in PARTS
_GRAYS = {BODY: (206, 200, 196), 9: (228, 222, 214)}


def contact_sheet(dataset: Aviary, *, first: int = 12) -> Image.Image:
    """Species, one scene with one thing changed, masks and captions; of test images from id `first` on."""
    sheet = _Sheet(dataset.size[0])
    count = {5: "five", 7: "seven"}.get(len(_parts_of(dataset)), str(len(_parts_of(dataset))))
    sheet.title("aviary", f"{len(dataset.classes)} species of {count} parts, {dataset.size[0]} pixels")
    shown = np.arange(min(len(dataset.classes), 2 * COLUMNS))
    species = compose(dataset.grammar, first + shown, Casting(seed=1), species=shown)
    sheet.heading("Species", "distinguished by the shapes of their parts and the colors that these wear")
    sheet.tiles(dataset.draw(species).images, dataset.classes[: len(shown)])
    scene = dataset.scenes("test", [first])
    sheet.heading("The same scene with one thing changed", "every other pixel stays as it was")
    edited = list(_edited_scenes(dataset, scene))
    images = dataset.draw(interventions.concat([changed for _, changed in edited])).images
    sheet.tiles(images, [name for name, _ in edited])
    sheet.heading("Anywhere, and in company", "with exact masks of every part of every bird")
    rendering = dataset.draw(_varied_scenes(dataset, first))
    tiles = np.stack([rendering.images, part_map(rendering)], 1).reshape(-1, *rendering.images.shape[1:])
    sheet.tiles(tiles, [""] * len(tiles))
    sheet.heading("In words", "each phrase knows its part; beneath, the same with one word wrong")
    scenes = dataset.scenes("test", first + 1 + np.arange(COLUMNS // 2))
    rendering = dataset.draw(scenes)
    captions = zip(dataset.captions(scenes), dataset.hard_negatives(scenes), strict=True)
    sheet.captions(rendering.images, part_map(rendering), list(captions))
    return sheet.image()


def part_map(rendering: Rendering) -> NDArray[np.uint8]:
    """(N, 3, S, S): each part in its own color, body and distractors in gray."""
    table = np.full((NEXT_BIRD, 3), 244, np.uint8)
    for identity, gray in _GRAYS.items():
        table[identity] = gray
    table[1 : len(PARTS) + 1] = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in _PART_COLORS]
    return np.moveaxis(table[rendering.identities % NEXT_BIRD], -1, 1)


def _parts_of(dataset: Aviary) -> list[str]:
    """The parts that birds of `dataset` can have."""
    return [part for part, has_part in zip(PARTS, dataset.grammar.has_parts, strict=True) if has_part]


def _edited_scenes(dataset: Aviary, scene: Scenes) -> Iterator[tuple[str, Scenes]]:
    """Names of edits and the scene after them: two rows of the sheet."""
    yield "as it is", scene
    parts = _parts_of(dataset)
    for part in parts:
        yield f"no {part}", interventions.remove(scene, part)
    changed = "crest" if "crest" in parts else "tail"
    shape, color, _ = scene.codes[0, 0, PARTS.index(changed)]
    other = COLORS[(color + 3) % len(COLORS)]
    yield f"{other} {changed}", interventions.recolor(scene, changed, other)
    reshaped = SHAPES[changed][(shape + 1) % len(SHAPES[changed])]
    yield f"{reshaped} {changed}", interventions.reshape(scene, changed, reshaped)
    farthest = int(dataset.grammar.distances[scene.labels[0]].argmax())
    yield "another's beak", interventions.swap(scene, "beak", dataset.codes[farthest])
    yield "another's all", interventions.swap(scene, PARTS, dataset.codes[farthest])
    theme = THEMES[(int(scene.themes[0]) + 3) % len(THEMES)]
    yield f"{theme}", interventions.with_theme(scene, theme)
    yield "tan body", interventions.with_plumage(scene, "tan")
    yield "no clutter", interventions.without_distractors(scene)
    yield "no bird", interventions.without_bird(scene, 0)


def _varied_scenes(dataset: Aviary, first: int) -> Scenes:
    """Half a row: two scenes with a bird anywhere, one with two birds and one with three."""
    index = first + np.arange(40)
    free = compose(dataset.grammar, index[:2], Casting(seed=2, placement="free"))
    several = np.stack([index, index + 1, index + 2], 1) % len(dataset.classes)
    many = compose(dataset.grammar, index, Casting(seed=3, birds=3), species=several)
    birds = many.shown.sum(1)
    return interventions.concat([free, many[(birds == 2).argmax()], many[(birds == 3).argmax()]])


class _Sheet:
    """A page that grows downwards."""

    def __init__(self, size: int) -> None:
        self._scale = max(1, round(128 / size))  # whole pixels stay whole
        self._tile = size * self._scale
        self._gap = max(6, self._tile // 16)
        self._margin = 3 * self._gap
        self._small = max(10.0, self._tile / 11)
        self._line = math.ceil(1.3 * self._small)
        self._width = 2 * self._margin + COLUMNS * (self._tile + self._gap) - self._gap
        self._strips: list[Image.Image] = []

    def image(self) -> Image.Image:
        height = sum(strip.height for strip in self._strips) + self._margin
        page = Image.new("RGB", (self._width, height), _PAGE)
        top = 0
        for strip in self._strips:
            page.paste(strip, (0, top))
            top += strip.height
        return page

    def title(self, text: str, remark: str) -> None:
        self._write(text, remark, 3.2 * self._small)

    def heading(self, text: str, remark: str) -> None:
        self._write(text, remark, 1.6 * self._small)

    def tiles(self, images: NDArray[np.uint8], names: Sequence[str]) -> None:
        """Rows of images (N, 3, S, S) with their names beneath."""
        font = ImageFont.load_default(self._small)
        lines = [name.replace(" ", "\n") if font.getlength(name) > self._tile else name for name in names]
        beneath = max(len(text.split("\n")) * self._line if text else 0 for text in lines)
        for start in range(0, len(images), COLUMNS):
            strip, draw = self._add_strip(self._tile + beneath + self._gap)
            for column, i in enumerate(range(start, min(start + COLUMNS, len(images)))):
                left = self._left(column)
                strip.paste(self._picture(images[i]), (left, 0))
                middle = left + self._tile / 2, self._tile + 0.15 * self._line
                draw.multiline_text(middle, lines[i], _TEXT, font, anchor="ma", align="center", spacing=1)

    def captions(
        self, images: NDArray[np.uint8], maps: NDArray[np.uint8], captions: Sequence[tuple[Caption, ...]]
    ) -> None:
        """Image, part map and sentences, two a row; phrases in the colors of the map."""
        for start in range(0, len(images), 2):
            strip, draw = self._add_strip(max(self._tile, math.ceil(9.2 * self._line)) + self._gap)
            for column in range(min(2, len(images) - start)):
                i, left = start + column, self._left(column * COLUMNS // 2)
                strip.paste(self._picture(images[i]), (left, 0))
                strip.paste(self._picture(maps[i]), (left + self._tile + self._gap, 0))
                top, true = 0.0, {phrase.text for phrase in captions[i][0].phrases}
                for caption in captions[i]:
                    wrong = {phrase.text for phrase in caption.phrases} - true
                    corner = left + 2 * (self._tile + self._gap), top
                    top = self._draw_caption(draw, caption, corner, wrong)

    def _draw_caption(
        self, draw: ImageDraw.ImageDraw, caption: Caption, corner: tuple[int, float], wrong: set[str]
    ) -> float:
        """Draw a caption and return where the next one begins; `wrong` phrases are underlined."""
        left, top = corner
        font = ImageFont.load_default(1.05 * self._small)
        right, space = left + 2 * self._tile, draw.textlength(" ", font)
        x, y, offset = float(left), top, 0
        for word in caption.text.split(" "):
            phrases = [p for p in caption.phrases if p.start <= offset < p.end and p.part]
            color = _PART_COLORS[PARTS.index(str(phrases[0].part))] if phrases else _TEXT
            if x + draw.textlength(word, font) > right:
                x, y = float(left), y + 1.1 * self._line
            draw.text((x, y), word, color, font)
            length = draw.textlength(word, font)
            if phrases and phrases[0].text in wrong:
                end = x + length + (space if offset + len(word) < phrases[0].end else 0)
                draw.line((x, y + 1.02 * self._line, end, y + 1.02 * self._line), color, self._scale)
            x += length + space
            offset += len(word) + 1
        return y + 1.5 * self._line

    def _write(self, text: str, remark: str, size: float) -> None:
        _, draw = self._add_strip(math.ceil(1.9 * size))
        font, level = ImageFont.load_default(size), 1.45 * size
        draw.text((self._margin, level), text, _TEXT, font, anchor="ls")
        beside = self._margin + draw.textlength(text, font) + self._gap * 1.5
        draw.text((beside, level), remark, _FAINT, ImageFont.load_default(1.2 * self._small), anchor="ls")

    def _add_strip(self, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        strip = Image.new("RGB", (self._width, height), _PAGE)
        self._strips.append(strip)
        return strip, ImageDraw.Draw(strip)

    def _left(self, column: int) -> int:
        return self._margin + column * (self._tile + self._gap)

    def _picture(self, image: NDArray[np.uint8]) -> Image.Image:
        picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(image, 0, -1)))
        return picture.resize((self._tile, self._tile), Image.Resampling.NEAREST)
