"""What learns in a phase, and how fast."""

from contextlib import suppress

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from trainer_cases import learning, loss, net, phase, run, state

from explainkit.errors import InputError, TrainingError
from explainkit.training.phases import optimizer, set_modes


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


def test_a_number_for_weight_decay_leaves_out_what_is_exempt():
    network = net()

    prepared = optimizer(network, phase(weight_decay=0.3, no_weight_decay=("head",)))

    decayed = {
        id(value) for group in prepared.param_groups if group["weight_decay"] for value in group["params"]
    }
    names = {name for name, value in network.named_parameters() if id(value) in decayed}
    matrices = {name for name, value in network.named_parameters() if value.ndim > 1}
    assert names == matrices - {"head.weight"}
    with pytest.raises(TrainingError, match="exempts from weight decay 'heat', but no parameter"):
        optimizer(network, phase(weight_decay=0.3, no_weight_decay=("heat",)))


@pytest.mark.parametrize(
    "settings", [{"no_weight_decay": "head"}, {"weight_decay": {"": 0.1}, "no_weight_decay": ("head",)}]
)
def test_exempt_names_are_a_sequence_beside_a_number(settings):
    with pytest.raises(InputError, match="no_weight_decay of phase"):
        phase(**settings)


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

    def watching(network, batch, step):
        seen.append(bool((network.backbone[2](torch.ones(100)) == 0).any()))
        return loss(network, batch, step)

    network, _ = run(phase(loss=watching, lr={"head": 0.1}))

    assert all(seen) and not (network.backbone[2](torch.ones(100)) == 0).any()


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


def test_a_schedule_of_ones_own_is_given_how_often_it_moves():
    calls = []

    def halving(optimizer, steps):
        calls.append(steps)
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    by_step = [rate for (rate,) in rates_of(lr_scheduler=halving)]
    by_epoch = [rate for (rate,) in rates_of(lr_scheduler=halving, lr_scheduler_interval="epoch")]

    assert calls == [8, 2]
    assert by_step == pytest.approx([1e-2 / 2**step for step in range(8)])
    assert by_epoch == pytest.approx([1e-2] * 4 + [0.5e-2] * 4)


def test_the_gradient_is_clipped():
    def steep(network, batch, step):
        return {"steep": network.head.bias.sum() * 1000 + network(batch.images).sum() * 0}

    before = net().head.bias.detach()
    network, _ = run(phase(loss=steep, lr={"head": 1.0}, optimizer="sgd", grad_clip_norm=1.0))

    assert (network.head.bias - before).detach().norm().item() == pytest.approx(
        4, rel=1e-4
    )  # four steps of length one
