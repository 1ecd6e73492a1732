"""Settings, training that ends alike after a kill, and what it changes."""

import pytest
import torch
from cigc_networks import Odd

import explainkit as ek
from explainkit.data.types import ArraySplit
from explainkit.errors import InputError
from explainkit.testing import check_explainer, tiny_dataset
from explainkit.training import Trainer
from explainkit_cigc.explainer import CIGC
from explainkit_cigc.losses import consistency_loss


class KilledError(Exception):
    pass


def fitted(**settings):
    settings = {"preset": "tiny", **settings}
    return ek.explainer("ci-gc", **settings).fit(tiny_dataset(), seed=0, device="cpu", progress=False)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("pooling", "head"),
    [
        ("max", "mlp"),
        pytest.param("max", "linear", marks=SLOW),
        pytest.param("mean", "mlp", marks=SLOW),
    ],
)
def test_every_pooling_and_head_keeps_the_contract(pooling, head):
    check_explainer(fitted(pooling=pooling, head=head))


def test_a_run_that_was_killed_ends_bit_by_bit_as_one_that_was_not(tmp_path):
    model, dataset = (
        ek.explainer("ci-gc", preset="tiny", epochs=2, warm_epochs=0, batch_size=32),
        tiny_dataset(),
    )
    seen = []

    def until(steps):
        def loss(network, batch, step):
            seen.append(step.index)
            if len(seen) == steps:
                raise KilledError
            return consistency_loss(network, batch, step)

        return loss

    def run(steps, folder, resume=False):
        from attrs import evolve

        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = model.build(ek.Task(classes=dataset.classes, size=dataset.size, dataset=dataset))
            torch.manual_seed(steps)  # what else is drawn must not matter
            phase = evolve(model.phases()[0], loss=until(steps), val_metrics=None)
            Trainer(
                device="cpu", progress=False, checkpoints=folder, checkpoint_every_n_steps=1, resume=resume
            ).run(network, dataset, [phase])
        return network.state_dict()

    with pytest.raises(KilledError):
        run(3, tmp_path / "killed")
    resumed = run(-1, tmp_path / "killed", resume=True)
    whole = run(-1, tmp_path / "whole")

    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_two_runs_of_one_seed_are_the_same_and_of_another_draw_others():
    one, again = fitted(), fitted()
    other = ek.explainer("ci-gc", preset="tiny").fit(tiny_dataset(), seed=1, device="cpu", progress=False)

    state = one.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in again.network.state_dict().items())
    assert one.network.draw_seed != other.network.draw_seed


def test_a_model_that_is_loaded_is_the_same(tmp_path):
    model = fitted(pooling="max", head="mlp", hidden_width=7)

    loaded = ek.load(ek.save(model, tmp_path / "model"))

    images = tiny_dataset().test.batch(torch.arange(5))
    assert torch.equal(loaded.explain(images).contributions, model.explain(images).contributions)
    assert loaded.network.hidden.out_features == 7 and loaded.network.pooling == "max"


def test_consistency_is_recorded_from_the_warm_epochs_on():
    history = fitted(epochs=3, warm_epochs=2).history

    assert [("consistency" in epoch.train_losses) for epoch in history] == [False, False, True]
    assert set(history[0].val_metrics) == {"map_overlap", "inside_mass", "dead_maps"}


def test_without_consistency_it_is_cam_bit_by_bit():
    dataset = tiny_dataset()
    model = ek.explainer("ci-gc", backbone="tiny", epochs=2, consistency=0.0)
    cam = ek.explainer("cam", backbone="tiny", epochs=2)
    losses = [
        each.fit(dataset, seed=0, device="cpu", progress=False).history[-1].train_losses
        for each in (model, cam)
    ]

    assert losses[0] == losses[1]


def test_images_may_have_several_labels():
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(48, 3, generator=generator) > 0.5
    images = torch.randint(0, 90, (48, 3, 16, 16), generator=generator, dtype=torch.uint8)
    images += (labels[:, :, None, None] * 120).byte()
    split = ArraySplit(images=images, labels=labels)
    dataset = ek.ImageDataset(
        name="colors", classes=["red", "green", "blue"], size=(16, 16),
        splits=dict.fromkeys(("train", "validation", "test"), split),
    )  # fmt: skip

    model = ek.explainer("ci-gc", preset="tiny", batch_size=16).fit(dataset, device="cpu", progress=False)

    assert "consistency" in model.history[-1].train_losses
    measured = model.measure_consistency(images[:4].float() / 255, dataset, grids=1)
    assert len(measured) >= 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "median"}, "Expected pooling of CI-GC as one of 'mean', 'max'; got 'median'"),
        ({"head": "deep"}, "Expected head of CI-GC"),
        ({"consistency": -1.0}, "Expected consistency of CI-GC as 0 or more"),
        ({"label_smoothing": 1.0}, r"Expected label_smoothing of CI-GC in \[0, 1\); got 1.0"),
        ({"label_smoothing": -0.1}, "Expected label_smoothing of CI-GC"),
        ({"weight_decay": -0.1}, "Expected weight_decay of CI-GC as 0 or more; got -0.1"),
        ({"composite_fraction": 0.0}, "Expected composite_fraction of CI-GC above 0"),
        ({"warm_epochs": 12}, "Expected fewer warm_epochs than epochs of CI-GC; got 12 of 12"),
        ({"hidden_width": 0}, "Expected hidden_width of CI-GC as 1 or more"),
        ({"backbone_settings": 3}, "backbone_settings of CI-GC as a mapping"),
    ],
)
def test_settings_that_mean_nothing_are_refused_in_words(settings, message):
    with pytest.raises(InputError, match=message):
        ek.explainer("ci-gc", **settings)


@pytest.mark.parametrize(("size", "is_possible"), [(64, True), (60, True), (62, False)])
def test_local_cells_take_sizes_that_their_stride_divides(size, is_possible):
    model = ek.explainer("ci-gc", backbone_settings={"width": 32})
    split = ArraySplit(images=torch.zeros(4, 3, size, size).byte(), labels=torch.arange(4) % 2)
    dataset = ek.ImageDataset(
        name="gray", classes=("a", "b"), size=(size, size),
        splits=dict.fromkeys(("train", "validation", "test"), split),
    )  # fmt: skip
    task = ek.Task(classes=dataset.classes, size=dataset.size, dataset=dataset)
    if is_possible:
        model.build(task)
    else:
        with pytest.raises(InputError, match="sizes that the backbone's stride of 4 divides"):
            model.build(task)


def test_a_backbone_whose_grid_does_not_double_is_refused_when_it_is_built(monkeypatch):
    monkeypatch.setattr(ek, "backbone", lambda *_, **__: Odd())

    with pytest.raises(InputError, match=r"twice their grid, \(18, 16\); got \(17, 16\)"):
        fitted()


def test_the_paper_is_cited_and_its_weight_is_25_over_the_cells():
    assert "AAAI 2021" in CIGC.card.citation and CIGC.card.additivity == "exact"
    paper = CIGC.presets["paper"]
    assert paper["consistency"] * 4 * 7 * 7 == pytest.approx(25)
    assert ek.explainer("ci-gc", preset="paper").phases()[0].optimizer == "sgd"
