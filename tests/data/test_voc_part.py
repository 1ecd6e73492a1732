"""PASCAL-Part on VOC 2010, in the layouts of their archives; every file is written here."""

import json

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

import explainkit as ek
from explainkit.cli import main
from explainkit.data.part_annotations import noun
from explainkit.data.voc_part import centroids
from explainkit.errors import FormatError
from explainkit.metrics import measure

SHAPE = (100, 140)
"""Height and width of a picture."""
CLASSES = ("bird", "cat")
TAIL = {"bird": ("tail", (220, 40, 40)), "cat": ("tail", (40, 40, 220))}


def rectangle(x0, y0, x1, y1):
    mask = np.zeros(SHAPE, np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


def structs(names, rows):
    """A struct array of 1 x n, or MATLAB's [] where n is 0."""
    if not rows:
        return np.empty((0, 0))
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for index, row in enumerate(rows):
        array[0, index] = row
    return array


def thing(name, mask, parts=()):
    """One object of an annotation."""
    return name, 3.0, mask, structs(("part_name", "mask"), list(parts))


def animal(name, x, y):
    """An animal of 60 x 50 pixels at (x, y) with two eyes, legs and a tail."""
    whole = rectangle(x, y, x + 60, y + 50)
    parts = [
        ("leye", rectangle(x + 4, y + 6, x + 10, y + 12)),
        ("reye", rectangle(x + 16, y + 6, x + 22, y + 12)),
        ("lfleg" if name == "cat" else "lleg", rectangle(x + 10, y + 36, x + 16, y + 50)),
        ("tail", rectangle(x + 40, y + 20, x + 60, y + 40)),
    ]
    return thing(name, whole, parts)


class Devkit:
    """The folder VOC2010 and the annotations, of small pictures."""

    def __init__(self, above):
        self.above, self.root = above, above / "VOCdevkit" / "VOC2010"
        self.masks = above / "Annotations_Part"
        self.lists = self.root / "ImageSets" / "Main"
        for folder in (self.lists, self.root / "JPEGImages", self.masks):
            folder.mkdir(parents=True)
        self.objects = {}
        chance = np.random.default_rng(0)
        for number in range(14):
            name = CLASSES[number % 2]
            x, y = int(chance.integers(1, 78)), int(chance.integers(1, 48))
            self.add("train" if number < 9 else "val", f"2008_{number:06}", [animal(name, x, y)])

    def add(self, split, name, objects, compressed=True):
        """A picture, its annotation, and its line in a list."""
        self.objects[name] = objects
        self.annotate(name, objects, compressed)
        pixels = np.full((*SHAPE, 3), 128, np.uint8)
        for kind, _, mask, parts in objects:
            pixels[mask > 0] = 90
            for part in parts.flat:
                if part["part_name"] == "tail":
                    pixels[part["mask"] > 0] = TAIL[kind][1]
        Image.fromarray(pixels).save(self.root / "JPEGImages" / f"{name}.jpg", quality=95)
        with (self.lists / f"{split}.txt").open("a") as file:
            file.write(f"{name}\n")

    def annotate(self, name, objects, compressed=True):
        anno = structs(
            ("imname", "objects"), [(name, structs(("class", "class_ind", "mask", "parts"), objects))]
        )
        savemat(self.masks / f"{name}.mat", {"anno": anno}, do_compression=compressed)

    def data(self, **settings):
        return ek.dataset("voc-part", **{"path": self.root, "classes": CLASSES, "size": 48, **settings})


@pytest.fixture
def devkit(tmp_path):
    return Devkit(tmp_path)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    return Devkit(tmp_path_factory.mktemp("voc"))


def everything(split):
    return split.batch(torch.arange(len(split)))


def pictures(split):
    return [each.picture.stem for each in split.objects]


# what is in it


def test_an_image_is_an_object_and_val_is_the_test(unchanged):
    data = unchanged.data()

    assert data.classes == CLASSES
    assert sorted(pictures(data.train) + pictures(data.validation)) == [f"2008_{n:06}" for n in range(9)]
    assert pictures(data.test) == [f"2008_{n:06}" for n in range(9, 14)]
    for split in data.splits.values():
        assert [CLASSES[label] for label in split.labels] == [
            unchanged.objects[name][0][0] for name in pictures(split)
        ]
    assert set(data.validation.labels.tolist()) == {0, 1}
    assert data.parts == ("eye", "leg", "tail")
    assert unchanged.data(merge=False).parts == ("leye", "lfleg", "lleg", "reye", "tail")


def test_labels_are_known_and_no_mask_is_kept_before_an_image_is_asked_for(unchanged, monkeypatch):
    monkeypatch.setattr("explainkit.data.voc_part.read_picture", None)

    data = unchanged.data()

    assert data.test.labels.tolist() == [1, 0, 1, 0, 1]
    for each in data.test.objects:
        assert not any(isinstance(value, np.ndarray) for value in attrs.asdict(each).values())


def test_pictures_are_not_shared_by_training_and_validation(devkit):
    for number in range(6):
        pair = [animal(CLASSES[number % 2], 2, 2), animal(CLASSES[1 - number % 2], 75, 40)]
        devkit.add("train", f"2009_{number:06}", pair)

    for seed in range(5):
        data = devkit.data(validation=0.3, seed=seed)
        assert len(data.train) + len(data.validation) == 9 + 12
        assert not set(pictures(data.train)) & set(pictures(data.validation))
    assert pictures(devkit.data(validation=0.3).validation) == pictures(
        devkit.data(validation=0.3).validation
    )
    assert len({tuple(pictures(devkit.data(validation=0.3, seed=seed).validation)) for seed in range(5)}) > 1


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
    data = devkit.data()

    batch = everything(data.test)

    assert pictures(data.test)[5:] == ["2010_000001", "2010_000004", "2010_000005"]
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

    def taken(**settings):
        return [each.box for each in devkit.data(**settings).test.objects[5:]]

    assert taken()[0] == (30, 30, 80, 80) and len(taken()) == 5
    assert len(taken(minimum_area=0)) == 6
    assert taken(whole=True) == [(30, 30, 80, 80)]


NOUNS = {
    "eye": "leye reye", "ear": "lear rear", "horn": "lhorn rhorn", "wing": "lwing rwing",
    "foot": "lfoot rfoot",
    "leg": "lleg rleg lfleg rbleg lfuleg lflleg rbuleg rblleg llleg ruleg", "paw": "lfpa rfpa lbpa rbpa",
    "hoof": "lfho rfho lbho rbho", "eyebrow": "lebrow rebrow", "arm": "llarm luarm rlarm ruarm",
    "hand": "lhand rhand", "wheel": "fwheel bwheel wheel_1 wheel_10", "mirror": "leftmirror rightmirror",
    "licence plate": "fliplate bliplate", "roof": "roofside hroofside croofside_9",
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
    assert {noun(part) for part in NOUNS[name].split()} == {name}


# where things are


def literal_frame(box, margin):
    x0, y0, x1, y1 = box
    across, down = round((x1 - x0) * margin), round((y1 - y0) * margin)
    return max(x0 - across, 0), max(y0 - down, 0), min(x1 + across, SHAPE[1]), min(y1 + down, SHAPE[0])


@pytest.mark.parametrize("margin", [0, 0.25, 3])
def test_images_masks_and_boxes_are_those_of_a_literal_crop(unchanged, margin):
    size = (40, 72)
    data = unchanged.data(size=size, margin=margin)
    batch = everything(data.train)

    for row, name in enumerate(pictures(data.train)):
        ((_, _, whole, parts),) = unchanged.objects[name]
        ys, xs = np.nonzero(whole)
        box = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        frame = literal_frame(box, margin)
        picture = Image.open(unchanged.root / "JPEGImages" / f"{name}.jpg").crop(frame).resize((72, 40), 2)
        assert np.allclose(batch.images[row].permute(1, 2, 0), np.asarray(picture) / 255, atol=1e-6)
        scale = np.array([72 / (frame[2] - frame[0]), 40 / (frame[3] - frame[1])] * 2)
        corners = (np.array(box) - np.array(frame[:2] * 2)) * scale
        assert batch.boxes[row].tolist() == pytest.approx(corners, abs=1e-4)
        for p, part in enumerate(data.parts):
            covered = np.zeros(SHAPE)
            for each in parts.flat:
                if noun(each["part_name"]) == part:
                    covered = np.maximum(covered, each["mask"])
            for y in range(40):  # the part at the place that the middle of the pixel is at
                for x in range(72):
                    place = int(frame[1] + (y + 0.5) / scale[1]), int(frame[0] + (x + 0.5) / scale[0])
                    near = covered[max(place[0] - 2, 0) : place[0] + 3, max(place[1] - 2, 0) : place[1] + 3]
                    if near.min() == near.max():
                        assert batch.masks[row, p, y, x] == bool(near.min())
            assert batch.masks[row, p].sum() == pytest.approx(covered.sum() * scale[0] * scale[1], rel=0.2)


def test_key_points_are_the_middles_of_masks(unchanged):
    masks = everything(unchanged.data().test).masks
    masks[0, 1] = False

    points = centroids(masks)

    for n, p in np.ndindex(*masks.shape[:2]):
        places = [(x + 0.5, y + 0.5) for y, x in masks[n, p].nonzero().tolist()]
        expected = [*np.mean(places, 0), 1] if places else [0, 0, 0]
        assert points[n, p].tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(everything(unchanged.data().test).key_points[1:], points[1:])


def test_a_coloured_part_lies_under_its_mask_and_key_point(unchanged):
    data = unchanged.data(size=64)
    tail = data.parts.index("tail")
    batch = everything(data.test)

    for n, label in enumerate(batch.labels.tolist()):
        colour = torch.tensor(TAIL[CLASSES[label]][1]) / 255
        alike = (batch.images[n] - colour[:, None, None]).abs().amax(0) < 0.15
        both = (alike & batch.masks[n, tail]).sum() / (alike | batch.masks[n, tail]).sum()
        x, y, seen = batch.key_points[n, tail].tolist()
        assert both > 0.8
        assert seen and alike[int(y), int(x)]


def test_more_than_eight_parts_are_told_apart(devkit):
    parts = [
        (f"part{letter}", rectangle(10 + 6 * n, 20, 16 + 6 * n, 60))
        for n, letter in enumerate("abcdefghijklm")
    ]
    devkit.add("val", "2010_000001", [thing("cat", rectangle(5, 5, 100, 80), parts)])
    data = devkit.data()

    batch = everything(data.test)

    assert len(data.parts) == 16
    middles = [batch.key_points[5, data.parts.index(f"part{letter}"), 0].item() for letter in "abcdefghijklm"]
    assert np.all(np.diff(middles) > 1)
    assert (batch.masks[5].sum(0) <= 1).all()


def test_the_same_id_gives_the_same_values_in_any_batch(unchanged, monkeypatch):
    order = torch.tensor([3, 0, 3, 1])
    all_at_once = everything(unchanged.data().train)

    some = unchanged.data().train.batch(order)
    monkeypatch.setattr("explainkit.data.kept.MEMORY", 100)
    unkept = unchanged.data().train.batch(order)

    for name in ("images", "labels", "masks", "key_points", "boxes"):
        for batch in (some, unkept):
            assert torch.equal(getattr(batch, name), getattr(all_at_once, name)[order]), name


def test_classes_without_parts_have_no_masks(devkit):
    for number in range(5):
        split = "train" if number < 3 else "val"
        for kind in ("boat", "sofa"):
            devkit.add(split, f"2010_{kind}{number}", [thing(kind, rectangle(5, 5, 100, 80))])

    batch = everything(devkit.data(classes=["boat", "sofa"]).test)

    assert batch.masks is None and batch.key_points is None
    assert len(batch) == 4


# finding the files


def test_the_path_may_be_any_folder_above_and_annotations_lie_there_or_elsewhere(devkit):
    expected = pictures(devkit.data().train)

    for path in (devkit.root, devkit.root.parent, devkit.above):
        assert pictures(devkit.data(path=path).train) == expected
    (devkit.above / "away").mkdir()
    devkit.masks.rename(devkit.above / "away" / "Annotations_Part")
    for annotations in (devkit.above / "away", devkit.above / "away" / "Annotations_Part"):
        assert pictures(devkit.data(annotations=annotations).train) == expected
    with pytest.raises(ek.InputError, match="the folder Annotations_Part"):
        devkit.data()
    with pytest.raises(ek.InputError, match="VOC's JPEGImages"):
        devkit.data(path=devkit.above / "away")


def test_the_lists_of_classes_spare_annotations_that_need_not_be_opened(devkit):
    devkit.add("val", "2010_000001", [animal("cat", 2, 2)])
    devkit.add("val", "2010_000002", [])
    (devkit.masks / "2010_000002.mat").write_bytes(b"damaged")
    for split in ("train", "val"):
        names = (devkit.lists / f"{split}.txt").read_text().split()
        for kind in CLASSES:
            shown = {name: any(each[0] == kind for each in devkit.objects[name]) for name in names}
            rows = [f"{name} {' 1' if there else '-1'}\n" for name, there in shown.items()]
            (devkit.lists / f"{kind}_{split}.txt").write_text(
                "".join(rows).replace("2010_000001  1", "2010_000001  0")
            )

    assert pictures(devkit.data().test)[5:] == ["2010_000001"]  # difficult ones are there too
    (devkit.lists / "cat_val.txt").unlink()
    with pytest.raises(FormatError, match="2010_000002"):
        devkit.data()


# what is refused


@pytest.mark.parametrize(
    "what", ["ImageSets/Main/train.txt", "ImageSets/Main/val.txt", "JPEGImages/2008_000003.jpg"]
)
def test_a_file_that_is_missing_is_named_at_once(devkit, what):
    (devkit.root / what).unlink()

    with pytest.raises(ek.InputError, match=what.rpartition("/")[2]):
        devkit.data()


def test_an_annotation_that_is_missing_is_named_at_once(devkit):
    (devkit.masks / "2008_000011.mat").unlink()

    with pytest.raises(ek.InputError, match="2008_000011"):
        devkit.data()


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "..\\a", "C:\\a"])
def test_a_name_that_leads_out_of_the_folder_is_refused(devkit, name):
    (devkit.lists / "val.txt").write_text(f"{name}\n")

    with pytest.raises(FormatError, match="Expected the name of a file in"):
        devkit.data()


def annotated(**fields):
    """An annotation of one object with these fields."""
    usual = {"class": "cat", "mask": rectangle(0, 0, 9, 9), "parts": np.empty((0, 0))}
    given = {**usual, **fields}
    return structs(("objects",), [(structs(tuple(given), [tuple(given.values())]),)])


WRONG = {
    "no structs": np.ones((2, 2)),
    "text": "an annotation",
    "objects of numbers": structs(("imname", "objects"), [("a", np.ones((1, 3)))]),
    "no objects": structs(("imname",), [("a",)]),
    "a mask of text": annotated(mask="mask"),
    "a mask of structs": annotated(mask=structs(("a",), [(1.0,)])),
    "a name of numbers": annotated(**{"class": 3.0}),
    "parts of text": annotated(parts="tail"),
    "parts without names": annotated(parts=structs(("mask",), [(rectangle(0, 0, 9, 9),)])),
    "a part of another size": annotated(parts=structs(("part_name", "mask"), [("tail", np.ones((3, 3)))])),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_annotation_of_another_form_is_refused_in_words(devkit, what):
    savemat(devkit.masks / "2008_000004.mat", {"anno": WRONG[what]})

    with pytest.raises(FormatError, match=r"Expected .*2008_000004\.mat"):
        devkit.data()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no annotation",
        b"MATLAB 7.3 MAT-file".ljust(600),
        b"MATLAB 5.0".ljust(126) + b"IM" + b"\x0f" * 64,
    ],
)
def test_an_annotation_that_is_damaged_is_refused_in_words(devkit, content):
    (devkit.masks / "2008_000004.mat").write_bytes(content)

    with pytest.raises(FormatError, match=r"Expected a MATLAB file.*2008_000004\.mat"):
        devkit.data()


def test_an_annotation_of_another_picture_is_refused_when_it_is_reached(devkit):
    Image.new("RGB", (50, 50)).save(devkit.root / "JPEGImages" / "2008_000010.jpg")
    data = devkit.data()

    with pytest.raises(FormatError, match=r"Expected 140 x 100 pixels.*got 50 x 50 in .*2008_000010\.jpg"):
        everything(data.test)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"classes": "cat"}, "a list of two or more different classes"),
        ({"classes": ["cat"]}, "a list of two or more different classes"),
        ({"classes": ["cat", "cat"]}, "a list of two or more different classes"),
        ({"classes": ["cat", "bird", "sheep"]}, "train split; there are none of sheep"),
        ({"minimum_area": 10**6}, "train split; there are none of bird, cat that are large enough"),
        ({"margin": -0.1}, "Expected margin and minimum_area of at least 0"),
        ({"validation": 0}, "Expected a validation share between 0 and 1"),
        ({"size": (0, 4)}, "Expected a size in pixels"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_in_words(unchanged, settings, told):
    with pytest.raises(ek.InputError, match=told):
        unchanged.data(**settings)


def test_a_class_that_is_not_in_the_test_is_told(devkit):
    names = (devkit.lists / "val.txt").read_text().split()
    (devkit.lists / "val.txt").write_text("\n".join(names[::2]))

    with pytest.raises(ek.InputError, match="test split; there are none of bird"):
        devkit.data()


# what it is for


def test_explanations_of_it_are_measured_by_its_masks(unchanged):
    data = unchanged.data(size=32)
    model = ek.explainer("cam", preset="tiny", epochs=1, batch_size=7).fit(data, device="cpu", progress=False)

    table = measure(model, data, images=4, metrics=["pointing", "mass-on-bird"])

    assert len(table.rows[0].scores["pointing"].values) == 4
    assert "voc-part has no mask of the whole object" in table.rows[0].scores["mass-on-bird"].reason


def test_the_command_trains_on_it(unchanged, tmp_path, capsys):
    status = main([
        "train", "cam", "--data", "voc-part", "--data-set", f"path={unchanged.root}", "--data-set", "size=32",
        "--data-set", f"classes={json.dumps(CLASSES)}", "--preset", "tiny", "--set", "batch_size=7",
        "--out", str(tmp_path / "model"),
    ])  # fmt: skip

    assert status == 0
    assert "saved to" in capsys.readouterr().out
    assert ek.load(tmp_path / "model").classes == CLASSES
