import csv
from contextlib import suppress
from itertools import chain

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook

from explainkit.data.types import ArraySplit, ImageDataset
from explainkit.errors import InputError, TrainingError
from explainkit.training import Phase, Repeat, Trainer
from explainkit.training.loggers import CSVLogger, TensorBoardLogger, row
from explainkit.training.phases import optimizer, set_modes
from explainkit.training.trainer import evaluate


class Net(nn.Module):
    """A backbone, another whose name begins alike, and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU())
        self.backbone2 = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        return self.head(self.backbone2(self.backbone(images).mean((2, 3))))


def net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def dataset(count=20, augment=None):
    labels = torch.arange(count) % 2
    images = torch.randint(0, 90, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    images[labels == 1, 0] += 160
    split = ArraySplit(images=images.byte(), labels=labels)
    return ImageDataset(
        name="colors",
        classes=("blue", "red"),
        size=(8, 8),
        splits={"train": split, "validation": split, "test": split},
        augment=augment,
    )


def loss(network, batch):
    return {"entropy": F.cross_entropy(network(batch.images), batch.labels)}


def phase(name="all", epochs=1, loss=loss, lr=None, **settings):
    return Phase(name, epochs, loss, {"": 1e-2} if lr is None else lr, **{"batch_size": 5} | settings)


def run(*plan, network=None, of=None, **settings):
    network = net() if network is None else network
    trainer = Trainer(device="cpu", progress=False, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # dropout draws from the caller's state
        trainer.run(network, of or dataset(), plan)
    return network, trainer


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def learning(network):
    return [name for name, value in network.named_parameters() if value.requires_grad]


# what learns


def test_a_prefix_is_whole_dotted_words():
    network = net()

    optimizer(network, phase(lr={"backbone": 0.1}))

    assert learning(network) == [
        "backbone.0.weight",
        "backbone.0.bias",
        "backbone.1.weight",
        "backbone.1.bias",
    ]


def test_a_whole_name_and_the_empty_prefix_do_too():
    network = net()

    optimizer(network, phase(lr={"head.weight": 0.1, "backbone.0": 0.2}))
    assert learning(network) == ["backbone.0.weight", "backbone.0.bias", "head.weight"]

    optimizer(network, phase(lr={"": 0.1}))
    assert learning(network) == [name for name, _ in network.named_parameters()]


def test_what_no_prefix_names_stays_bit_by_bit():
    before = state(net())

    network, _ = run(phase(lr={"head": 0.1}, weight_decay=0.1))

    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("head"), name


@pytest.mark.parametrize("field", ["lr", "weight_decay"])
@pytest.mark.parametrize("prefix", ["back", "backbone.", "head.weigh", "nothing"])
def test_a_prefix_that_names_nothing_is_an_error(field, prefix):
    settings = {"lr": {"": 0.1}} | {field: {prefix: 0.1}}

    with pytest.raises(
        TrainingError, match=rf"Phase 'warm' .*'{prefix}'.*There are: backbone, backbone2, head"
    ):
        optimizer(net(), phase("warm", **settings))


@pytest.mark.parametrize("other", ["", "head.weight", "head"])
def test_two_prefixes_for_one_parameter_are_an_error(other):
    rates = {"head": 0.1, other: 0.2} if other != "head" else {"backbone": 0.1, "backbone.0": 0.2}

    with pytest.raises(TrainingError, match="twice"):
        optimizer(net(), phase(lr=rates))


def test_a_phase_that_teaches_nothing_is_an_error():
    with pytest.raises(TrainingError, match=r"Phase 'idle' .*no rate"):
        run(phase("idle", lr={}))


@pytest.mark.parametrize("field", ["optimizer", "lr_scheduler"])
def test_an_unknown_optimizer_or_schedule_is_an_error(field):
    with pytest.raises(TrainingError, match=f"{field}.*'adamv'"):
        run(phase(**{field: "adamv"}))


def test_an_error_about_a_plan_freezes_nothing():
    network = net()

    with suppress(TrainingError):
        run(phase(lr={"nothing": 1}), network=network)

    assert len(learning(network)) == 8


def test_decay_is_for_matrices_unless_named():
    by_default = optimizer(net(), phase(weight_decay=0.3))
    named = optimizer(net(), phase(weight_decay={"head": 0.3}))

    for group in by_default.param_groups:
        assert {value.ndim > 1 for value in group["params"]} == {group["weight_decay"] == 0.3}
    decayed = [value for group in named.param_groups if group["weight_decay"] for value in group["params"]]
    assert [value.shape for value in decayed] == [(2, 4), (2,)]


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_options_reach_the_optimizer(name):
    options = {"momentum": 0.8} if name == "sgd" else {"betas": (0.5, 0.6)}

    made = optimizer(net(), phase(optimizer=name, optimizer_kwargs=options))

    assert type(made).__name__.lower() == name
    assert all(group[key] == value for group in made.param_groups for key, value in options.items())


def test_a_frozen_norm_is_in_eval_mode_and_dropout_stays_live():
    network = net()

    optimizer(network, phase(lr={"head": 0.1}))
    set_modes(network)

    assert (
        not network.backbone[1].training
        and not network.backbone.training
        and not network.backbone[0].training
    )
    assert network.backbone[2].training and network.head.training and network.training


def test_frozen_norms_keep_their_statistics_and_learning_ones_do_not():
    frozen, _ = run(phase(lr={"head": 0.1}))
    learned, _ = run(phase(lr={"backbone": 0.1}))

    assert torch.equal(frozen.backbone[1].running_mean, net().backbone[1].running_mean)
    assert int(frozen.backbone[1].num_batches_tracked) == 0
    assert int(learned.backbone[1].num_batches_tracked) == 4


def test_dropout_in_a_frozen_backbone_is_live_in_training_alone():
    seen = []

    def watching(network, batch):
        seen.append(bool((network.backbone[2](torch.ones(100)) == 0).any()))
        return loss(network, batch)

    network, _ = run(phase(loss=watching, lr={"head": 0.1}))

    assert all(seen) and not (network.backbone[2](torch.ones(100)) == 0).any()


# how fast


def rates_of(**settings):
    """The learning rate at each step of two epochs of four steps."""
    seen = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: seen.append([group["lr"] for group in optimizer.param_groups])
    )
    try:
        run(phase(epochs=2, **settings))
    finally:
        hook.remove()
    return seen


def test_a_constant_rate_stays():
    seen = rates_of(lr={"head": 0.1, "backbone": 0.2})

    assert [sorted(rates) for rates in seen] == [[0.1, 0.2]] * 8


def test_a_cosine_goes_down_by_step_or_by_epoch():
    from math import cos, pi

    by_step = [rate for (rate,) in rates_of(lr_scheduler="cosine")]
    by_epoch = [rate for (rate,) in rates_of(lr_scheduler="cosine", lr_scheduler_interval="epoch")]

    assert by_step == pytest.approx([1e-2 * (1 + cos(pi * step / 8)) / 2 for step in range(8)])
    assert by_epoch == pytest.approx([1e-2] * 4 + [0.5e-2] * 4)


def test_one_cycle_rises_to_each_rate_and_falls():
    seen = rates_of(lr_scheduler="one-cycle", lr={"head": 0.1, "backbone": 0.2})

    for group in zip(*seen, strict=True):
        peak = max(group)
        assert peak == pytest.approx(0.1, rel=0.1) or peak == pytest.approx(0.2, rel=0.1)
        assert group[0] < peak and group[-1] < peak / 3 and list(group[2:]) == sorted(group[2:], reverse=True)


def test_a_schedule_of_ones_own_is_told_how_often_it_moves():
    told = []

    def halving(optimizer, steps):
        told.append(steps)
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    by_step = [rate for (rate,) in rates_of(lr_scheduler=halving)]
    by_epoch = [rate for (rate,) in rates_of(lr_scheduler=halving, lr_scheduler_interval="epoch")]

    assert told == [8, 2]
    assert by_step == pytest.approx([1e-2 / 2**step for step in range(8)])
    assert by_epoch == pytest.approx([1e-2] * 4 + [0.5e-2] * 4)


def test_the_gradient_is_clipped():
    def steep(network, batch):
        return {"steep": network.head.bias.sum() * 1000 + network(batch.images).sum() * 0}

    before = net().head.bias.detach()
    network, _ = run(phase(loss=steep, lr={"head": 1.0}, optimizer="sgd", grad_clip_norm=1.0))

    assert (network.head.bias - before).detach().norm().item() == pytest.approx(
        4, rel=1e-4
    )  # four steps of length one


# which epochs


def scripted(accuracies, monkeypatch):
    """Validation that answers with these accuracies in turn."""
    answers = iter(accuracies)
    monkeypatch.setattr("explainkit.training.trainer.evaluate", lambda *_, **__: (next(answers), 1.0))


def test_the_best_epoch_is_kept(monkeypatch):
    scripted([0.5, 0.9, 0.7], monkeypatch)
    kept, _ = run(phase(epochs=3, restore_best=True))
    scripted([0.5, 0.9], monkeypatch)
    two, _ = run(phase(epochs=2))

    assert all(torch.equal(value, two.state_dict()[name]) for name, value in kept.state_dict().items())


def test_the_last_epoch_is_kept_otherwise(monkeypatch):
    scripted([0.9, 0.5], monkeypatch)
    last, _ = run(phase(epochs=2))
    scripted([0.9], monkeypatch)
    first, _ = run(phase(epochs=1))

    assert not torch.equal(last.head.weight, first.head.weight)


def test_patience_ends_a_phase(monkeypatch):
    scripted([0.5, 0.6, 0.6, 0.6, 0.9], monkeypatch)

    _, trainer = run(phase(epochs=5, patience=2))

    assert [epoch.val_accuracy for epoch in trainer.history] == [0.5, 0.6, 0.6, 0.6]


def test_without_validation_images_the_last_epoch_is_the_best():
    nothing = ArraySplit(images=torch.zeros(0, 3, 8, 8).byte(), labels=torch.zeros(0).long())
    full = dataset()
    bare = ImageDataset(
        name="bare", classes=full.classes, size=(8, 8), splits=dict(full.splits) | {"validation": nothing}
    )

    kept, trainer = run(phase(epochs=3, restore_best=True, patience=1), of=bare)
    last, _ = run(phase(epochs=3))

    assert len(trainer.history) == 3
    assert torch.equal(kept.head.weight, last.head.weight)


def test_repeats_alternate_until_they_are_told_to_stop():
    rounds = []

    def enough(network, dataset, history):
        rounds.append((network.training, len(history)))
        return len(history) == 4

    _, trainer = run(
        Repeat([phase("a"), phase("b", lr={"head": 0.1})], 5, stop_when=enough), Repeat([phase("c")], 2)
    )

    assert [epoch.phase for epoch in trainer.history] == ["a", "b", "a", "b", "c", "c"]
    assert rounds == [(False, 2), (False, 4)]


def test_a_repeat_without_a_rule_runs_every_time_and_one_of_no_times_not_at_all():
    _, trainer = run(Repeat([phase("a")], 2), Repeat([phase("b")], 0, stop_when=lambda *_: True))

    assert [epoch.phase for epoch in trainer.history] == ["a", "a"]


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_a_repeat_that_was_cut_off_stops_where_it_would_have(tmp_path, cut):
    class Cut:
        """Pulls the plug when it hears of an epoch."""

        heard = 0

        def log(self, epoch):
            self.heard += 1
            if self.heard == cut:
                raise KeyboardInterrupt

        def close(self):
            pass

    def enough(network, of, history):
        turns = [epoch.val_metrics["norm"] for epoch in history if epoch.phase == "b"]
        return len(turns) == 2 and turns[0] != turns[1]

    def measure(network, of):
        return {"norm": network.head.weight.norm()}

    alternate = Repeat([phase("a"), phase("b", lr={"head": 0.1}, val_metrics=measure)], 4, stop_when=enough)
    plan = [alternate, phase("c")]
    whole, first = run(*plan)

    with suppress(KeyboardInterrupt):
        run(*plan, checkpoints=tmp_path, loggers=[Cut()])
    again, second = run(*plan, checkpoints=tmp_path, resume=True, network=net(seed=1))

    assert [epoch.phase for epoch in second.history] == ["a", "b", "a", "b", "c"]
    assert [epoch.val_metrics for epoch in second.history] == [epoch.val_metrics for epoch in first.history]
    assert learning(again) == learning(whole)


def test_only_a_phase_that_measures_tells_measures():
    _, trainer = run(phase("a"), phase("b", val_metrics=lambda network, of: {"images": len(of.train)}))

    assert [dict(epoch.val_metrics) for epoch in trainer.history] == [{}, {"images": 20.0}]
    assert "validation/images" not in row(trainer.history[0])


def test_a_measure_that_is_no_number_stops_a_checkpoint_in_words(tmp_path):
    def nothing(network, of):
        return {"odd": float("nan")}

    with pytest.raises(TrainingError, match="what a phase measures, is not"):
        run(phase(epochs=2, val_metrics=nothing), checkpoints=tmp_path)


def test_a_phase_tells_what_it_measures_of_every_epoch_and_disturbs_nothing():
    seen = []

    def measure(network, of):
        seen.append((network.training, torch.is_grad_enabled(), len(of.validation)))
        torch.rand(3)
        return {"norm": network.head.weight.norm()}

    told, trainer = run(phase(epochs=2, val_metrics=measure))
    plain, _ = run(phase(epochs=2))

    assert [epoch.val_metrics["norm"] for epoch in trainer.history][-1] == pytest.approx(
        told.head.weight.norm().item()
    )
    assert seen == [(False, False, len(dataset().validation))] * 2
    assert torch.equal(told.head.weight, plain.head.weight)
    assert row(trainer.history[0])["validation/norm"] == trainer.history[0].val_metrics["norm"]


def test_finish_runs_last_in_eval_mode_without_gradients():
    seen = []

    def finish(network, of):
        seen.append((network.training, torch.is_grad_enabled(), len(of.train)))
        network.head.bias.zero_()

    network, trainer = run(phase(epochs=2, on_end=finish), Phase("only", on_end=finish))

    assert seen == [(False, False, 20)] * 2 and len(trainer.history) == 2
    assert network.head.bias.abs().sum() == 0


def test_the_network_ends_trainable_and_in_eval_mode():
    network, _ = run(phase(lr={"head": 0.1}))

    assert not any(module.training for module in network.modules()) and len(learning(network)) == 8


# when it goes astray


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, float("nan")], "NaN"),
        ([1.0, float("inf")], "infinite"),
        ([1.0, 2e4], r"2e\+04, from 1 at first: it exploded"),
        ([50.0, -6e5], r"-6e\+05, from 50 at first: it exploded"),
    ],
)
def test_a_loss_that_goes_astray_is_told_by_phase_epoch_and_term(values, said):
    steps = iter([values[0]] * 5 + values[1:] * 9)

    def astray(network, batch):
        return loss(network, batch) | {"cluster": network(batch.images).sum() * 0 + next(steps)}

    network = net()
    with pytest.raises(TrainingError, match=f"Phase 'joint', epoch 2: the loss term 'cluster' is {said}"):
        run(phase("joint", epochs=3, loss=astray), network=network)

    assert all(value.isfinite().all() for value in network.state_dict().values())
    assert not network.training and len(learning(network)) == 8


def test_a_loss_may_be_large_from_the_first():
    def large(network, batch):
        return {"large": loss(network, batch)["entropy"] + 1e6}

    run(phase(epochs=2, loss=large))


# the same again


def test_the_same_seed_gives_the_same_weights():
    one, _ = run(phase(epochs=2), seed=3)
    two, _ = run(phase(epochs=2), seed=3)
    other, _ = run(phase(epochs=2), seed=4)

    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    assert not torch.equal(one.head.weight, other.head.weight)


def test_every_image_is_seen_once_an_epoch_in_an_order_of_the_seed():
    seen = []

    def watching(network, batch):
        seen.append(batch.ids.tolist())
        return loss(network, batch)

    run(phase(epochs=2, loss=watching), seed=1)
    again, seen = seen, []
    run(phase(epochs=2, loss=watching), seed=1)
    first, second = [*chain(*seen[:4])], [*chain(*seen[4:])]

    assert again == seen
    assert sorted(first) == sorted(second) == list(range(20)) and first != second


def test_a_last_batch_that_is_not_full_waits():
    sizes = []

    def watching(network, batch):
        sizes.append(len(batch))
        return loss(network, batch)

    run(phase(loss=watching, batch_size=8))
    run(phase(loss=watching, batch_size=64))

    assert sizes == [8, 8, 20]


def test_augmentation_is_told_seed_and_epoch_and_is_for_training_alone():
    told = []

    def augment(batch, seed, epoch):
        told.append((seed, epoch))
        return batch

    run(phase(epochs=2), phase("next"), of=dataset(augment=augment), seed=7)

    assert told == [(7, 1)] * 4 + [(7, 2)] * 4 + [(7, 3)] * 4


def test_evaluating_puts_modes_back_and_counts_literally():
    network = net()
    network.head.eval()

    accuracy, cost = evaluate(network, dataset(), "test", torch.device("cpu"), size=7)

    assert network.training and not network.head.training
    network.eval()
    batch = dataset().test.batch(torch.arange(20))
    logits = network(batch.images).detach()
    assert accuracy == pytest.approx(
        sum(int(a.argmax() == b) for a, b in zip(logits, batch.labels, strict=True)) / 20
    )
    assert cost == pytest.approx(F.cross_entropy(logits, batch.labels).item(), rel=1e-5)


# what is told


def test_history_tells_each_epoch():
    _, trainer = run(phase("warm", epochs=2), phase("joint", lr={"head": 0.1}))

    assert [(epoch.phase, epoch.epoch) for epoch in trainer.history] == [
        ("warm", 1),
        ("warm", 2),
        ("joint", 1),
    ]
    for epoch in trainer.history:
        assert set(epoch.train_losses) == {"entropy"} and 0 <= epoch.val_accuracy <= 1 and epoch.seconds > 0


def test_terms_are_means_over_the_epoch():
    steps = iter([1.0, 2.0, 3.0, 6.0])

    def counted(network, batch):
        return {"counted": network(batch.images).sum() * 0 + next(steps)}

    _, trainer = run(phase(loss=counted))

    assert trainer.history[0].train_losses["counted"] == pytest.approx(3)


def test_the_log_is_always_a_whole_file(tmp_path):
    logger = CSVLogger(tmp_path / "run")
    wholes = []

    class Watching:
        def log(self, epoch):
            with logger.path.open() as file:
                wholes.append(list(csv.DictReader(file)))

        def close(self):
            wholes.append("closed")

    def two(network, batch):
        return loss(network, batch) | {"cluster": network(batch.images).sum() * 0}

    run(phase("warm", epochs=2), phase("joint", loss=two), loggers=[logger, Watching()])

    assert [len(rows) for rows in wholes[:3]] == [1, 2, 3] and wholes[3] == "closed"
    last = wholes[2]
    assert [row["phase"] for row in last] == ["warm", "warm", "joint"]
    assert last[0]["train/cluster"] == "" and float(last[2]["train/cluster"]) == 0
    assert [path.name for path in logger.path.parent.iterdir()] == ["log.csv"]


def test_loggers_are_closed_when_training_fails():
    closed = []

    class Watching:
        def log(self, epoch):
            pass

        def close(self):
            closed.append(True)

    with suppress(TrainingError):
        run(phase(lr={"nothing": 1}), loggers=[Watching()])

    assert closed == [True]


def test_a_log_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match="folder for logs"):
        CSVLogger(tmp_path / "file" / "run")


def test_progress_is_silent_where_there_is_no_terminal(capfd):
    run(phase(epochs=2))
    Trainer(device="cpu").run(net(), dataset(), [phase()])

    assert capfd.readouterr() == ("", "")


def test_progress_shows_phase_and_terms(capfd):
    Trainer(device="cpu", progress=True).run(net(), dataset(), [phase("warm")])

    assert "warm" in capfd.readouterr().err


# precision


@pytest.mark.parametrize(
    ("precision", "inside", "weights"),
    [
        ("32-true", torch.float32, torch.float32),
        ("bf16-mixed", torch.bfloat16, torch.float32),
        ("64-true", torch.float64, torch.float64),
    ],
)
def test_a_phase_runs_in_its_precision(precision, inside, weights):
    seen = []

    class Watching(Net):
        def forward(self, images):
            features = self.backbone(images).mean((2, 3))
            seen.append(self.backbone2(features).dtype)
            return super().forward(images)

    network, trainer = run(phase(precision=precision), network=Watching())

    assert set(seen) == {inside} and network.head.weight.dtype is weights
    assert trainer.history[0].val_loss > 0


def test_tensorboard_is_told_every_figure_once_though_the_run_is_resumed(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = Trainer(device="cpu", progress=False, loggers=[TensorBoardLogger(tmp_path / "tb")])
    first.run(Net(), dataset(), [phase(epochs=2)])
    again = Trainer(device="cpu", progress=False, loggers=[TensorBoardLogger(tmp_path / "tb")])
    again.run(Net(), dataset(), [phase(epochs=3)])

    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    accuracies = events.Scalars("validation/accuracy")

    assert [event.step for event in accuracies] == [1, 2, 3]
    assert [event.value for event in accuracies] == pytest.approx([e.val_accuracy for e in again.history])
