"""What each phase of training changes, and what is measured in it."""

import copy

import pytest
import torch
from attrs import evolve
from macnn_networks import fitted_explainer, fitted_network, small_network
from plugin_cases import FLOAT32, uniform, whole_split

import explainkit as ek
from explainkit.data.types import ArraySplit
from explainkit.testing import tiny_dataset
from explainkit.training import Epoch, Repeat, Trainer
from explainkit_macnn.attention import peak_points
from explainkit_macnn.callbacks import (
    begin_attending,
    group_filters,
    measure_parts,
    part_metrics,
    settled,
)
from explainkit_macnn.grouping import confident, group_channels


def flat(plan):
    for item in plan:
        yield from item.phases if isinstance(item, Repeat) else [item]


def test_each_phase_moves_what_it_names_and_nothing_else():
    model, dataset = ek.explainer("ma-cnn", preset="tiny"), tiny_dataset()
    torch.manual_seed(0)
    network = model.build(ek.Task(classes=dataset.classes))
    moved = {}

    def changed_parts(phase):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        Trainer(device="cpu", progress=False).run(network, dataset, [phase])
        return {
            name.partition(".")[0]
            for name, value in network.state_dict().items()
            if not torch.equal(value, before[name])  # statistics of norms among them
        }

    for phase in flat(model.phases()):
        if phase.loss is not None:
            moved[phase.name] = changed_parts(evolve(phase, on_end=None))
        if phase.on_end is not None:
            moved[f"{phase.name} ends"] = changed_parts(evolve(phase, epochs=0))

    assert moved == {
        "trunk": {"backbone", "heads"},
        "trunk ends": {"groups"},
        "membership": {"grouping"},
        "membership ends": {"heads", "is_grouped"},
        "heads": {"heads"},
        "group": {"grouping"},
        "classify": {"backbone", "heads"},
        "measure ends": {"part_accuracy"},
    }


def test_filters_are_grouped_by_peaks_over_the_training_images_as_they_are():
    network, dataset = small_network(parts=2, classes=3), tiny_dataset()

    with torch.no_grad():
        group_filters(network, dataset, images=40)

    ids = torch.tensor([round(k * 95 / 39) for k in range(40)])  # spread over 96 images, in order
    with torch.no_grad():
        features = network.features(dataset.train.batch(ids).images)
    strength = features.flatten(2).amax(2)
    expected = group_channels(peak_points(features), confident(strength, 0.7), 2, min_size=4)
    assert torch.equal(network.groups, expected)


def test_after_membership_is_learned_it_is_what_clustering_says_and_maps_are_not_flat():
    dataset = tiny_dataset()
    settings = {"membership_epochs": 30, "heads_epochs": 0, "rounds": 0, "trunk_epochs": 3}
    model = ek.explainer("ma-cnn", preset="tiny", **settings)

    network = model.fit(dataset, device="cpu", progress=False).network

    with torch.no_grad():
        outputs = network.outputs(whole_split(dataset).images)
    target = torch.stack([(network.groups == part).float() for part in range(2)])
    assert (outputs.membership_logits.sigmoid() - target).abs().mean() < 0.05
    entropy = torch.special.entr(outputs.attention).sum((2, 3))
    assert (entropy.mean((0, 1)) < 0.9 * torch.tensor(64.0).log()).all()


def test_linear_layers_take_over_that_features_at_a_peak_are_larger():
    network, dataset = small_network(classes=3, is_grouped=False), tiny_dataset()
    before = network.heads.weight.detach().clone()

    with torch.no_grad():
        begin_attending(network, dataset, images=96)

    assert network.is_grouped
    with torch.no_grad():
        outputs = network.outputs(whole_split(dataset).images)
    mean = outputs.features.mean((2, 3)).norm(dim=1).mean()
    for i in range(3):
        ratio = mean / outputs.scores[:, i].norm(dim=1).mean()
        torch.testing.assert_close(network.heads.weight[i], before[i] * ratio, rtol=1e-4, atol=1e-6)


def test_epochs_record_accuracy_by_part_and_how_maps_lie():
    network, dataset = fitted_network(), tiny_dataset()
    batch = whole_split(dataset, "validation")

    metrics = part_metrics(network, dataset)

    with torch.no_grad():
        outputs = network.outputs(batch.images)
    attention, points = outputs.attention, peak_points(outputs.attention, refine=True)
    for i in range(2):
        right = [
            int(row.argmax()) == label
            for row, label in zip(outputs.part_logits[:, i], batch.labels.tolist(), strict=True)
        ]
        assert metrics[f"accuracy of part {i + 1}"] == pytest.approx(sum(right) / len(right))
    apart = (points[:, 0] - points[:, 1]).norm(dim=1).mean().item() / 128**0.5
    assert metrics["peaks apart"] == pytest.approx(apart, rel=1e-3)
    entropy = sum(-(m * m.clamp(min=1e-30).log()).sum().item() for image in attention for m in image)
    cells = torch.tensor(entropy / attention.shape[:2].numel()).exp().item()
    assert metrics["cells"] == pytest.approx(cells, rel=FLOAT32)
    history = fitted_explainer().history
    phases = {epoch.phase for epoch in history if epoch.val_metrics.keys() == metrics.keys()}
    assert phases == {"heads", "group", "classify"}
    assert part_metrics(small_network(parts=1, classes=3), dataset)["peaks apart"] == 0


def test_the_network_keeps_how_right_each_part_is():
    network, dataset = fitted_network(), tiny_dataset()
    metrics = part_metrics(network, dataset)

    with torch.no_grad():
        measure_parts(network, dataset)

    expected = [metrics[f"accuracy of part {i + 1}"] for i in range(2)]
    assert network.part_accuracy.tolist() == pytest.approx(expected)


def history_of(*rounds):
    return [
        Epoch(
            phase="classify", epoch=1, train_losses={}, val_accuracy=0, val_loss=0, seconds=0,
            val_metrics={"accuracy of part 1": accuracy, "peaks apart": apart, "cells": len(rounds)},
        )
        for accuracy, apart in rounds
    ]  # fmt: skip


def test_rounds_end_where_parts_stay_where_they_are_and_as_right():
    def ended(*rounds):
        return settled(small_network(), tiny_dataset(), history_of(*rounds))

    assert not ended((0.8, 0.3)) and not ended((0.8, 0.3), (0.85, 0.3)) and not ended((0.8, 0.3), (0.8, 0.2))
    assert ended((0.5, 0.1), (0.8, 0.3), (0.801, 0.3))


def test_without_validation_images_nothing_is_measured():
    dataset = tiny_dataset()
    empty = ArraySplit(images=torch.zeros(0, 3, 32, 32).byte(), labels=torch.zeros(0).long())
    bare = evolve(dataset, splits={**dataset.splits, "validation": empty})

    model = ek.explainer("ma-cnn", preset="tiny", rounds=2).fit(bare, device="cpu", progress=False)

    assert [epoch.phase for epoch in model.history].count("classify") == 2
    assert (model.network.part_accuracy == -1).all()
    explanation = model.explain(uniform(1, 3, 32, 32))[0]
    assert list(explanation.diagnostics) == ["p by part 1", "p by part 2"]


def test_a_run_that_is_cut_off_within_a_round_ends_as_the_whole_one(tmp_path):
    class Cut:
        """Pulls the plug while the second round groups."""

        def __init__(self):
            self.left = 7

        def log(self, epoch):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

        def close(self):
            pass

    def model():
        settings = {"rounds": 2, "membership_epochs": 1, "trunk_epochs": 2}
        return ek.explainer("ma-cnn", preset="tiny", **settings)

    whole = model().fit(tiny_dataset(), device="cpu", progress=False)
    with pytest.raises(KeyboardInterrupt):
        model().fit(tiny_dataset(), device="cpu", progress=False, checkpoints=tmp_path, loggers=[Cut()])
    resumed = model().fit(tiny_dataset(), device="cpu", progress=False, checkpoints=tmp_path, resume=True)

    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert [e.val_metrics for e in resumed.history] == [e.val_metrics for e in whole.history]


@pytest.mark.parametrize("part_loss", ["joint", "each"])
def test_parts_are_trained_together_or_each_by_itself(part_loss):
    model = ek.explainer("ma-cnn", preset="tiny", part_loss=part_loss, trunk_epochs=6, rounds=1)

    model.fit(tiny_dataset(), device="cpu", progress=False)

    assert model.network.scale == (1.0 if part_loss == "joint" else 0.5)
    model.explain(tiny_dataset().test.batch(torch.arange(6))).check_additivity()


def test_the_papers_network_is_a_trained_one_and_its_phases_are_in_order(monkeypatch):
    model, calls = ek.explainer("ma-cnn", preset="paper"), []
    tiny = ek.backbone("tiny")

    def backbone(name, **settings):
        calls.append((name, settings))
        return copy.deepcopy(tiny)

    monkeypatch.setattr(ek, "backbone", backbone)

    network = model.build(ek.Task(classes=4, size=64))
    trunk, membership, heads, rounds, measure = model.phases()

    assert calls == [("torchvision/vgg19", {"weights": "DEFAULT", "until": "features.35", "in_channels": 3})]
    assert network.norm == "powered" and network.scale == 1 / 4
    assert network.grouping.first_weight.shape == (4, 512, 32)
    names = [phase.name for phase in (trunk, membership, heads, *rounds.phases, measure)]
    assert names == ["trunk", "membership", "heads", "group", "classify", "measure"]
    assert rounds.stop_when is settled and rounds.max_rounds == 5
    assert rounds.phases[0].loss.keywords == {"diversity_weight": 2.0, "margin": pytest.approx(15.68)}
    assert rounds.phases[1].loss.keywords["grouping_weight"] == 0
    assert rounds.phases[1].loss.keywords["part_loss"] == "each"
