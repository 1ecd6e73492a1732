"""Redrawn scenes have the same birds in the same places, and nothing else of the first ones."""

import numpy as np
import pytest
import torch

from explainkit.data.datasets.aviary.dataset import aviary
from explainkit.errors import InputError
from explainkit.protocols import Redrawable

POSE = ("positions", "stance", "sizes", "shown", "present")
NEW = ("tints", "plumages", "themes", "backdrop", "distractors", "distractor_positions")
IDS = torch.arange(12)


@pytest.fixture(scope="module")
def split():
    return aviary(classes=6, size=32, train=20, validation=20, test=20, birds=2).splits["train"]


def test_a_split_of_birds_can_be_redrawn(split) -> None:
    assert isinstance(split, Redrawable)


@pytest.mark.parametrize("same_class", [True, False])
def test_birds_stand_as_they_did_and_all_else_is_new(split, same_class) -> None:
    before, after = split.scenes(IDS), split.redraw(IDS, same_class=same_class, seed=0).scenes

    for name in POSE:
        assert np.array_equal(getattr(after, name), getattr(before, name)), name
    for name in NEW:
        assert not np.array_equal(getattr(after, name), getattr(before, name)), name


def test_birds_of_the_same_class_keep_their_parts(split) -> None:
    before, batch = split.scenes(IDS), split.redraw(IDS, same_class=True, seed=0)

    assert np.array_equal(batch.scenes.codes, before.codes)
    assert torch.equal(batch.labels, split.labels[IDS])


def test_birds_of_another_class_have_all_parts_of_one_other_species(split) -> None:
    batch = split.redraw(IDS, same_class=False, seed=0)

    labels = batch.labels.numpy()
    assert not (batch.labels == split.labels[IDS]).any()
    assert np.array_equal(batch.scenes.codes, np.repeat(split._grammar.codes[labels][:, None], 3, 1))
    assert np.array_equal(batch.scenes.species, np.repeat(labels[:, None], 3, 1))
    seen = {split.redraw(IDS[:1], same_class=False, seed=seed).labels.item() for seed in range(40)}
    assert seen == {1, 2, 3, 4, 5}


def test_colors_that_tell_no_species_apart_stay() -> None:
    split = aviary(classes=5, size=32, train=5, validation=5, test=5, preset="shape").splits["test"]

    codes = split.redraw(torch.arange(5), same_class=False, seed=0).scenes.codes

    assert np.array_equal(codes[..., 1], split.scenes().codes[..., 1])
    assert not np.array_equal(codes[..., 0], split.scenes().codes[..., 0])


@pytest.mark.parametrize("same_class", [True, False])
def test_a_redrawn_image_depends_on_seed_and_id_alone(split, same_class) -> None:
    images = split.redraw(IDS, same_class=same_class, seed=3).images

    alone = split.redraw(IDS[[7]], same_class=same_class, seed=3).images
    assert torch.equal(split.redraw(IDS.flip(0), same_class=same_class, seed=3).images.flip(0), images)
    assert torch.equal(alone[0], images[7])
    other_seed = split.redraw(IDS, same_class=same_class, seed=4).images
    assert ((other_seed - images).abs().amax((1, 2, 3)) > 0.1).all()


def test_backgrounds_that_give_the_species_away_are_not_redrawn_so() -> None:
    split = aviary(classes=5, size=32, train=60, validation=5, test=5, preset="clever-hans").splits["train"]
    ids = torch.arange(60)

    themes = split.redraw(ids, same_class=True, seed=0).scenes.themes

    assert (split.scenes().themes == split.labels.numpy() % 8).mean() > 0.9
    assert (themes == split.labels.numpy() % 8).mean() < 0.4


def test_ids_that_are_not_there_are_refused(split) -> None:
    with pytest.raises(InputError, match="Expected ids"):
        split.redraw(torch.tensor([20]), same_class=True, seed=0)
