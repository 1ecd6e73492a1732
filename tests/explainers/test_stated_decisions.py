"""What a decision is, as it is said, seen of the network, saved, and shown on pages."""

import re
import warnings

import numpy as np
import pytest
import torch
from decision_cases import LABELS, backbone_and_head, three_labels, toy_twins, twins
from torch import nn
from torch.nn import functional as F
from toys import noise

import explainkit as ek
from explainkit.data.types import Batch
from explainkit.errors import DecisionWarning, InputError, UnsupportedNetworkError
from explainkit.explanations.decisions import Decision
from explainkit.testing import check_explainer

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
