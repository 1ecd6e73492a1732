"""CUB-200-2011, in the layout of its archive; every file is written here."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import explainkit as ek
from explainkit.cli import main
from explainkit.data.augmentation import MirrorShiftLight
from explainkit.data.warping import RotateSkewShear
from explainkit.errors import FormatError
from explainkit.metrics import measure

PARTS = (
    "back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing", "nape",
    "right eye", "right leg", "right wing", "tail", "throat",
)  # fmt: skip
CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
COLOURS = ((200, 60, 60), (60, 170, 60), (60, 60, 200))
TRAINING, TESTED = 6, 3
"""Images of a class."""


class Archive:
    """The folder CUB_200_2011 of small photographs, and what its lists say."""

    def __init__(self, above, size=(80, 60)):
        self.root = above / "CUB_200_2011"
        chance = np.random.default_rng(0)
        self.names, self.labels, self.training, self.boxes, self.points = [], [], [], [], []
        for label, name in enumerate(CLASSES):
            (self.root / "images" / name).mkdir(parents=True)
            for index in range(TRAINING + TESTED):
                file = f"{name}/{name[4:]}_{index:04}_{label}.jpg"
                x, y = chance.integers(2, 20, 2).tolist()
                width, height = chance.integers(30, 40, 2).tolist()
                pixels = chance.integers(90, 120, (size[1], size[0], 3), dtype=np.uint8)
                pixels[y : y + height, x : x + width] = COLOURS[label]
                Image.fromarray(pixels).save(self.root / "images" / file, quality=95)
                self.names.append(file)
                self.labels.append(label + 1)
                self.training.append(int(index < TRAINING))
                self.boxes.append([x, y, width, height])
                self.points.append(self._points(chance, x, y, width, height))
        self.write()

    def _points(self, chance, x, y, width, height):
        """The first part outside of the box, the second not seen, all others in the box."""
        inside = [
            [x + int(chance.integers(width)), y + int(chance.integers(height)), 1] for _ in range(len(PARTS))
        ]
        return [[x + width + 3, y, 1], [0, 0, 0], *inside[2:]]

    def write(self):
        """All lists, each line as the archive has it."""
        (self.root / "parts").mkdir(exist_ok=True)
        ids = range(1, len(self.names) + 1)
        lists = {
            "images.txt": zip(ids, self.names, strict=True),
            "classes.txt": enumerate(CLASSES, 1),
            "image_class_labels.txt": zip(ids, self.labels, strict=True),
            "train_test_split.txt": zip(ids, self.training, strict=True),
            "bounding_boxes.txt": ((i, *map(float, box)) for i, box in zip(ids, self.boxes, strict=True)),
            "parts/parts.txt": enumerate(PARTS, 1),
            "parts/part_locs.txt": (
                (i, part, float(x), float(y), seen)
                for i, points in zip(ids, self.points, strict=True)
                for part, (x, y, seen) in enumerate(points, 1)
            ),
        }
        for name, rows in lists.items():
            text = "".join(" ".join(map(str, row)) + "\n" for row in rows)
            (self.root / name).write_text(text)

    def change(self, name, number, line):
        """Replace a line, counted from 0, of one list; ``None`` takes it out."""
        lines = (self.root / name).read_text().splitlines()
        lines[number : number + 1] = [] if line is None else [line]
        (self.root / name).write_text("\n".join(lines) + "\n")

    def photograph(self, file):
        return Image.open(self.root / "images" / file).convert("RGB")

    def sentences(self, place):
        """Ten lines an image, as Reed et al. have them."""
        for file in self.names:
            path = place / "text_c10" / file.replace(".jpg", ".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"sentence {n} of {file}\n" for n in range(10)))


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    return Archive(tmp_path_factory.mktemp("cub"))


def numbers_of(data, split, archive):
    """The numbers of the archive for the ids of a split, from 0."""
    return [
        archive.names.index(file.relative_to(archive.root / "images").as_posix())
        for file in data.splits[split].files
    ]


def everything(split):
    return split.batch(torch.arange(len(split)))


# what is in it


def test_training_and_test_images_are_the_official_ones(unchanged):
    data = ek.dataset("cub", path=unchanged.root, size=32)

    told = {split: numbers_of(data, split, unchanged) for split in data.splits}

    assert sorted(told["train"] + told["validation"]) == np.flatnonzero(unchanged.training).tolist()
    assert sorted(told["test"]) == np.flatnonzero(1 - np.array(unchanged.training)).tolist()
    for split, numbers in told.items():
        assert data.splits[split].labels.tolist() == [unchanged.labels[n] - 1 for n in numbers]
    assert data.classes == ("Black footed Albatross", "Laysan Albatross", "Sooty Albatross")
    assert data.parts == PARTS
    assert data.size == (32, 32)


def test_validation_is_drawn_from_every_class_by_seed(unchanged):
    def drawn(**settings):
        return numbers_of(ek.dataset("cub", path=unchanged.root, **settings), "validation", unchanged)

    few, many = drawn(), drawn(validation=0.5)

    assert [unchanged.labels[n] for n in few] == [1, 2, 3]  # at least one
    assert len(many) == 9
    assert drawn(validation=0.5) == many
    assert any(drawn(validation=0.5, seed=seed) != many for seed in (1, 2))


def test_labels_are_known_without_loading_an_image(unchanged, monkeypatch):
    monkeypatch.setattr("explainkit.data.cub.read_picture", None)

    data = ek.dataset("cub", path=unchanged.root)

    assert data.test.labels.tolist() == [0] * TESTED + [1] * TESTED + [2] * TESTED


def test_the_path_may_be_the_folder_or_the_one_that_it_lies_in(unchanged):
    inner, outer = (ek.dataset("cub", path=path) for path in (unchanged.root, str(unchanged.root.parent)))

    assert inner.train.files == outer.train.files


@pytest.mark.parametrize(
    ("wanted", "labels"),
    [
        (2, {0, 1}),
        (["Sooty Albatross", "Black footed Albatross"], {0, 2}),
        ([CLASSES[1], CLASSES[2]], {1, 2}),
    ],
)
def test_some_classes_can_be_chosen_by_number_or_name(unchanged, wanted, labels):
    data = ek.dataset("cub", path=unchanged.root, classes=wanted)

    told = {split: numbers_of(data, split, unchanged) for split in data.splits}

    assert len(data.classes) == 2
    for split, numbers in told.items():
        assert {unchanged.labels[n] - 1 for n in numbers} == labels
        assert [data.classes[label] for label in data.splits[split].labels] == [
            CLASSES[unchanged.labels[n] - 1][4:].replace("_", " ") for n in numbers
        ]


def test_names_that_would_be_one_stay_as_they_are(archive):
    archive.change("classes.txt", 1, "2 002.Black_footed_Albatross")

    assert ek.dataset("cub", path=archive.root).classes == (
        CLASSES[0],
        "002.Black_footed_Albatross",
        CLASSES[2],
    )


# where things are


def test_an_image_is_what_pillow_cuts_out_and_resizes(unchanged):
    for crop in (True, False):
        data = ek.dataset("cub", path=unchanged.root, size=(24, 40), crop=crop)
        batch = everything(data.test)

        for image, number in zip(batch.images, numbers_of(data, "test", unchanged), strict=True):
            x, y, width, height = unchanged.boxes[number]
            picture = unchanged.photograph(unchanged.names[number])
            if crop:
                picture = picture.crop((x, y, x + width, y + height))
            pixels = np.asarray(picture.resize((40, 24), Image.Resampling.BILINEAR)) / 255
            assert np.allclose(image.permute(1, 2, 0), pixels, atol=1e-6)


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("size", [(120, 90), (45, 60)])
def test_a_mark_at_a_key_point_is_found_at_its_place_in_the_image(archive, crop, size):
    for number, points in enumerate(archive.points):
        pixels = np.zeros((60, 80, 3), np.uint8)
        mark = points[2 + number % 13]
        pixels[mark[1], mark[0]] = 255
        file = archive.root / "images" / archive.names[number]
        Image.fromarray(pixels).save(file.with_suffix(".png"))
        shutil.move(file.with_suffix(".png"), file)  # lossless, whatever it is called
    data = ek.dataset("cub", path=archive.root, crop=crop, size=size)

    for split in data.splits:
        batch, numbers = everything(data.splits[split]), numbers_of(data, split, archive)
        for row, number in enumerate(numbers):
            x, y, seen = batch.key_points[row, 2 + number % 13].tolist()
            light = batch.images[row, 0].double()
            down, across = torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5
            assert seen == 1
            assert abs((light.sum(0) @ across.double() / light.sum()).item() - x) < 0.6
            assert abs((light.sum(1) @ down.double() / light.sum()).item() - y) < 0.6


@pytest.mark.parametrize("crop", [True, False])
def test_key_points_and_boxes_are_those_of_a_literal_crop(unchanged, crop):
    data = ek.dataset("cub", path=unchanged.root, size=(30, 50), crop=crop)
    batch = everything(data.train)

    for row, number in enumerate(numbers_of(data, "train", unchanged)):
        left, top, width, height = unchanged.boxes[number]
        x0, y0, w, h = (left, top, width, height) if crop else (0, 0, 80, 60)
        for part, (x, y, seen) in enumerate(unchanged.points[number]):
            there = [(x + 0.5 - x0) * 50 / w, (y + 0.5 - y0) * 30 / h]
            within = seen and 0 <= there[0] < 50 and 0 <= there[1] < 30
            expected = [*there, 1] if within else [0, 0, 0]
            assert batch.key_points[row, part].tolist() == pytest.approx(expected, abs=1e-4)
        corners = [left - x0, top - y0, left - x0 + width, top - y0 + height]
        expected = [c * s for c, s in zip(corners, [50 / w, 30 / h] * 2, strict=True)]
        assert batch.boxes[row].tolist() == pytest.approx(expected, abs=1e-4)
    assert (batch.key_points[:, 0, 2] == (0 if crop else 1)).all()  # beside the bird
    assert not batch.key_points[:, 1].any()
    assert batch.masks is None


def test_a_box_is_cut_at_the_border_of_its_photograph(archive):
    archive.boxes[0] = [-10, 30.5, 500, 20]
    archive.write()
    data = ek.dataset("cub", path=archive.root, size=16, validation=0.2)
    split = next(s for s in ("train", "validation") if 0 in numbers_of(data, s, archive))
    row = numbers_of(data, split, archive).index(0)

    batch = data.splits[split].batch(torch.tensor([row]))

    picture = archive.photograph(archive.names[0]).crop((0, 30, 80, 51)).resize((16, 16), 2)
    assert np.allclose(batch.images[0].permute(1, 2, 0), np.asarray(picture) / 255, atol=1e-6)
    assert batch.boxes[0].tolist() == pytest.approx([0, 0.5 * 16 / 21, 16, 20.5 * 16 / 21])


def test_orientation_is_not_obeyed_for_places_are_of_the_file(archive):
    def first():
        data = ek.dataset("cub", path=archive.root, size=16, crop=False)
        split = next(name for name in data.splits if 0 in numbers_of(data, name, archive))
        row = numbers_of(data, split, archive).index(0)
        return data.splits[split].batch(torch.tensor([row])).images

    before = first()
    file = archive.root / "images" / archive.names[0]
    picture = Image.open(file)
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture.save(file, exif=exif, quality=95)

    assert (first() - before).abs().max() < 0.05


def test_the_same_id_gives_the_same_values_in_any_batch(unchanged, monkeypatch):
    order = torch.tensor([5, 0, 5, 11])
    all_at_once = everything(ek.dataset("cub", path=unchanged.root, size=20).train)

    some = ek.dataset("cub", path=unchanged.root, size=20).train.batch(order)
    monkeypatch.setattr("explainkit.data.kept.MEMORY", 100)
    unkept = ek.dataset("cub", path=unchanged.root, size=20).train.batch(order)

    for name in ("images", "labels", "key_points", "boxes"):
        for batch in (some, unkept):
            assert torch.equal(getattr(batch, name), getattr(all_at_once, name)[order]), name


# words


def test_sentences_are_found_beside_or_where_they_are_told_to_be(archive, tmp_path):
    assert everything(ek.dataset("cub", path=archive.root, size=8).test).captions is None
    archive.sentences(tmp_path / "elsewhere")
    archive.sentences(tmp_path)

    for settings in (
        {},
        {"captions": tmp_path / "elsewhere"},
        {"captions": str(tmp_path / "elsewhere" / "text_c10")},
    ):
        data = ek.dataset("cub", path=archive.root, size=8, **settings)
        captions = everything(data.test).captions
        for caption, number in zip(captions, numbers_of(data, "test", archive), strict=True):
            assert caption.text.split("\n") == [f"sentence {n} of {archive.names[number]}" for n in range(10)]
            assert caption.phrases == ()


def test_odd_bytes_in_sentences_are_no_obstacle(archive, tmp_path):
    archive.sentences(tmp_path)
    odd = tmp_path / "text_c10" / archive.names[TRAINING].replace(".jpg", ".txt")
    odd.write_bytes(b" this  bird \xff\xfe is\tgrey\r\n\n")

    caption = everything(ek.dataset("cub", path=archive.root, size=8).test).captions[0]

    assert caption.text == "this bird \ufffd\ufffd is grey"


def test_a_missing_file_of_sentences_is_told_at_once(archive, tmp_path):
    archive.sentences(tmp_path)
    (tmp_path / "text_c10" / archive.names[4].replace(".jpg", ".txt")).unlink()

    with pytest.raises(ek.InputError, match=r"0004_0\.txt.*not there"):
        ek.dataset("cub", path=archive.root)
    with pytest.raises(ek.InputError, match="the folder text_c10"):
        ek.dataset("cub", path=archive.root, captions=tmp_path / "nowhere")


# augmentation


def test_augmentation_is_light_or_that_of_protopnet(unchanged):
    def augment(**settings):
        return ek.dataset("cub", path=unchanged.root, size=64, **settings).augment

    assert augment() == MirrorShiftLight(shift=4)
    assert augment(augmentation="protopnet") == RotateSkewShear(rotation=15, skew=0.2, shear=10, mirror=0.5)
    assert augment(augmentation=None) is None
    with pytest.raises(ek.InputError, match="Expected the augmentation 'light'"):
        augment(augmentation="heavy")


# what is refused

LISTS = (
    "images.txt", "classes.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt",
    "parts/parts.txt", "parts/part_locs.txt",
)  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_is_missing_is_named(archive, name):
    (archive.root / name).unlink()

    with pytest.raises(ek.InputError, match=name.rpartition("/")[2]):
        ek.dataset("cub", path=archive.root)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    "text", [b"", b"1\n", b"one two\n", b"\xff\xfe\x00", b"1 nan 1 1 1\n", b"9999999999 1 1 1 1\n"]
)
def test_a_list_of_another_form_is_refused_in_words(archive, name, text):
    (archive.root / name).write_bytes(text)

    with pytest.raises((FormatError, ek.InputError), match="Expected"):
        ek.dataset("cub", path=archive.root)


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        ("image_class_labels.txt", None, "image 3 is in only one"),
        ("train_test_split.txt", "99 1", "image 3 is in only one"),
        ("bounding_boxes.txt", "1 2.0 2.0 3.0 3.0", "only one"),
        ("image_class_labels.txt", "3 4", "a class of classes.txt for image 3.*got 4"),
        ("image_class_labels.txt", "3 1.5", "a class of classes.txt for image 3"),
        ("train_test_split.txt", "3 2", "0 or 1 in train_test_split.txt for image 3.*got 2"),
        ("bounding_boxes.txt", "3 1.0 1.0 0.0 5.0", "a width and height.*image 3.*got"),
        ("bounding_boxes.txt", "3 1.0 1.0 inf 5.0", "finite"),
        ("bounding_boxes.txt", "3 1.0 1.0 x 5.0", "Expected 5 numbers"),
        ("bounding_boxes.txt", "3 1.0 1.0 5.0", "Expected 5 numbers"),
        ("parts/part_locs.txt", "1 16 3.0 3.0 1", "known image and part.*16"),
        ("parts/part_locs.txt", "88 1 3.0 3.0 1", "known image and part.*88"),
        ("parts/part_locs.txt", "1 3 3.0 3.0 2", "known image and part"),
        ("images.txt", "2 a.jpg", "number of its own"),
        ("classes.txt", "1 001.Again", "number of its own"),
        ("classes.txt", CLASSES[1], "a number of its own and a name"),
    ],
)  # fmt: skip
def test_lists_that_do_not_agree_are_refused_in_words(archive, name, line, told):
    archive.change(name, 2, line)

    with pytest.raises(FormatError, match=told):
        ek.dataset("cub", path=archive.root)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../b.jpg",
        "..\\..\\b.jpg",
        "C:\\b.jpg",
        "\\\\host\\b.jpg",
        "a\x00b.jpg",
    ],
)
def test_a_name_that_leads_out_of_the_folder_is_refused(archive, name):
    archive.change("images.txt", 2, f"3 {name}")

    with pytest.raises(FormatError, match=r"Expected the name of a file in .*images"):
        ek.dataset("cub", path=archive.root)


def test_a_photograph_that_is_missing_is_told_at_once(archive):
    for number in (1, 7):
        (archive.root / "images" / archive.names[number]).unlink()

    with pytest.raises(ek.InputError, match="Is the archive unpacked completely"):
        ek.dataset("cub", path=archive.root)


def test_a_photograph_that_is_damaged_is_named_when_it_is_reached(archive):
    (archive.root / "images" / archive.names[TRAINING]).write_bytes(b"no picture")
    data = ek.dataset("cub", path=archive.root, size=8)

    with pytest.raises(ek.InputError, match=archive.names[TRAINING]):
        everything(data.test)


@pytest.mark.parametrize("box", [[500, 2, 5, 5], [2, -9, 5, 5], [1e300, 1e300, 1e300, 1]])
def test_a_box_beside_its_photograph_is_named_when_it_is_reached(archive, box):
    archive.boxes[TRAINING] = box
    archive.write()
    data = ek.dataset("cub", path=archive.root, size=8)

    with pytest.raises(FormatError, match=f"Expected a box within the 80 x 60.*{archive.names[TRAINING]}"):
        everything(data.test)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"classes": 1}, "Expected 2 … 3 classes"),
        ({"classes": 4}, "Expected 2 … 3 classes.*got 4"),
        ({"classes": "Sooty Albatross"}, "a number or a list of names"),
        ({"classes": ["Sooty Albatross"]}, "Expected 2 … 3 classes"),
        ({"classes": ["Laysan Albatross", "Sooty Albatros"]}, "Did you mean 'Sooty Albatross'"),
        ({"validation": 0}, "Expected a validation share between 0 and 1"),
        ({"validation": 1.0}, "Expected a validation share between 0 and 1"),
        ({"size": 0}, "Expected a size in pixels"),
        ({"size": (3, 4, 5)}, "Expected a size in pixels"),
        ({"size": "large"}, "Expected a size in pixels"),
        ({"path": "nowhere"}, "Expected images.txt of CUB-200-2011 at"),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_fit_is_refused_in_words(unchanged, settings, told):
    with pytest.raises(ek.ExplainKitError, match=told):
        ek.dataset("cub", **{"path": unchanged.root, **settings})


@pytest.mark.parametrize(
    ("training", "told"), [(0, "Expected at least two training images"), (1, "Expected test images")]
)
def test_an_empty_split_is_refused_in_words(archive, training, told):
    archive.training = [training] * len(archive.training)
    archive.write()

    with pytest.raises(ek.InputError, match=told):
        ek.dataset("cub", path=archive.root)


# what it is for


def test_the_command_trains_on_it(unchanged, tmp_path, capsys):
    status = main([
        "train", "protopnet", "--data", "cub", "--data-set", f"path={unchanged.root}", "--data-set",
        "size=32", "--preset", "tiny", "--set", "batch_size=8", "--out", str(tmp_path / "model"),
    ])  # fmt: skip

    out = capsys.readouterr().out
    assert status == 0
    assert json.loads(out[: out.rindex("}") + 1])["test"]["accuracy"] >= 0
    assert ek.load(tmp_path / "model").classes == (
        "Black footed Albatross",
        "Laysan Albatross",
        "Sooty Albatross",
    )


def test_the_recipe_of_protopnets_paper_runs_from_photographs_to_explanations(unchanged, tmp_path):
    data = ek.dataset("cub", path=unchanged.root, size=64, augmentation="protopnet")
    model = ek.explainer(
        "protopnet", preset="paper", weights=None, warm=1, joint=1, rounds=2, per_class=2, batch_size=5
    )

    model.fit(data, seed=0, device="cpu", progress=False)
    batch = everything(data.test)
    told = model.explain(batch).check()

    assert model.report.projected and model.network.start is None
    assert [phase.name for phase in model.phases()] == ["warm", *["joint", "project", "head"] * 2]
    for unit, exemplars in enumerate(told.units.exemplars):
        (source,) = exemplars
        owner = int(model.network.owner[unit])
        assert source.split == "train" and int(data.train.labels[source.id]) == source.label == owner
        shown = data.train.batch(torch.tensor([source.id])).images[0]
        assert torch.equal(source.image, (shown * 255).round().byte())
        alone = model.network.decompose(shown[None])  # the patch is the prototype itself
        row, column = source.cell
        assert alone.scores[0, unit].item() == pytest.approx(np.log(1e4), abs=1e-3)
        assert alone.maps[0, unit, row, column] == alone.scores[0, unit]

    again = ek.load(ek.save(model, tmp_path / "model"))
    torch.testing.assert_close(again.explain(batch).contributions, told.contributions)

    table = measure(model, data, images=4, metrics=["pointing", "units-to-95"])
    assert "cub has no part masks" in table.rows[0].scores["pointing"].reason
    assert len(table.rows[0].scores["units-to-95"].values) == 4


def test_a_list_that_is_a_pipe_is_not_waited_for(archive):
    (archive.root / "classes.txt").unlink()
    os.mkfifo(archive.root / "classes.txt")

    with pytest.raises(ek.InputError, match=r"classes\.txt.*it is no file"):
        ek.dataset("cub", path=archive.root)
