"""What a loss knows of its step, and what phases do between steps."""

import pytest
import torch
from torch.nn import functional as F
from trainer_cases import Net, dataset, loss, net, phase, run

from explainkit.errors import InputError, TrainingError
from explainkit.training import Repeat
from explainkit.training.steps import LossModule, Step


def test_a_loss_is_given_where_in_the_phase_it_is():
    steps = []

    def watching(network, batch, step):
        steps.append(step)
        return loss(network, batch, step)

    run(phase(epochs=2, loss=watching))

    assert [(step.epoch, step.epochs, step.index) for step in steps] == [
        (1, 2, 0), (1, 2, 1), (1, 2, 2), (1, 2, 3), (2, 2, 4), (2, 2, 5), (2, 2, 6), (2, 2, 7),
    ]  # fmt: skip
    assert [step.progress for step in steps] == [number / 8 for number in range(8)]
    assert {step.batch_size for step in steps} == {5}


def test_one_process_has_all_rows():
    values, step = torch.rand(5, 2), Step(batch_size=5)

    assert step.gather(values) is values and torch.equal(step.local(values), values)


@pytest.mark.parametrize("values", [torch.zeros(4, 2), torch.zeros(())])
def test_only_a_row_for_each_image_can_be_gathered(values):
    with pytest.raises(InputError, match="one row for each of the 5 images"):
        Step(batch_size=5).gather(values)


def test_every_second_row_is_of_the_second_of_two_processes():
    rows = torch.arange(7)

    assert Step(batch_size=7, rank=0, processes=2).local(rows).tolist() == [0, 2, 4, 6]
    assert Step(batch_size=7, rank=1, processes=2).local(rows).tolist() == [1, 3, 5]


def test_network_and_loss_are_one_module_that_gives_terms_alone():
    network = net()
    module = LossModule(network, loss)

    terms = module(dataset().train.batch(torch.arange(4)), Step(batch_size=4))

    assert set(terms) == {"entropy"}
    assert {id(value) for value in module.parameters()} == {id(value) for value in network.parameters()}


def test_a_phase_augments_in_its_own_way_or_not_at_all():
    seen = []

    def brighter(batch, seed, epoch):
        seen.append("phase")
        return batch

    def of_dataset(batch, seed, epoch):
        seen.append("dataset")
        return batch

    run(
        phase("default"),
        phase("own", augment=brighter),
        phase("none", augment=None),
        of=dataset(augment=of_dataset),
    )

    assert seen == ["dataset"] * 4 + ["phase"] * 4


def test_no_other_word_is_an_augmentation():
    with pytest.raises(InputError, match="augment of phase 'all'"):
        phase(augment="mirror")


def test_a_projection_after_every_step_holds_in_the_next():
    norms = []

    def watching(network, batch, step):
        norms.append(network.head.weight.norm().item())
        return loss(network, batch, step)

    def project(network, step):
        assert not torch.is_grad_enabled()
        network.head.weight.copy_(
            F.normalize(network.head.weight.flatten(), dim=0).view_as(network.head.weight)
        )

    run(phase(epochs=2, loss=watching, on_step_end=project))

    assert norms[0] != pytest.approx(1) and norms[1:] == pytest.approx([1.0] * 7)


def alternating(keep):
    momentum = {"optimizer": "sgd", "optimizer_kwargs": {"momentum": 0.9}, "lr": {"head": 1e-2}}
    first, second = phase("first", **momentum), phase("second", **momentum | {"lr": {"backbone2": 1e-2}})
    return Repeat([first, second], 2, keep_optimizers=keep)


def test_optimizers_that_are_kept_are_those_of_the_round_before():
    """Against one optimizer by hand, whose momentum goes on while the other phase learns."""
    kept, _ = run(alternating(True))
    lost, _ = run(alternating(False))

    network, batches = net(), []

    def recording(network, batch, step):
        batches.append(batch.ids)
        return loss(network, batch, step)

    run(phase(loss=recording), phase(loss=recording), phase(loss=recording), phase(loss=recording))
    torch.manual_seed(0)
    optimizers = [
        torch.optim.SGD([{"params": [p], "weight_decay": 0.0} for p in part.parameters()], 1e-2, momentum=0.9)
        for part in (network.head, network.backbone2)
    ]
    network.requires_grad_(False).train()
    network.backbone[0].eval(), network.backbone[1].eval()
    for round_ in range(4):
        for part, other in ((network.head, network.backbone2), (network.backbone2, network.head)):
            if (part is network.head) == (round_ % 2 == 0):
                part.requires_grad_(True)
                other.requires_grad_(False)
        for ids in batches[4 * round_ : 4 * round_ + 4]:
            optimizers[round_ % 2].zero_grad()
            loss(network, dataset().train.batch(ids), None)["entropy"].backward()
            optimizers[round_ % 2].step()

    torch.testing.assert_close(kept.head.weight, network.head.weight)
    torch.testing.assert_close(kept.backbone2.weight, network.backbone2.weight)
    assert not torch.allclose(lost.head.weight, kept.head.weight)


def test_a_run_cut_off_between_rounds_keeps_its_optimizers(tmp_path):
    whole, _ = run(alternating(True))

    class StopError(Exception):
        pass

    class Stopper:
        def log(self, epoch):
            if epoch.phase == "second":
                raise StopError

        def close(self):
            pass

    with pytest.raises(StopError):
        run(alternating(True), checkpoints=tmp_path, loggers=[Stopper()])
    resumed, _ = run(alternating(True), network=net(seed=1), checkpoints=tmp_path, resume=True)

    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_an_optimizer_cannot_be_kept_where_parameters_change_their_shape():
    def prune(network, of):
        network.head.weight = torch.nn.Parameter(network.head.weight[:, :3].contiguous())
        network.backbone2 = torch.nn.Linear(4, 3)

    item = phase(lr={"head.weight": 1e-2}, on_end=prune)

    with pytest.raises(TrainingError, match="keep_optimizers=False"):
        run(Repeat([item], 2, keep_optimizers=True), network=Net())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.tensor(1.0), "got Tensor"),
        ({}, "got none"),
        ({"entropy": torch.ones(3)}, r"got 'entropy' of \(3,\)"),
        ({"entropy": 0.5}, "got 'entropy' of 0.5"),
    ],
)
def test_a_loss_that_returns_something_else_is_named(value, words):
    with pytest.raises(TrainingError, match=f"named scalar tensors; {words}"):
        run(phase(loss=lambda network, batch, step: value))
