"""Class explanations as values: JSON, sentences, figures and tables say what the numbers say."""

import json

import pytest
import torch
from class_cases import each_additive, explained_classes
from toys import Cells, Varying, batch_of, noise, toy, wine

from explainkit.explanations.sentences import DESPITE, MOSTLY, TELLING, USUALLY, percent, signed


def test_a_table_is_explained_by_its_columns():
    explainer, dataset = wine()
    class_explanations = explainer.explain_class(dataset).check_additivity()

    assert [item.name for item in class_explanations] == list(dataset.classes)
    for item in class_explanations[0].top(3):
        assert item.name in dataset.features and item.pictures == ()
    assert json.loads(class_explanations.to_json())
    assert class_explanations[0].figure().axes and "<article" in class_explanations[0]._repr_html_()
    contrast = class_explanations[0].contrast()
    assert abs(contrast.residual) < 1e-3 * max(1, abs(contrast.explained_output))


@each_additive
def test_json_says_what_the_values_say(name):
    *_, class_explanations = explained_classes(name)

    read = json.loads(class_explanations.to_json())["derived"]["classes"]

    assert [item["class"] for item in read] == [item.name for item in class_explanations]
    for item, class_explanation in zip(read, class_explanations, strict=True):
        assert item["explained_output"] == pytest.approx(class_explanation.explained_output)
        assert item["images"] == class_explanation.count
        assert item["sentence"] == class_explanation.sentence()
        for evidence in item["evidence"]:
            unit = class_explanation.evidence_of(evidence["unit"])
            assert evidence["contribution"] == unit.contribution and evidence["name"] == unit.name


def test_json_of_a_contrast_has_nothing_that_is_not_of_the_contrast():
    *_, class_explanations = explained_classes("cells")
    facts = class_explanations["ant"].contrast("bee").facts()

    assert facts["foil"] == "bee"
    assert facts["evidence"][0].keys() == {"unit", "name", "phrase", "score", "contribution", "share"}


def test_one_image_a_class_is_valid_json():
    json.loads(toy(Varying()).explain_class([batch_of(noise(2), torch.arange(2))]).to_json())


@each_additive
def test_every_class_has_a_sentence_and_a_figure(name):
    *_, class_explanations = explained_classes(name)

    for item in class_explanations:
        assert f"{item.count} image" in item.sentence() and item.sentence().endswith(".")
        item.figure().canvas.draw()
        assert "<article" in item._repr_html_()
    if class_explanations.all_class_contributions is not None:
        contrast = class_explanations[0].contrast()
        contrast.figure().canvas.draw()
        assert "<article" in contrast._repr_html_()


@each_additive
def test_a_sentence_says_what_the_values_say(name):
    *_, class_explanations = explained_classes(name)

    for item in class_explanations:
        sentence, evidence = item.sentence(), item.evidence
        reasons = sorted((e for e in evidence if e.contribution > 0), key=lambda e: -e.contribution)
        objections = sorted((e for e in evidence if e.contribution < 0), key=lambda e: e.contribution)
        total = sum(e.contribution for e in reasons)
        if not reasons:
            assert "For it: nothing" in sentence and signed(item.base) in sentence
            continue
        assert f"({signed(reasons[0].contribution)}" in sentence and reasons[0].text in sentence
        if "mostly" in sentence:
            assert reasons[0].contribution > MOSTLY * total
        others = [e for e in reasons[1:3] if e.contribution >= TELLING * total]
        assert all(f"{e.text} ({signed(e.contribution)}" in sentence for e in others)
        is_opposed = bool(objections) and -objections[0].contribution >= DESPITE * total
        assert ("Against it" in sentence) == is_opposed
        if reasons[0].decisive_rate:
            assert f"decisive in {percent(reasons[0].decisive_rate)}" in sentence
        if reasons[0].sign_agreement < USUALLY:
            assert f"of that sign in only {percent(reasons[0].sign_agreement)}" in sentence


def test_names_from_data_are_escaped_in_markup():
    hostile = ("<script>alert(1)</script>", "$x_{y}$ & more", "\\frac")
    class_explanations = toy(classes=hostile).explain_class(batch_of(noise(9), torch.arange(9) % 3))

    for item in (class_explanations[0], class_explanations[0].contrast(1), class_explanations[1]):
        assert "<script" not in item._repr_html_()
        item.figure().canvas.draw()


def test_a_network_of_one_class_is_explained():
    explainer = toy(Cells(classes=1), classes=("ant",))
    class_explanations = explainer.explain_class([batch_of(noise(5), torch.ones(5).long())])
    class_explanation = class_explanations.check_additivity()["ant"]

    share = (explainer.predict(noise(5)) > 0).float().mean()
    assert class_explanation.sentence() and class_explanation.accuracy == pytest.approx(float(share))
    assert "rather than" not in class_explanation._repr_html_() and class_explanation.figure().axes
    json.loads(class_explanations.to_json())
