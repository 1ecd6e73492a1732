"""Images that are rotated, skewed and sheared: every position is computed again with a matrix of its own."""

import math

import numpy as np
import pytest
import torch
from attrs import evolve

from explainkit.data.datasets.aviary.dataset import aviary
from explainkit.data.transforms.warping import RotateSkewShear
from explainkit.data.types import Batch

BATCH = aviary(train=40, validation=1, test=1).train.batch(torch.arange(40))
STILL = {"rotation": 0, "skew": 0, "shear": 0, "mirror": 0}


def marked(positions, size):
    """Dark images with a light square at each of positions (N, 2), with masks, key points and boxes."""
    images = torch.zeros(len(positions), 3, *size)
    masks = torch.zeros(len(positions), 1, *size, dtype=torch.bool)
    for n, (x, y) in enumerate(positions):
        images[n, :, y - 1 : y + 2, x - 1 : x + 2] = 1
        masks[n, 0, y - 1 : y + 2, x - 1 : x + 2] = True
    points = torch.tensor([[[x + 0.5, y + 0.5, 1]] for x, y in positions])
    boxes = torch.tensor([[x - 1, y - 1, x + 2, y + 2] for x, y in positions]).float()
    return Batch(
        images=images,
        labels=torch.zeros(len(positions)).long(),
        ids=torch.arange(len(positions)),
        masks=masks,
        key_points=points,
        boxes=boxes,
    )


@pytest.mark.parametrize("only", ["rotation", "skew", "shear", "mirror", None])
def test_a_mark_is_found_where_its_key_point_goes(only):
    size = (60, 90)
    chance = np.random.default_rng(0)
    positions = list(
        zip(chance.integers(25, 65, 60).tolist(), chance.integers(20, 40, 60).tolist(), strict=True)
    )
    batch = marked(positions, size)
    amount = {} if only is None else {**STILL, only: {"skew": 0.2, "mirror": 0.5}.get(only, 12)}

    after = RotateSkewShear(**amount)(batch, 0, 1)

    assert (after.key_points[:, 0, :2] - batch.key_points[:, 0, :2]).abs().amax(1).gt(0.5).sum() > 10
    for n in range(60):
        x, y, seen = after.key_points[n, 0].tolist()
        assert seen == 1
        light = after.images[n, 0]
        across = (light.sum(0) @ (torch.arange(90) + 0.5) / light.sum()).item()
        down = (light.sum(1) @ (torch.arange(60) + 0.5) / light.sum()).item()
        assert abs(across - x) < 0.5 and abs(down - y) < 0.5
        left, top, right, bottom = after.boxes[n].tolist()
        rows, columns = after.masks[n, 0].nonzero().T
        assert left - 0.5 <= columns.min() and columns.max() + 1 <= right + 0.5
        assert top - 0.5 <= rows.min() and rows.max() + 1 <= bottom + 0.5
        assert abs((left + right) / 2 - x) < 1 and abs((top + bottom) / 2 - y) < 1


def test_a_rotation_is_that_of_a_matrix_and_enlarged_until_the_corners_are_full():
    after = RotateSkewShear(**{**STILL, "rotation": 15})(BATCH, 0, 0)

    angles = set()
    for n in range(40):
        start, end = ((b.key_points[n, :, :2] - 32).double() for b in (BATCH, after))
        turn = torch.linalg.lstsq(start, end).solution
        zoom = torch.linalg.det(turn).sqrt().item()
        angle = math.atan2(turn[0, 1].item(), turn[0, 0].item())
        assert torch.allclose(start @ turn, end, atol=1e-3)
        assert zoom == pytest.approx(math.cos(angle) + abs(math.sin(angle)), abs=1e-4)
        assert abs(angle) <= math.radians(15) + 1e-6
        angles.add(round(math.degrees(angle)))
    assert min(angles) < -5 and max(angles) > 5


@pytest.mark.parametrize("size", [(64, 64), (40, 90), (90, 40)])
def test_nothing_from_beyond_the_border_shows(size):
    white = evolve(
        BATCH, images=torch.ones(40, 3, *size), masks=torch.ones(40, 1, *size, dtype=torch.bool),
        key_points=None, boxes=None,
    )  # fmt: skip

    for epoch in range(10):
        after = RotateSkewShear()(white, 0, epoch)

        assert after.masks.all()  # beyond the border a mask is empty
        assert after.images.min() > 1 - 1e-6


def test_all_three_ways_and_the_mirror_are_taken_about_as_often():
    names = ("rotation", "skew", "shear")
    many = evolve(
        BATCH, images=BATCH.images[:1].expand(600, -1, -1, -1)[:, :, ::8, ::8], labels=torch.zeros(600),
        ids=torch.arange(600), masks=None, boxes=None,
        key_points=torch.tensor([[2.0, 3, 1]]).expand(600, 1, 3),
    )  # fmt: skip
    usual = {"rotation": 15, "skew": 0.2, "shear": 10}

    moved = {
        name: (RotateSkewShear(**{**STILL, name: usual[name]})(many, 0, 0).key_points != many.key_points).any(
            2
        )[:, 0]
        for name in names
    }
    mirrored = RotateSkewShear(**{**STILL, "mirror": 0.5})(many, 0, 0).key_points[:, 0, 0] > 4

    assert torch.stack(list(moved.values())).sum(0).max() == 1
    for name in names:
        assert 150 < moved[name].sum() < 250, name
    assert 250 < mirrored.sum() < 350
    unmoved = RotateSkewShear(**STILL)(many, 0, 0)
    torch.testing.assert_close(unmoved.images, many.images, atol=1e-5, rtol=0)
