from copy import deepcopy

import pytest
import torch
from torch import nn

from explainkit.metrics.context import Passes
from explainkit.metrics.cost import counting
from explainkit.testing.assertions import network_state

IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_decompose_is_one_pass_forward_and_none_back(small) -> None:
    with counting(small.cam.network, IMAGES[:1]) as counter:
        small.cam.explain(IMAGES, batch_size=4)

    assert counter.passes == Passes(forward=6, backward=0)


def test_a_gradient_is_one_pass_forward_and_one_back(small) -> None:
    with counting(small.slopes.network, IMAGES[:1]) as counter:
        small.slopes.explain(IMAGES)

    assert counter.passes == Passes(forward=6, backward=6)


def test_a_layer_that_runs_twice_in_a_pass_is_one_pass() -> None:
    layer = nn.Conv2d(3, 3, 1)
    network = nn.Sequential(layer, nn.ReLU(inplace=True), layer)

    with counting(network, IMAGES[:1]) as counter:
        network(IMAGES).sum().backward()

    assert counter.passes == Passes(forward=6, backward=6)


def test_a_copy_that_a_method_makes_of_the_network_counts_too(small) -> None:
    with counting(small.cam.network, IMAGES[:1]) as counter:
        deepcopy(small.cam.network)(IMAGES)

    assert counter.passes.forward == 6


def test_the_network_is_left_as_it_was_even_after_an_error(small) -> None:
    network = small.cam.network.train()
    before = network_state(network, IMAGES)

    with pytest.raises(RuntimeError, match="halfway"), counting(network, IMAGES[:1]):
        network(IMAGES)
        raise RuntimeError("halfway")

    after = network_state(network.train(), IMAGES)
    assert after["hooks"] == before["hooks"] and not any(before["hooks"])
    assert after["training mode"] == before["training mode"]
    network.eval()


def test_a_network_without_layers_has_nothing_to_count() -> None:
    with counting(nn.Flatten(), IMAGES[:1]) as counter:
        pass

    assert counter.passes is None
