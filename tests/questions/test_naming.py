"""Names of units: an oracle gets them, noise does not; they are kept, saved and used in sentences."""

import copy
from functools import cache

import pytest
import torch
from attrs import evolve
from torch import nn
from toys import Toy, dataset_of, noise, toy, wine

import explainkit as ek
from explainkit.errors import FormatError, InputError
from explainkit.explanations.batch import Explanations
from explainkit.metrics.concepts import on_grid
from explainkit.questions.naming import MIN_SCORE, MIN_STD_ERRORS, Name, name_units
from explainkit.testing import fitted_example, tiny_dataset

IMAGES = 400


class LookupNetwork(nn.Module):
    """Returns for each known image the maps stored for it, or their scores alone."""

    def __init__(self, images, maps, classes, has_maps=True):
        super().__init__()
        self.head = nn.Linear(maps.shape[1], classes)
        self.rows = {image.numpy().tobytes(): row for row, image in enumerate(images)}
        self.maps, self.has_maps = maps, has_maps

    def forward(self, images):
        return self.decompose(images).logits

    def decompose(self, images):
        maps = self.maps[[self.rows[image.numpy().tobytes()] for image in images]]
        scores = maps.mean((2, 3)) if self.has_maps else maps.amax((2, 3))
        return ek.Decomposition(
            logits=self.head(scores), bias=self.head.bias, scores=scores, weights=self.head.weight,
            maps=maps if self.has_maps else None,
        )  # fmt: skip


class LookupExplainer(Toy):
    """An explainer of it."""

    def describe_units(self, network):
        return ek.Units(
            kind="filter", names=[f"filter {unit}" for unit in range(network.maps.shape[1])],
            pooling="mean" if network.has_maps else "none",
        )  # fmt: skip


@cache
def birds():
    """Aviary, and images of it with masks and captions."""
    dataset = ek.dataset("aviary")
    return dataset, dataset.validation.batch(torch.arange(IMAGES))


def lookup_explainer(maps, has_maps=True):
    dataset, batch = birds()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LookupNetwork(batch.images, maps, len(dataset.classes), has_maps)
    return LookupExplainer.from_network(network, classes=dataset.classes)


def mentions(part, attribute, value):
    """Which captions say that of the part, (N,) bool."""
    return torch.tensor([
        any(phrase.part == part and phrase.attributes.get(attribute) == value for phrase in caption.phrases)
        for caption in birds()[1].captions
    ])  # fmt: skip


# oracles and noise


@cache
def named_parts():
    _, batch = birds()
    explainer = lookup_explainer(on_grid(batch.masks).float())
    return explainer, name_units(explainer, birds()[0], images=IMAGES)


def test_an_oracle_of_parts_is_named_by_them():
    explainer, names = named_parts()

    assert [name.phrase for name in names] == list(birds()[0].parts) == list(explainer.units.phrases)
    assert all(name.score >= 0.9 and name.accepted and name.selection_stability == 1 for name in names)
    assert names.images == IMAGES and len(names) == 7 and names[2].name == "filter 2"


def test_an_oracle_of_parts_is_named_from_maps_of_any_resolution():
    dataset, batch = birds()
    names = name_units(lookup_explainer(batch.masks.float()), dataset, images=IMAGES)

    assert {"barred tail", "barred wing"}.isdisjoint(names.candidates)  # never said not to be
    assert [name.phrase for name in names] == list(dataset.parts) and all(name.accepted for name in names)


def test_an_oracle_of_parts_of_a_kind_is_named_by_part_and_kind():
    dataset, batch = birds()
    masks, maps = on_grid(batch.masks), []
    for part, attribute, value in (("beak", "shape", "hooked"), ("breast", "pattern", "spotted")):
        region = masks[:, dataset.parts.index(part)] & mentions(part, attribute, value)[:, None, None]
        maps.append(region.float())
    names = name_units(lookup_explainer(torch.stack(maps, 1)), dataset, images=IMAGES)

    assert [name.phrase for name in names] == ["hooked beak", "spotted breast"]
    assert all(name.score >= 0.9 for name in names)


def test_an_oracle_without_a_place_is_named_by_image():
    dataset, _ = birds()
    present = torch.stack([mentions("beak", "shape", "hooked"), mentions("breast", "pattern", "spotted")], 1)
    names = name_units(
        lookup_explainer(present.float()[..., None, None], has_maps=False), dataset, images=IMAGES
    )

    assert [name.phrase for name in names] == ["hooked beak", "spotted breast"]
    assert all(name.score >= 0.9 and name.accepted for name in names)


@pytest.mark.parametrize("has_maps", [True, False])
def test_noise_is_named_nothing(has_maps):
    maps = torch.rand(IMAGES, 40, 16, 16, generator=torch.Generator().manual_seed(1))
    explainer = lookup_explainer(maps if has_maps else maps[..., :1, :1].contiguous(), has_maps)
    names = name_units(explainer, birds()[0], images=IMAGES)
    scores = torch.tensor([name.score for name in names])

    assert scores.mean().abs() < 3 * scores.std() / len(scores) ** 0.5 + 1e-3
    assert sum(abs(name.score) > 3 * name.std_error for name in names) <= 8
    assert sum(name.accepted for name in names) <= (0 if has_maps else 1)  # by chance, of 40
    assert [phrase is None for phrase in explainer.units.phrases] == [not name.accepted for name in names]
    assert explainer.units.phrase_scores.count_nonzero() == 2 * sum(name.accepted for name in names)
    assert "not accepted" in names.table()


@pytest.mark.parametrize("images", [4, 6, 8, 12, 20, 40])
def test_noise_on_few_images_is_named_nothing(images):
    maps = torch.rand(IMAGES, 120, 1, 1, generator=torch.Generator().manual_seed(2))
    names = name_units(lookup_explainer(maps, has_maps=False), birds()[0], images=images)

    assert sum(name.accepted for name in names) <= 6  # of 120
    assert torch.tensor([[name.score, name.selection_stability] for name in names]).isfinite().all()


@pytest.mark.parametrize("images", [1, 2, 3, 5])
def test_few_images_are_enough_not_to_fail(images):
    explainer = lookup_explainer(on_grid(birds()[1].masks).float())

    names = name_units(explainer, birds()[0], images=images)
    assert len(names) == 7 and names.images == images


def test_names_are_accepted_where_they_are_beyond_chance_and_stable():
    for names in (named_parts()[1], name_units(copy.deepcopy(fitted_example("protopnet")), tiny_dataset())):
        for name in names:
            is_good = (
                name.score >= MIN_SCORE
                and name.score > MIN_STD_ERRORS * name.std_error
                and name.selection_stability > 0.5
            )
            assert name.accepted == is_good and (name.phrase is None or name.phrase in names.candidates)


# names are kept


def test_names_are_kept_with_the_units_and_used_in_explanations():
    explainer, names = named_parts()
    units, explanations = explainer.units, explainer.explain(birds()[1].images[:3])

    assert units.phrase_scores.shape == (2, 7)
    for name in names:
        assert units.phrase_scores[:, name.unit].tolist() == pytest.approx([name.score, name.std_error])
    item = explanations[0].top(1)[0]
    assert item.phrase == units.phrases[item.unit] and item.phrase in explanations[0].sentence()
    assert item.phrase_score == pytest.approx(names[item.unit].score)


def test_names_come_back_from_folder_and_file(tmp_path):
    explainer = copy.deepcopy(fitted_example("protopnet"))
    names = name_units(explainer, tiny_dataset())
    loaded = ek.load(ek.save(explainer, tmp_path / "saved"))
    explanations = explainer.explain(tiny_dataset().test.batch(torch.arange(3)))
    again = Explanations.load(explanations.save(tmp_path / "explanations.safetensors"))

    assert any(name.accepted for name in names)
    for units in (loaded.units, again.units):
        assert units.phrases == explainer.units.phrases
        assert torch.equal(units.phrase_scores, explainer.units.phrase_scores)
    assert [item.sentence() for item in again] == [item.sentence() for item in explanations]


def test_units_keep_phrases_of_their_own():
    explainer = copy.deepcopy(fitted_example("ccnn"))
    before = explainer.units.phrases
    names = name_units(explainer, tiny_dataset())

    assert explainer.units.phrases == before and explainer.units.phrase_scores is None
    assert len(names) == len(before)


def test_names_are_given_anew():
    explainer, _ = named_parts()
    maps = explainer.network.maps
    explainer = lookup_explainer(maps)
    explainer.units = evolve(
        explainer.describe_units(explainer.network), phrases=["wrong"] * 7, phrase_scores=torch.zeros(2, 7)
    )
    name_units(explainer, birds()[0], images=IMAGES)

    assert list(explainer.units.phrases) == list(birds()[0].parts)


def test_naming_twice_says_the_same_and_leaves_network_and_random_state_alone():
    explainer = copy.deepcopy(fitted_example("cam"))
    explainer.network.train()
    state = [value.clone() for value in explainer.network.state_dict().values()]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = name_units(explainer, tiny_dataset())

    assert torch.equal(torch.rand(1), expected) and explainer.network.training
    assert all(map(torch.equal, state, explainer.network.state_dict().values()))
    assert list(name_units(explainer, tiny_dataset())) == list(first)
    with torch.inference_mode():
        assert list(name_units(explainer, tiny_dataset())) == list(first)
    assert not explainer.units.phrase_scores.is_inference()


def test_other_units_are_as_they_were():
    explainer = copy.deepcopy(fitted_example("protopnet"))
    before = explainer.units
    name_units(explainer, tiny_dataset())

    for field in ("kind", "names", "pooling", "pictures"):
        assert getattr(explainer.units, field) == getattr(before, field)
    assert torch.equal(explainer.units.score_range, before.score_range)


# sources of words


@pytest.mark.parametrize("name", ["cam", "protopnet", "senn", "ccnn", "ra-cnn"])
def test_bare_sentences_are_words_enough(name):
    explainer = copy.deepcopy(fitted_example(name))
    names = name_units(explainer, tiny_dataset())

    assert names.reason is None and len(names) == len(explainer.units) and names.images == 24
    assert {"red square", "green square", "blue square"} <= set(names.candidates)
    assert names.table().count("\n") == len(names)


@pytest.mark.parametrize("name", ["captum/saliency", "captum/integrated-gradients"])
def test_pixels_have_no_names_and_a_reason(name):
    for dataset in (tiny_dataset(), dataset_of(noise(4), torch.zeros(4).long()), wine()[1]):
        names = name_units(fitted_example(name), dataset)
        assert len(names) == 0 and "no meaning" in names.reason and names.table() == names.reason


def test_data_without_words_are_refused_in_words():
    with pytest.raises(InputError, match="masks of parts or with captions"):
        name_units(toy(), dataset_of(noise(8), torch.zeros(8).long()))
    explainer, dataset = wine()
    with pytest.raises(InputError, match="captions"):
        name_units(explainer, dataset)


@pytest.mark.parametrize("options", [{"images": 0}, {"images": -1}, {"folds": 1}, {"folds": 0}])
def test_numbers_that_leave_nothing_are_refused_in_words(options):
    with pytest.raises(InputError):
        name_units(copy.deepcopy(fitted_example("cam")), tiny_dataset(), **options)


def test_names_come_back_from_json():
    named = Name(
        unit=0, name="filter 0", phrase="red crest", score=0.1 + 0.2, std_error=1 / 3,
        selection_stability=0.8, accepted=True,
    )  # fmt: skip
    unnamed = evolve(named, unit=1, name="filter 1", phrase=None, accepted=False, score=0.0)
    names = ek.Names(explainer="CAM", units=(named, unnamed), candidates=("red crest",), images=20)

    again = ek.Names.from_json(names.to_json())

    assert again.units == names.units and again.candidates == names.candidates and again.images == 20
    assert again.reason is None and again.table() == names.table()
    with pytest.raises(FormatError, match=r"explainkit\.names"):
        ek.Names.from_json(names.to_json().replace('"images": 20', '"images": "20"'))


# memory


@pytest.mark.parametrize("kind", ["grid", "pixels", "cells", "none"])
def test_names_do_not_depend_on_how_many_units_are_looked_at_at_once(monkeypatch, kind):
    dataset, batch = birds()
    masks = on_grid(batch.masks, {"grid": (16, 16), "cells": (8, 8)}.get(kind, (32, 32))).float()
    maps = masks + 0.3 * torch.rand(masks.shape, generator=torch.Generator().manual_seed(1))
    maps = maps.amax((2, 3), keepdim=True) if kind == "none" else maps
    whole = name_units(lookup_explainer(maps, kind != "none"), dataset, images=IMAGES)
    for name in ("KEPT", "RESIZED", "EXPLAINED"):
        monkeypatch.setattr(f"explainkit.questions.unit_maps.{name}", 3 * IMAGES * 64)

    parts = name_units(lookup_explainer(maps, kind != "none"), dataset, images=IMAGES)

    assert [name.phrase for name in parts] == [name.phrase for name in whole]
    for one, other in zip(parts, whole, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-9)
        assert one.std_error == pytest.approx(other.std_error, abs=1e-9)


def test_units_in_boxes_are_named_alike_a_few_at_a_time(monkeypatch):
    explainer = copy.deepcopy(fitted_example("ra-cnn"))
    whole = name_units(explainer, tiny_dataset())
    monkeypatch.setattr("explainkit.questions.unit_maps.KEPT", 1)

    parts = name_units(explainer, tiny_dataset())

    for one, other in zip(parts, whole, strict=True):
        assert (one.phrase, one.score) == (other.phrase, pytest.approx(other.score, abs=1e-9))
