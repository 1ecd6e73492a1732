"""Counterfactuals as values: sentences, facts and drawings say what the numbers say."""

import json
import re

import pytest
import torch
from attrs import evolve
from counterfactual_cases import MARGIN, counterfactual_case, each_explainer
from toys import Cells, labeled, noise, toy, wine

from explainkit.explanations.counterfactuals import Counterfactuals
from explainkit.explanations.edit_sentences import MAX_CHANGES
from explainkit.explanations.sentences import apart


def narrow_range_counterfactuals(width=0.4):
    """Edits of many scores, of which some are not proved smallest, and some not feasible."""
    network = Cells(classes=8, units=40)
    explainer = toy(network, classes=[f"class {c}" for c in range(8)])
    images = noise(40, seed=8)
    with torch.no_grad():
        network.head.bias -= explainer.predict(images).mean(0)
    scores = explainer.explain(images).scores
    low, high = scores.amin(0), scores.amax(0)
    middle = (low + high) / 2
    ends = torch.stack([middle + (low - middle) * width, middle + (high - middle) * width])
    explainer.units = evolve(
        explainer.describe_units(network), score_range=ends[:, None].expand(2, 8, 40).contiguous()
    )
    targets = explainer.predict(images).argsort(1)[:, 4]
    return explainer.counterfactual(images, targets, distractors=labeled(explainer, images))


def check_sentence(counterfactual):
    """Every number of its sentence is that of the values; which kind of score edit it has."""
    edits, n, sentence = (
        counterfactual.batch.edits["score-edit"],
        counterfactual.index,
        counterfactual.sentence(),
    )
    changes, name = counterfactual.changes, counterfactual.target_name
    if counterfactual.already:
        assert sentence == f"It is {name} already."
        return "already"
    movements = [
        f"{'rose' if c.after > c.before else 'fell'} from {' to '.join(apart(c.before, c.after))}"
        for c in changes
    ]
    if not counterfactual.feasible:
        kind = "infeasible"
        assert f"No scores within what is plausible for {name}" in sentence and not changes
    else:
        assert all(movement in sentence for movement in movements[:MAX_CHANGES])
        assert sentence.count(" from ") >= min(MAX_CHANGES, len(movements))
        has_others = f"{len(movements) - MAX_CHANGES} other score" in sentence
        assert has_others == (len(movements) > MAX_CHANGES)
        if edits.norm != "l0":
            kind = "exact" if edits.exact[n] else "not exact"
            assert ("the least change, of" in sentence) == bool(edits.exact[n])
        elif edits.exact[n]:
            kind = "exact"
            match = re.search(r"\((\d+) scores?, and no fewer would do\)", sentence)
            assert int(match[1]) == edits.size[n]
        else:
            kind = "not exact"
            match = re.search(r"\((\d+) scores?; at least (\d+) would be needed\)", sentence)
            assert (int(match[1]), int(match[2])) == (edits.size[n], edits.lower_bound[n])
            assert edits.lower_bound[n] < edits.size[n]
    swaps = counterfactual.batch.edits["region-swap"]
    if counterfactual.success:
        match = re.search(
            r"With (\d+) of its (\d+) (?:region|column)s taken from .*(?:image|row) (\d+)", sentence
        )
        assert [int(number) for number in match.groups()] == [
            swaps.size[n], swaps.regions[n].numel(), swaps.exemplars[n],
        ]  # fmt: skip
        assert ("the mirrored" in sentence) == bool(swaps.mirrored[n])
    else:
        assert "No swap that was tried" in sentence
    return kind


@pytest.mark.parametrize("norm", ["l0", "l1", "l2"])
@each_explainer
def test_sentences_say_what_the_values_say(name, norm):
    *_, counterfactuals = counterfactual_case(name, norm, MARGIN)

    assert {check_sentence(item) for item in counterfactuals} <= {"exact", "not exact", "infeasible"}


def test_sentences_of_what_is_not_proved_or_not_possible():
    *_, wide = counterfactual_case("varying")
    kinds = {
        check_sentence(item)
        for counterfactuals in (wide, narrow_range_counterfactuals())
        for item in counterfactuals
    }

    assert kinds == {"exact", "not exact", "infeasible"}


@each_explainer
def test_facts_are_json_and_the_values(name):
    explainer, distractors, images, counterfactuals = counterfactual_case(name)
    unchanged = explainer.counterfactual(images[:2], counterfactuals.predictions[:2], distractors=distractors)

    for item in [*counterfactuals, *unchanged]:
        facts = json.loads(json.dumps(item.facts(), allow_nan=False))
        scores, swap = facts["edits"]
        assert (scores["method"], swap["method"]) == ("score-edit", "region-swap")
        assert scores["size"] == len(item.changes) == len(scores["changes"])
        assert facts["success"] == swap["success"] == item.success
        assert len(swap["regions"]) == swap["size"] == item.edits["region-swap"].size
        assert (scores["verified_by"], swap["verified_by"]) == ("algebra", "network")
        assert facts["sentence"] == item.sentence() and facts["target"] == item.target_name
        assert item.predicted_name == explainer.classes[int(counterfactuals.predictions[item.index])]


@each_explainer
def test_every_counterfactual_is_drawn(name):
    *_, counterfactuals = counterfactual_case(name)

    for item in (counterfactuals[0], counterfactuals[-1]):
        item.figure().canvas.draw()
        assert "<article" in item._repr_html_()
    assert repr(counterfactuals).startswith("<10 counterfactuals by")
    assert isinstance(counterfactuals, Counterfactuals)
    with pytest.raises(IndexError):
        counterfactuals[10]


def test_names_from_data_are_escaped_in_markup():
    explainer, distractors, images, _ = counterfactual_case("cells")
    hostile = toy(explainer.network, classes=("<script>alert(1)</script>", "$x_{y}$ & more", "\\frac"))

    for item in hostile.counterfactual(images, distractors=distractors):
        assert "<script" not in item._repr_html_()
        item.figure().canvas.draw()


def test_a_table_is_answered_by_its_columns():
    explainer, dataset = wine()
    counterfactuals = explainer.counterfactual(dataset.test.batch(torch.arange(12)), distractors=dataset)

    assert {check_sentence(item) for item in counterfactuals} <= {"exact", "infeasible", "not exact"}
    names = {change.name for item in counterfactuals for change in item.changes}
    assert names and names <= {*dataset.features, "constant"}
