"""Regions of other images: all subsets, the network itself where all are replaced, and the fewest."""

import itertools

import pytest
import torch
from plugin_cases import assert_near, uniform
from regioncnn_networks import explainer, fitted, small_network

import explainkit as ek
from explainkit.testing import tiny_dataset, tiny_images
from explainkit_regioncnn.replacement import replace_regions, replaced_logits, subsets


def test_with_all_regions_replaced_the_logits_are_those_of_the_other_image_with_none_its_own():
    network = small_network()
    images, bank = network.outputs(uniform(2, 3, 32, 32)), network.outputs(uniform(3, 3, 32, 32, seed=1))

    logits = replaced_logits(network, images, 1, bank, torch.tensor([[False] * 5, [True] * 5]))

    assert_near(logits[0], images.logits[1].expand(3, -1), scale=images.logits)
    assert_near(logits[1], bank.logits, scale=images.logits)


def test_every_replacement_is_the_head_asked_again():
    network = small_network(dtype=torch.float64)
    images = network.outputs(uniform(2, 3, 32, 32, dtype=torch.float64))
    bank = network.outputs(uniform(3, 3, 32, 32, seed=1, dtype=torch.float64))
    chosen = subsets(5)

    logits = replaced_logits(network, images, 0, bank, chosen)

    for a, subset in enumerate(chosen.tolist()):
        for m in range(3):
            rows = [bank.features[m, k] if taken else images.features[0, k] for k, taken in enumerate(subset)]
            features = torch.stack(rows)
            attention = network.attend(features)[:, 0].softmax(0)
            pooled = sum(attention[k] * network.transform(features)[k] for k in range(5))
            assert_near(logits[a, m], network.head(network.norm(pooled[None]))[0], 1e-9)


def test_subsets_are_all_there_are_the_smallest_first():
    found = subsets(4)

    assert len({tuple(row) for row in found.tolist()}) == 16
    sizes = found.sum(1)
    assert (sizes.diff() >= 0).all() and sizes[0] == 0 and sizes[-1] == 4


def test_the_fewest_regions_are_replaced_and_the_head_says_the_target():
    model, images, dataset = fitted(), tiny_images(), tiny_dataset()
    network = model.network

    found = replace_regions(model, images, 1, dataset, exemplars=6)

    own = network.outputs(images)
    for n in range(6):
        if own.logits[n].argmax() == 1:
            assert found.size[n] == 0 and found.exemplars[n] == -1 and "already" in found.sentence(n)
            continue
        assert found.success[n] and found.logits[n].argmax() == 1
        assert dataset.train.labels[found.exemplars[n]] == 1
        bank = network.outputs(dataset.train.batch(found.exemplars[n : n + 1]).images)
        logits = replaced_logits(network, own, n, bank, found.replaced[n : n + 1])[0, 0]
        assert_near(found.logits[n], logits.detach())
        for fewer in itertools.combinations(range(len(model.units)), int(found.size[n]) - 1):
            chosen = torch.zeros(1, len(model.units), dtype=torch.bool)
            chosen[0, list(fewer)] = True
            assert replaced_logits(network, own, n, bank, chosen)[0, 0].argmax() != 1
        assert f"image {int(found.exemplars[n])}" in found.sentence(n)


def test_a_batch_gives_regions_too_and_disabled_ones_stay():
    model, dataset = fitted(), tiny_dataset()
    batch = dataset.train.batch(torch.arange(48))
    try:
        model.disable_units(0)
        found = replace_regions(model, tiny_images(), 2, batch, exemplars=4)
    finally:
        model.enable_units()

    assert not found.replaced[:, 0].any()


def test_a_network_whose_images_are_normalized_before_it_is_asked_about_those():
    network, images = small_network(), uniform(4, 3, 32, 32)
    scale = {"mean": (0.4, 0.5, 0.6), "std": (0.5, 0.5, 0.5)}
    model = ek.explainer("region-cnn", network=network, size=(32, 32), **scale)
    others = uniform(12, 3, 32, 32, seed=1)
    predicted = model.predict(others).argmax(1)
    label = int(predicted.mode().values)
    batch = ek.Batch(images=others, labels=torch.full((12,), label), ids=torch.arange(12))

    found = replace_regions(model, images, label, batch)

    kept = found.size == 0
    assert_near(found.logits[kept], model.predict(images)[kept], scale=found.logits)
    is_right = (predicted == label).nonzero()[:, 0].tolist()
    assert set(found.exemplars[~kept].tolist()) <= {*is_right}


def test_what_cannot_be_replaced_is_refused_in_words():
    with pytest.raises(ek.InputError, match="Expected a distractor of class 2"):
        empty = ek.Batch(images=uniform(1, 3, 32, 32), labels=torch.tensor([0]), ids=torch.tensor([0]))
        replace_regions(explainer(), uniform(1, 3, 32, 32), 2, empty)
    with pytest.raises(ek.InputError, match="12 regions at most"):
        replace_regions(explainer(regions=13), uniform(1, 3, 32, 32), 0, tiny_dataset())
    model = explainer()
    model.decision = ek.Decision(rule="sigmoid")
    with pytest.raises(ek.InputError, match="one class an image"):
        replace_regions(model, uniform(1, 3, 32, 32), 0, tiny_dataset())
