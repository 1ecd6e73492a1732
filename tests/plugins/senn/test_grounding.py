"""Concepts by their scale, their pictures and their drawings."""

from itertools import product

import pytest
import torch
from attrs import evolve
from plugin_cases import assert_near, whole_split
from senn_networks import fitted_explainer, fitted_network
from torch import nn

import explainkit as ek
from explainkit.data.types import ArraySplit
from explainkit.testing import tiny_dataset, tiny_images
from explainkit_senn.grounding import ground
from explainkit_senn.model import BEST, STRIP


def test_concepts_have_deviation_one_on_training_data_and_logits_stay():
    dataset = tiny_dataset()
    network = fitted_network()
    network.grounds.std.copy_(torch.tensor([0.1, 3.0, 1.0, 20.0]))
    images = whole_split(dataset).images
    before = network.decompose(images)

    with torch.no_grad():
        ground(network, dataset, batch_size=13)

    after = network.decompose(images)
    ones = torch.ones(len(images), dtype=torch.long)
    contributions = before.weights_for(ones) * before.scores
    assert_near(after.scores.std(0), torch.ones(4))
    assert_near(after.logits, before.logits, scale=contributions)
    assert_near(after.weights_for(ones) * after.scores, contributions)
    assert not torch.allclose(after.weights_for(ones), before.weights_for(ones))
    assert_near(network.grounds.mean / network.grounds.std, after.scores.mean(0), scale=after.scores)
    levels = torch.tensor([0.05, 0.95])
    assert_near(network.grounds.range, after.scores.quantile(levels, 0), scale=after.scores)


@pytest.mark.parametrize("batch_size", [5, 96])
def test_exemplars_are_the_images_with_most_and_least_of_a_concept(batch_size):
    network, dataset = fitted_network(), tiny_dataset()
    with torch.no_grad():
        ground(network, dataset, batch_size)
        scores = network.decompose(whole_split(dataset).images).scores

    for k in range(4):
        ranked = sorted(range(96), key=lambda n, k=k: (-scores[n, k].item(), n))
        ids = network.grounds.image[k].tolist()
        assert ids[:BEST] == ranked[:BEST] and ids[BEST:] == ranked[::-1][:BEST]
        for column, image in enumerate(ids):
            picture = network.grounds.picture[k * 2 * BEST + column]
            assert torch.equal(picture, dataset.train.images[image])
            assert network.grounds.label[k, column] == dataset.train.labels[image]


def test_of_images_with_as_much_of_it_the_first_is_kept():
    dataset = tiny_dataset()
    twice = ArraySplit(
        images=dataset.train.images[:48].repeat(2, 1, 1, 1), labels=dataset.train.labels[:48].repeat(2)
    )
    network = fitted_network()

    with torch.no_grad():
        # batches of 48, so that an image and its double meet the same arithmetic
        ground(network, evolve(dataset, splits={**dataset.splits, "train": twice}), batch_size=48)

    for best in network.grounds.image[:, :BEST].tolist():
        assert best[1] == best[0] + 48


def test_with_few_training_images_there_are_few_exemplars():
    dataset = tiny_dataset()
    few = ArraySplit(images=dataset.train.images[:3], labels=dataset.train.labels[:3])
    model = ek.explainer("senn", preset="tiny", batch_size=2)

    model.fit(evolve(dataset, splits={**dataset.splits, "train": few}), device="cpu", progress=False)

    assert [len(pictures) for pictures in model.units.pictures] == [2 * 3 + STRIP] * 4


def test_a_concept_is_drawn_from_little_to_much_of_it():
    network = fitted_explainer().network
    grounds = network.grounds

    for k, step in product(range(4), range(STRIP)):
        concepts = grounds.mean / grounds.std
        concepts[k] = torch.lerp(grounds.range[0, k], grounds.range[1, k], step / (STRIP - 1))
        with torch.no_grad():
            picture = network.conceptizer.decode((concepts * grounds.std)[None])[0]
        gap = (picture * 255).round() - grounds.drawn[k * STRIP + step].float()
        assert gap.abs().max() <= 1


def test_a_dead_concept_is_no_division_by_zero():
    network = fitted_network()
    with torch.no_grad():
        for layer in network.conceptizer.downwards:
            if isinstance(layer, nn.Conv2d):
                layer.weight.zero_()
        ground(network, tiny_dataset())

    assert (network.grounds.std == 1).all() and network(tiny_images()).isfinite().all()


def test_pictures_of_concepts_say_what_they_are_and_survive_saving(tmp_path):
    model = fitted_explainer()

    loaded = ek.load(ek.save(model, tmp_path / "model"))

    kinds = ["training"] * 5 + ["least"] * 5 + ["decoded"] * 5
    for saved, pictures in zip(model.units.pictures, loaded.units.pictures, strict=True):
        assert [picture.kind for picture in pictures] == kinds
        for picture, expected in zip(pictures, saved, strict=True):
            assert (picture.id, picture.label) == (expected.id, expected.label)
            assert torch.equal(picture.image, expected.image)
    explanations, expected = loaded.explain(tiny_images()), model.explain(tiny_images())
    assert explanations[0].sentence() == expected[0].sentence()
    assert torch.equal(explanations.contributions, expected.contributions)
