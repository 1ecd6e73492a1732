"""PASCAL-Part: its objects, part masks, key points and boxes, and training on it."""

import json

import attrs
import numpy as np
import pytest
import torch
from pascal_part_cases import CLASSES, SHAPE, TAIL, animal, pictures, rectangle, thing
from PIL import Image
from split_cases import whole_batch

import explainkit as ek
from explainkit.cli import main
from explainkit.data.datasets.pascal_part.annotations import part_noun
from explainkit.data.datasets.pascal_part.dataset import centroids
from explainkit.errors import FormatError
from explainkit.metrics import evaluate_explanations

# what is in it


def test_an_image_is_an_object_and_val_is_the_test(shared_devkit):
    dataset = shared_devkit.dataset()

    assert dataset.classes == CLASSES
    assert sorted(pictures(dataset.train) + pictures(dataset.validation)) == [
        f"2008_{n:06}" for n in range(9)
    ]
    assert pictures(dataset.test) == [f"2008_{n:06}" for n in range(9, 14)]
    for split in dataset.splits.values():
        assert [CLASSES[label] for label in split.labels] == [
            shared_devkit.objects[name][0][0] for name in pictures(split)
        ]
    assert set(dataset.validation.labels.tolist()) == {0, 1}
    assert dataset.parts == ("eye", "leg", "tail")
    assert shared_devkit.dataset(merge=False).parts == ("leye", "lfleg", "lleg", "reye", "tail")


def test_labels_are_known_and_no_mask_is_stored_before_an_image_is_read(shared_devkit, monkeypatch):
    monkeypatch.setattr("explainkit.data.datasets.pascal_part.dataset.read_picture", None)

    dataset = shared_devkit.dataset()

    assert dataset.test.labels.tolist() == [1, 0, 1, 0, 1]
    for part_object in dataset.test.objects:
        assert not any(isinstance(value, np.ndarray) for value in attrs.asdict(part_object).values())


def test_pictures_are_not_shared_by_training_and_validation(devkit):
    for number in range(6):
        pair = [animal(CLASSES[number % 2], 2, 2), animal(CLASSES[1 - number % 2], 75, 40)]
        devkit.add("train", f"2009_{number:06}", pair)

    for seed in range(5):
        dataset = devkit.dataset(validation=0.3, seed=seed)
        assert len(dataset.train) + len(dataset.validation) == 9 + 12
        assert not set(pictures(dataset.train)) & set(pictures(dataset.validation))
    assert pictures(devkit.dataset(validation=0.3).validation) == pictures(
        devkit.dataset(validation=0.3).validation
    )
    assert (
        len({tuple(pictures(devkit.dataset(validation=0.3, seed=seed).validation)) for seed in range(5)}) > 1
    )


def test_objects_without_parts_or_mask_and_other_classes_are_handled(devkit):
    nothing = np.empty((0, 0))
    devkit.add(
        "val",
        "2010_000001",
        [thing("cat", rectangle(5, 5, 80, 80)), thing("person", rectangle(0, 0, 90, 90))],
    )
    devkit.add("val", "2010_000002", [thing("cat", rectangle(0, 0, 0, 0)), thing("person", nothing)])
    devkit.add("val", "2010_000003", [])
    tail = rectangle(5, 5, 20, 20)
    devkit.add(
        "val",
        "2010_000004",
        [thing("cat", rectangle(5, 5, 80, 80), [("tail", nothing), ("leye", tail), ("reye", nothing)])],
    )
    of_other_types = thing("bird", rectangle(5, 5, 80, 80).astype(bool), [("tail", tail / 1.0)])
    devkit.add("val", "2010_000005", [of_other_types], compressed=False)
    dataset = devkit.dataset()

    batch = whole_batch(dataset.test)

    assert pictures(dataset.test)[5:] == ["2010_000001", "2010_000004", "2010_000005"]
    assert batch.labels[5:].tolist() == [1, 1, 0]
    assert batch.masks[5:].flatten(2).any(2).tolist() == [
        [False] * 3, [True, False, False], [False, False, True],
    ]  # fmt: skip


def test_small_objects_and_on_demand_those_that_are_cut_off_are_left_out(devkit):
    devkit.add(
        "val",
        "2010_000001",
        [thing("cat", rectangle(30, 30, 79, 80)), thing("cat", rectangle(30, 30, 80, 80))],
    )
    for number, box in enumerate([(0, 9, 90, 90), (9, 0, 90, 90), (9, 9, 140, 90), (9, 9, 90, 100)]):
        devkit.add("val", f"2010_00001{number}", [thing("cat", rectangle(*box))])

    def usable_boxes(**settings):
        return [part_object.box for part_object in devkit.dataset(**settings).test.objects[5:]]

    assert usable_boxes()[0] == (30, 30, 80, 80) and len(usable_boxes()) == 5
    assert len(usable_boxes(minimum_area=0)) == 6
    assert usable_boxes(whole=True) == [(30, 30, 80, 80)]


NOUNS = {
    "eye": "leye reye", "ear": "lear rear", "horn": "lhorn rhorn", "wing": "lwing rwing",
    "foot": "lfoot rfoot",
    "leg": "lleg rleg lfleg rbleg lfuleg lflleg rbuleg rblleg llleg ruleg", "paw": "lfpa rfpa lbpa rbpa",
    "hoof": "lfho rfho lbho rbho", "eyebrow": "lebrow rebrow", "arm": "llarm luarm rlarm ruarm",
    "hand": "lhand rhand", "wheel": "fwheel bwheel wheel_1 wheel_10", "mirror": "leftmirror rightmirror",
    "license plate": "fliplate bliplate", "roof": "roofside hroofside croofside_9",
    "side": "frontside leftside rightside backside hfrontside hbackside cleftside_2 crightside_1",
    "engine": "engine_1", "headlight": "headlight_3", "door": "door_1", "window": "window_20",
    "coach": "coach_1",
    **{name: name for name in (
        "beak", "body", "cap", "chainwheel", "hair", "handlebar", "head", "mouth", "muzzle", "neck", "nose",
        "plant", "pot", "saddle", "screen", "stern", "tail", "torso",
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", NOUNS)
def test_a_part_is_called_by_its_noun(name):
    assert {part_noun(part) for part in NOUNS[name].split()} == {name}


# where things are


def literal_crop(box, margin):
    x0, y0, x1, y1 = box
    across, down = round((x1 - x0) * margin), round((y1 - y0) * margin)
    return max(x0 - across, 0), max(y0 - down, 0), min(x1 + across, SHAPE[1]), min(y1 + down, SHAPE[0])


@pytest.mark.parametrize("margin", [0, 0.25, 3])
def test_images_masks_and_boxes_are_those_of_a_literal_crop(shared_devkit, margin):
    size = (40, 72)
    dataset = shared_devkit.dataset(size=size, margin=margin)
    batch = whole_batch(dataset.train)

    for index, name in enumerate(pictures(dataset.train)):
        ((_, _, mask, parts),) = shared_devkit.objects[name]
        ys, xs = np.nonzero(mask)
        box = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        crop = literal_crop(box, margin)
        picture = Image.open(shared_devkit.root / "JPEGImages" / f"{name}.jpg").crop(crop).resize((72, 40), 2)
        assert np.allclose(batch.images[index].permute(1, 2, 0), np.asarray(picture) / 255, atol=1e-6)
        scale = np.array([72 / (crop[2] - crop[0]), 40 / (crop[3] - crop[1])] * 2)
        corners = (np.array(box) - np.array(crop[:2] * 2)) * scale
        assert batch.boxes[index].tolist() == pytest.approx(corners, abs=1e-4)
        for p, part in enumerate(dataset.parts):
            covered = np.zeros(SHAPE)
            for struct in parts.flat:
                if part_noun(struct["part_name"]) == part:
                    covered = np.maximum(covered, struct["mask"])
            for y in range(40):  # the part at the middle of the pixel
                for x in range(72):
                    row, column = int(crop[1] + (y + 0.5) / scale[1]), int(crop[0] + (x + 0.5) / scale[0])
                    near = covered[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
                    if near.min() == near.max():
                        assert batch.masks[index, p, y, x] == bool(near.min())
            assert batch.masks[index, p].sum() == pytest.approx(covered.sum() * scale[0] * scale[1], rel=0.2)


def test_key_points_are_the_middles_of_masks(shared_devkit):
    masks = whole_batch(shared_devkit.dataset().test).masks
    masks[0, 1] = False

    points = centroids(masks)

    for n, p in np.ndindex(*masks.shape[:2]):
        pixels = [(x + 0.5, y + 0.5) for y, x in masks[n, p].nonzero().tolist()]
        expected = [*np.mean(pixels, 0), 1] if pixels else [0, 0, 0]
        assert points[n, p].tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(whole_batch(shared_devkit.dataset().test).key_points[1:], points[1:])


def test_a_colored_part_lies_under_its_mask_and_key_point(shared_devkit):
    dataset = shared_devkit.dataset(size=64)
    tail = dataset.parts.index("tail")
    batch = whole_batch(dataset.test)

    for n, label in enumerate(batch.labels.tolist()):
        color = torch.tensor(TAIL[CLASSES[label]][1]) / 255
        is_colored = (batch.images[n] - color[:, None, None]).abs().amax(0) < 0.15
        mask = batch.masks[n, tail]
        overlap = (is_colored & mask).sum() / (is_colored | mask).sum()
        x, y, seen = batch.key_points[n, tail].tolist()
        assert overlap > 0.8
        assert seen and is_colored[int(y), int(x)]


def test_more_than_eight_parts_are_kept_apart(devkit):
    parts = [
        (f"part{letter}", rectangle(10 + 6 * n, 20, 16 + 6 * n, 60))
        for n, letter in enumerate("abcdefghijklm")
    ]
    devkit.add("val", "2010_000001", [thing("cat", rectangle(5, 5, 100, 80), parts)])
    dataset = devkit.dataset()

    batch = whole_batch(dataset.test)

    assert len(dataset.parts) == 16
    middles = [
        batch.key_points[5, dataset.parts.index(f"part{letter}"), 0].item() for letter in "abcdefghijklm"
    ]
    assert np.all(np.diff(middles) > 1)
    assert (batch.masks[5].sum(0) <= 1).all()


def test_the_same_id_gives_the_same_values_in_any_batch(shared_devkit, monkeypatch):
    order = torch.tensor([3, 0, 3, 1])
    all_at_once = whole_batch(shared_devkit.dataset().train)

    cached = shared_devkit.dataset().train.batch(order)
    monkeypatch.setattr("explainkit.data.cache.MEMORY", 100)
    uncached = shared_devkit.dataset().train.batch(order)

    for name in ("images", "labels", "masks", "key_points", "boxes"):
        for batch in (cached, uncached):
            assert torch.equal(getattr(batch, name), getattr(all_at_once, name)[order]), name


def test_classes_without_parts_have_no_masks(devkit):
    for number in range(5):
        split = "train" if number < 3 else "val"
        for kind in ("boat", "sofa"):
            devkit.add(split, f"2010_{kind}{number}", [thing(kind, rectangle(5, 5, 100, 80))])

    batch = whole_batch(devkit.dataset(classes=["boat", "sofa"]).test)

    assert batch.masks is None and batch.key_points is None
    assert len(batch) == 4


# finding the files


def test_the_path_may_be_any_folder_above_and_annotations_lie_there_or_elsewhere(devkit):
    expected = pictures(devkit.dataset().train)

    for path in (devkit.root, devkit.root.parent, devkit.above):
        assert pictures(devkit.dataset(path=path).train) == expected
    (devkit.above / "away").mkdir()
    devkit.masks.rename(devkit.above / "away" / "Annotations_Part")
    for annotations in (devkit.above / "away", devkit.above / "away" / "Annotations_Part"):
        assert pictures(devkit.dataset(annotations=annotations).train) == expected
    with pytest.raises(ek.InputError, match="the folder Annotations_Part"):
        devkit.dataset()
    with pytest.raises(ek.InputError, match="VOC's JPEGImages"):
        devkit.dataset(path=devkit.above / "away")


def test_the_lists_of_classes_spare_annotations_that_need_not_be_opened(devkit):
    devkit.add("val", "2010_000001", [animal("cat", 2, 2)])
    devkit.add("val", "2010_000002", [])
    (devkit.masks / "2010_000002.mat").write_bytes(b"damaged")
    for split in ("train", "val"):
        names = (devkit.lists / f"{split}.txt").read_text().split()
        for kind in CLASSES:
            has_kind = {name: any(row[0] == kind for row in devkit.objects[name]) for name in names}
            rows = [f"{name} {' 1' if has_kind[name] else '-1'}\n" for name in names]
            (devkit.lists / f"{kind}_{split}.txt").write_text(
                "".join(rows).replace("2010_000001  1", "2010_000001  0")
            )

    assert pictures(devkit.dataset().test)[5:] == ["2010_000001"]  # difficult ones are there too
    (devkit.lists / "cat_val.txt").unlink()
    with pytest.raises(FormatError, match="2010_000002"):
        devkit.dataset()


# what it is for


def test_explanations_of_it_are_measured_by_its_masks(shared_devkit):
    dataset = shared_devkit.dataset(size=32)
    model = ek.explainer("cam", preset="tiny", epochs=1, batch_size=7).fit(
        dataset, device="cpu", progress=False
    )

    table = evaluate_explanations(model, dataset, images=4, metrics=["pointing", "object-mass"])

    assert len(table.rows[0].scores["pointing"].values) == 4
    assert "pascal-part has no mask of the whole object" in table.rows[0].scores["object-mass"].reason


def test_the_command_trains_on_it(shared_devkit, tmp_path, capsys):
    status = main([
        "train", "cam", "--dataset", "pascal-part", "--dataset-option", f"path={shared_devkit.root}",
        "--dataset-option", "size=32", "--dataset-option", f"classes={json.dumps(CLASSES)}",
        "--preset", "tiny", "--option", "batch_size=7",
        "--out", str(tmp_path / "model"),
    ])  # fmt: skip

    assert status == 0
    assert "saved to" in capsys.readouterr().out
    assert ek.load(tmp_path / "model").classes == CLASSES
