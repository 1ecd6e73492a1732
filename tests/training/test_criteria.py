"""Networks are trained and chosen by what labels mean: one class, or labels of which each holds or not."""

import numpy as np
import pytest
import torch
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

import explainkit as ek
from explainkit.data.types import ArraySplit, ImageDataset
from explainkit.errors import InputError
from explainkit.training.criteria import classification_loss, mean_average_precision

NAMES = ("red", "green", "blue")


def squares(count, seed):
    """Images with squares of up to three colors, each at a place of its own, and which they have."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(count, 3, generator=generator) > 0.5
    images = torch.randint(0, 90, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    for label, (y, x) in enumerate(((2, 2), (2, 20), (20, 10))):
        images[labels[:, label], label, y : y + 10, x : x + 10] = 230
    return ArraySplit(images=images, labels=labels)


def labeled(**changes):
    splits = {name: squares(count, seed) for seed, (name, count) in enumerate(
        {"train": 192, "validation": 48, "test": 96}.items())}  # fmt: skip
    return ImageDataset(
        **{"name": "squares", "classes": NAMES, "size": (32, 32), "splits": splits, **changes}
    )


def one_label():
    """Whether there is a red square, as whole numbers."""
    dataset = labeled()
    splits = {name: evolve(split, labels=split.labels[:, 0].long()) for name, split in dataset.splits.items()}
    return evolve(dataset, classes=("plain", "red"), splits=splits, decision="sigmoid")


def trained(name, dataset, **settings):
    return ek.explainer(name, preset="tiny", **settings).fit(dataset, seed=0, device="cpu", progress=False)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_the_labels(label_smoothing):
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(5, 3, generator=generator), torch.tensor([0, 2, 1, 1, 0])
    hot = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0]]).bool()

    assert classification_loss(logits, labels, label_smoothing).item() == pytest.approx(
        F.cross_entropy(logits, labels, label_smoothing=label_smoothing).item()
    )
    literal = 0.0
    for row, targets in zip(logits.tolist(), hot.tolist(), strict=True):
        for z, y in zip(row, targets, strict=True):
            p = 1 / (1 + np.exp(-z))
            target = y * (1 - label_smoothing) + label_smoothing / 2
            literal -= (target * np.log(p) + (1 - target) * np.log(1 - p)) / 15
    assert classification_loss(logits, hot, label_smoothing).item() == pytest.approx(literal, rel=1e-5)
    single = classification_loss(logits[:, :1], labels.clamp(max=1), label_smoothing, "sum").item()
    assert single == pytest.approx(
        5 * classification_loss(logits[:, :1], labels.clamp(max=1)[:, None].bool(), label_smoothing).item()
    )


@given(st.integers(2, 30), st.integers(1, 4), st.integers(0, 10**6), st.booleans())
def test_mean_average_precision_is_that_of_scikit_learn(count, labels, seed, ties):
    chance = np.random.default_rng(seed)
    scores, truth = chance.random((count, labels)), chance.random((count, labels)) > 0.6
    if ties:
        scores = scores.round(1)
    truth[0] = True

    ours = mean_average_precision(torch.from_numpy(scores), torch.from_numpy(truth))

    assert ours == pytest.approx(average_precision_score(truth, scores, average="macro"), abs=1e-9)


def test_labels_that_no_image_has_do_not_count():
    truth = torch.tensor([[True, False], [False, False]])
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8]])

    assert mean_average_precision(scores, truth) == 1.0
    assert mean_average_precision(scores, torch.zeros_like(truth)) == 0.0


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cam", {"epochs": 12}),
        ("senn", {"learn_epochs": 10, "settle_epochs": 2}),
        ("ra-cnn", {"warm_epochs": 8}),
        ("region-cnn", {"warm_epochs": 3, "epochs": 12}),
    ],
)
def test_several_labels_are_learned_and_chosen_by_mean_average_precision(name, settings):
    dataset = labeled()

    model = trained(name, dataset, **settings)

    scores = model.evaluate(dataset, ["test"])["test"]
    assert scores["mean_average_precision"] > 0.9
    assert all("mean_average_precision" in epoch.val_metrics for epoch in model.history)
    logits = model.predict(dataset.test.batch(torch.arange(96)))
    right = ((logits > 0) == dataset.test.labels).float().mean().item()
    assert scores["accuracy"] == pytest.approx(right, rel=1e-5)
    explanations = model.explain(dataset.test.batch(torch.arange(8))).check_additivity()
    assert explanations.decision.rule == "sigmoid" and len(explanations) >= 8
    assert model.explain_class(dataset)["red"].sentence().startswith("Red, on average over ")


def test_one_logit_learns_whole_numbers_and_knows_both_names(tmp_path):
    dataset = one_label()

    model = trained("cam", dataset, epochs=10)

    assert model.classes == ("red",) and model.decision.negative == "plain"
    assert model.predict(dataset.test.batch(torch.arange(4))).shape == (4, 1)
    assert model.evaluate(dataset, ["test"])["test"]["accuracy"] > 0.9
    loaded = ek.load(ek.save(model, tmp_path / "model"))
    names = {item.prediction_name for item in loaded.explain(dataset.test.batch(torch.arange(20)))}
    assert names == {"plain", "red"}
    found = loaded.counterfactual(dataset.test.batch(torch.arange(8)), distractors=dataset)
    assert {item.target_name for item in found} == {"plain", "red"}


@pytest.mark.parametrize("name", ["protopnet", "ccnn", "interp-cnn"])
def test_architectures_whose_losses_know_one_class_refuse_labels_in_words(name):
    with pytest.raises(InputError, match=r"one class an image.*'cam'"):
        trained(name, labeled())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"decision": "softmax"}, "multi-hot"), ({"decision": "argmax"}, "one of")],
)
def test_labels_and_decisions_that_disagree_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        labeled(**changes)


def test_labels_of_three_classes_are_no_single_label():
    dataset = labeled()
    counts = {name: evolve(x, labels=x.labels.long().sum(1)) for name, x in dataset.splits.items()}

    with pytest.raises(InputError, match="multi-hot labels"):
        evolve(dataset, splits=counts, decision="sigmoid")
