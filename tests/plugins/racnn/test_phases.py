"""What each phase of training changes, when rounds end, and what epochs report."""

import copy

import pytest
import torch
from attrs import evolve
from plugin_cases import FLOAT32, uniform, whole_split
from racnn_networks import fitted_explainer, fitted_network, small_network
from torch import nn

import explainkit as ek
from explainkit.data.types import ArraySplit
from explainkit.testing import tiny_dataset
from explainkit.training import Epoch, Repeat, Trainer
from explainkit_racnn.callbacks import scale_metrics, settled


def flat(plan):
    for item in plan:
        yield from item.phases if isinstance(item, Repeat) else [item]


def test_each_phase_moves_what_it_names_and_nothing_else():
    model, dataset = ek.explainer("ra-cnn", preset="tiny"), tiny_dataset()
    torch.manual_seed(0)
    network = model.build(ek.Task(classes=dataset.classes))
    moved = {}

    def changed_parts(phase):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        Trainer(device="cpu", progress=False).run(network, dataset, [phase])
        return {
            ".".join(name.split(".")[: 1 if name.startswith("fus") else 2])
            for name, value in network.state_dict().items()
            if not torch.equal(value, before[name])  # statistics of norms among them
        }

    for phase in flat(model.phases()):
        moved[phase.name] = changed_parts(evolve(phase, on_end=None))
        if phase.on_end is not None:
            moved[f"{phase.name} ends"] = changed_parts(evolve(phase, epochs=0))

    scales = {f"{part}.{scale}" for part in ("backbones", "heads") for scale in range(3)}
    assert moved == {
        "warm": {"backbones.0", "heads.0"},
        "warm ends": scales - {"backbones.0", "heads.0"},
        "aim": {"proposals.0", "proposals.1"},
        "look": scales,
        "rank": {"proposals.0", "proposals.1"},
        "fuse": set(),
        "fuse ends": {"fusion", "fused"},
        "fusion": {"fusion"},
    }


def test_norms_are_in_eval_mode_while_boxes_learn():
    model, dataset = ek.explainer("ra-cnn", preset="tiny"), tiny_dataset()
    network = model.build(ek.Task(classes=dataset.classes))
    modes = []
    (rank,) = [phase for phase in flat(model.phases()) if phase.name == "rank"]

    def loss(module, batch, step):
        norms = [part.training for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
        modes.append((any(norms), network.proposals[0].out.training))
        return rank.loss(module, batch, step)

    Trainer(device="cpu", progress=False).run(network, dataset, [evolve(rank, loss=loss)])

    assert set(modes) == {(False, True)}


def history_of(*rounds, epochs=2):
    """A history of rounds whose last epoch of rank measures these."""
    history = [Epoch(phase="warm", epoch=1, train_losses={}, val_accuracy=0, val_loss=0, seconds=0)]
    for p, half in rounds:
        for epoch in range(1, epochs + 1):
            metrics = {"p(true) 2": p, "half side 2": half, "accuracy 2": torch.rand(()).item()}
            history += [
                Epoch(
                    phase="rank", epoch=epoch, train_losses={}, val_accuracy=0, val_loss=0, seconds=0,
                    val_metrics=metrics if epoch == epochs else {"p(true) 2": p, "half side 2": 0.0},
                )
            ]  # fmt: skip
    return history


@pytest.mark.parametrize("epochs", [1, 3])
def test_rounds_end_where_neither_half_has_changed_since_the_last_round(epochs):
    def ended(*rounds):
        return settled(small_network(), tiny_dataset(), history_of(*rounds, epochs=epochs))

    assert not ended() and not ended((0.8, 0.3))
    assert not ended((0.8, 0.3), (0.85, 0.3)) and not ended((0.8, 0.3), (0.8, 0.25))
    assert ended((0.8, 0.3), (0.801, 0.3)) and ended((0.5, 0.2), (0.8, 0.3), (0.8, 0.3005))


def test_after_every_round_it_is_asked_whether_to_stop(monkeypatch):
    calls = []

    def stop_at_second(network, dataset, history):
        calls.append([epoch.phase for epoch in history])
        return len(calls) == 2

    monkeypatch.setattr("explainkit_racnn.explainer.settled", stop_at_second)
    model = ek.explainer("ra-cnn", preset="tiny", rounds=5).fit(tiny_dataset(), device="cpu", progress=False)

    phases = [epoch.phase for epoch in model.history]
    assert phases == ["warm", "aim", *["look", "rank"] * 2, "fusion"]
    assert calls[0] == ["warm", "aim", "look", "rank"]


def test_a_run_that_is_cut_off_within_a_round_ends_as_the_whole_one(tmp_path):
    class Cut:
        """Pulls the plug while the second round looks."""

        def __init__(self):
            self.left = 5

        def log(self, epoch):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

        def close(self):
            pass

    def model():
        return ek.explainer("ra-cnn", preset="tiny", rounds=2, rank_epochs=2, fusion_epochs=1)

    whole = model().fit(tiny_dataset(), device="cpu", progress=False)
    with pytest.raises(KeyboardInterrupt):
        model().fit(tiny_dataset(), device="cpu", progress=False, checkpoints=tmp_path, loggers=[Cut()])
    resumed = model().fit(tiny_dataset(), device="cpu", progress=False, checkpoints=tmp_path, resume=True)

    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert [e.val_metrics for e in resumed.history] == [e.val_metrics for e in whole.history]
    assert len(whole.history) == 2 + 2 * 3 + 1


def test_every_epoch_measures_accuracy_confidence_and_size_by_scale():
    network, dataset = fitted_network(), tiny_dataset()
    batch = whole_split(dataset, "validation")

    metrics = scale_metrics(network, dataset)

    outputs = network.outputs(batch.images)
    for scale, logits in enumerate(outputs.by_scale):
        rows = list(zip(logits, batch.labels.tolist(), strict=True))
        confidences = [row.softmax(0)[label].item() for row, label in rows]
        correct = [row.argmax().item() == label for row, label in rows]
        assert metrics[f"p(true) {scale + 1}"] == pytest.approx(sum(confidences) / len(rows), rel=FLOAT32)
        assert metrics[f"accuracy {scale + 1}"] == pytest.approx(sum(correct) / len(rows))
    half_side = outputs.squares[2][:, 2].mean().item()
    assert metrics["half side 3"] == pytest.approx(half_side, rel=FLOAT32)
    assert "half side 1" not in metrics
    history = fitted_explainer().history
    phases = {epoch.phase for epoch in history if epoch.val_metrics.keys() == metrics.keys()}
    assert phases == {"aim", "look", "rank", "fusion"}


def test_without_validation_images_nothing_is_measured_and_no_round_is_cut():
    dataset = tiny_dataset()
    empty = ArraySplit(images=torch.zeros(0, 3, 32, 32).byte(), labels=torch.zeros(0).long())
    bare = evolve(dataset, splits={**dataset.splits, "validation": empty})

    model = ek.explainer("ra-cnn", preset="tiny", rounds=3).fit(bare, device="cpu", progress=False)

    assert [epoch.phase for epoch in model.history].count("rank") == 3
    assert not any(epoch.val_metrics for epoch in model.history)


def test_the_papers_network_is_three_trained_ones_and_its_phases_are_in_order(monkeypatch):
    model, calls = ek.explainer("ra-cnn", preset="paper", crop_size=32), []
    tiny = ek.backbone("tiny")

    def backbone(name, **settings):
        calls.append((name, settings))
        return copy.deepcopy(tiny)

    monkeypatch.setattr(ek, "backbone", backbone)

    network = model.build(ek.Task(classes=4, size=64))
    *first, rounds, fused, fusion = model.phases()

    assert calls == [("torchvision/vgg19", {"weights": "DEFAULT", "in_channels": 3})] * 3
    assert network(uniform(1, 3, 64, 64)).shape == (1, 4)
    assert network.gradient == "surrogate" and network.proposals[0].min_half_size == 1 / 6
    assert [phase.name for phase in first] == ["warm", "aim"] and fused.name == "fuse"
    assert isinstance(rounds, Repeat) and rounds.stop_when is settled
    assert rounds.max_rounds == 5
    assert [set(phase.lr) for phase in rounds.phases] == [{"backbones", "heads"}, {"proposals"}]
    assert rounds.phases[1].loss.keywords == {"margin": 0.05, "detach_reference": False}
    assert first[1].loss.keywords == {"half_size": 0.25} and set(fusion.lr) == {"fusion"}
