"""A label that does not hold is not explained as if it did; evidence and words follow the decision."""

import re

import pytest
import torch
from attrs import evolve
from decision_cases import LABELS, three_labels, toy_twins, twins
from toys import noise

import explainkit as ek
from explainkit.data.types import ArraySplit, Batch, ImageDataset
from explainkit.errors import InputError, UnknownNameError
from explainkit.explanations.sentences import odds

NAMES = ("cam", "captum/integrated-gradients", "captum/saliency", "captum/occlusion", "captum/deep-lift",
         "captum/layer-grad-cam", "captum/feature-ablation", "captum/lrp")  # fmt: skip

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
