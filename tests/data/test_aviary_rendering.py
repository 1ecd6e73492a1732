import ast
import hashlib
import inspect
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explainkit.data.datasets.aviary import (
    backdrop,
    birds,
    canvas,
    interventions,
    rendering,
)
from explainkit.data.datasets.aviary.canvas import Canvas, Sprites
from explainkit.data.datasets.aviary.grammar import PARTS, grammar
from explainkit.data.datasets.aviary.palette import FEATHERS, INK
from explainkit.data.datasets.aviary.rendering import render
from explainkit.data.datasets.aviary.scenes import Casting, compose
from explainkit.data.datasets.aviary.shapes import RESOLUTION, atlas
from explainkit.errors import InputError

SPECIES = grammar(20)
SCENES = compose(SPECIES, np.arange(72), Casting(seed=7, birds=2))
GOLDEN = Path(__file__).parent / "aviary_golden.png"


def test_label_maps_are_the_golden_ones() -> None:
    maps = [render(SCENES[:24], size).identities for size in (64, 96)]

    assert [hashlib.sha256(label_map.tobytes()).hexdigest()[:16] for label_map in maps] == [
        "05b1e8507deff57e",
        "be01fa82058e8042",
    ]


def test_pixels_are_the_golden_ones_within_one_step() -> None:
    golden = np.asarray(Image.open(GOLDEN), np.int64)

    drawn = np.moveaxis(render(SCENES[:6], 64).images, 1, -1).astype(np.int64)

    assert np.abs(np.concatenate(list(drawn), 1) - golden).max() <= 1


@pytest.mark.parametrize("batch_size", [1, 5, 33])
def test_an_image_is_bit_for_bit_the_same_in_any_batch(batch_size: int) -> None:
    together = render(SCENES, 64)

    for start in range(0, len(SCENES), batch_size):
        rows = slice(start, start + batch_size)
        batch = render(SCENES[rows], 64)
        assert (batch.images == together.images[rows]).all()
        assert (batch.identities == together.identities[rows]).all()
        assert (batch.key_points == together.key_points[rows]).all()


def test_an_image_is_bit_for_bit_the_same_in_any_order() -> None:
    order = np.random.default_rng(0).permutation(len(SCENES))

    assert (render(SCENES[order], 64).images == render(SCENES, 64).images[order]).all()


@pytest.mark.parametrize("module", [canvas, birds, backdrop, rendering])
def test_no_matrix_product_touches_a_pixel(module: object) -> None:
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]

    products = {"dot", "matmul", "einsum", "tensordot", "inner", "linalg"}
    named = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_numpy(node.value)
    }
    assert not products & named
    assert not any(isinstance(node, ast.MatMult) for node in ast.walk(tree))


def test_no_shape_touches_the_border_of_its_texture() -> None:
    textures = atlas().textures
    border = np.concatenate(
        [textures[:, [0, -1]].reshape(len(textures), -1), textures[:, :, [0, -1]].reshape(len(textures), -1)],
        1,
    )

    assert border.min() > 0.2  # 13 texels beyond the edge, far more than ink and smoothing reach
    assert (textures.reshape(len(textures), -1).min(1) < -2 / RESOLUTION).all()


def test_a_window_larger_than_the_shape_shows_no_smear() -> None:
    lone, beside = Canvas.blank(1, 64), Canvas.blank(2, 64)
    for sheet in (lone, beside):
        sheet.pixels[:] = 0
        rows = np.arange(len(sheet.pixels))
        sheet.stamp(_sprites(rows, "tail.long", half=np.where(rows == 0, 0.1, 0.45)), 1)

    assert (lone.pixels[0] == beside.pixels[0]).all()
    assert (lone.identities[0] == beside.identities[0]).all()


def test_outlines_are_in_ink_whatever_the_color() -> None:
    sheet = Canvas.blank(2, 224)
    sheet.pixels[:] = 1

    sheet.stamp(_sprites(np.arange(2), "wing.round", half=np.full(2, 0.35)), 1)

    red, blue = sheet.pixels
    ink = np.abs(red - INK[:, None, None]).max(0) < 1e-3
    assert ink.sum() > 60
    assert np.array_equal(red[:, ink], blue[:, ink])


@pytest.mark.parametrize("size", [48, 64, 96])
def test_every_part_of_every_bird_is_seen(size: int) -> None:
    scenes = compose(SPECIES, np.arange(400), Casting(seed=1))

    seen = render(scenes, size).masks.sum((2, 3))

    assert seen.min() >= (1 if size == 48 else 3), dict(zip(PARTS, seen.min(0), strict=True))


def test_masks_boxes_and_birds_agree_with_the_label_map() -> None:
    drawn = render(SCENES[:8], 64)

    for n in range(8):
        ids = drawn.identities[n]
        bird = np.isin(ids % 16, range(1, 9))
        ys, xs = np.nonzero(bird)
        assert drawn.boxes[n].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        for i in range(3):
            assert (drawn.birds[n, i] == (bird & (ids // 16 == i))).all()
        for p in range(len(PARTS)):
            assert (drawn.masks[n, p] == (ids % 16 == p + 1)).all()
    assert (drawn.birds.any((2, 3)) == SCENES.shown[:8]).all()


def test_a_scene_without_birds_has_empty_masks_and_box() -> None:
    drawn = render(interventions.without_bird(SCENES[:2], 0)[:1], 64)
    nobody = render(interventions.without_bird(interventions.without_bird(SCENES[:1], 0), 1), 64)

    assert not drawn.birds[:, 0].any()
    assert not nobody.masks.any()
    assert nobody.boxes.tolist() == [[0, 0, 0, 0]]


def test_visible_key_points_lie_on_their_parts() -> None:
    drawn = render(compose(SPECIES, np.arange(60), Casting(seed=2)), 96)
    points = drawn.key_points[:, 0]

    assert points[..., 2].mean() > 0.95
    for n, p in zip(*np.nonzero(points[..., 2]), strict=True):
        x, y = np.floor(points[n, p, :2]).astype(int)
        assert drawn.masks[n, p, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].any()


def test_missing_parts_have_no_key_point() -> None:
    scenes = interventions.remove(SCENES[:10], "tail")

    assert not render(scenes, 64).key_points[:, 0, PARTS.index("tail"), 2].any()


@pytest.mark.parametrize("size", [31, 225])
def test_other_sizes_are_refused_in_words(size: int) -> None:
    with pytest.raises(InputError, match=r"Expected images of 32 … 224 pixels a side; got"):
        render(SCENES[:1], size)


def _sprites(rows: np.ndarray, shape: str, half: np.ndarray) -> Sprites:
    middle, level = np.full(len(rows), 0.5, np.float32), np.zeros(len(rows), np.float32)
    return Sprites(
        rows=rows, shapes=np.full(len(rows), atlas().rows[shape]), x=middle, y=middle,
        half_width=half.astype(np.float32), half_height=half.astype(np.float32), angle=level,
        colors=FEATHERS[[0, 3]][: len(rows)], mirrored=level > 0,
    )  # fmt: skip


def _is_numpy(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "np"
