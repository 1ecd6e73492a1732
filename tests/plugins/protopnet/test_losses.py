"""Cluster and separation costs, against loops."""

import pytest
import torch
from plugin_cases import FLOAT32, alone, assert_near, uniform, whole_split
from protopnet_networks import small_network

from explainkit.testing import tiny_dataset
from explainkit_protopnet.losses import cluster, clustering_loss, off_class_l1, separation


def test_cluster_and_separation_are_those_of_a_loop():
    distances, labels, owner = 9 * uniform(6, 8), torch.tensor([0, 1, 2, 3, 0, 1]), torch.arange(4).repeat(2)
    owned = owner == labels[:, None]

    near, far = cluster(distances, owned), separation(distances, owned)

    own = [
        min(d for d, o in zip(row.tolist(), owner, strict=True) if o == y)
        for row, y in zip(distances, labels, strict=True)
    ]
    others = [
        min(d for d, o in zip(row.tolist(), owner, strict=True) if o != y)
        for row, y in zip(distances, labels, strict=True)
    ]
    assert near.item() == pytest.approx(sum(own) / 6, rel=FLOAT32)
    assert far.item() == pytest.approx(-sum(others) / 6, rel=FLOAT32)


def test_distances_beyond_the_depth_still_have_a_gradient():
    distances = (100 + uniform(4, 6)).requires_grad_()
    owned = torch.arange(6) // 2 == torch.tensor([0, 1, 2, 0])[:, None]

    (cluster(distances, owned) + separation(distances, owned)).backward()

    assert ((distances.grad > 0).sum(1) == 1).all() and ((distances.grad < 0).sum(1) == 1).all()


def test_a_far_prototype_changes_neither():
    distances = uniform(4, 6)
    owned = torch.arange(6) // 2 == torch.tensor([0, 1, 2, 0])[:, None]
    more = torch.cat([distances, torch.full((4, 1), 1e6)], 1)
    wrong = torch.cat([owned, torch.zeros(4, 1, dtype=torch.bool)], 1)

    assert cluster(more, wrong) == cluster(distances, owned)
    assert separation(more, wrong) == separation(distances, owned)


def test_the_order_of_prototypes_is_no_matter():
    network, batch = small_network(), whole_split(tiny_dataset(), "test")
    before = clustering_loss(network, batch, alone(batch))
    logits = network(batch.images)

    network.keep_prototypes(torch.randperm(6, generator=torch.Generator().manual_seed(1)))

    for name, value in clustering_loss(network, batch, alone(batch)).items():
        assert_near(value, before[name])
    assert_near(network(batch.images), logits)


def test_the_penalty_ignores_what_a_prototype_counts_for_its_own_class():
    network = small_network()

    before = off_class_l1(network.head.weight, network.own)
    with torch.no_grad():
        network.head.weight[network.own.T] = 50

    assert off_class_l1(network.head.weight, network.own) == before == 6 * 2 * 0.5
