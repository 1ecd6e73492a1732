"""A label that does not hold is not explained as if it did; all answers follow the network's decision."""

import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve
from torch import nn
from torch.nn import functional as F

import explainkit as ek
from explainkit.data.types import ArraySplit, Batch, ImageDataset
from explainkit.errors import DecisionWarning, InputError, UnknownNameError, UnsupportedNetworkError
from explainkit.explanations.decisions import Decision
from explainkit.explanations.sentences import odds
from explainkit.testing import check_explainer

sys.path.insert(0, str(Path(__file__).parents[1] / "questions"))
from toys import Cells, Toy, noise

NAMES = ("cam", "captum/integrated-gradients", "captum/saliency", "captum/occlusion", "captum/deep-lift",
         "captum/layer-grad-cam", "captum/feature-ablation", "captum/lrp")  # fmt: skip
LABELS = ("red", "green", "blue")


def backbone_and_head(outputs, seed=0):
    torch.manual_seed(seed)
    features = [nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*features, nn.Linear(6, outputs)).eval()


def twins():
    """A network of one logit z, and one of two, 0 and z."""
    two = backbone_and_head(2)
    with torch.no_grad():
        two[4].weight *= 20
        two[4].weight[0], two[4].bias[0] = 0, 0
        images = noise(24)
        two[4].bias[1] -= two(images)[:, 1].median()  # some are, some are not
    one = nn.Sequential(*two[:4], nn.Linear(6, 1)).eval()
    with torch.no_grad():
        one[4].weight.copy_(two[4].weight[1:])
        one[4].bias.copy_(two[4].bias[1:])
    return one, two, images


def toy_twins():
    """The same for `Toy`."""
    two, one = Cells(classes=2, seed=3), Cells(classes=1, seed=3)
    images = noise(40, seed=3)
    with torch.no_grad():
        two.head.weight[0], two.head.bias[0] = 0, 0
        two.head.bias[1] -= two(images)[:, 1].median()
        one.cells.load_state_dict(two.cells.state_dict())
        one.head.weight.copy_(two.head.weight[1:])
        one.head.bias.copy_(two.head.bias[1:])
    single = Toy.from_network(one.eval(), classes=["healthy", "ill"], decision="sigmoid")
    return single, Toy.from_network(two.eval(), classes=["healthy", "ill"]), images


def three_labels(**settings):
    network = Cells(classes=3, seed=1)
    with torch.no_grad():
        network.head.bias -= network(noise(40)).median(0).values
    return Toy.from_network(network.eval(), classes=LABELS, decision="sigmoid", **settings)


# one logit and its twin


@pytest.mark.parametrize("name", NAMES)
def test_one_logit_has_the_evidence_and_the_probability_of_its_twin_of_two(name):
    one, two, images = twins()
    single = ek.explainer(name, network=one, classes=["healthy", "ill"], decision="sigmoid", size=32)
    double = ek.explainer(name, network=two, classes=["healthy", "ill"], size=32)

    alone, paired = single.explain(images), double.explain(images, "ill")

    torch.testing.assert_close(alone.contributions, paired.contributions, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.base, paired.base, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.saliency(), paired.saliency(), rtol=1e-3, atol=1e-5)
    for label, pair in zip(alone, double.explain(images), strict=True):
        assert label.prediction_name == pair.prediction_name
    for label, pair in zip(alone, paired, strict=True):
        assert label.probability == pytest.approx(pair.probability, rel=1e-4)
        assert label.says_target == (label.probability > 0.5) == pair.says_target


def test_one_logit_is_counted_and_changed_as_its_twin_of_two():
    single, double, images = toy_twins()
    labels = (double.predict(images).argmax(1) + (torch.arange(40) % 7 == 0)) % 2  # some are wrong
    batch = Batch(images=images, labels=labels, ids=torch.arange(40))
    goals = ["healthy" if is_ill else "ill" for is_ill in double.predict(images).argmax(1).tolist()]

    alone, paired = single.explain_class([batch])["ill"], double.explain_class([batch])["ill"]
    torch.testing.assert_close(alone.contributions, paired.contributions)
    assert alone.accuracy == paired.accuracy
    torch.testing.assert_close(single.explain_class([batch]).decisive_rate[0],
                               double.explain_class([batch]).decisive_rate[1])  # fmt: skip

    for targets in (None, goals):
        one = single.counterfactual(images, targets, distractors=batch)
        two = double.counterfactual(images, goals, distractors=batch)
        edit, other = one.edits["score-edit"], two.edits["score-edit"]
        torch.testing.assert_close(edit.after, other.after)
        assert torch.equal(edit.feasible, other.feasible) and torch.equal(edit.lower_bound, other.lower_bound)
        assert torch.equal(one.success, two.success)
        assert torch.equal(one.edits["region-swap"].regions, two.edits["region-swap"].regions)
        assert [item.target_name for item in one] == goals
        assert [item.sentence() for item in one] == [item.sentence() for item in two]


def test_one_logit_has_the_metrics_of_its_twin_of_two():
    one, two, images = twins()
    single = ek.explainer("cam", network=one, classes=["healthy", "ill"], decision="sigmoid", size=32)
    double = ek.explainer("cam", network=two, classes=["healthy", "ill"], size=32)
    is_ill = double.predict(images).argmax(1) == 1
    split = ArraySplit(images=(images[is_ill] * 255).byte(), labels=is_ill[is_ill].long())
    dataset = ImageDataset(
        name="ill", classes=("healthy", "ill"), size=(32, 32),
        splits=dict.fromkeys(("train", "validation", "test"), split),
    )  # fmt: skip
    names = ["pixel-deletion", "pixel-insertion", "residual", "gini", "units-to-95-percent"]

    alone = ek.evaluate_explanations(single, evolve(dataset, decision="sigmoid"), metrics=names, images=8)
    paired = ek.evaluate_explanations(double, dataset, metrics=names, images=8)

    for name in names:
        torch.testing.assert_close(
            alone.rows[0].scores[name].values, paired.rows[0].scores[name].values, rtol=1e-4, atol=1e-6
        )
    assert single.evaluate(evolve(dataset, decision="sigmoid"))["test"] == pytest.approx(
        double.evaluate(dataset)["test"], rel=1e-5
    )


# words


def test_a_label_that_does_not_hold_is_said_not_to_hold():
    one, _, images = twins()
    single = ek.explainer("cam", network=one, classes=["ill"], decision="sigmoid", size=32)
    explanations = single.explain(images)

    for explanation in explanations:
        sentence = explanation.sentence()
        if explanation.says_target:
            assert re.match(r"ill: [\d.]+ %, ((mostly )?because of |though nothing supports it)", sentence)
        else:
            assert re.match(r"not ill: [\d.]+ %\. For it .*, against it .*\.$", sentence)
            assert "because" not in sentence
    assert {item.says_target for item in explanations} == {True, False}


def test_an_image_without_any_label_is_said_to_have_none():
    model = three_labels()
    images = noise(40)
    has_none = ~model.decision.holds(model.predict(images)).any(1)
    assert has_none.any() and not has_none.all()

    for explanation in model.explain(images[has_none]):
        assert explanation.prediction_name == "none of the three labels"
        said = r"none of the three labels; (red|green|blue): \d+ %\. For it .*, against it"
        assert re.match(said, explanation.sentence())
        assert explanation.target == int(explanation.logits.argmax())


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0.5, "50 %"), (0.0002, "0.02 %"), (0.9998, "99.98 %"), (1e-9, "under 0.0001 %"),
        (1.0, "over 99.9999 %"), (0.014, "1 %"), (0.0099, "1.0 %"),
    ],
)  # fmt: skip
def test_odds_keep_the_digits_that_tell_them_from_certainty(probability, text):
    assert odds(probability) == text


def test_a_number_is_told_as_a_number():
    one, _, images = twins()
    age = ek.explainer("cam", network=one, classes=["age"], decision="identity", size=32)

    explanation = age.explain(images)[0]

    assert explanation.probability is None
    assert re.match(rf"age: {re.escape(f'{explanation.explained_output:.1f}'[:3])}", explanation.sentence())
    assert explanation.batch.unit == "output"


# several labels


def test_each_label_that_holds_is_explained_and_images_keep_their_numbers():
    model, images = three_labels(), noise(40)
    logits = model.predict(images)
    expected = [
        (row, label)
        for row, values in enumerate(logits.tolist())
        for label in ([c for c, value in enumerate(values) if value > 0] or [values.index(max(values))])
    ]

    explanations = model.explain(images, batch_size=7)

    pairs = zip(explanations.image_index.tolist(), explanations.targets.tolist(), strict=True)
    assert list(pairs) == expected
    assert torch.equal(explanations.images, images[explanations.image_index])
    explanations.check_additivity()
    assert torch.equal(explanations[[-1]].image_index, explanations.image_index[-1:])


def test_several_targets_of_an_image_are_lists_or_rows_of_a_mask():
    model, images = three_labels(), noise(3)
    mask = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])

    listed = model.explain(images, [["red", "blue"], [], 1])

    assert listed.image_index.tolist() == [0, 0, 2] and listed.targets.tolist() == [0, 2, 1]
    masked = model.explain(images, mask)
    assert torch.equal(masked.contributions, listed.contributions)
    single, _, pictures = toy_twins()
    healthy = single.explain(pictures, "healthy")
    assert torch.equal(healthy.contributions, single.explain(pictures, "ill").contributions)
    with pytest.raises(InputError, match="at least one target"):
        model.explain(images, torch.zeros(3, 3, dtype=torch.bool))
    with pytest.raises(UnknownNameError, match="Did you mean 'blue'"):
        model.explain(images, [["bleu"], [], []])


def test_several_labels_make_class_explanations_and_counterfactuals():
    model, images = three_labels(), noise(40)
    labels = model.decision.holds(model.predict(images))
    batch = Batch(images=images, labels=labels, ids=torch.arange(40))

    classes = model.explain_class([batch])
    for label, name in enumerate(LABELS):
        rows = labels[:, label]
        mean = model.explain(images[rows], name).contributions.mean(0)
        torch.testing.assert_close(classes[name].contributions, mean, rtol=1e-4, atol=1e-5)
        assert classes[name].accuracy == 1 and classes[name].count == int(rows.sum())

    counterfactuals = model.counterfactual(images, distractors=batch)
    after = model.decision.holds(counterfactuals.edits["score-edit"].logits)
    before, rows = labels, torch.arange(40)
    targets, feasible = counterfactuals.targets, counterfactuals.edits["score-edit"].feasible
    flipped = after[rows, targets] != before[rows, targets]
    assert torch.equal(flipped, feasible) and feasible.any()
    swapped = model.decision.holds(model.predict(counterfactuals.edits["region-swap"].images))
    success = counterfactuals.success
    assert torch.equal(swapped[rows, targets] != before[rows, targets], success) and success.any()
    assert any(item.target_name.startswith("not ") for item in counterfactuals)


def test_a_counterfactual_is_asked_for_without_a_label_too():
    model, images = three_labels(), noise(6)
    labels = model.decision.holds(model.predict(noise(40)))
    batch = Batch(images=noise(40), labels=labels, ids=torch.arange(40))

    without = model.counterfactual(images, "not red", distractors=batch)

    holds = model.decision.holds(model.predict(images))[:, 0]
    assert [item.already for item in without] == (~holds).tolist()
    assert all(item.target_name == "not red" for item in without)
    assert "not red" in without[int(holds.int().argmax())].sentence()
    without[0].figure()


# probabilities


class Ends(nn.Module):
    def __init__(self, end):
        super().__init__()
        self.network, self.end = backbone_and_head(3), end

    def forward(self, images):
        return self.end(self.network(images))


@pytest.mark.parametrize(
    ("end", "rule", "outputs", "unit"),
    [
        (nn.Softmax(1), "softmax", "probabilities", "probability"),
        (lambda logits: F.softmax(logits, 1), "softmax", "probabilities", "probability"),
        (lambda logits: F.log_softmax(logits, 1), "softmax", "log-probabilities", "log-probability"),
        (torch.sigmoid, "sigmoid", "probabilities", "probability"),
        (lambda logits: logits, "softmax", "logits", "logit"),
    ],
)
def test_outputs_that_are_probabilities_are_recognized_and_called_so(end, rule, outputs, unit):
    explainer = ek.explainer("captum/integrated-gradients", network=Ends(end))

    assert (explainer.decision.rule, explainer.decision.outputs) == (rule, outputs)
    explanations = explainer.explain(noise(2))
    assert explanations.unit == unit
    assert 0 <= explanations[0].probability <= 1
    axes = explanations[0].figure().axes
    assert any(unit in text.get_text() for item in axes for text in (item.title, item.yaxis.label))


def test_probabilities_decide_at_a_half():
    explainer = ek.explainer("captum/saliency", network=Ends(torch.sigmoid))
    outputs = torch.tensor([[0.4, 0.6, 0.1]])

    assert explainer.decision.holds(outputs).tolist() == [[False, True, False]]
    assert torch.equal(explainer.decision.probabilities(outputs), outputs)


# what is said of decisions


def test_one_logit_is_read_as_a_label_with_a_warning_unless_it_is_said():
    one, *_ = twins()
    for name in ("cam", "captum/saliency"):
        with pytest.warns(DecisionWarning, match="decision='sigmoid'"):
            explainer = ek.explainer(name, network=one, size=32)
        assert explainer.decision.rule == "sigmoid"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ek.explainer(name, network=one, size=32, decision="sigmoid")


@pytest.mark.parametrize("name", ["cam", "captum/saliency"])
def test_decisions_that_make_no_sense_are_refused(name):
    one, two, _ = twins()

    with pytest.raises(InputError, match="two classes or more"):
        ek.explainer(name, network=one, size=32, decision="softmax")
    with pytest.raises(InputError, match=r"one of .*'softmax'"):
        ek.explainer(name, network=two, size=32, decision="argmax")
    with pytest.raises(UnsupportedNetworkError, match="2 class names"):
        ek.explainer(name, network=two, size=32, classes=["a", "b", "c"])


def test_a_decision_is_saved_with_the_model_and_with_explanations(tmp_path):
    one, _, images = twins()
    model = ek.explainer("cam", network=one, classes=["healthy", "ill"], decision="sigmoid", size=32)

    loaded = ek.load(ek.save(model, tmp_path / "model"), network=one)
    again = ek.Explanations.load(model.explain(images).save(tmp_path / "explanations"))

    assert loaded.decision == model.decision == Decision(rule="sigmoid", negative="healthy")
    assert [item.sentence() for item in again] == [item.sentence() for item in loaded.explain(images)]
    several = three_labels().explain(noise(4))
    stored = ek.Explanations.load(several.save(tmp_path / "several"))
    assert torch.equal(stored.image_index, several.image_index) and stored.decision == several.decision


def test_pages_and_comparisons_follow_the_decision(tmp_path):
    one, _, images = twins()
    settings = {"network": one, "classes": ["healthy", "ill"], "decision": "sigmoid", "size": 32}
    explainers = [ek.explainer(name, **settings) for name in ("cam", "captum/occlusion")]
    rows = torch.stack(
        [
            (explainers[0].predict(images)[:, 0] > 0).int().argmax(),
            (explainers[0].predict(images)[:, 0] < 0).int().argmax(),
        ]
    )
    batch = Batch(images=images[rows], labels=torch.tensor([0, 1]), ids=torch.arange(2))

    page = ek.compare(explainers, batch).save(tmp_path / "page.html").read_text()

    assert "<h2>healthy</h2>" in page and "<h2>ill</h2>" in page
    assert "healthy; ill: " in page


def test_other_explainers_learn_the_decision_from_the_network():
    one, *_ = twins()
    bound = ek.explainer("cam", network=one, classes=["healthy", "ill"], decision="sigmoid", size=32)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = ek.explainer("captum/saliency", network=bound.network, classes=bound.classes)

    assert other.decision == bound.decision and other.classes == bound.classes


@pytest.mark.parametrize(
    "name",
    [
        "three labels",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("one logit", "a gray network", "captum/saliency")
        ),
    ],
)
def test_the_conformance_kit_holds_explainers_of_any_decision_and_channels(name):
    if name == "a gray network":
        gray = nn.Sequential(
            nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
        )
        explainer = ek.explainer("cam", network=gray.eval(), size=32)
        check_explainer(explainer, noise(6)[:, :1])
        return
    network = backbone_and_head(3)
    with torch.no_grad():
        network[4].bias -= network(noise(6)).median(0).values
    settings = {"network": network, "classes": LABELS}
    if name == "one logit":
        settings = {"network": twins()[0], "classes": ["healthy", "ill"]}
    method = name if name.startswith("captum/") else "cam"
    check_explainer(ek.explainer(method, **settings, decision="sigmoid", size=32), noise(6))


def test_contrasts_of_labels_name_both_and_one_label_has_none():
    model, images = three_labels(), noise(4)

    for explanations in (
        model.explain(images, "red", foils="blue"),
        model.explain(images, "red").contrast("blue"),
    ):
        for explanation in explanations:
            assert re.match(
                r"red rather than blue, (mostly )?because of|red rather than blue, though",
                explanation.sentence(),
            )
            assert explanation.explained_output == pytest.approx(
                float(explanation.logits[0] - explanation.logits[2]), abs=1e-6
            )
    single, _, pictures = toy_twins()
    for ask in (
        lambda: single.explain(pictures, foils="ill"),
        lambda: single.explain(pictures).contrast("ill"),
    ):
        with pytest.raises(InputError, match="'ill' alone"):
            ask()


def test_explainers_that_decide_differently_are_not_compared():
    settings = {"network": backbone_and_head(3), "classes": LABELS, "size": 32, "value_range": (0, 1)}
    softmax = ek.explainer("cam", **settings)
    sigmoid = ek.explainer("captum/saliency", decision="sigmoid", **settings)

    with pytest.raises(InputError, match="one decision for one network"):
        ek.compare([softmax, sigmoid], noise(2))


def test_a_mask_in_a_list_is_no_index():
    model = three_labels()
    mask = [[True, False, True], [False, False, False]]

    with pytest.raises(InputError, match="bool tensor or array"):
        model.explain(noise(2), mask)
    assert model.explain(noise(2), np.array(mask)).image_index.tolist() == [0, 0]


def test_either_side_of_one_label_is_a_target_by_number_as_labels_have_it():
    single, _, images = toy_twins()
    labels = (torch.arange(len(images)) % 2).long()
    batch = Batch(images=images, labels=labels, ids=torch.arange(len(images)))

    assert torch.equal(single.explain(images, labels).contributions, single.explain(images).contributions)
    asked = single.counterfactual(images, 1 - labels, distractors=batch)
    assert [item.target_name for item in asked] == [("ill", "healthy")[label] for label in labels.tolist()]
    with pytest.raises(InputError, match="0 … 1"):
        single.explain(images, 2)


@pytest.mark.parametrize("targets", [[["red"], ["blue"]], 0.5, [None, "red"]])
def test_goals_that_are_none_are_refused(targets):
    batch = Batch(images=noise(4), labels=torch.eye(4, 3).bool(), ids=torch.arange(4))

    with pytest.raises(InputError):
        three_labels().counterfactual(noise(2), targets, distractors=batch)


@pytest.mark.parametrize("count", [-1, 1.5, True])
def test_a_number_of_reasons_is_a_whole_number(count):
    with pytest.raises(InputError, match="number of reasons"):
        three_labels().explain(noise(1))[0].sentence(supporting=count)


def test_what_is_not_asked_for_is_not_said_to_be_missing():
    model = ek.explainer("cam", network=backbone_and_head(3), classes=LABELS, size=32)

    sentence = model.explain(noise(1))[0].sentence(supporting=0, opposing=0)

    assert sentence in {f"{label}." for label in LABELS}


def test_the_base_is_named_where_it_decides():
    one, _, images = twins()
    with torch.no_grad():
        one[4].bias.fill_(-30.0)
    model = ek.explainer("cam", network=one, classes=["ill"], decision="sigmoid", size=32)

    assert "its base (-30.0)" in model.explain(images)[0].sentence()


class Ensemble(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = backbone_and_head(3, 0), backbone_and_head(3, 1)

    def forward(self, images):
        return (self.one(images).softmax(1) + self.other(images).softmax(1)) / 2


def test_the_mean_of_softmaxes_is_a_probability():
    explainer = ek.explainer("captum/saliency", network=Ensemble())
    explanation = explainer.explain(noise(1))[0]

    assert explainer.decision.outputs == "probabilities"
    assert explanation.probability == pytest.approx(float(explanation.logits.max()))


@pytest.mark.parametrize(
    ("decision", "outputs", "classes"),
    [
        (Decision(rule="sigmoid", negative="ok"), 3, LABELS),
        (Decision(rule="softmax", negative="ok"), 3, LABELS),
        (Decision(rule="sigmoid", negative="ill"), 1, ["ill"]),
    ],
)
def test_a_negative_class_is_that_of_one_label_alone(decision, outputs, classes):
    with pytest.raises(InputError):
        ek.explainer("cam", network=backbone_and_head(outputs), classes=classes, decision=decision, size=32)


def test_a_decision_that_is_given_whole_is_kept():
    logits = ek.Decision(rule="softmax", outputs="logits")

    assert ek.explainer("captum/saliency", network=Ends(nn.Softmax(1)), decision=logits).decision == logits


def test_each_of_several_numbers_is_explained():
    model = ek.explainer(
        "cam", network=backbone_and_head(2), classes=["age", "height"], decision="identity", size=32
    )

    explanations = model.explain(noise(3))

    assert explanations.image_index.tolist() == [0, 0, 1, 1, 2, 2]
    assert [item.sentence().split(":")[0] for item in explanations] == ["age", "height"] * 3
    batch = Batch(images=noise(2), labels=torch.tensor([21, 70]), ids=torch.arange(2))
    with pytest.raises(InputError, match="are numbers"):
        model.explain_class([batch])


def test_pages_say_which_label_the_colors_are_for(tmp_path):
    single, _, images = toy_twins()
    page = ek.report(single.explain(images[:2]), tmp_path / "page.html", labels=["ill"] * 2).read_text()

    assert page.count("explained: <strong>ill</strong>") == 2
    several = three_labels().explain(noise(3), [["red", "blue"], ["red"], ["green"]])
    ek.report(several, tmp_path / "several.html", labels=["red", "red", "green"])
