"""A record says what its explanation says, and shows when it was changed."""

import copy
import json

import pytest
import torch
from explanation_cases import REFERENCE, make_explanations

from explainkit.errors import InputError
from explainkit.explanations.records import record_digest, record_faults
from explainkit.testing import fitted_example, tiny_images

CASES = {
    "plain": {},
    "a reference": {"reference": REFERENCE},
    "foils": {"foils": torch.tensor([1, 2, 0, 1]), "decomposition": None},
    "labels": {"decision": "sigmoid", "image_index": torch.tensor([0, 0, 1, 1])},
    "no sum": {"additivity": "none", "base": torch.zeros(4, dtype=torch.float64), "decomposition": None},
}


def records_of(explanations, top=2):
    return [json.loads(json.dumps(record)) for record in explanations.records(top)]


@pytest.mark.parametrize("name", CASES)
def test_a_record_says_what_its_explanation_says(name):
    explanations = make_explanations(**CASES[name])

    for record, item in zip(records_of(explanations), explanations, strict=True):
        facts = item.facts(2)
        for field in ("target", "foil", "prediction", "probability", "base", "residual", "sentence"):
            assert record[field] == facts[field], field
        assert record["logit"] == facts["explained_output"]
        assert [unit["contribution"] for unit in record["units"]] == [
            unit["contribution"] for unit in facts["evidence"]
        ]
        assert record["remainder"] == pytest.approx(facts["others"])
        assert record["model"] == explanations.provenance.model_digest


@pytest.mark.parametrize("name", ["cam", "protopnet", "senn", "ra-cnn", "captum/integrated-gradients"])
def test_the_records_of_fitted_explainers_have_no_fault(name):
    explanations = fitted_example(name).explain(tiny_images())

    records = records_of(explanations)

    assert [record_faults(record) for record in records] == [[]] * 6
    assert len({record["image"] for record in records}) == 6
    assert {record["image_of"] for record in records} == {"pixels"}
    if explanations.additivity == "exact":
        assert all(record["adds_up"] for record in records)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda record: record.update(target="another"), "changed after"),
        (lambda record: record["units"][0].update(contribution=9.0), "is said to add 9; it adds"),
        (lambda record: record.update(logit=record["logit"] + 1), "its parts come to"),
        (lambda record: record.update(adds_up=False), "whether it adds up"),
        (lambda record: record.update(schema="explainkit.record/9.0"), "it is no explainkit.record"),
        (lambda record: record.pop("units"), "lacks what a record has"),
        (lambda record: record.update(base="much"), "lacks what a record has"),
    ],
)
def test_a_changed_record_is_at_fault_even_with_a_new_digest(change, says):
    record = copy.deepcopy(records_of(fitted_example("cam").explain(tiny_images()))[0])

    change(record)

    assert record_faults(record)
    if says != "changed after":
        record["digest"] = record_digest(record)
    assert any(says in fault for fault in record_faults(record))


def test_images_that_are_left_out_have_no_digest():
    (record, *_) = records_of(make_explanations().without_images())

    assert record["image"] is None and record["image_of"] is None and record_faults(record) == []


def test_a_number_of_units_below_zero_is_refused():
    with pytest.raises(InputError, match="top as a whole number of at least 0"):
        make_explanations().records(-1)
