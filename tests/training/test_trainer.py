from contextlib import suppress
from itertools import chain

import pytest
import torch
from torch.nn import functional as F
from trainer_cases import Net, dataset, learning, loss, net, phase, run

from explainkit.data.types import ArraySplit, ImageDataset
from explainkit.errors import TrainingError
from explainkit.training import Phase, Repeat
from explainkit.training.evaluation import Evaluation, evaluate
from explainkit.training.loggers import row

# which epochs


def scripted(accuracies, monkeypatch):
    """Validation that answers with these accuracies in turn."""
    answers = (Evaluation(accuracy=accuracy, loss=1.0) for accuracy in accuracies)
    monkeypatch.setattr("explainkit.training.trainer.evaluate", lambda *_, **__: next(answers))


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


def test_repeats_alternate_until_stop_when_says_so():
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
    fresh = net() if cut == 1 else net(seed=1)  # before the first checkpoint there is nothing to go on from
    again, second = run(*plan, checkpoints=tmp_path, resume=True, network=fresh)

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

    network, trainer = run(phase(epochs=2, val_metrics=measure))
    plain, _ = run(phase(epochs=2))

    assert [epoch.val_metrics["norm"] for epoch in trainer.history][-1] == pytest.approx(
        network.head.weight.norm().item()
    )
    assert seen == [(False, False, len(dataset().validation))] * 2
    assert torch.equal(network.head.weight, plain.head.weight)
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
def test_a_loss_that_goes_astray_is_named_by_phase_epoch_and_term(values, said):
    steps = iter([values[0]] * 5 + values[1:] * 9)

    def astray(network, batch, step):
        return loss(network, batch, step) | {"cluster": network(batch.images).sum() * 0 + next(steps)}

    network = net()
    with pytest.raises(TrainingError, match=f"Phase 'joint', epoch 2: the loss term 'cluster' is {said}"):
        run(phase("joint", epochs=3, loss=astray), network=network)

    assert all(value.isfinite().all() for value in network.state_dict().values())
    assert not network.training and len(learning(network)) == 8


def test_a_loss_may_be_large_from_the_first():
    def large(network, batch, step):
        return {"large": loss(network, batch, step)["entropy"] + 1e6}

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

    def watching(network, batch, step):
        seen.append(batch.ids.tolist())
        return loss(network, batch, step)

    run(phase(epochs=2, loss=watching), seed=1)
    again, seen = seen, []
    run(phase(epochs=2, loss=watching), seed=1)
    first, second = [*chain(*seen[:4])], [*chain(*seen[4:])]

    assert again == seen
    assert sorted(first) == sorted(second) == list(range(20)) and first != second


def test_a_last_batch_that_is_not_full_waits():
    sizes = []

    def watching(network, batch, step):
        sizes.append(len(batch))
        return loss(network, batch, step)

    run(phase(loss=watching, batch_size=8))
    run(phase(loss=watching, batch_size=64))

    assert sizes == [8, 8, 20]


def test_augmentation_is_given_seed_and_epoch_and_is_for_training_alone():
    calls = []

    def augment(batch, seed, epoch):
        calls.append((seed, epoch))
        return batch

    run(phase(epochs=2), phase("next"), of=dataset(augment=augment), seed=7)

    assert calls == [(7, 1)] * 4 + [(7, 2)] * 4 + [(7, 3)] * 4


def test_evaluating_puts_modes_back_and_counts_literally():
    network = net()
    network.head.eval()

    scores = evaluate(network, dataset(), "test", torch.device("cpu"), batch_size=7)

    assert network.training and not network.head.training
    network.eval()
    batch = dataset().test.batch(torch.arange(20))
    logits = network(batch.images).detach()
    assert scores.accuracy == pytest.approx(
        sum(int(a.argmax() == b) for a, b in zip(logits, batch.labels, strict=True)) / 20
    )
    assert scores.loss == pytest.approx(F.cross_entropy(logits, batch.labels).item(), rel=1e-5)


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
