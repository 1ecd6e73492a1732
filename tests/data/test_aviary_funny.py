"""The preset after FunnyBirds, and what its scores ask of aviary."""

import numpy as np
import pytest
import torch

import explainkit as ek
from explainkit.data.datasets.aviary.backdrop import DISTRACTOR
from explainkit.data.datasets.aviary.dataset import aviary
from explainkit.data.datasets.aviary.grammar import FUNNY_VARIANTS, PARTS, grammar
from explainkit.data.datasets.aviary.preview import contact_sheet
from explainkit.data.datasets.aviary.scenes import Casting, compose
from explainkit.errors import InputError
from explainkit.protocols import BackgroundEditable, PartCoded

FIVE = np.isin(PARTS, ("beak", "eye", "feet", "tail", "wing"))


@pytest.fixture(scope="module")
def dataset():
    return aviary(preset="funny", classes=20, size=48, train=2000, validation=8, test=40)


def test_there_are_as_many_variants_as_funnybirds_has() -> None:
    counts = {part: len(set(variants)) for part, variants in FUNNY_VARIANTS.items()}

    assert counts == {"beak": 4, "eye": 3, "feet": 4, "tail": 9, "wing": 6}


def test_species_use_every_variant_and_are_close() -> None:
    species = grammar(200, "funny")

    for p, part in enumerate(PARTS):
        assert len(np.unique(species.codes[:, p], axis=0)) == len(FUNNY_VARIANTS.get(part, [0]))
    assert species.distance == 1
    assert 0 < np.median(species.distances) <= 5


def test_no_bird_has_a_crest_or_a_breast(dataset) -> None:
    for split in dataset.splits.values():
        ids = torch.arange(min(len(split), 40))
        presence = split.part_presence(ids)
        assert not presence[:, ~FIVE].any()
        assert not split.batch(ids).masks[:, ~FIVE].any()


def test_half_of_the_training_birds_lack_any_number_of_parts() -> None:
    species = grammar(20, "funny")
    scenes = compose(species, np.arange(6000), Casting(split=1, dropout=0.5, max_missing=5))

    missing = 5 - scenes.present[:, 0].sum(1)

    counts = np.bincount(missing, minlength=6) / 6000
    assert counts[1:] == pytest.approx(np.full(5, 1 / 12), abs=0.015)
    assert counts[0] == pytest.approx(0.5 + 1 / 12, abs=0.02)
    shares = [1 - scenes.present[missing > 0, 0, p].mean() for p in np.flatnonzero(FIVE)]
    assert shares == pytest.approx([0.6] * 5, abs=0.03), "each part as often"


def test_test_birds_are_whole_and_as_their_species(dataset) -> None:
    scenes = dataset.scenes("test")

    assert (scenes.present[:, 0] == FIVE).all()
    assert (scenes.codes[:, 0] == dataset.codes[scenes.labels]).all()


def test_variation_can_be_asked_for() -> None:
    scenes = aviary(preset="funny", train=8, validation=8, test=400, variation=0.5).scenes("test")

    assert (scenes.codes[:, 0] != grammar(20, "funny").codes[scenes.labels]).any()


def test_shared_parts_are_those_of_the_codes(dataset) -> None:
    shared = dataset.shared_parts

    assert isinstance(dataset, PartCoded) and shared.dtype == torch.bool
    for one in range(20):
        for other in range(20):
            common = [
                FIVE[p] and tuple(dataset.codes[one, p]) == tuple(dataset.codes[other, p]) for p in range(7)
            ]
            assert shared[one, other].tolist() == common


@pytest.mark.parametrize("preset", ["standard", "shape"])
def test_every_part_of_a_class_is_its_own_in_other_presets(preset) -> None:
    shared = aviary(preset=preset, classes=6, train=1, validation=1, test=1).shared_parts

    assert shared.diagonal().all() and not shared.all()


def test_names_are_of_parts_that_birds_have(dataset) -> None:
    names = aviary(preset="funny", classes=200, train=1, validation=1, test=1).classes

    assert len(set(names)) == 200
    assert not any(word in name for name in names for word in ("crest", "breast"))


def test_minimal_sets_are_of_parts_that_birds_have(dataset) -> None:
    for species in range(20):
        sets = dataset.minimal_sufficient(species)
        assert sets and all(set(parts) <= set(FUNNY_VARIANTS) for parts in sets)


def test_captions_speak_of_parts_that_are_there(dataset) -> None:
    for split in ("train", "mixed"):
        scenes = dataset.scenes(split, range(40))
        for n, caption in enumerate(dataset.captions(scenes)):
            parts = [phrase.part for phrase in caption.phrases if phrase.part]
            assert all(scenes.present[n, 0, PARTS.index(part)] for part in parts)


def test_one_background_object_goes_and_all_else_stays(dataset) -> None:
    split = dataset.splits["test"]
    ids = torch.arange(12)
    objects = split.background_objects(ids)
    rows, numbers = objects.nonzero().T

    after = split.without_background_object(ids[rows], numbers)

    assert isinstance(split, BackgroundEditable) and objects.shape == (12, 8)
    assert objects.sum(1).min() >= 2 and objects.sum(1).max() > 4
    before, drawn = split.batch(ids), dataset.draw(dataset.scenes("test", range(12)))
    changed = (after.images != before.images[rows]).any(1)
    assert torch.equal(after.masks, before.masks[rows])
    for i, row in enumerate(rows.tolist()):
        outside = torch.from_numpy(drawn.identities[row] != DISTRACTOR)
        assert (changed[i] & outside).sum() <= changed[i].sum() / 2 + 25, "only its own soft edge"
    assert torch.equal(split.background_objects(ids), objects)


@pytest.mark.parametrize("objects", [torch.tensor([8, 0]), torch.tensor([-1, 0]), torch.tensor([0])])
def test_objects_that_there_cannot_be_are_refused(dataset, objects) -> None:
    with pytest.raises(InputError, match="distractor of 0 … 7 for each of 2 scenes"):
        dataset.splits["test"].without_background_object(torch.arange(2), objects)


def test_the_ideal_observer_knows_every_whole_bird(dataset) -> None:
    batch = dataset.splits["test"].batch(torch.arange(10))
    observer = dataset.splits["test"].ideal_observer(torch.arange(10))

    explanations = observer.explain(batch).check_additivity()

    assert torch.equal(explanations.logits.argmax(1), batch.labels)
    assert (explanations.explained_output == 5).all()


def test_the_contact_sheet_shows_five_parts() -> None:
    sheet = contact_sheet(aviary(preset="funny", size=32, classes=6, train=1, validation=1, test=20))

    assert sheet.mode == "RGB" and sheet.width > 1000


def test_it_is_offered_by_name() -> None:
    assert len(ek.dataset("aviary", preset="funny", classes=50, test=500).classes) == 50
