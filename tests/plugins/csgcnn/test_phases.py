"""What each phase of training changes, and by what settings."""

from itertools import pairwise

import pytest
import torch
from plugin_cases import networks_by_phase

import explainkit as ek
from explainkit.testing import tiny_dataset
from explainkit.training import Repeat, Trainer
from explainkit.training.phases import optimizer
from explainkit_csgcnn.model import CSGCNNNetwork


def changed_children(before, after):
    """The children of which a parameter is not what it was, to the bit."""
    parameters = dict(after.named_parameters())
    return {
        name.partition(".")[0]
        for name, value in before.named_parameters()
        if not torch.equal(value, parameters[name])
    }


def test_the_gate_waits_until_the_start_is_over():
    networks = list(networks_by_phase(ek.explainer("csg-cnn", preset="tiny", epochs=1), tiny_dataset()))

    moved = [(name, changed_children(before, after)) for (_, before), (name, after) in pairwise(networks)]

    assert moved == [("warm", {"backbone", "head"}), ("joint", {"backbone", "head", "gate"})]
    gate = networks[-1][1].gate
    assert torch.equal(gate.amax(1), torch.ones(len(gate))) and (gate >= 0).all() and (gate < 1).any()


@pytest.mark.parametrize("settings", [{}, {"training": "alternating"}])
def test_weight_decay_touches_matrices_alone_and_never_the_gate(settings):
    model = ek.explainer("csg-cnn", preset="tiny", weight_decay=0.1, **settings)
    network = CSGCNNNetwork(ek.backbone("tiny"), 3)
    plan = [each for item in model.phases() for each in (item.phases if isinstance(item, Repeat) else [item])]

    for phase in plan:
        groups = optimizer(network, phase).param_groups
        decay = {id(value): group["weight_decay"] for group in groups for value in group["params"]}
        rate = {id(value): group["lr"] for group in groups for value in group["params"]}
        learning = {name: value for name, value in network.named_parameters() if id(value) in decay}
        matrices = {name for name, value in learning.items() if value.ndim > 1} - {"gate"}
        assert {name for name, value in learning.items() if decay[id(value)]} == matrices
        assert decay[id(network.head.weight)] == 0.1
        if "gate" in phase.lr:
            assert decay[id(network.gate)] == 0 and rate[id(network.gate)] == model.gate_lr
        else:
            assert id(network.gate) not in decay


def test_without_terms_of_the_gate_the_network_learns_as_cam_does():
    terms = {"gated_weight": 0.0, "sparsity_weight": 0.0, "starvation_weight": 0.0}
    common = {"preset": "tiny", "epochs": 2, "weight_decay": 0.5}
    dataset = tiny_dataset()
    gated, cam = ek.explainer("csg-cnn", **common | terms | {"warm_epochs": 0}), ek.explainer("cam", **common)

    for model in (gated, cam):
        model.fit(dataset, progress=False, device="cpu")

    state = gated.network.state_dict()
    for name, value in cam.network.named_parameters():
        torch.testing.assert_close(state[name], value.detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(gated.network.gate, torch.ones_like(gated.network.gate))


def test_paths_take_turns_with_an_optimizer_each_that_goes_on():
    settings = {"training": "alternating", "warm_epochs": 1, "standard_epochs": 1, "rounds": 2}
    model = ek.explainer("csg-cnn", preset="tiny", **settings)
    dataset = tiny_dataset()

    model.fit(dataset, progress=False, device="cpu")

    assert [epoch.phase for epoch in model.history] == ["warm", *["standard", "gated"] * 2]
    assert all(
        "gated_cross_entropy" in epoch.train_losses for epoch in model.history if epoch.phase == "gated"
    )
    turns = model.phases()[1]
    assert isinstance(turns, Repeat) and turns.keep_optimizers
    assert "gate" not in turns.phases[0].lr and "gate" in turns.phases[1].lr


def test_the_settings_of_the_paper_have_the_published_frequency_and_rates():
    model = ek.explainer("csg-cnn", preset="paper")

    warm, *stages = model.phases()

    sequence = ["standard"] * warm.epochs
    for stage in stages:
        for _ in range(stage.max_rounds):
            sequence += [phase.name for phase in stage.phases for _ in range(phase.epochs)]
    published = ["standard" if epoch < 10 or epoch % 3 < 2 else "gated" for epoch in range(150)]
    assert sequence == published
    rates, before = [], warm.epochs
    for stage in stages:
        standard, gated = stage.phases
        rates.append((before, standard.lr["head"], gated.lr["head"], gated.lr["gate"]))
        before += stage.max_rounds * standard.epochs
    # of its own epochs each path counts 150: a tenth after 60 and 90 of the standard path, never of the gated
    assert [begins for begins, *_ in rates] == [9, 61, 91]
    assert [standard for _, standard, *_ in rates] == pytest.approx([1e-5, 1e-6, 1e-7])
    assert {of_gated for _, _, *of_gated in rates for of_gated in of_gated} == {1e-3}
    assert set(standard.lr) == {"backbone.features.layer3", "backbone.features.layer4", "head"}
    assert set(gated.lr) == {"backbone.features.layer4", "head", "gate"}
    assert {phase.optimizer for phase in (warm, standard, gated)} == {"adam"}
    assert gated.loss.keywords["gate_density"] == 0.2 and gated.loss.keywords["sparsity_weight"] == 1e-3


def test_two_identical_steps_have_identical_gradients(monkeypatch):
    gradients = []

    def kept(network, step):
        gradients.append({name: value.grad.clone() for name, value in network.named_parameters()})
        network.load_state_dict(state)

    model = ek.explainer("csg-cnn", preset="tiny", epochs=1, batch_size=96, weight_decay=0.0)
    torch.manual_seed(0)
    dataset = tiny_dataset()
    network = model.build(ek.Task(classes=dataset.classes, size=dataset.size, dataset=dataset))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    monkeypatch.setattr("explainkit_csgcnn.explainer.project_gate", kept)
    phase = model.phases()[1]

    for _ in range(2):  # whole-batch steps from the same weights
        Trainer(device="cpu", progress=False).run(network, dataset, [phase])

    first, second = gradients
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert (first["gate"] != 0).any()


@pytest.mark.parametrize("training", ["joint", "alternating"])
def test_a_run_that_was_cut_off_ends_as_it_would_have(training, tmp_path):
    settings = {"training": training, "rounds": 2, "epochs": 2, "standard_epochs": 1, "warm_epochs": 1}

    def plan():
        return ek.explainer("csg-cnn", preset="tiny", **settings).phases()

    def network():
        torch.manual_seed(0)
        model = ek.explainer("csg-cnn", preset="tiny", **settings)
        dataset = tiny_dataset()
        return model.build(ek.Task(classes=dataset.classes, size=dataset.size, dataset=dataset))

    class Killer:
        def log(self, epoch):
            if epoch.phase in ("joint", "gated"):
                raise KeyboardInterrupt

        def close(self):
            pass

    whole, cut, resumed = network(), network(), network()
    Trainer(device="cpu", progress=False).run(whole, tiny_dataset(), plan())
    folder = {"checkpoints": tmp_path, "checkpoint_every_n_steps": 1}
    with pytest.raises(KeyboardInterrupt):
        Trainer(device="cpu", progress=False, loggers=[Killer()], **folder).run(cut, tiny_dataset(), plan())

    Trainer(device="cpu", progress=False, resume=True, **folder).run(resumed, tiny_dataset(), plan())

    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": "both"}, "training of CSG-CNN as one of 'joint', 'alternating'; got 'both'"),
        ({"classes_per_filter": 0.9}, "at least 1: each row"),
        ({"gate_density": 1.5}, r"gate_density of CSG-CNN in \(0, 1\]"),
        ({"sparsity_weight": -1.0}, "sparsity_weight of CSG-CNN as 0 or more"),
        ({"min_filter_share": 1.0}, r"min_filter_share of CSG-CNN in \[0, 1\)"),
        ({"rounds": -1}, "rounds of 0 or more; got -1"),
        ({"warm_epochs": -1}, "warm_epochs of 0 or more"),
        ({"weight_decay": -0.1}, "weight_decay of CSG-CNN as 0 or more"),
        ({"optimizer": "sgd"}, "optimizer of CSG-CNN as one of 'adamw', 'adam'; got 'sgd'"),
        ({"gated_layers": "blocks"}, "gated_layers of CSG-CNN as a sequence of str; got 'blocks'"),
        ({"standard_layers": 3}, "standard_layers of CSG-CNN as a sequence of str; got 3"),
        ({"standard_layers": ("stem", 3)}, "standard_layers of CSG-CNN as a sequence of str"),
    ],
)
def test_settings_out_of_range_are_refused_in_words(settings, message):
    with pytest.raises(ek.InputError, match=message):
        ek.explainer("csg-cnn", **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"training": "alternating", "rounds": 0},
        {"training": "alternating", "gated_epochs": 0},
        {"training": "alternating", "standard_epochs": 0, "gated_epochs": 0},
    ],
)
def test_a_training_in_which_the_gate_never_learns_is_refused(settings):
    with pytest.raises(
        ek.InputError, match=r"of 1 or more with training .*, or the gate never learns; got 0"
    ):
        ek.explainer("csg-cnn", **settings)


def test_what_the_other_training_goes_by_may_be_0():
    ek.explainer("csg-cnn", rounds=0, gated_epochs=0)
    ek.explainer("csg-cnn", training="alternating", epochs=0, warm_epochs=0, standard_epochs=0)


def test_images_with_several_labels_are_refused():
    assert not ek.explainer("csg-cnn").supports_labels
