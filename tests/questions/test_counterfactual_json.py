"""Counterfactuals as JSON: everything comes back, and what breaks a rule is refused in words."""

import copy
import json

import pytest
import torch

import explainkit as ek
from explainkit.errors import FormatError
from explainkit.testing import fitted_example, tiny_dataset, tiny_images


@pytest.fixture(scope="module")
def counterfactuals():
    return fitted_example("protopnet").counterfactual(tiny_images(), distractors=tiny_dataset())


@pytest.fixture(scope="module")
def document(counterfactuals):
    return json.loads(counterfactuals.to_json())


SCORES = ("before", "after", "gains", "logits", "feasible", "exact", "lower_bound")
SWAPS = ("images", "logits", "success", "regions", "exemplars", "shifts", "mirrored", "predicted_size")


def test_all_numbers_and_images_come_back(counterfactuals):
    again = ek.Counterfactuals.from_json(counterfactuals.to_json(images=True))

    for method, names in (("score-edit", SCORES), ("region-swap", SWAPS)):
        one, other = counterfactuals.edits[method], again.edits[method]
        assert type(one) is type(other) and one.unit == other.unit and one.verified_by == other.verified_by
        for name in names:
            assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert again.edits["score-edit"].norm == "l0"
    assert [x.facts() for x in again] == [x.facts() for x in counterfactuals]
    assert torch.equal(again[0].image, counterfactuals[0].image) and again[0].figure().axes


def test_without_images_all_is_said_and_can_be_drawn(counterfactuals, tmp_path):
    again = ek.Counterfactuals.from_json(counterfactuals.to_json())

    assert not again.explanations.has_images
    assert [x.facts() for x in again] == [x.facts() for x in counterfactuals]
    assert again[0].figure().axes and "<article" in again[0]._repr_html_()
    assert ek.report(again, tmp_path / "page.html").exists()


def test_labels_say_whether_they_shall_hold(counterfactuals):
    assert counterfactuals.wanted is None
    assert ek.Counterfactuals.from_json(counterfactuals.to_json()).wanted is None


@pytest.mark.parametrize("value", [[], [1], [[1.0]], 3, "word", None, {"a": 1}])
@pytest.mark.parametrize("method", ["score-edit", "region-swap"])
def test_columns_that_disagree_are_refused(document, method, value):
    for name in SCORES if method == "score-edit" else SWAPS:
        if name == "lower_bound" and value is None:
            continue  # none is known
        broken = copy.deepcopy(document)
        broken["edits"][method][name] = value

        with pytest.raises(FormatError, match=r"explainkit\.counterfactuals"):
            ek.Counterfactuals.from_json(json.dumps(broken))


@pytest.mark.parametrize(
    "edits", [{}, [], None, {"score-edit": {}}, {"score-edit": {"type": "magic"}}, {"score-edit": 3}]
)
def test_edits_of_no_kind_are_refused(document, edits):
    broken = copy.deepcopy(document) | {"edits": edits}

    with pytest.raises(FormatError, match=r"explainkit\.counterfactuals"):
        ek.Counterfactuals.from_json(json.dumps(broken))


def test_the_norm_and_who_verified_are_of_those_there_are(document):
    for name, value in (("norm", "l7"), ("verified_by", "nobody")):
        broken = copy.deepcopy(document)
        broken["edits"]["score-edit"][name] = value

        with pytest.raises(FormatError, match=r"explainkit\.counterfactuals"):
            ek.Counterfactuals.from_json(json.dumps(broken))
