import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from explainkit.data.aviary import interventions
from explainkit.data.aviary.dataset import Aviary, aviary
from explainkit.data.aviary.grammar import PARTS
from explainkit.data.images import Batch
from explainkit.errors import InputError, UnknownNameError

COUNTS = {"train": 300, "validation": 40, "test": 60}


@pytest.fixture(scope="module")
def data() -> Aviary:
    return aviary(**COUNTS, seed=2)


def test_the_default_task_is_twenty_species_at_64_pixels() -> None:
    data = aviary()

    assert (len(data.classes), data.size, data.parts) == (20, (64, 64), PARTS)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 5000, "validation": 1000, "test": 2000, "mixed": 2000,
    }  # fmt: skip


def test_a_batch_has_every_field_of_the_contract(data: Aviary) -> None:
    batch = next(iter(data.batches("test", size=32)))

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


def test_the_same_id_gives_the_same_values_in_any_order_and_number(data: Aviary) -> None:
    ids = torch.tensor([57, 3, 3, 20])

    some = data.test.batch(ids)
    fresh = aviary(**COUNTS, seed=2).test.batch(torch.tensor([3]))

    for name in ("images", "labels", "masks", "key_points", "boxes"):
        every = torch.cat([getattr(batch, name) for batch in data.batches("test", 7)])
        assert torch.equal(getattr(some, name), every[ids]), name
        assert torch.equal(getattr(fresh, name)[0], every[3]), name
    assert fresh.captions is not None and some.captions is not None
    assert fresh.captions[0] == some.captions[1] == some.captions[2]


def test_only_what_is_asked_for_is_drawn() -> None:
    data = aviary()

    data.test.batch(torch.tensor([1999]))

    assert data.splits["test"]._drawn.sum() == 1
    assert not data.splits["train"]._drawn.any()


def test_scenes_of_a_split_draw_its_images_again(data: Aviary) -> None:
    for split in data.splits:
        batch = data.split(split).batch(torch.tensor([5, 17]))
        again = data.render(data.scenes(split, [5, 17]))
        assert torch.equal(again.images, batch.images)
        assert torch.equal(again.labels, batch.labels)
        assert batch.masks is not None and again.masks is not None and torch.equal(again.masks, batch.masks)
        assert data.captions(data.scenes(split, [5, 17])) == batch.captions


def test_all_subsets_of_parts_of_an_image_are_one_batch(data: Aviary) -> None:
    batch = data.render(interventions.subsets(data.scenes("mixed", [4])))

    assert len(batch) == 128
    assert torch.equal(batch.images[-1], data.split("mixed").batch(torch.tensor([4])).images[0])


def test_training_birds_lack_parts_and_test_birds_do_not(data: Aviary) -> None:
    assert 0.4 < (~data.scenes("train").present[:, 0]).any(1).mean() < 0.6
    assert data.scenes("test").present.all()
    assert (data.scenes("mixed").codes[:, 0] != data.codes[data.scenes("mixed").labels]).any((1, 2)).all()


def test_the_grammar_answers_by_name(data: Aviary) -> None:
    name = data.classes[3]

    assert data.minimal_sufficient(name) == data.grammar.minimal_sufficient(3)
    assert data.differing(name, 4) == data.grammar.differing(3, 4)
    with pytest.raises(UnknownNameError, match="No class is called 'dodo'"):
        data.minimal_sufficient("dodo")


def test_another_seed_has_other_scenes_of_the_same_species(data: Aviary) -> None:
    other = aviary(**COUNTS, seed=3)

    assert other.classes == data.classes
    assert not torch.equal(next(iter(other.batches("test"))).images, next(iter(data.batches("test"))).images)


def test_spurious_backgrounds_are_for_training_alone() -> None:
    data = aviary(preset="clever-hans", **COUNTS)

    def follows(split: str) -> float:
        return float((data.scenes(split).themes == data.scenes(split).labels % 8).mean())

    assert follows("train") > 0.9
    assert follows("validation") < 0.4 and follows("test") < 0.4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"classes": 3}, "Expected 5 … 200 classes; got 3"),
        ({"size": 16}, "Expected images of 32 … 224 pixels a side; got 16"),
        ({"placement": "left"}, "Expected placement 'centred' or 'free'; got 'left'"),
        ({"birds": 4}, "Expected 1 … 3 birds; got 4"),
        ({"test": 0}, "Expected at least one image to test; got 0"),
        ({"dropout": 1.5}, r"Expected dropout within \[0, 1\]; got 1.5"),
    ],
)
def test_settings_out_of_range_are_refused_in_words(settings: Mapping[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        aviary(**settings)  # type: ignore[arg-type]


def test_ids_that_do_not_exist_are_refused(data: Aviary) -> None:
    with pytest.raises(InputError, match=r"Expected ids \(n,\) in 0 … 59"):
        data.test.batch(torch.tensor([60]))
    with pytest.raises(UnknownNameError, match="aviary has no split 'valid'"):
        data.scenes("valid")


@pytest.mark.parametrize("size", [32, 96])
def test_free_birds_fill_a_third_to_two_thirds_of_the_frame(size: int) -> None:
    batch: Batch = next(iter(aviary(placement="free", size=size, **COUNTS).batches("test", 60)))

    assert batch.boxes is not None
    extent = (batch.boxes[:, 2:] - batch.boxes[:, :2]).amax(1) / size
    centres = (batch.boxes[:, 2:] + batch.boxes[:, :2]) / 2 / size
    assert extent.min() > 0.2 and extent.max() < 0.75
    assert (centres - 0.5).abs().max() > 0.15


def test_drawing_needs_no_torch() -> None:
    code = (
        "import sys, types; sys.modules['torch'] = None\n"
        "from explainkit.data.aviary import interventions, grammar, scenes, rendering, language\n"
        "print(rendering.render(scenes.compose(grammar.grammar(5), [0], scenes.Casting()), 32).images.shape)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "(1, 3, 32, 32)", done.stderr


def test_a_colour_histogram_says_little() -> None:
    data = aviary(train=1500, validation=1, test=400, dropout=0)
    seen = {name: _histograms(data, name) for name in ("train", "test")}

    nearest = np.linalg.norm(seen["test"][:, None] - _class_means(seen["train"])[None], axis=2).argmin(1)

    assert (nearest == data.test.labels.numpy()).mean() < 0.4


def _histograms(data: Aviary, split: str) -> np.ndarray:
    levels = torch.cat([(batch.images * 5.99).long() for batch in data.batches(split, 250)])
    colours = ((levels[:, 0] * 6 + levels[:, 1]) * 6 + levels[:, 2]).flatten(1)
    return torch.zeros(len(colours), 216).scatter_add_(1, colours, torch.ones(colours.shape)).sqrt().numpy()


def _class_means(histograms: np.ndarray) -> np.ndarray:
    return np.stack([histograms[c::20].mean(0) for c in range(20)])
