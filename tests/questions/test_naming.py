"""Names of units: an oracle gets them, noise does not; they are kept, saved and told."""

import copy
from functools import cache

import pytest
import torch
from attrs import evolve
from torch import nn
from toys import Toy, data_of, noise, toy, wine

import explainkit as ek
from explainkit.errors import InputError
from explainkit.explanation import Explanations
from explainkit.metrics.concepts import on_grid
from explainkit.questions.naming import BEYOND, LEAST, name_units
from explainkit.testing import specimen, tiny_data

IMAGES = 400


class Recalled(nn.Module):
    """Knows images when it sees them again, and says of each what it was told to: maps, or scores alone."""

    def __init__(self, images, maps, classes, placed=True):
        super().__init__()
        self.head = nn.Linear(maps.shape[1], classes)
        self.known = {image.numpy().tobytes(): row for row, image in enumerate(images)}
        self.maps, self.placed = maps, placed

    def forward(self, images):
        return self.decompose(images).logits

    def decompose(self, images):
        maps = self.maps[[self.known[image.numpy().tobytes()] for image in images]]
        scores = maps.mean((2, 3)) if self.placed else maps.amax((2, 3))
        return ek.Decomposition(
            logits=self.head(scores), bias=self.head.bias, scores=scores, weights=self.head.weight,
            maps=maps if self.placed else None,
        )  # fmt: skip


class Recaller(Toy):
    """An explainer of it."""

    def describe(self, network):
        return ek.Units(
            kind="filter", names=[f"filter {unit}" for unit in range(network.maps.shape[1])],
            pooling="mean" if network.placed else "none",
        )  # fmt: skip


@cache
def birds():
    """Aviary, and images of it with masks and captions."""
    data = ek.dataset("aviary")
    return data, data.validation.batch(torch.arange(IMAGES))


def recaller(maps, placed=True):
    data, batch = birds()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Recalled(batch.images, maps, len(data.classes), placed)
    return Recaller.bind(network, classes=data.classes)


def said(part, attribute, value):
    """In which images it is said of the part."""
    return torch.tensor([
        any(phrase.part == part and phrase.attributes.get(attribute) == value for phrase in caption.phrases)
        for caption in birds()[1].captions
    ])  # fmt: skip


# oracles and noise


@cache
def named_parts():
    _, batch = birds()
    explainer = recaller(on_grid(batch.masks).float())
    return explainer, name_units(explainer, birds()[0], images=IMAGES)


def test_an_oracle_of_parts_is_named_by_them():
    explainer, names = named_parts()

    assert [name.phrase for name in names] == list(birds()[0].parts) == list(explainer.units.phrases)
    assert all(name.score >= 0.9 and name.told and name.steady == 1 for name in names)
    assert names.images == IMAGES and len(names) == 7 and names[2].name == "filter 2"


def test_an_oracle_of_parts_is_named_from_maps_of_any_resolution():
    data, batch = birds()
    names = name_units(recaller(batch.masks.float()), data, images=IMAGES)

    assert {"barred tail", "barred wing"}.isdisjoint(names.candidates)  # never said not to be
    assert [name.phrase for name in names] == list(data.parts) and all(name.told for name in names)


def test_an_oracle_of_parts_of_a_kind_is_named_by_part_and_kind():
    data, batch = birds()
    masks, shown = on_grid(batch.masks), []
    for part, attribute, value in (("beak", "shape", "hooked"), ("breast", "pattern", "spotted")):
        where = masks[:, data.parts.index(part)] & said(part, attribute, value)[:, None, None]
        shown.append(where.float())
    names = name_units(recaller(torch.stack(shown, 1)), data, images=IMAGES)

    assert [name.phrase for name in names] == ["hooked beak", "spotted breast"]
    assert all(name.score >= 0.9 for name in names)


def test_an_oracle_without_a_place_is_named_by_image():
    data, _ = birds()
    present = torch.stack([said("beak", "shape", "hooked"), said("breast", "pattern", "spotted")], 1)
    names = name_units(recaller(present.float()[..., None, None], placed=False), data, images=IMAGES)

    assert [name.phrase for name in names] == ["hooked beak", "spotted breast"]
    assert all(name.score >= 0.9 and name.told for name in names)


@pytest.mark.parametrize("placed", [True, False])
def test_noise_is_named_nothing(placed):
    maps = torch.rand(IMAGES, 40, 16, 16, generator=torch.Generator().manual_seed(1))
    explainer = recaller(maps if placed else maps[..., :1, :1].contiguous(), placed)
    names = name_units(explainer, birds()[0], images=IMAGES)
    scores = torch.tensor([name.score for name in names])

    assert scores.mean().abs() < 3 * scores.std() / len(scores) ** 0.5 + 1e-3
    assert sum(abs(name.score) > 3 * name.error for name in names) <= 8
    assert sum(name.told for name in names) <= (0 if placed else 1)  # by chance, of 40
    assert [phrase is None for phrase in explainer.units.phrases] == [not name.told for name in names]
    assert explainer.units.phrase_scores.count_nonzero() == 2 * sum(name.told for name in names)
    assert "not told" in names.table()


@pytest.mark.parametrize("images", [4, 6, 8, 12, 20, 40])
def test_noise_on_few_images_is_named_nothing(images):
    maps = torch.rand(IMAGES, 120, 1, 1, generator=torch.Generator().manual_seed(2))
    names = name_units(recaller(maps, placed=False), birds()[0], images=images)

    assert sum(name.told for name in names) <= 6  # of 120
    assert torch.tensor([[name.score, name.steady] for name in names]).isfinite().all()


@pytest.mark.parametrize("images", [1, 2, 3, 5])
def test_few_images_are_enough_not_to_fail(images):
    explainer = recaller(on_grid(birds()[1].masks).float())

    names = name_units(explainer, birds()[0], images=images)
    assert len(names) == 7 and names.images == images


def test_names_are_told_where_they_are_beyond_chance_and_steady():
    for names in (named_parts()[1], name_units(copy.deepcopy(specimen("protopnet")), tiny_data())):
        for name in names:
            good = name.score >= LEAST and name.score > BEYOND * name.error and name.steady > 0.5
            assert name.told == good and (name.phrase is None or name.phrase in names.candidates)


# what is kept


def test_names_are_kept_with_the_units_and_told_in_explanations():
    explainer, names = named_parts()
    units, told = explainer.units, explainer.explain(birds()[1].images[:3])

    assert units.phrase_scores.shape == (2, 7)
    for name in names:
        assert units.phrase_scores[:, name.unit].tolist() == pytest.approx([name.score, name.error])
    item = told[0].strongest(1)[0]
    assert item.phrase == units.phrases[item.unit] and item.phrase in told[0].sentence()
    assert item.phrase_score == pytest.approx(names[item.unit].score)


def test_names_come_back_from_folder_and_file(tmp_path):
    explainer = copy.deepcopy(specimen("protopnet"))
    names = name_units(explainer, tiny_data())
    loaded = ek.load(ek.save(explainer, tmp_path / "saved"))
    told = explainer.explain(tiny_data().test.batch(torch.arange(3)))
    again = Explanations.load(told.save(tmp_path / "told.safetensors"))

    assert any(name.told for name in names)
    for units in (loaded.units, again.units):
        assert units.phrases == explainer.units.phrases
        assert torch.equal(units.phrase_scores, explainer.units.phrase_scores)
    assert [item.sentence() for item in again] == [item.sentence() for item in told]


def test_units_keep_phrases_of_their_own():
    explainer = copy.deepcopy(specimen("ccnn"))
    before = explainer.units.phrases
    names = name_units(explainer, tiny_data())

    assert explainer.units.phrases == before and explainer.units.phrase_scores is None
    assert len(names) == len(before)


def test_names_are_given_anew():
    explainer, _ = named_parts()
    maps = explainer.network.maps
    explainer = recaller(maps)
    explainer.units = evolve(
        explainer.describe(explainer.network), phrases=["wrong"] * 7, phrase_scores=torch.zeros(2, 7)
    )
    name_units(explainer, birds()[0], images=IMAGES)

    assert list(explainer.units.phrases) == list(birds()[0].parts)


def test_naming_twice_says_the_same_and_leaves_network_and_random_state_alone():
    explainer = copy.deepcopy(specimen("cam"))
    explainer.network.train()
    state = [value.clone() for value in explainer.network.state_dict().values()]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = name_units(explainer, tiny_data())

    assert torch.equal(torch.rand(1), expected) and explainer.network.training
    assert all(map(torch.equal, state, explainer.network.state_dict().values()))
    assert list(name_units(explainer, tiny_data())) == list(first)
    with torch.inference_mode():
        assert list(name_units(explainer, tiny_data())) == list(first)
    assert not explainer.units.phrase_scores.is_inference()


def test_other_units_are_as_they_were():
    explainer = copy.deepcopy(specimen("protopnet"))
    before = explainer.units
    name_units(explainer, tiny_data())

    for field in ("kind", "names", "pooling", "exemplars"):
        assert getattr(explainer.units, field) == getattr(before, field)
    assert torch.equal(explainer.units.range, before.range)


# sources of words


@pytest.mark.parametrize("name", ["cam", "protopnet", "senn", "ccnn", "ra-cnn"])
def test_bare_sentences_are_words_enough(name):
    explainer = copy.deepcopy(specimen(name))
    names = name_units(explainer, tiny_data())

    assert names.reason is None and len(names) == len(explainer.units) and names.images == 24
    assert {"red square", "green square", "blue square"} <= set(names.candidates)
    assert names.table().count("\n") == len(names)


@pytest.mark.parametrize("name", ["captum/saliency", "captum/integrated-gradients"])
def test_pixels_have_no_names_and_a_reason(name):
    for data in (tiny_data(), data_of(noise(4), torch.zeros(4).long()), wine()[1]):
        names = name_units(specimen(name), data)
        assert len(names) == 0 and "no meaning" in names.reason and names.table() == names.reason


def test_data_without_words_are_refused_in_words():
    with pytest.raises(InputError, match="masks of parts or with captions"):
        name_units(toy(), data_of(noise(8), torch.zeros(8).long()))
    explainer, data = wine()
    with pytest.raises(InputError, match="captions"):
        name_units(explainer, data)


@pytest.mark.parametrize("options", [{"images": 0}, {"images": -1}, {"folds": 1}, {"folds": 0}])
def test_numbers_that_leave_nothing_are_refused_in_words(options):
    with pytest.raises(InputError):
        name_units(copy.deepcopy(specimen("cam")), tiny_data(), **options)
