"""CUB-200-2011: its images, key points, boxes and captions, and training on it."""

import json
import shutil

import numpy as np
import pytest
import torch
from cub_cases import CLASSES, PARTS, TESTED, TRAINING, numbers_of
from PIL import Image
from split_cases import whole_batch

import explainkit as ek
from explainkit.cli import main
from explainkit.data.transforms.augmentation import FlipShiftBrightness
from explainkit.data.transforms.warping import RotateSkewShear
from explainkit.metrics import evaluate_explanations

# what is in it


def test_training_and_test_images_are_the_official_ones(shared_archive):
    dataset = ek.dataset("cub", path=shared_archive.root, size=32)

    numbers_by_split = {split: numbers_of(dataset, split, shared_archive) for split in dataset.splits}

    assert (
        sorted(numbers_by_split["train"] + numbers_by_split["validation"])
        == np.flatnonzero(shared_archive.training).tolist()
    )
    assert sorted(numbers_by_split["test"]) == np.flatnonzero(1 - np.array(shared_archive.training)).tolist()
    for split, numbers in numbers_by_split.items():
        assert dataset.splits[split].labels.tolist() == [shared_archive.labels[n] - 1 for n in numbers]
    assert dataset.classes == ("Black footed Albatross", "Laysan Albatross", "Sooty Albatross")
    assert dataset.parts == PARTS
    assert dataset.size == (32, 32)


def test_validation_is_drawn_from_every_class_by_seed(shared_archive):
    def drawn(**settings):
        return numbers_of(
            ek.dataset("cub", path=shared_archive.root, **settings), "validation", shared_archive
        )

    few, many = drawn(), drawn(validation=0.5)

    assert [shared_archive.labels[n] for n in few] == [1, 2, 3]  # at least one
    assert len(many) == 9
    assert drawn(validation=0.5) == many
    assert any(drawn(validation=0.5, seed=seed) != many for seed in (1, 2))


def test_labels_are_known_without_loading_an_image(shared_archive, monkeypatch):
    monkeypatch.setattr("explainkit.data.datasets.cub.dataset.read_picture", None)

    dataset = ek.dataset("cub", path=shared_archive.root)

    assert dataset.test.labels.tolist() == [0] * TESTED + [1] * TESTED + [2] * TESTED


def test_the_path_may_be_the_folder_or_the_one_that_it_lies_in(shared_archive):
    inner, outer = (
        ek.dataset("cub", path=path) for path in (shared_archive.root, str(shared_archive.root.parent))
    )

    assert inner.train.files == outer.train.files


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        (2, {0, 1}),
        (["Sooty Albatross", "Black footed Albatross"], {0, 2}),
        ([CLASSES[1], CLASSES[2]], {1, 2}),
    ],
)
def test_some_classes_can_be_chosen_by_number_or_name(shared_archive, classes, labels):
    dataset = ek.dataset("cub", path=shared_archive.root, classes=classes)

    numbers_by_split = {split: numbers_of(dataset, split, shared_archive) for split in dataset.splits}

    assert len(dataset.classes) == 2
    for split, numbers in numbers_by_split.items():
        assert {shared_archive.labels[n] - 1 for n in numbers} == labels
        assert [dataset.classes[label] for label in dataset.splits[split].labels] == [
            CLASSES[shared_archive.labels[n] - 1][4:].replace("_", " ") for n in numbers
        ]


def test_names_that_would_be_one_stay_as_they_are(archive):
    archive.change("classes.txt", 1, "2 002.Black_footed_Albatross")

    assert ek.dataset("cub", path=archive.root).classes == (
        CLASSES[0],
        "002.Black_footed_Albatross",
        CLASSES[2],
    )


# where things are


def test_an_image_is_what_pillow_cuts_out_and_resizes(shared_archive):
    for crop in (True, False):
        dataset = ek.dataset("cub", path=shared_archive.root, size=(24, 40), crop=crop)
        batch = whole_batch(dataset.test)

        for image, number in zip(batch.images, numbers_of(dataset, "test", shared_archive), strict=True):
            x, y, width, height = shared_archive.boxes[number]
            picture = shared_archive.photograph(shared_archive.names[number])
            if crop:
                picture = picture.crop((x, y, x + width, y + height))
            pixels = np.asarray(picture.resize((40, 24), Image.Resampling.BILINEAR)) / 255
            assert np.allclose(image.permute(1, 2, 0), pixels, atol=1e-6)


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("size", [(120, 90), (45, 60)])
def test_a_mark_at_a_key_point_is_found_at_its_position_in_the_image(archive, crop, size):
    for number, points in enumerate(archive.points):
        pixels = np.zeros((60, 80, 3), np.uint8)
        mark = points[2 + number % 13]
        pixels[mark[1], mark[0]] = 255
        file = archive.root / "images" / archive.names[number]
        Image.fromarray(pixels).save(file.with_suffix(".png"))
        shutil.move(file.with_suffix(".png"), file)  # lossless, whatever it is called
    dataset = ek.dataset("cub", path=archive.root, crop=crop, size=size)

    for split in dataset.splits:
        batch, numbers = whole_batch(dataset.splits[split]), numbers_of(dataset, split, archive)
        for row, number in enumerate(numbers):
            x, y, seen = batch.key_points[row, 2 + number % 13].tolist()
            light = batch.images[row, 0].double()
            down, across = torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5
            assert seen == 1
            assert abs((light.sum(0) @ across.double() / light.sum()).item() - x) < 0.6
            assert abs((light.sum(1) @ down.double() / light.sum()).item() - y) < 0.6


@pytest.mark.parametrize("crop", [True, False])
def test_key_points_and_boxes_are_those_of_a_literal_crop(shared_archive, crop):
    dataset = ek.dataset("cub", path=shared_archive.root, size=(30, 50), crop=crop)
    batch = whole_batch(dataset.train)

    for row, number in enumerate(numbers_of(dataset, "train", shared_archive)):
        left, top, width, height = shared_archive.boxes[number]
        x0, y0, w, h = (left, top, width, height) if crop else (0, 0, 80, 60)
        for part, (x, y, seen) in enumerate(shared_archive.points[number]):
            position = [(x + 0.5 - x0) * 50 / w, (y + 0.5 - y0) * 30 / h]
            is_visible = seen and 0 <= position[0] < 50 and 0 <= position[1] < 30
            expected = [*position, 1] if is_visible else [0, 0, 0]
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
    dataset = ek.dataset("cub", path=archive.root, size=16, validation=0.2)
    split = next(s for s in ("train", "validation") if 0 in numbers_of(dataset, s, archive))
    row = numbers_of(dataset, split, archive).index(0)

    batch = dataset.splits[split].batch(torch.tensor([row]))

    picture = archive.photograph(archive.names[0]).crop((0, 30, 80, 51)).resize((16, 16), 2)
    assert np.allclose(batch.images[0].permute(1, 2, 0), np.asarray(picture) / 255, atol=1e-6)
    assert batch.boxes[0].tolist() == pytest.approx([0, 0.5 * 16 / 21, 16, 20.5 * 16 / 21])


def test_orientation_is_ignored_for_positions_are_of_the_file(archive):
    def first_image():
        dataset = ek.dataset("cub", path=archive.root, size=16, crop=False)
        split = next(name for name in dataset.splits if 0 in numbers_of(dataset, name, archive))
        row = numbers_of(dataset, split, archive).index(0)
        return dataset.splits[split].batch(torch.tensor([row])).images

    before = first_image()
    file = archive.root / "images" / archive.names[0]
    picture = Image.open(file)
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture.save(file, exif=exif, quality=95)

    assert (first_image() - before).abs().max() < 0.05


def test_the_same_id_gives_the_same_values_in_any_batch(shared_archive, monkeypatch):
    order = torch.tensor([5, 0, 5, 11])
    all_at_once = whole_batch(ek.dataset("cub", path=shared_archive.root, size=20).train)

    cached = ek.dataset("cub", path=shared_archive.root, size=20).train.batch(order)
    monkeypatch.setattr("explainkit.data.cache.MEMORY", 100)
    uncached = ek.dataset("cub", path=shared_archive.root, size=20).train.batch(order)

    for name in ("images", "labels", "key_points", "boxes"):
        for batch in (cached, uncached):
            assert torch.equal(getattr(batch, name), getattr(all_at_once, name)[order]), name


# words


def test_sentences_are_found_beside_the_archive_or_in_a_given_folder(archive, tmp_path):
    assert whole_batch(ek.dataset("cub", path=archive.root, size=8).test).captions is None
    archive.write_sentences(tmp_path / "elsewhere")
    archive.write_sentences(tmp_path)

    for settings in (
        {},
        {"captions": tmp_path / "elsewhere"},
        {"captions": str(tmp_path / "elsewhere" / "text_c10")},
    ):
        dataset = ek.dataset("cub", path=archive.root, size=8, **settings)
        captions = whole_batch(dataset.test).captions
        for caption, number in zip(captions, numbers_of(dataset, "test", archive), strict=True):
            assert caption.text.split("\n") == [f"sentence {n} of {archive.names[number]}" for n in range(10)]
            assert caption.phrases == ()


def test_odd_bytes_in_sentences_are_no_obstacle(archive, tmp_path):
    archive.write_sentences(tmp_path)
    odd = tmp_path / "text_c10" / archive.names[TRAINING].replace(".jpg", ".txt")
    odd.write_bytes(b" this  bird \xff\xfe is\tgray\r\n\n")

    caption = whole_batch(ek.dataset("cub", path=archive.root, size=8).test).captions[0]

    assert caption.text == "this bird \ufffd\ufffd is gray"


def test_a_missing_file_of_sentences_is_reported_at_once(archive, tmp_path):
    archive.write_sentences(tmp_path)
    (tmp_path / "text_c10" / archive.names[4].replace(".jpg", ".txt")).unlink()

    with pytest.raises(ek.InputError, match=r"0004_0\.txt.*not there"):
        ek.dataset("cub", path=archive.root)
    with pytest.raises(ek.InputError, match="the folder text_c10"):
        ek.dataset("cub", path=archive.root, captions=tmp_path / "nowhere")


# augmentation


def test_augmentation_is_light_or_that_of_protopnet(shared_archive):
    def augment(**settings):
        return ek.dataset("cub", path=shared_archive.root, size=64, **settings).augment

    assert augment() == FlipShiftBrightness(shift=4)
    assert augment(augmentation="protopnet") == RotateSkewShear(rotation=15, skew=0.2, shear=10, mirror=0.5)
    assert augment(augmentation=None) is None
    with pytest.raises(ek.InputError, match="Expected the augmentation 'light'"):
        augment(augmentation="heavy")


# what it is for


def test_the_command_trains_on_it(shared_archive, tmp_path, capsys):
    status = main([
        "train", "protopnet", "--dataset", "cub", "--dataset-option", f"path={shared_archive.root}",
        "--dataset-option", "size=32", "--preset", "tiny", "--option", "batch_size=8",
        "--out", str(tmp_path / "model"),
    ])  # fmt: skip

    out = capsys.readouterr().out
    assert status == 0
    assert json.loads(out[: out.rindex("}") + 1])["test"]["accuracy"] >= 0
    assert ek.load(tmp_path / "model").classes == (
        "Black footed Albatross",
        "Laysan Albatross",
        "Sooty Albatross",
    )


def test_the_recipe_of_protopnets_paper_runs_from_photographs_to_explanations(shared_archive, tmp_path):
    dataset = ek.dataset("cub", path=shared_archive.root, size=64, augmentation="protopnet")
    model = ek.explainer(
        "protopnet",
        preset="paper",
        weights=None,
        warm_epochs=1,
        joint_epochs=1,
        rounds=2,
        prototypes_per_class=2,
        batch_size=5,
    )

    model.fit(dataset, seed=0, device="cpu", progress=False)
    batch = whole_batch(dataset.test)
    explanations = model.explain(batch).check_additivity()

    assert model.report.projected and model.network.start is None
    assert [phase.name for phase in model.phases()] == ["warm", *["joint", "project", "head"] * 2]
    for unit, pictures in enumerate(explanations.units.pictures):
        (source,) = pictures
        owner = int(model.network.owner[unit])
        assert source.split == "train" and int(dataset.train.labels[source.id]) == source.label == owner
        image = dataset.train.batch(torch.tensor([source.id])).images[0]
        assert torch.equal(source.image, (image * 255).round().byte())
        decomposition = model.network.decompose(image[None])  # the patch is the prototype itself
        row, column = source.cell
        assert decomposition.scores[0, unit].item() == pytest.approx(np.log(1e4), abs=1e-3)
        assert decomposition.maps[0, unit, row, column] == decomposition.scores[0, unit]

    again = ek.load(ek.save(model, tmp_path / "model"))
    torch.testing.assert_close(again.explain(batch).contributions, explanations.contributions)

    table = evaluate_explanations(model, dataset, images=4, metrics=["pointing", "units-to-95-percent"])
    assert "cub has no part masks" in table.rows[0].scores["pointing"].reason
    assert len(table.rows[0].scores["units-to-95-percent"].values) == 4
