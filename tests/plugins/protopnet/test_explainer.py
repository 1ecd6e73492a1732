"""Sources of prototypes, the report, and training."""

import sys

import pytest
import torch
from attrs import evolve
from protopnet_networks import fitted_explainer, small_explainer, small_network
from torch import nn

import explainkit as ek
from explainkit.data.types import ArraySplit
from explainkit.errors import UnsupportedNetworkError
from explainkit.testing import tiny_dataset, tiny_images


def test_an_explanation_shows_what_each_prototype_was_taken_from():
    model, dataset = fitted_explainer(), tiny_dataset()

    evidence = model.explain(tiny_images())[0].top(1)[0]

    (source,) = evidence.pictures
    assert source.split == "train" and dataset.train.labels[source.id] == source.label
    assert torch.equal(source.image, dataset.train.images[source.id])
    x0, y0, x1, y1 = source.box
    row, column = source.cell
    assert x0 <= 4 * column + 2 < x1 and y0 <= 4 * row + 2 < y1


def test_sources_survive_saving_and_loading(tmp_path):
    model = fitted_explainer()

    loaded = ek.load(ek.save(model, tmp_path / "model"))

    assert loaded.report == model.report and loaded.report.projected
    for (source,), (expected,) in zip(loaded.units.pictures, model.units.pictures, strict=True):
        assert (source.id, source.cell, source.box) == (expected.id, expected.cell, expected.box)
        assert torch.equal(source.image, expected.image)
    state = tmp_path / "state.pt"
    torch.save(model.network.state_dict(), state)
    network = small_network()
    network.load_state_dict(torch.load(state, weights_only=True))
    bound = ek.explainer("protopnet", network=network, classes=model.classes)
    assert bound.size == (32, 32) and bound.units.pictures[0][0].id == model.units.pictures[0][0].id


def test_prototypes_that_are_no_patches_say_so():
    model = small_explainer()

    with pytest.warns(UserWarning, match="not projected"):
        explanations = model.explain(tiny_images())

    assert "(not projected)" in explanations[0].sentence() and not model.report.projected
    assert "not projected" in str(model.report)
    model.project(tiny_dataset())
    assert "(not projected)" not in model.explain(tiny_images())[0].sentence()
    assert model.report.projected and model.units.pictures


def test_networks_without_prototypes_are_refused():
    with pytest.raises(
        UnsupportedNetworkError, match="Expected a ProtoPNetNetwork for ProtoPNet; got Linear"
    ):
        ek.explainer("protopnet", network=nn.Linear(3, 3), classes=["a", "b", "c"])


def test_the_report_counts_duplicates_zeros_and_idle_classes():
    model = small_explainer()
    model.project(tiny_dataset())
    network = model.network
    with torch.no_grad():
        network.sources.image.copy_(torch.tensor([0, 0, 1, 1, 2, 5]))
        network.sources.cell.zero_()
        network.sources.cell[3, 1] = 1
        network.head.weight.fill_(1)
        network.head.weight[1, 2:4] = -1
        network.head.weight[0, 2:5] = 0

    report = model.report

    assert (report.prototypes, report.duplicates, report.images) == (6, 1, 4)
    assert report.uncovered == ("square 1",) and report.zeros == pytest.approx(3 / 12)
    assert "square 1" in str(report) and "1 duplicates" in str(report)


def test_it_learns_the_digits():
    pytest.importorskip("sklearn")
    dataset = ek.dataset("digits", size=16)
    few = ArraySplit(images=dataset.train.images[:400], labels=dataset.train.labels[:400])
    dataset = evolve(dataset, splits={**dataset.splits, "train": few})

    model = ek.explainer("protopnet", preset="digits", start_epochs=5, joint_epochs=2).fit(
        dataset, device="cpu", progress=False
    )

    assert model.evaluate(dataset, ("test",))["test"]["accuracy"] > 0.85
    assert model.report.accuracy > 0.8 and model.report.duplicates < 10


def test_nothing_but_torch_and_scipy_is_needed():
    assert "cv2" not in sys.modules
