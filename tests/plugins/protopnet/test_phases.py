"""What each phase of training changes."""

from itertools import pairwise

import pytest
import torch
from attrs import evolve
from plugin_cases import networks_by_phase
from protopnet_networks import small_network

import explainkit as ek
from explainkit.testing import tiny_dataset
from explainkit.training import Trainer


def statistics(network):
    return {name: value.clone() for name, value in network.backbone.named_buffers()}


def changed_children(before, after):
    """The children of which a parameter is not what it was."""
    parameters = dict(after.named_parameters())
    return {
        name.partition(".")[0]
        for name, value in before.named_parameters()
        if name in parameters and not torch.equal(value, parameters[name])
    }


def test_each_phase_moves_what_it_names_and_nothing_else():
    networks = list(networks_by_phase(ek.explainer("protopnet", preset="tiny"), tiny_dataset()))

    moved = [(name, changed_children(before, after)) for (_, before), (name, after) in pairwise(networks)]

    assert moved == [
        ("start", {"backbone", "prototypes"}),  # prototypes begin at patches when it ends
        ("warm", {"add_on", "prototypes"}),
        ("joint", {"backbone", "add_on", "prototypes"}),
        ("project", {"prototypes"}),
        ("head", {"head"}),
    ]
    for (_, before), (name, after) in pairwise(networks):
        if name in ("warm", "project", "head"):
            expected = statistics(before)
            assert all(torch.equal(value, expected[key]) for key, value in statistics(after).items())
    assert networks[0][1].start is not None and networks[1][1].start is None
    assert all(weight in (1.0, -0.5) for weight in networks[3][1].head.weight.unique().tolist())


def test_the_papers_rates_fall_to_a_tenth_after_five_joint_epochs():
    model = ek.explainer("protopnet", preset="paper", joint_epochs=4)
    network = small_network()
    rates = []

    for phase in model.phases():
        if phase.name == "joint":
            optimizer = torch.optim.SGD([{"params": network.add_on.parameters(), "lr": phase.lr["add_on"]}])
            schedule = phase.lr_scheduler(optimizer, phase.epochs)
            for _ in range(phase.epochs):
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                schedule.step()

    assert rates == pytest.approx([3e-3] * 5 + [3e-4] * 3)
    assert [phase.name for phase in model.phases()] == ["warm", *["joint", "project", "head"] * 2]


def test_backbone_statistics_are_frozen_with_the_backbone():
    model, dataset = ek.explainer("protopnet", preset="tiny", start_epochs=0), tiny_dataset()
    torch.manual_seed(0)
    network = model.build(ek.Task(classes=3))
    modes = []
    warm = model.phases()[0]

    def loss(module, batch, step):
        modes.append((network.backbone.training, network.backbone.stem[1].training, network.add_on.training))
        return warm.loss(module, batch, step)

    Trainer(device="cpu", progress=False).run(network, dataset, [evolve(warm, loss=loss)])

    assert modes == [(False, False, True)]
