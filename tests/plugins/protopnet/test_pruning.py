"""Prototypes that are near other classes are dropped."""

import copy

import torch
from plugin_cases import assert_near
from protopnet_networks import fitted_explainer, fitted_network, small_network

import explainkit as ek
from explainkit.testing import tiny_dataset, tiny_images
from explainkit_protopnet.nearest import Nearest
from explainkit_protopnet.pruning import prune, survivors


def test_pruning_drops_prototypes_with_fewer_than_three_of_their_own_but_not_a_classs_last():
    label = torch.tensor(
        [[0] * 6, [0, 0, 1, 1, 1, 2], [1, 1, 1, 0, 0, 0], [2, 0, 0, 0, 0, 0], [1, 1, 1, 0, 2, 0]]
    )
    nearest = Nearest(distance=torch.ones(5, 6), image=label, cell=label, label=label)

    survive = survivors(nearest, torch.tensor([0, 0, 1, 2, 2]), 3)

    assert survive.tolist() == [True, False, True, True, False]  # of class 2, the one with a patch of its own


def test_the_pruned_network_is_what_is_left_of_the_whole(tmp_path):
    model = fitted_explainer()
    network, images = fitted_network(), tiny_images()
    decomposition = network.decompose(images)
    chosen = torch.tensor([0, 2, 3, 5])

    network.keep_prototypes(chosen)

    expected = decomposition.scores[:, chosen] @ model.network.head.weight[:, chosen].T
    terms = decomposition.scores.sum(1)
    assert_near(network(images), expected, scale=terms)
    fresh = small_network()
    fresh.load_state_dict(network.state_dict())
    assert_near(fresh(images), network(images), scale=terms)
    pruned = ek.explainer("protopnet", preset="tiny", prune=True).fit(
        tiny_dataset(), device="cpu", progress=False
    )
    pruned._adopt(network, model.classes, model.input_spec)
    loaded = ek.load(ek.save(pruned, tmp_path / "pruned"))
    assert torch.equal(loaded.predict(images), pruned.predict(images)) and len(loaded.units) == 4
    numbers = [(1, 0), (1, 1), (2, 1), (1, 2)]
    names = [f"prototype {number} of square {label}" for number, label in numbers]
    assert list(loaded.units.names) == names


def test_pruning_leaves_every_class_a_prototype():
    network = small_network(prototypes_per_class=4)

    with torch.no_grad():
        prune(network, tiny_dataset(), min_same_class=7)

    assert network.owner.tolist() == [0, 1, 2] and network.head.weight.shape == (3, 3)


def test_a_prototype_that_is_off_stays_off_when_others_are_dropped(tmp_path):
    model = copy.deepcopy(fitted_explainer())
    model.disable_units([1, 3])
    images, network = tiny_images(), model.network
    scores = network.decompose(images).scores

    network.keep_prototypes(torch.tensor([0, 2, 3, 5]))

    assert network.unit_mask.tolist() == [True, True, False, True]
    assert torch.equal(network.decompose(images).scores[:, 2], torch.zeros(len(images)))
    assert_near(network.decompose(images).scores, scores[:, [0, 2, 3, 5]])
    fresh = small_network()
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh.unit_mask, network.unit_mask)


def test_a_prototype_that_is_off_is_still_found_where_it_was():
    model = copy.deepcopy(fitted_explainer())
    before = model.explain(tiny_images())

    after = model.disable_units(0).explain(tiny_images())

    assert torch.equal(after.maps, before.maps)
    assert not after.contributions[:, 0].any()
    assert torch.equal(after.contributions[:, 1:], before.contributions[:, 1:])
