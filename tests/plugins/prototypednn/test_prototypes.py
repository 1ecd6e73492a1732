"""Where prototypes begin and end, and what is kept of them."""

import torch
from plugin_cases import assert_near, uniform, whole_split
from prototypednn_networks import network

from explainkit.testing import tiny_dataset
from explainkit_prototypednn.model import squared_distances
from explainkit_prototypednn.prototypes import (
    begin_at_images,
    k_means,
    keep_references,
    latent_points,
    project,
    spread_points,
)


def on_tiny(**settings):
    return network(size=(32, 32), layers=4, **settings)


def test_means_are_those_of_literal_rounds_of_lloyd():
    points, groups = uniform(30, 4), torch.arange(30) % 3
    owners = torch.tensor([0, 1, 2, 0, 1])

    means = k_means(points, groups, owners, rounds=5)

    expected = spread_points(points, groups, owners)
    for _ in range(5):
        chosen = []
        for point, group in zip(points, groups.tolist(), strict=True):
            own = [k for k in range(5) if owners[k] == group]
            chosen.append(min(own, key=lambda k: float(((point - expected[k]) ** 2).sum())))
        expected = torch.stack([
            torch.stack([points[n] for n in range(30) if chosen[n] == k]).mean(0)
            if k in chosen else expected[k]
            for k in range(5)
        ])  # fmt: skip
    assert_near(means, expected, 1e-5)


def test_means_are_of_their_own_group_and_of_all_where_it_has_no_points():
    points = torch.cat([torch.zeros(5, 2), torch.ones(5, 2)])
    groups = torch.tensor([0] * 5 + [1] * 5)

    means = k_means(points, groups, torch.tensor([0, 1, 2]))

    assert_near(means, torch.tensor([[0.0, 0], [1, 1], [0.5, 0.5]]))


def test_prototypes_begin_at_images_of_every_class_and_speak_for_it():
    made, dataset = on_tiny(prototypes=7), tiny_dataset()
    with torch.no_grad():
        begin_at_images(made, dataset)

    assert made.head.weight.argmin(0).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert (made.head.weight <= 0).all()


def test_fewer_prototypes_than_classes_leave_the_last_layer():
    made, dataset = on_tiny(prototypes=2), tiny_dataset()
    before = made.head.weight.clone()
    with torch.no_grad():
        begin_at_images(made, dataset)

    assert torch.equal(made.head.weight, before) and made.prototypes.isfinite().all()


def test_a_projection_makes_each_prototype_the_nearest_training_image():
    made, dataset = on_tiny(), tiny_dataset()
    with torch.no_grad():
        points = latent_points(made, dataset)
        expected = [min(points, key=lambda z, p=p: float(((z - p) ** 2).sum())) for p in made.prototypes]
        project(made, dataset)

        assert torch.equal(made.prototypes, torch.stack(expected))
        keep_references(made, dataset)
    assert (made.sources.distance[:, 0] < 1e-10).all()


def test_references_are_means_over_training_images_and_sources_the_nearest_of_them():
    made, dataset = on_tiny(), tiny_dataset()
    with torch.no_grad():
        keep_references(made, dataset, batch_size=7)
        batch = whole_split(dataset)
        distances = squared_distances(made.encode(batch.images), made.prototypes)

    assert_near(made.reference, distances.mean(0))
    for k in range(6):
        ids = sorted(range(len(batch)), key=lambda n: (float(distances[n, k]), n))[:3]
        assert made.sources.image[k].tolist() == ids
        assert made.sources.label[k].tolist() == batch.labels[ids].tolist()
        assert_near(made.sources.distance[k], distances[ids, k])
        shown = made.sources.picture.unflatten(0, (6, 3))[k, 0]
        assert torch.equal(shown, (batch.images[ids[0]] * 255).round().byte())
