"""Curves are what the network itself says without the units, or with their scores corrected."""

import copy

import pytest
import torch
from attrs import evolve
from decision_cases import three_labels
from torch import nn
from toys import Toy, Varying, dataset_of, noise, toy

import explainkit as ek
from explainkit.data.types import ArraySplit
from explainkit.errors import InputError, NotFittedError, UnknownNameError
from explainkit.questions import intervention_curves
from explainkit.questions.intervention_curves import RANDOM_ORDERS
from explainkit.testing import architectures, fitted_example, tiny_dataset

EXACT = architectures()


def noisy(dataset=None):
    """The data set with noise laid over its images, so that accuracy is between chance and 1."""
    dataset = dataset or tiny_dataset()
    splits = {}
    for seed, (name, split) in enumerate(dataset.splits.items()):
        noises = torch.randint(0, 256, split.images.shape, generator=torch.Generator().manual_seed(seed))
        images = (0.5 * split.images + 0.5 * noises).byte()
        splits[name] = ArraySplit(images=images, labels=split.labels, captions=split.captions)
    return evolve(dataset, splits=splits)


def without(model, units, dataset, split="test"):
    """Accuracy and mean true logit of the network itself without `units`."""
    model.enable_units()
    model.disable_units(units)
    batch = dataset.split(split).batch(torch.arange(len(dataset.split(split))))
    logits = model.predict(batch)
    model.enable_units()
    true_logit = torch.stack([row[label] for row, label in zip(logits, batch.labels.tolist(), strict=True)])
    return (logits.argmax(1) == batch.labels).double(), true_logit.double()


@pytest.mark.parametrize("name", EXACT)
def test_the_curve_is_what_the_network_says_without_the_units(name):
    model, dataset = copy.deepcopy(fitted_example(name)), noisy()

    curve = ek.unit_curve(model, dataset, batch_size=10)

    count = len(model.units)
    assert curve.num_images == 24 and set(curve.order) == set(model.units.names)
    right_before, _ = without(model, (), dataset)
    for point in sorted({0, 1, 2, count // 3, count // 2, count - 1, count}):
        right, true_logit = without(model, curve.order[:point], dataset)
        scale = float(true_logit.abs().max().clamp(min=1))
        assert curve.true_logit[point].item() == pytest.approx(true_logit.mean().item(), abs=1e-4 * scale)
        assert curve.accuracy[point].item() == pytest.approx(right.mean().item(), abs=1e-9)
        error = right.std() / 24**0.5
        assert curve.accuracy_std_error[point].item() == pytest.approx(error.item(), abs=1e-7)
        change = (right_before - right).std() / 24**0.5
        assert curve.change_std_error[point].item() == pytest.approx(change.item(), abs=1e-7)
        error = true_logit.std() / 24**0.5
        assert curve.true_logit_std_error[point].item() == pytest.approx(error.item(), abs=1e-4 * scale)


@pytest.mark.parametrize("name", ["cam", "senn"])
def test_units_are_ordered_by_what_they_add_to_the_truth_of_other_images(name):
    model, dataset = fitted_example(name), noisy()
    validation = dataset.validation.batch(torch.arange(24))

    curve = ek.unit_curve(model, dataset)

    sizes = model.explain(validation, validation.labels).contributions.abs().mean(0)
    expected = [model.units.names[unit] for unit in sizes.argsort(descending=True, stable=True).tolist()]
    assert curve.order == tuple(expected) and curve.order_by == "contribution"


def test_the_accuracy_cost_of_a_unit_is_what_is_lost_without_it_alone():
    model, dataset = copy.deepcopy(fitted_example("senn")), noisy()
    names = model.units.names

    curve = ek.unit_curve(model, dataset, order="accuracy-cost")

    before = without(model, (), dataset, "validation")[0].mean().item()
    costs = {name: before - without(model, name, dataset, "validation")[0].mean().item() for name in names}
    ordered = [costs[name] for name in curve.order]
    assert ordered == sorted(ordered, reverse=True)
    assert max(costs.values()) > min(costs.values())


def test_the_baseline_is_the_mean_of_random_orders_of_the_seed():
    model, dataset = copy.deepcopy(fitted_example("senn")), noisy()
    generator = torch.Generator().manual_seed(5)
    orders = [torch.randperm(4, generator=generator).tolist() for _ in range(RANDOM_ORDERS)]

    baseline = ek.unit_curve(model, dataset, seed=5).baseline

    assert baseline.order is None and baseline.order_by == "random"
    for point in range(4):
        right = torch.stack([without(model, order[:point], dataset)[0] for order in orders]).mean(0)
        assert baseline.accuracy[point].item() == pytest.approx(right.mean().item(), abs=1e-9)
        error = right.std().item() / 24**0.5
        assert baseline.accuracy_std_error[point].item() == pytest.approx(error, abs=1e-9)
    alone = ek.unit_curve(model, dataset, order="random", seed=5)
    assert torch.equal(alone.accuracy, baseline.accuracy) and alone.baseline is None


def test_a_unit_that_is_off_has_its_reference_for_a_score():
    model, images = toy(Varying(), reference=0.3), noise(40)
    dataset = dataset_of(images, torch.arange(40) % 3)
    batch = dataset.test.batch(torch.arange(40))

    curve = ek.unit_curve(model, dataset, order=[3, "filter 1"])

    explanations = model.explain(batch, 0)
    assert curve.order == ("filter 3", "filter 1") and len(curve.baseline.accuracy) == 3
    for point, units in enumerate([(), (3,), (3, 1)]):
        logits = explanations.intervene(dict.fromkeys(units, "off")).logits
        mean = logits.gather(1, batch.labels[:, None]).mean().item()
        assert curve.true_logit[point].item() == pytest.approx(mean, rel=1e-4, abs=1e-4)


class OnSphere:
    """Logits of scores that are brought to length 1."""

    def __init__(self, head):
        self.head = head

    def __call__(self, rows, scores):
        return self.head(torch.nn.functional.normalize(scores, dim=1))


class Coupled(Varying):
    """Constant weights of scores of length 1, which depend on each other."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(5, 3)

    def decompose(self, images):
        scores = torch.nn.functional.normalize(self.scores(images.mean((2, 3))).relu() + 0.1, dim=1)
        return ek.Decomposition(
            logits=self.head(scores), bias=self.head.bias, scores=scores, weights=self.head.weight,
            rescore=OnSphere(self.head),
        )  # fmt: skip


@pytest.mark.parametrize("order", ["contribution", "accuracy-cost"])
def test_where_scores_are_coupled_the_network_is_asked(order):
    model, images = toy(Coupled()), noise(30)
    dataset = dataset_of(images, torch.arange(30) % 3)
    batch = dataset.test.batch(torch.arange(30))

    curve = ek.unit_curve(model, dataset, order=order)

    explanations = model.explain(batch, 0)
    for point in range(5):
        logits = explanations.intervene(dict.fromkeys(curve.order[:point], "off")).logits
        mean = logits.gather(1, batch.labels[:, None]).mean().item()
        assert curve.true_logit[point].item() == pytest.approx(mean, rel=1e-4, abs=1e-5)
        right = (logits.argmax(1) == batch.labels).double().mean().item()
        assert curve.accuracy[point].item() == pytest.approx(right, abs=1e-9)
    if order == "accuracy-cost":
        batch = dataset.validation.batch(torch.arange(30))
        rights = [
            (model.explain(batch, 0).intervene({unit: "off"}).logits.argmax(1) == batch.labels).sum().item()
            for unit in curve.order
        ]
        assert rights == sorted(rights)


def test_of_several_labels_each_is_right_or_wrong_by_itself():
    model, images = three_labels(), noise(30)
    truth = torch.rand(30, 3, generator=torch.Generator().manual_seed(0)) > 0.5
    dataset = dataset_of(images, truth, classes=("red", "green", "blue"))
    batch = dataset.test.batch(torch.arange(30))

    curve = ek.unit_curve(model, dataset)

    explanations = model.explain(batch, 0)
    sizes = sum(model.explain(batch, label).contributions.abs().mean(0) for label in range(3))
    assert curve.order == tuple(f"filter {unit}" for unit in sizes.argsort(descending=True).tolist())
    for point in range(6):
        logits = explanations.intervene(dict.fromkeys(curve.order[:point], "off")).logits
        right = ((logits > 0) == truth).double().mean().item()
        sided = torch.where(truth, logits, -logits).mean().item()
        assert curve.accuracy[point].item() == pytest.approx(right, abs=1e-9)
        assert curve.true_logit[point].item() == pytest.approx(sided, rel=1e-4, abs=1e-4)


def test_chunks_of_any_size_give_the_same_curve(monkeypatch):
    model, dataset = fitted_example("senn"), noisy()
    whole = ek.unit_curve(model, dataset)

    monkeypatch.setattr(intervention_curves, "LARGEST_CHUNK", 1)
    parts = ek.unit_curve(model, dataset, batch_size=7)

    assert parts.order == whole.order and torch.equal(parts.accuracy, whole.accuracy)
    torch.testing.assert_close(parts.true_logit, whole.true_logit, rtol=1e-4, atol=1e-5)


def test_scores_are_corrected_where_the_truth_is_known():
    model, images = toy(), noise(40)
    dataset = dataset_of(images, torch.arange(40) % 3)
    batch = dataset.test.batch(torch.arange(40))
    truth = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
    truth[::3, 2], truth[:, 4] = torch.nan, torch.nan

    curve = ek.correction_curve(model, dataset, truth)

    assert set(curve.order) == {f"filter {unit}" for unit in (0, 1, 2, 3, 5)}
    decomposition = model.network.decompose(batch.images)
    head, scores = model.network.head, decomposition.scores.detach().clone()
    rights = []
    for point in range(6):
        if point:
            unit = int(curve.order[point - 1].rpartition(" ")[2])
            known = ~truth[:, unit].isnan()
            scores[known, unit] = truth[known, unit]
        logits = scores @ head.weight.T + head.bias
        rights.append((logits.argmax(1) == batch.labels).double())
        assert curve.accuracy[point].item() == pytest.approx(rights[-1].mean().item(), abs=1e-9)
    for point in range(1, 6):
        gain = (rights[point] - rights[0]) / point
        assert curve.gain_per_unit[point - 1].item() == pytest.approx(gain.mean().item(), abs=1e-9)
        error = gain.std().item() / 40**0.5
        assert curve.gain_per_unit_std_error[point - 1].item() == pytest.approx(error, abs=1e-9)


def test_the_truth_may_be_a_function_of_a_batch():
    model, dataset = toy(), dataset_of(noise(40), torch.arange(40) % 3)
    truth = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))

    by_function = ek.correction_curve(model, dataset, lambda batch: truth[batch.ids], batch_size=7)

    expected = ek.correction_curve(model, dataset, truth)
    assert torch.equal(by_function.accuracy, expected.accuracy) and by_function.order == expected.order


def test_the_truth_of_a_concept_is_the_score_that_is_usual_with_it_or_without():
    model, dataset = copy.deepcopy(fitted_example("ccnn")), noisy()
    phrases = model.units.phrases
    unit = phrases.index("red square")
    model.units = evolve(model.units, phrases=[*phrases[:-1], None] if unit < 5 else [None, *phrases[1:]])

    truth = ek.concept_truth(model, dataset)
    spread = ek.concept_truth(model, dataset, levels="quantile")

    train = dataset.train.batch(torch.arange(96))
    scores = model.explain(train, 0).scores[:, unit].double()
    said = torch.tensor(["red square" in caption.text for caption in train.captions])
    said_of_test = dataset.test.labels == 0
    expected = torch.where(said_of_test, scores[said].mean(), scores[~said].mean())
    torch.testing.assert_close(truth[:, unit], expected)
    low, high = scores.quantile(0.05), scores.quantile(0.95)
    torch.testing.assert_close(spread[:, unit], torch.where(said_of_test, high, low))
    assert truth[:, 5 if unit < 5 else 0].isnan().all()


class Hues(nn.Module):
    """How much of each color there is, badly seen; a class a color."""

    def decompose(self, images):
        scores = images.mean((2, 3)) + 0.3 * images[:, :, -1, 0]  # a pixel of noise
        return ek.Decomposition(logits=scores, bias=torch.zeros(3), scores=scores, weights=torch.eye(3))

    def forward(self, images):
        return self.decompose(images).logits


class HuesExplainer(Toy):
    """An explainer of it, whose units are words of the captions."""

    def describe_units(self, network):
        phrases = [f"{color} square" for color in ("red", "green", "blue")]
        return ek.Units(kind="color", names=("r", "g", "b"), phrases=phrases, pooling="none")


def test_concepts_corrected_by_captions_make_the_network_right():
    dataset = noisy()
    model = HuesExplainer.from_network(Hues(), classes=dataset.classes)

    curve = ek.correction_curve(model, dataset, ek.concept_truth(model, dataset))

    assert curve.accuracy[0] < 0.9 and curve.accuracy[-1] == 1
    assert curve.gain_per_unit[-1].item() == pytest.approx((1 - curve.accuracy[0].item()) / 3)
    assert curve.intervention == "corrected"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"order": "size"}, InputError, "accuracy-cost"),
        ({"order": ["filter 1", 1]}, InputError, "each once"),
        ({"order": []}, InputError, "one unit or more"),
        ({"order": ["filter x"]}, UnknownNameError, "No unit"),
        ({"split": "nowhere"}, UnknownNameError, "no split"),
        ({"images": 0}, InputError, "at least 1"),
        ({"images": 2.5}, InputError, "images as a whole number"),
        ({"images": True}, InputError, "images as a whole number"),
        ({"batch_size": 1.5}, InputError, "batch_size as a whole number"),
        ({"seed": "a"}, InputError, "seed in"),
        ({"seed": -1}, InputError, "seed in"),
        ({"order": 3}, InputError, "Expected order as one of"),
        ({"order": None}, InputError, "Expected order as one of"),
        ({"order": [1.5]}, InputError, "a unit by name"),
        ({"batch_size": 0}, InputError, "at least 1"),
    ],
)
def test_what_is_no_curve_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        ek.unit_curve(toy(), dataset_of(noise(9), torch.arange(9) % 3), **settings)


def test_what_has_no_curve_is_refused_in_words():
    dataset = dataset_of(noise(9), torch.arange(9) % 3)

    with pytest.raises(InputError, match="no scores that could be set"):
        ek.unit_curve(fitted_example("captum/saliency"), tiny_dataset())
    with pytest.raises(InputError, match="identity"):
        ek.unit_curve(toy(decision="identity"), dataset)
    with pytest.raises(NotFittedError):
        ek.unit_curve(ek.explainer("cam"), dataset)
    for truth in (torch.zeros(9, 5), torch.zeros(4, 6)):
        with pytest.raises(InputError, match=r"\(9, 6\)"):
            ek.correction_curve(toy(), dataset, truth)
    with pytest.raises(InputError, match="all are unknown"):
        ek.correction_curve(toy(), dataset, torch.full((9, 6), torch.nan))
    truth = torch.full((9, 6), torch.nan)
    truth[:, 1] = 0
    with pytest.raises(InputError, match="filter 2 are not"):
        ek.correction_curve(toy(), dataset, truth, order=[1, 2])
    with pytest.raises(InputError, match="name_units"):
        ek.concept_truth(toy(), dataset)
    with pytest.raises(InputError, match="levels"):
        ek.concept_truth(fitted_example("ccnn"), tiny_dataset(), levels="median")


TRUTH = torch.rand(9, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    "truth",
    [TRUTH.numpy(), TRUTH.tolist(), lambda batch: TRUTH[batch.ids].numpy(), lambda b: TRUTH[b.ids].tolist()],
)
def test_the_truth_may_be_an_array_or_lists(truth):
    dataset = dataset_of(noise(9), torch.arange(9) % 3)

    curve = ek.correction_curve(toy(), dataset, truth, batch_size=4)

    expected = ek.correction_curve(toy(), dataset, TRUTH, batch_size=4)
    assert torch.equal(curve.true_logit, expected.true_logit) and curve.order == expected.order


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (None, "as numbers"),
        ("truth", "as numbers"),
        ([[1.0], [1.0, 2.0]], "as numbers"),
        (TRUTH.to(torch.complex64), "real numbers"),
        (TRUTH.masked_fill(TRUTH > 0.9, torch.inf), "some are infinite"),
        (TRUTH[0], r"\(9, 6\); got \(6,\)"),
        (lambda batch: None, "that truth gives for a batch of 4 as numbers"),
        (lambda batch: TRUTH[:1], r"a batch of 4 of 4 images and 6 units, \(4, 6\); got \(1, 6\)"),
        (lambda batch: TRUTH, r"\(4, 6\); got \(9, 6\)"),
        (lambda batch: TRUTH[batch.ids] / 0, "infinite"),
    ],
)
def test_what_is_no_truth_is_refused_in_words(truth, message):
    with pytest.raises(InputError, match=message):
        ek.correction_curve(toy(), dataset_of(noise(9), torch.arange(9) % 3), truth, batch_size=4)


@pytest.mark.parametrize("other", [3, None, tiny_dataset().test.batch(torch.arange(3))])
def test_what_is_no_data_set_and_no_explainer_is_refused_in_words(other):
    model, dataset = fitted_example("ccnn"), tiny_dataset()
    truth = torch.zeros(24, len(model.units))

    for ask in (ek.unit_curve, ek.concept_truth, lambda *given: ek.correction_curve(*given, truth)):
        with pytest.raises(InputError, match="Expected an ImageDataset"):
            ask(model, other)
        with pytest.raises(InputError, match="Expected an explainer"):
            ask(other, dataset)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size as a whole number"),
        ({"images": 0}, "images as a whole number"),
        ({"images": 2.5}, "images as a whole number"),
        ({"images": 1}, "Only 1 of the 24 images of split 'test' were looked at: give a larger number"),
    ],
)
def test_truth_of_no_images_or_too_few_is_refused_in_words(settings, message):
    with pytest.raises(InputError, match=message):
        ek.concept_truth(fitted_example("ccnn"), tiny_dataset(), **settings)


@pytest.mark.parametrize("name", EXACT)
def test_disabled_units_are_off_and_stay_off(name):
    model, dataset = copy.deepcopy(fitted_example(name)), tiny_dataset()
    count = len(model.units)
    truth = torch.full((24, count), 2.0)
    model.disable_units(1)

    corrected = ek.correction_curve(model, dataset, truth)

    truth[:, 1] = torch.nan
    expected = ek.correction_curve(model, dataset, truth)
    assert set(corrected.order) == set(model.units.names) - {model.units.names[1]}
    assert torch.equal(corrected.true_logit, expected.true_logit)
    assert torch.equal(corrected.baseline.true_logit, expected.baseline.true_logit)
    off = ek.unit_curve(model, dataset, order=[1])
    scale = off.true_logit.abs().max().clamp(min=1)
    assert ((off.true_logit - off.true_logit[0]).abs() <= 1e-5 * scale).all()
    with pytest.raises(InputError, match=r"disabled in the network; enable_units\(.*\) first"):
        ek.correction_curve(model, dataset, torch.full((24, count), 2.0), order=[0, 1])
    only = torch.full((24, count), torch.nan).index_fill(1, torch.tensor([1]), 2.0)
    with pytest.raises(InputError, match="an enabled unit"):
        ek.correction_curve(model, dataset, only)


def test_the_truth_of_a_disabled_unit_is_unknown():
    model, dataset = copy.deepcopy(fitted_example("ccnn")), tiny_dataset()
    whole = ek.concept_truth(model, dataset)
    off = int(whole.isfinite().any(0).nonzero()[0])
    model.disable_units(off)

    truth = ek.concept_truth(model, dataset)

    others = [unit for unit in range(len(model.units)) if unit != off]
    assert truth[:, off].isnan().all() and torch.equal(truth[:, others].isnan(), whole[:, others].isnan())


def test_a_curve_is_a_table_and_a_figure():
    curve = ek.unit_curve(fitted_example("cam"), noisy())

    lines = curve.table().splitlines()
    figure = curve.figure()
    figure.canvas.draw()

    assert lines[0].split()[:3] == ["off", "last", "unit"] and lines[0].endswith("at random")
    assert 3 <= len(lines) <= 14 and lines[-1].split()[0] == "32" and curve.order[-1] in lines[-1]
    assert f"{curve.accuracy[0]:.3f} ± {curve.accuracy_std_error[0]:.3f}" in lines[1]
    assert len(figure.axes[0].lines) == 2 and "last unit" in curve._repr_html_()
    assert "24" in repr(curve) and list(curve.num_units) == list(range(33))


def test_the_network_is_left_as_it_was():
    model, dataset = fitted_example("cam"), noisy()
    state = [value.clone() for value in model.network.state_dict().values()]

    with torch.inference_mode():
        curve = ek.unit_curve(model, dataset)

    assert not curve.accuracy.is_inference()
    assert all(map(torch.equal, state, model.network.state_dict().values()))
