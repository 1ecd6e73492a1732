"""FunnyBirds: its images, masks, parts and interventions, from a folder and from the archive."""

import copy
import pickle

import numpy as np
import pytest
import torch
from funnybirds_cases import BODY, CODES, COMPLETE, INCOMPLETE, PARTS, SIDE, TESTED, WHERE
from PIL import Image
from split_cases import whole_batch

import explainkit as ek
from explainkit.cli import main
from explainkit.data.transforms.augmentation import FlipShiftBrightness
from explainkit.metrics import evaluate_explanations
from explainkit.metrics.ground_truth import part_truth, subset_table
from explainkit.protocols import BackgroundEditable, Intervenable, PartCoded


@pytest.fixture(scope="module")
def dataset(shared_birds):
    return shared_birds.dataset()


def pixels_of(images):
    """(N, H, W, 3), bytes."""
    return (images * 255).round().byte().permute(0, 2, 3, 1).numpy()


# what is in it


def test_images_labels_and_classes_are_those_of_the_lists(shared_birds, dataset):
    for split in dataset.splits.values():
        batch = whole_batch(split)
        for number, label, pixels in zip(
            split.numbers.tolist(), batch.labels.tolist(), pixels_of(batch.images), strict=True
        ):
            scene = shared_birds.scenes[split.mode][number]
            assert label == scene["class_idx"]
            assert np.array_equal(pixels, shared_birds.drawn(scene, shared_birds.present(scene)))
    assert dataset.classes == ("bird 0", "bird 1", "bird 2")
    assert dataset.parts == tuple(PARTS)
    assert len(dataset.test) == len(CODES) * TESTED


def test_validation_is_drawn_by_seed_from_the_complete_birds_of_every_class(shared_birds):
    def drawn(**settings):
        return shared_birds.dataset(**settings).validation.numbers.tolist()

    few, half = shared_birds.dataset(), shared_birds.dataset(validation=0.5)

    assert few.validation.labels.tolist() == [0, 1, 2]  # at least one
    assert half.validation.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert half.validation.present.all()
    numbers = half.validation.numbers.tolist() + half.train.numbers.tolist()
    assert sorted(numbers) == list(range(len(CODES) * (COMPLETE + INCOMPLETE)))
    assert drawn(validation=0.5) == drawn(validation=0.5)
    assert any(drawn(validation=0.5, seed=seed) != drawn(validation=0.5) for seed in (1, 2, 3))


def test_labels_and_parts_are_known_without_loading_an_image(shared_birds, monkeypatch):
    monkeypatch.setattr("explainkit.data.datasets.funnybirds.dataset.decode_picture", None)

    dataset = shared_birds.dataset()

    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for index, number in enumerate(dataset.train.numbers.tolist()):
        present = dataset.train.part_presence(torch.tensor([index]))[0]
        parts = [part for part, is_there in zip(PARTS, present.tolist(), strict=True) if is_there]
        assert parts == shared_birds.present(shared_birds.scenes["train"][number])
    assert len(set(map(tuple, dataset.train.present.tolist()))) == 1 + INCOMPLETE


def test_the_path_may_be_the_folder_the_one_above_or_the_archive(shared_birds, dataset, tmp_path):
    paths = [
        str(shared_birds.above),
        shared_birds.zipped(tmp_path / "FunnyBirds.zip"),
        shared_birds.zipped(tmp_path / "flat.zip", top=""),
    ]
    ids = torch.tensor([1, 5, 0])
    subsets = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()

    for path in paths:
        other = shared_birds.dataset(path=path)
        for name, split in dataset.splits.items():
            assert torch.equal(whole_batch(other.splits[name]).images, whole_batch(split).images)
        assert torch.equal(whole_batch(other.test).masks, whole_batch(dataset.test).masks)
        expected = dataset.test.with_parts(ids, subsets).images
        assert torch.equal(other.test.with_parts(ids, subsets).images, expected)


def test_pictures_are_resized_as_pillow_does_it(shared_birds):
    batch = whole_batch(shared_birds.dataset(size=(10, 16)).test)

    for pixels, scene in zip(pixels_of(batch.images), shared_birds.scenes["test"], strict=True):
        picture = Image.fromarray(shared_birds.drawn(scene, PARTS))
        assert np.array_equal(pixels, np.asarray(picture.resize((16, 10), Image.Resampling.BILINEAR)))


def test_the_same_id_gives_the_same_values_in_any_batch(shared_birds, dataset, monkeypatch):
    order, parts = torch.tensor([3, 0, 3]), torch.tensor([[0, 1, 1, 0, 1]] * 3).bool()
    images, masks = whole_batch(dataset.test).images[order], whole_batch(dataset.test).masks[order]
    reduced = torch.cat([dataset.test.with_parts(order[k : k + 1], parts[:1]).images for k in range(3)])
    monkeypatch.setattr("explainkit.data.cache.MEMORY", 100)
    uncached = shared_birds.dataset()

    for test in (dataset.test, uncached.test, pickle.loads(pickle.dumps(uncached.test))):
        batch = test.batch(order)
        assert torch.equal(batch.images, images) and torch.equal(batch.masks, masks)
        assert torch.equal(test.with_parts(order, parts).images, reduced)
        assert test.with_parts(order, parts).ids.tolist() == order.tolist()


def test_a_split_that_reads_the_archive_can_be_copied_to_another_process(shared_birds, dataset, tmp_path):
    packed = shared_birds.dataset(path=shared_birds.zipped(tmp_path / "FunnyBirds.zip"))

    again = pickle.loads(pickle.dumps(packed.test))

    assert torch.equal(whole_batch(again).images, whole_batch(dataset.test).images)


# where things are


def test_masks_are_the_pixels_of_the_colors_of_a_part(shared_birds, dataset):
    masks, objects = whole_batch(dataset.test).masks, dataset.test.object_masks(torch.arange(6))
    backgrounds = dataset.test.background_masks(torch.arange(6))

    expected = np.zeros((len(PARTS), SIDE, SIDE), bool)
    whole = np.zeros((SIDE, SIDE), bool)
    whole[BODY[:2]] = True
    whole[5, 6:18] = False  # no color of a part or the body
    for number, part in enumerate(PARTS):
        for rows, columns, _ in WHERE[part]:
            expected[number, rows, columns] = whole[rows, columns] = True
    for index, scene in enumerate(shared_birds.scenes["test"]):
        assert np.array_equal(masks[index], expected)
        assert np.array_equal(objects[index], whole)
        for number in range(3):
            seen = np.zeros((SIDE, SIDE), bool)
            seen[4 * number : 4 * number + 3, :2] = number < scene["bg_objects"].count(",")
            assert np.array_equal(backgrounds[index, number], seen)


def test_a_pixel_of_a_smaller_image_belongs_to_what_most_of_it_shows(shared_birds, dataset):
    ids, small = torch.arange(6), shared_birds.dataset(size=8).test
    whole = [dataset.test.batch(ids).masks, dataset.test.object_masks(ids)[:, None]]
    whole[1] = whole[1] & ~whole[0].any(1, keepdim=True)  # the body
    shown = torch.cat([*whole, dataset.test.background_masks(ids)], 1).float()
    shown = torch.cat([1 - shown.sum(1, keepdim=True), shown], 1)  # nothing
    shares = torch.nn.functional.avg_pool2d(shown, 3)
    first, second = shares.topk(2, 1).values.unbind(1)

    found = torch.cat([small.batch(ids).masks, small.background_masks(ids)], 1)

    clear = first - second > 0.01
    for number, mask in zip([1, 2, 3, 4, 5, 7, 8, 9], found.unbind(1), strict=True):
        assert torch.equal(mask[clear], (shares.argmax(1) == number)[clear])
    assert clear.float().mean() > 0.9


def test_training_images_have_masks_where_there_are_part_maps_of_them(birds):
    assert whole_batch(birds.dataset().train).masks is None
    with pytest.raises(ek.InputError, match=r"Expected part maps in .*train_part_map"):
        birds.dataset().train.object_masks(torch.tensor([0]))

    for number, scene in enumerate(birds.scenes["train"]):
        birds.save(birds.part_map(scene), birds.file("train_part_map", number))

    for name in ("train", "validation"):
        masks = whole_batch(birds.dataset().splits[name]).masks
        assert torch.equal(masks, whole_batch(birds.dataset().test).masks[:1].expand(len(masks), -1, -1, -1))


# interventions


def test_the_test_can_be_shown_with_every_subset_of_parts(shared_birds, dataset):
    assert isinstance(dataset.test, Intervenable)
    assert not isinstance(dataset.train, Intervenable) and not isinstance(dataset.validation, Intervenable)
    table = subset_table(len(PARTS))

    for index, scene in enumerate(shared_birds.scenes["test"]):
        batch = dataset.test.with_parts(torch.full((32,), index), table)
        assert batch.labels.tolist() == [scene["class_idx"]] * 32 and batch.masks is None
        for pixels, kept in zip(pixels_of(batch.images), table.tolist(), strict=True):
            parts = [part for part, is_kept in zip(PARTS, kept, strict=True) if is_kept]
            assert np.array_equal(pixels, shared_birds.drawn(scene, parts))


def test_a_bird_with_all_its_parts_is_the_image_itself(birds):
    for file in birds.root.glob("test_interventions/*/*/body_beak_eye_foot_tail_wing.png"):
        file.unlink()
    test = birds.dataset().test

    whole = test.with_parts(torch.arange(6), torch.ones(6, 5, dtype=torch.bool))

    assert torch.equal(whole.images, whole_batch(test).images)


def test_a_part_that_a_bird_lacks_anyway_cannot_be_kept(birds):
    def without_beak(scenes):
        scenes[1].update(beak_model="", beak_color="")

    birds.change("dataset_test.json", without_beak)
    test = birds.dataset().test

    kept = test.with_parts(torch.tensor([1]), torch.tensor([[True, True, False, False, False]]))

    assert test.part_presence(torch.tensor([1])).tolist() == [[False, True, True, True, True]]
    assert np.array_equal(pixels_of(kept.images)[0], birds.drawn(birds.scenes["test"][1], ["eye"]))


def test_each_background_object_can_be_taken_away(shared_birds, dataset):
    assert isinstance(dataset.test, BackgroundEditable)
    assert not isinstance(dataset.train, BackgroundEditable)
    there = dataset.test.background_objects(torch.arange(6))
    ids, objects = there.nonzero().unbind(1)

    batch = dataset.test.without_background_object(ids, objects)

    assert there.sum(1).tolist() == [0, 3] * 3
    for pixels, index, number in zip(pixels_of(batch.images), ids.tolist(), objects.tolist(), strict=True):
        scene = shared_birds.scenes["test"][index]
        assert np.array_equal(pixels, shared_birds.drawn(scene, PARTS, without=number))
    assert batch.labels.tolist() == dataset.test.labels[ids].tolist()


def test_classes_share_the_parts_of_which_they_have_the_same_variant(dataset):
    assert isinstance(dataset, PartCoded)
    for first, code in enumerate(CODES):
        for second, other in enumerate(CODES):
            same = [a == b for a, b in zip(code, other, strict=True)]
            assert dataset.shared_parts[first, second].tolist() == same


def test_without_ground_truth_the_test_is_read_without_its_folders(birds, tmp_path):
    for name in ("test_interventions", "test_part_map"):
        (birds.root / name).rename(tmp_path / name)
        with pytest.raises(ek.InputError, match=r"Expected the folder .*With ground_truth=False"):
            birds.dataset()

    test = birds.dataset(ground_truth=False).test

    assert whole_batch(test).masks is None
    assert not isinstance(test, Intervenable)


# what it is for


def test_augmentation_is_none_as_the_authors_have_it_or_light(shared_birds):
    assert shared_birds.dataset().augment is None
    assert shared_birds.dataset(augmentation="light").augment == FlipShiftBrightness(shift=1)


def test_the_truth_about_parts_is_measured_on_the_authors_pictures(shared_birds, dataset):
    ids = torch.tensor([1, 4])

    def predict(images):
        return torch.stack([images.images.sum((1, 2, 3)), images.images[:, 0].sum((1, 2))], 1)

    truth = part_truth(predict, dataset.test, ids, torch.tensor([0, 0]))

    table = subset_table(len(PARTS)).tolist()
    for row, index in enumerate(ids.tolist()):
        for column, kept in enumerate(table):
            parts = [part for part, is_kept in zip(PARTS, kept, strict=True) if is_kept]
            drawn = shared_birds.drawn(shared_birds.scenes["test"][index], parts)
            assert truth.logits[row, column, 0].item() == pytest.approx(drawn.sum() / 255, rel=1e-5)


def test_a_network_learns_from_it_and_metrics_of_parts_apply(shared_birds, tmp_path, capsys):
    status = main([
        "train", "cam", "--dataset", "funnybirds", "--dataset-option", f"path={shared_birds.root}",
        "--dataset-option", "size=32", "--preset", "tiny", "--option", "epochs=1",
        "--out", str(tmp_path / "model"),
    ])  # fmt: skip
    assert status == 0, capsys.readouterr()
    model, dataset = ek.load(tmp_path / "model"), shared_birds.dataset(size=32)

    table = evaluate_explanations(model, dataset, images=3, metrics=["pointing", "shapley-correlation"])

    assert model.classes == dataset.classes
    for name in ("pointing", "shapley-correlation"):
        assert len(table.rows[0].scores[name].values) == 3


def test_scenes_are_not_changed_by_reading_them(dataset):
    before = copy.deepcopy(dataset.test.present)

    dataset.test.with_parts(torch.tensor([0]), torch.zeros(1, 5, dtype=torch.bool))

    assert torch.equal(before, dataset.test.present)


def test_the_scores_of_the_paper_are_taken_on_the_archive(shared_birds):
    dataset = ek.dataset("funnybirds", path=shared_birds.root, size=32)
    model = ek.explainer("cam", preset="tiny", epochs=1).fit(dataset, seed=0, progress=False)

    tables = ek.evaluate_funnybirds(model, dataset, trivial=["area", "random"])

    count = len(dataset.test)
    for row in tables.by_validation.rows:
        assert row.scores["fb-accuracy"].values.shape == (count,)
        for column in ("fb-pc", "fb-dc", "fb-bi", "fb-completeness"):
            assert row.scores[column].reason is None and 0 <= row.scores[column].mean <= 1
    chosen = tables.by_validation.score("cam", "fb-threshold").values
    assert chosen[0::2].unique().numel() == chosen[1::2].unique().numel() == 1  # there is no other split
