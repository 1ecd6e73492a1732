"""Your own pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

import explainkit as ek


@pytest.fixture
def pictures(tmp_path):
    """Two classes of ten pictures, red and blue, some of them in odd formats."""
    modes = ["RGB", "L", "P", "RGBA", "CMYK", "RGB", "RGB", "RGB", "RGB", "RGB"]
    for name, color in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
        (tmp_path / name).mkdir()
        for index, mode in enumerate(modes):
            picture = Image.new("RGB", (20 + index, 30), color).convert(mode)
            picture.save(tmp_path / name / f"{index}.{'tif' if mode == 'CMYK' else 'png'}")
    return tmp_path


def test_classes_are_folders_and_every_picture_is_in_one_split(pictures):
    dataset = ek.dataset("folder", path=pictures, size=16)

    files = [file for split in dataset.splits.values() for file in split.files]

    assert dataset.classes == ("blue", "red")
    assert len(files) == len(set(files)) == 20
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 14,
        "validation": 2,
        "test": 4,
    }
    assert all(set(split.labels.tolist()) == {0, 1} for split in dataset.splits.values())


def test_a_folder_for_each_split_is_kept_to(pictures):
    for split in ("train", "val", "test"):
        (pictures / split).mkdir()
    for name in ("red", "blue"):
        for split, files in (("train", "0123"), ("val", "56"), ("test", "789")):
            (pictures / split / name).mkdir()
            for file in files:
                path = next((pictures / name).glob(f"{file}.*"))
                path.rename(pictures / split / name / path.name)

    dataset = ek.dataset("folder", path=pictures, size=16)

    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 8,
        "validation": 4,
        "test": 6,
    }
    assert all("val" in file.parts for file in dataset.validation.files)


def test_the_same_id_gives_the_same_image_in_any_batch(pictures):
    dataset = ek.dataset("folder", path=pictures, size=(16, 24))

    together = dataset.train.batch(torch.arange(6))
    alone = ek.dataset("folder", path=pictures, size=(16, 24)).train.batch(torch.tensor([4]))

    assert together.images.shape == (6, 3, 16, 24)
    assert torch.equal(together.images[4], alone.images[0])


def test_what_does_not_fit_in_memory_is_read_again(pictures, monkeypatch):
    cached = ek.dataset("folder", path=pictures, size=16).train.batch(torch.arange(14))
    monkeypatch.setattr("explainkit.data.cache.MEMORY", 100)

    uncached = ek.dataset("folder", path=pictures, size=16).train.batch(torch.arange(14))

    assert torch.equal(cached.images, uncached.images)


def test_orientation_is_obeyed(tmp_path):
    values = np.zeros((20, 10, 3), np.uint8)
    values[:10] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(3):
            picture = Image.fromarray(values)
            exif = picture.getexif()
            exif[0x0112] = 3  # upside down
            picture.save(tmp_path / name / f"{index}.jpg", exif=exif, quality=95)

    image = ek.dataset("folder", path=tmp_path, size=(20, 10)).train.batch(torch.tensor([0])).images[0]

    assert image[:, :8].mean() < 0.1
    assert image[:, 12:].mean() > 0.9


def test_a_damaged_file_is_named_or_left_out(pictures):
    bad = pictures / "red" / "5.png"
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(bad)
    bad.write_bytes(bad.read_bytes()[:2000])
    dataset = ek.dataset("folder", path=pictures, size=16)

    with pytest.raises(ek.InputError, match=r"5\.png.*damaged"):
        [*dataset.batches("train"), *dataset.batches("validation"), *dataset.batches("test")]
    with pytest.warns(UserWarning, match=r"1 images were left out.*5\.png"):
        rest = ek.dataset("folder", path=pictures, size=16, skip_damaged=True)

    assert sum(len(split) for split in rest.splits.values()) == 19
    assert bad not in [file for split in rest.splits.values() for file in split.files]


def test_a_decompression_bomb_is_refused(pictures, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    dataset = ek.dataset("folder", path=pictures, size=16)

    with pytest.raises(ek.InputError, match="ordinary size"):
        dataset.train.batch(torch.tensor([0]))


@pytest.mark.parametrize("layout", ["missing", "empty", "one class", "too few"])
def test_a_folder_that_cannot_be_used_is_refused_in_words(tmp_path, layout):
    root = tmp_path / "pictures"
    if layout != "missing":
        root.mkdir()
    for name in {"one class": ["a"], "too few": ["a", "b"]}.get(layout, []):
        (root / name).mkdir()
        Image.new("RGB", (8, 8)).save(root / name / "0.png")

    with pytest.raises(ek.InputError, match="Expected"):
        ek.dataset("folder", path=root)
