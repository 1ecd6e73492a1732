"""The network, its gradients and the random states are left as they were."""

import random

import numpy as np
import pytest
import torch
from captum_networks import (
    METHODS,
    SMALL,
    Plain,
    captum_explainer,
    hook_count,
    random_images,
    seeded_network,
    tolerance_of,
)
from plugin_cases import assert_near

from explainkit.errors import UnsupportedNetworkError


@pytest.mark.parametrize("method", METHODS)
def test_nothing_stays_behind_after_an_exception(method):
    network = seeded_network()
    explainer = captum_explainer(method, network)
    explainer.explain(random_images())
    network.train()
    network.forward = lambda images: (
        [][0] if images.requires_grad or len(images) > 3 else Plain.forward(network, images)
    )

    explainer.batch_size = 6
    before = [set(vars(module)) for module in network.modules()]
    with pytest.raises((IndexError, UnsupportedNetworkError)):
        explainer.explain(random_images())

    assert hook_count(network) == 0
    assert [set(vars(module)) for module in network.modules()] == before
    assert all(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_inference_mode_changes_nothing(method):
    network, images = seeded_network(), random_images()
    expected = captum_explainer(method, network).explain(images)

    with torch.inference_mode():
        explanations = captum_explainer(method, network).explain(images + 0)

    assert_near(explanations.contributions, expected.contributions, tolerance_of(method))


def test_the_gradients_of_images_and_network_are_not_moved():
    network, images = seeded_network(), random_images().requires_grad_()
    network(images).sum().backward()
    before = [images.grad.clone(), *(parameter.grad.clone() for parameter in network.parameters())]

    for method in METHODS:
        captum_explainer(method, network).explain(images)

    after = [images.grad, *(parameter.grad for parameter in network.parameters())]
    assert all(torch.equal(gradient, same) for gradient, same in zip(after, before, strict=True))
    assert images.requires_grad and not any(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_nothing_of_captum_stays_on_the_network_and_no_chance_is_used_up(method):
    network, images = seeded_network(), random_images()
    explainer = captum_explainer(method, network)
    before = [set(vars(module)) for module in network.modules()]
    states = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())

    explainer.explain(images)

    assert [set(vars(module)) for module in network.modules()] == before
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all() and random.getstate() == states[2]


@pytest.mark.parametrize("method", SMALL)
def test_chance_follows_the_seed_alone(method):
    network, images = seeded_network(), random_images()

    first, second = (captum_explainer(method, network, seed=3).explain(images) for _ in range(2))
    other = captum_explainer(method, network, seed=4).explain(images)

    assert torch.equal(first.contributions, second.contributions)
    assert not torch.allclose(first.saliency(), other.saliency(), rtol=1e-3)
