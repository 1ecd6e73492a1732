from collections.abc import Callable

import pytest
import torch
from attrs import evolve
from torchvision.transforms import v2

from explainkit.data.datasets.aviary.dataset import aviary
from explainkit.data.transforms.augmentation import FlipShiftBrightness, PerSample
from explainkit.data.transforms.warping import RotateSkewShear
from explainkit.data.types import Augmentation, Batch
from explainkit.errors import InputError

BATCH: Batch = aviary(train=30, validation=1, test=1).train.batch(torch.arange(30))
FLAT = evolve(BATCH, images=torch.full((30, 3, 64, 64), 0.5))
CROP = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(64, padding=4), v2.ColorJitter(0.2, 0.2)])
EACH = pytest.mark.parametrize(
    "augment",
    [FlipShiftBrightness(), RotateSkewShear(), PerSample(CROP)],
    ids=["shifted", "warped", "per sample"],
)


def _rows(batch: Batch, rows: torch.Tensor) -> Batch:
    tensors = {
        name: getattr(batch, name)[rows]
        for name in ("images", "labels", "ids", "masks", "key_points", "boxes")
    }
    return evolve(batch, **tensors, captions=None)


@EACH
def test_what_happens_to_an_image_depends_on_seed_epoch_and_id_alone(augment: Augmentation) -> None:
    order = torch.tensor([7, 2, 29])

    together, selected = augment(BATCH, 3, 5), augment(_rows(BATCH, order), 3, 5)

    for name in ("images", "masks", "key_points", "boxes"):
        assert torch.equal(getattr(selected, name), getattr(together, name)[order]), name


@EACH
@pytest.mark.parametrize(("seed", "epoch"), [(4, 5), (3, 6)])
def test_another_seed_or_epoch_changes_images_otherwise(augment: Augmentation, seed: int, epoch: int) -> None:
    assert not torch.equal(augment(BATCH, 3, 5).images, augment(BATCH, seed, epoch).images)


@EACH
def test_the_callers_random_state_and_batch_are_left_alone(augment: Augmentation) -> None:
    state, images = torch.get_rng_state(), BATCH.images.clone()

    augment(BATCH, 0, 0)

    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(BATCH.images, images)


@EACH
def test_masks_key_points_and_boxes_go_along(augment: Augmentation) -> None:
    after = augment(BATCH, 1, 2)

    assert after.masks is not None and after.key_points is not None and after.boxes is not None
    assert after.masks.dtype == torch.bool
    assert not torch.equal(after.masks, BATCH.masks)
    for n in range(len(after)):
        left, top, right, bottom = after.boxes[n].tolist()
        ys, xs = after.masks[n].any(0).nonzero().T + 0.5  # the middles of pixels
        assert left <= xs.min() and xs.max() < right and top <= ys.min() and ys.max() < bottom
        for x, y, visible in after.key_points[n].tolist():
            assert not visible or (0 <= x < 64 and 0 <= y < 64)
    for p in range(7):
        for n in after.key_points[:, p, 2].nonzero()[:, 0].tolist():
            x, y = after.key_points[n, p, :2].floor().long().tolist()
            near = after.masks[n, p, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            assert near.any() or min(x, y) < 1 or max(x, y) > 62


def test_moved_images_and_masks_are_those_of_a_literal_shift() -> None:
    after = FlipShiftBrightness(contrast=0, brightness=0)(BATCH, 0, 0)

    shifts = set()
    for n in range(30):
        matches = [
            (mirrored, right, down)
            for mirrored in (False, True)
            for right in range(-4, 5)
            for down in range(-4, 5)
            if torch.equal(_literal_shift(BATCH.images[n], mirrored, right, down), after.images[n])
        ]
        assert len(matches) == 1
        shifts.add(matches[0])
        inside = slice(4, 60)
        moved = _literal_shift(BATCH.masks[n], *matches[0])  # type: ignore[index]
        assert torch.equal(moved[:, inside, inside], after.masks[n, :, inside, inside])  # type: ignore[index]
    assert len(shifts) > 20


def _literal_shift(image: torch.Tensor, mirrored: bool, right: int, down: int) -> torch.Tensor:
    rows = (torch.arange(64) - down).clamp(0, 63)
    columns = (torch.arange(64) - right).clamp(0, 63)
    return (image.flip(2) if mirrored else image)[:, rows][:, :, columns]


def test_light_changes_each_channel_within_its_bounds() -> None:
    after = FlipShiftBrightness(contrast=0.2, brightness=0.1)(FLAT, 0, 0).images

    assert (after - 0.5).abs().max() <= 0.5 * 0.2 + 0.1 + 1e-6
    assert after[:, :, 0, 0].std(0).min() > 0.01
    assert torch.equal(after, after[:, :, :1, :1].expand_as(after))


def test_images_stay_within_range() -> None:
    after = FlipShiftBrightness(contrast=0.9, brightness=0.5)(BATCH, 0, 0).images

    assert after.min() >= 0 and after.max() <= 1


@EACH
def test_batches_without_masks_are_welcome(augment: Augmentation) -> None:
    bare = evolve(BATCH, masks=None, key_points=None, boxes=None)

    after = augment(bare, 1, 2)

    assert after.masks is None and after.key_points is None and after.boxes is None
    assert torch.equal(after.labels, BATCH.labels)


@pytest.mark.parametrize("transform", [v2.Resize(32), v2.CenterCrop(48)])
def test_a_transform_that_changes_the_size_is_refused(transform: Callable[..., object]) -> None:
    with pytest.raises(InputError, match=r"Expected images of \(30, 3, 64, 64\).*keeps the size"):
        PerSample(transform)(BATCH, 0, 0)
