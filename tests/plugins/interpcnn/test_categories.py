"""Each filter has one class, found within few steps, and evenly many where balanced."""

import itertools

import pytest
import torch
from attrs import evolve
from interpcnn_networks import small_network
from plugin_cases import uniform

from explainkit.training.steps import Step
from explainkit_interpcnn.categories import assign, categories, observe


def membership_of(labels, classes=3):
    return torch.nn.functional.one_hot(labels, classes).bool()


def test_the_running_mean_is_that_of_the_maxima_of_each_class():
    network = small_network(3)
    expected = {}
    for step in range(5):
        labels = torch.randint(3, (4,), generator=torch.Generator().manual_seed(step))
        maxima = uniform(4, 32, seed=step)
        observe(network, maxima, membership_of(labels), momentum=0.8)
        for label in labels.unique().tolist():
            of_class = maxima[labels == label].mean(0)
            before = expected.get(label)
            expected[label] = of_class if before is None else 0.8 * before + 0.2 * of_class

    for label, value in expected.items():
        torch.testing.assert_close(network.class_activation[label], value)
    assert network.is_class_seen.tolist() == [label in expected for label in range(3)]


@pytest.mark.parametrize("balanced", [True, False])
def test_the_class_that_filters_fire_for_alone_is_found_within_20_steps(balanced):
    network, step = small_network(4), Step(batch_size=16)
    owners = torch.arange(32) % 4
    owners = owners[torch.randperm(32, generator=torch.Generator().manual_seed(0))]
    for index in range(20):
        labels = torch.randint(4, (16,), generator=torch.Generator().manual_seed(index))
        maxima = 0.5 * uniform(16, 32, seed=index) + 2.0 * (labels[:, None] == owners)
        observe(network, maxima, membership_of(labels, 4))
        assign(network, step, balanced=balanced)

    assert torch.equal(network.category, owners)


@pytest.mark.parametrize(("filters", "classes"), [(32, 4), (32, 5), (10, 3), (3, 7)])
def test_no_class_has_more_than_its_share_of_filters(filters, classes):
    activation = uniform(classes, filters)
    activation[0] += 3  # all fire most for the first

    balanced, unbalanced = categories(activation), categories(activation, balanced=False)

    assert torch.bincount(balanced).max() <= -(-filters // classes)
    assert balanced.shape == (filters,) and balanced.min() >= 0 and balanced.max() < classes
    assert (unbalanced == 0).all()


def test_the_balanced_assignment_is_the_best_of_all():
    activation = uniform(2, 4, seed=3, dtype=torch.float64)
    shares = activation / activation.sum(0)

    best = max(
        (labels for labels in itertools.product(range(2), repeat=4) if sum(labels) == 2),
        key=lambda labels: sum(shares[label, k].item() for k, label in enumerate(labels)),
    )

    assert categories(activation).tolist() == list(best)


def test_how_strong_a_filter_is_does_not_matter():
    activation = uniform(3, 9, dtype=torch.float64)

    assert torch.equal(categories(activation * (1 + 9 * uniform(9, seed=1))), categories(activation))


def test_classes_stay_once_they_are_frozen():
    network, step = small_network(3), Step(batch_size=4, progress=0.3)
    before = network.category.clone()
    observe(network, uniform(6, 32), membership_of(torch.arange(6) % 3))

    assign(network, step, freeze_after=0.3)
    assert torch.equal(network.category, before)

    assign(network, evolve(step, progress=0.29), freeze_after=0.3)
    assert not torch.equal(network.category, before)


def test_filters_have_a_class_before_any_image_was_seen():
    assert torch.bincount(small_network(3).category).tolist() == [11, 11, 10]
