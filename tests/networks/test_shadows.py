"""Copies of a network that use its weights."""

import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from explainkit.networks.shadows import owner_of, shadow


def make_network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout()).train()


def test_a_shadow_shares_memory_and_nothing_else():
    network, images = make_network(), torch.rand(2, 3, 8, 8)
    network[0].weight.grad = torch.ones_like(network[0].weight)

    twin = shadow(network)
    twin(images).sum().backward()
    twin[2].register_forward_hook(lambda *call: None)
    twin[1].running_mean.fill_(7)

    assert twin[0].weight.data_ptr() == network[0].weight.data_ptr()
    assert (network[0].weight.grad == 1).all() and network[1].weight.grad is None
    assert not network[2]._forward_hooks and not network[1].running_mean.any()
    assert all(module.training for module in network.modules())
    assert not any(module.training for module in twin.modules())
    assert owner_of(twin) is network and owner_of(network) is network


def test_a_shadow_follows_updates_of_the_weights():
    network = make_network()
    twin = shadow(network)

    with torch.no_grad():
        network[0].weight.add_(1)

    assert torch.equal(twin[0].weight, network[0].weight)


def test_tied_weights_stay_tied():
    network = make_network()
    network.append(nn.Conv2d(3, 4, 3))
    network[4].weight = network[0].weight

    twin = shadow(network)

    assert twin[4].weight is twin[0].weight


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_are_computed_can_be_copied(norm):
    network = nn.Sequential(norm(nn.Conv2d(3, 4, 3)), nn.ReLU())
    images = torch.rand(1, 3, 8, 8)
    expected = network(images)

    assert torch.equal(shadow(network)(images), expected)


def test_a_shadow_in_float32_leaves_a_half_network_as_it_is():
    network = make_network().half()

    twin = shadow(network, torch.float32)

    assert twin[0].weight.dtype == torch.float32 and network[0].weight.dtype == torch.float16
    assert twin[1].num_batches_tracked.dtype == torch.int64
    assert torch.equal(twin[0].weight.half(), network[0].weight)


def calling_itself(network):
    network.forward = lambda images: nn.Sequential.forward(network, images)


def calling_by_default(network):
    network.forward = lambda images, inner=network[0]: inner(images)


def hooked_with_itself(network):
    network[0].register_forward_hook(lambda module, inputs, output: network[2](output))


def with_a_lock(network):
    network.lock = threading.Lock()


@pytest.mark.parametrize("change", [calling_itself, calling_by_default, hooked_with_itself, with_a_lock])
def test_what_would_not_be_a_copy_has_no_shadow(change):
    network = make_network()

    change(network)

    assert shadow(network) is None
