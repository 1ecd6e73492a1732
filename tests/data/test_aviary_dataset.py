import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from explainkit.data.datasets.aviary import interventions
from explainkit.data.datasets.aviary.dataset import Aviary, aviary
from explainkit.data.datasets.aviary.grammar import PARTS
from explainkit.data.types import Batch
from explainkit.errors import InputError, UnknownNameError

COUNTS = {"train": 300, "validation": 40, "test": 60}


@pytest.fixture(scope="module")
def dataset() -> Aviary:
    return aviary(**COUNTS, seed=2)


def test_the_default_task_is_twenty_species_at_64_pixels() -> None:
    dataset = aviary()

    assert (len(dataset.classes), dataset.size, dataset.parts) == (20, (64, 64), PARTS)
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 5000, "validation": 1000, "test": 2000, "mixed": 2000,
    }  # fmt: skip


def test_a_batch_has_every_field_of_the_contract(dataset: Aviary) -> None:
    batch = next(iter(dataset.batches("test", batch_size=32)))

    assert batch.images.shape == (32, 3, 64, 64) and batch.images.dtype == torch.float32
    assert batch.images.min() >= 0 and batch.images.max() <= 1
    assert (
        batch.masks is not None and batch.masks.shape == (32, 7, 64, 64) and batch.masks.dtype == torch.bool
    )
    assert batch.key_points is not None and batch.key_points.shape == (32, 7, 3)
    assert batch.boxes is not None and batch.boxes.shape == (32, 4)
    assert batch.captions is not None and len(batch.captions) == 32
    assert batch.labels.tolist() == [n % 20 for n in range(32)]
    assert batch.ids.tolist() == list(range(32))


def test_the_same_id_gives_the_same_values_in_any_order_and_number(dataset: Aviary) -> None:
    ids = torch.tensor([57, 3, 3, 20])

    batch = dataset.test.batch(ids)
    fresh = aviary(**COUNTS, seed=2).test.batch(torch.tensor([3]))

    for name in ("images", "labels", "masks", "key_points", "boxes"):
        values = torch.cat([getattr(other, name) for other in dataset.batches("test", 7)])
        assert torch.equal(getattr(batch, name), values[ids]), name
        assert torch.equal(getattr(fresh, name)[0], values[3]), name
    assert fresh.captions is not None and batch.captions is not None
    assert fresh.captions[0] == batch.captions[1] == batch.captions[2]


def test_only_requested_blocks_are_drawn() -> None:
    dataset = aviary()

    dataset.test.batch(torch.tensor([1999]))

    assert dataset.splits["test"]._drawn.sum() == 1
    assert not dataset.splits["train"]._drawn.any()


def test_scenes_of_a_split_draw_its_images_again(dataset: Aviary) -> None:
    for split in dataset.splits:
        batch = dataset.split(split).batch(torch.tensor([5, 17]))
        again = dataset.render(dataset.scenes(split, [5, 17]))
        assert torch.equal(again.images, batch.images)
        assert torch.equal(again.labels, batch.labels)
        assert batch.masks is not None and again.masks is not None and torch.equal(again.masks, batch.masks)
        assert dataset.captions(dataset.scenes(split, [5, 17])) == batch.captions


def test_all_subsets_of_parts_of_an_image_are_one_batch(dataset: Aviary) -> None:
    batch = dataset.render(interventions.subsets(dataset.scenes("mixed", [4])))

    assert len(batch) == 128
    assert torch.equal(batch.images[-1], dataset.split("mixed").batch(torch.tensor([4])).images[0])


def test_training_birds_lack_parts_and_test_birds_do_not(dataset: Aviary) -> None:
    assert 0.4 < (~dataset.scenes("train").present[:, 0]).any(1).mean() < 0.6
    assert dataset.scenes("test").present.all()
    assert (
        (dataset.scenes("mixed").codes[:, 0] != dataset.codes[dataset.scenes("mixed").labels])
        .any((1, 2))
        .all()
    )


def test_the_grammar_answers_by_name(dataset: Aviary) -> None:
    name = dataset.classes[3]

    assert dataset.minimal_sufficient(name) == dataset.grammar.minimal_sufficient(3)
    assert dataset.differing(name, 4) == dataset.grammar.differing(3, 4)
    with pytest.raises(UnknownNameError, match="No class is called 'dodo'"):
        dataset.minimal_sufficient("dodo")


def test_another_seed_has_other_scenes_of_the_same_species(dataset: Aviary) -> None:
    other = aviary(**COUNTS, seed=3)

    assert other.classes == dataset.classes
    assert not torch.equal(
        next(iter(other.batches("test"))).images, next(iter(dataset.batches("test"))).images
    )


def test_spurious_backgrounds_are_for_training_alone() -> None:
    dataset = aviary(preset="clever-hans", **COUNTS)

    def follows(split: str) -> float:
        return float((dataset.scenes(split).themes == dataset.scenes(split).labels % 8).mean())

    assert follows("train") > 0.9
    assert follows("validation") < 0.4 and follows("test") < 0.4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"classes": 3}, "Expected 5 … 200 classes; got 3"),
        ({"size": 16}, "Expected images of 32 … 224 pixels a side; got 16"),
        ({"placement": "left"}, "Expected placement 'centered' or 'free'; got 'left'"),
        ({"birds": 4}, "Expected 1 … 3 birds; got 4"),
        ({"test": 0}, "Expected at least one image to test; got 0"),
        ({"dropout": 1.5}, r"Expected dropout within \[0, 1\]; got 1.5"),
    ],
)
def test_settings_out_of_range_are_refused_in_words(settings: Mapping[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        aviary(**settings)  # type: ignore[arg-type]


def test_ids_that_do_not_exist_are_refused(dataset: Aviary) -> None:
    with pytest.raises(InputError, match=r"Expected ids \(n,\) in 0 … 59"):
        dataset.test.batch(torch.tensor([60]))
    with pytest.raises(UnknownNameError, match="aviary has no split 'valid'"):
        dataset.scenes("valid")


@pytest.mark.parametrize("size", [32, 96])
def test_free_birds_fill_a_third_to_two_thirds_of_the_frame(size: int) -> None:
    batch: Batch = next(iter(aviary(placement="free", size=size, **COUNTS).batches("test", 60)))

    assert batch.boxes is not None
    extent = (batch.boxes[:, 2:] - batch.boxes[:, :2]).amax(1) / size
    centers = (batch.boxes[:, 2:] + batch.boxes[:, :2]) / 2 / size
    assert extent.min() > 0.2 and extent.max() < 0.75
    assert (centers - 0.5).abs().max() > 0.15


def test_drawing_needs_no_torch() -> None:
    code = (
        "import sys, types; sys.modules['torch'] = None\n"
        "from explainkit.data.datasets.aviary import interventions, grammar, scenes, rendering, language\n"
        "print(rendering.render(scenes.compose(grammar.grammar(5), [0], scenes.Casting()), 32).images.shape)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "(1, 3, 32, 32)", done.stderr


def test_a_color_histogram_says_little() -> None:
    dataset = aviary(train=1500, validation=1, test=400, dropout=0)
    histograms = {name: _histograms(dataset, name) for name in ("train", "test")}
    means = _class_means(histograms["train"])

    nearest = np.linalg.norm(histograms["test"][:, None] - means[None], axis=2).argmin(1)

    assert (nearest == dataset.test.labels.numpy()).mean() < 0.4


def _histograms(dataset: Aviary, split: str) -> np.ndarray:
    levels = torch.cat([(batch.images * 5.99).long() for batch in dataset.batches(split, 250)])
    colors = ((levels[:, 0] * 6 + levels[:, 1]) * 6 + levels[:, 2]).flatten(1)
    return torch.zeros(len(colors), 216).scatter_add_(1, colors, torch.ones(colors.shape)).sqrt().numpy()


def _class_means(histograms: np.ndarray) -> np.ndarray:
    return np.stack([histograms[c::20].mean(0) for c in range(20)])
