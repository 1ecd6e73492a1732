"""What is written as JSON is what the schemas in docs/schemas say, and these are what the code says."""

import json
from copy import copy
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator

import explainkit as ek
from explainkit.explanations.phrasing import Phrasing
from explainkit.metrics import evaluate_explanations
from explainkit.questions.naming import Name
from explainkit.testing import fitted_example, tiny_dataset, tiny_images
from explainkit.testing.json_schemas import schemas

FOLDER = Path(__file__).parent.parent / "docs" / "schemas"
NAMES = tuple(schemas())


def explained(name="protopnet"):
    return fitted_example(name).explain(tiny_images())


def table():
    metrics = ["gini", "residual", "pointing"]
    return evaluate_explanations(
        [fitted_example("cam")], tiny_dataset(), split="test", images=4, metrics=metrics
    )


def beside_posthoc():
    return ek.compare_with_posthoc(
        fitted_example("cam"),
        tiny_dataset(),
        methods=["captum/saliency", "captum/layer-grad-cam", "captum/kernel-shap"],
        split="test",
        images=4,
        metrics=["gini", "residual", "pointing", "forward-passes"],
    )


def names():
    name = Name(
        unit=0, name="a", phrase=None, score=0.5, std_error=0.1, selection_stability=1.0, accepted=False
    )
    return ek.Names(explainer="CAM", units=(name,), candidates=("crest",), images=3)


def compared():
    return ek.compare(
        [fitted_example("cam"), fitted_example("captum/saliency")],
        tiny_dataset().test.batch(torch.arange(2)),
        metric_names=["residual"],
        distractors=tiny_dataset(),
    )


def leak(name="cam"):
    return ek.measure_leak(copy(fitted_example(name)), tiny_dataset(), images=2)


def classes():
    return fitted_example("protopnet").explain_class(tiny_dataset())


def changed():
    return fitted_example("protopnet").counterfactual(tiny_images())


WRITTEN = {
    "explanations": lambda: explained().to_json(),
    "explanations in boxes": lambda: explained("ra-cnn").to_json(images=True, maps=True),
    "explanations of none": lambda: explained()[:0].to_json(),
    "explanations with pictures": lambda: explained("senn").to_json(images=True),
    "explanations without a sum": lambda: explained("captum/saliency").to_json(),
    "evidence": lambda: explained().to_json(top=3),
    "record": lambda: json.dumps(next(explained().records(3))),
    "record without a sum": lambda: json.dumps(next(explained("captum/saliency").records())),
    "class-explanations": lambda: classes().to_json(),
    "class-explanations with pictures": lambda: classes().to_json(images=True),
    "counterfactuals": lambda: changed().to_json(),
    "counterfactuals with images": lambda: changed().to_json(images=True),
    "intervention-curve": lambda: ek.unit_curve(fitted_example("cam"), tiny_dataset()).to_json(),
    "comparison": lambda: compared().to_json(),
    "metric-table": lambda: table().to_json(),
    "post-hoc-comparison": lambda: beside_posthoc().to_json(),
    "leak": lambda: leak().to_json(),
    "leak that is none": lambda: leak("senn").to_json(),
    "names": lambda: names().to_json(),
    "units": lambda: explained().units.to_json(),
    "unit-picture": lambda: explained().units.pictures[0][0].to_json(),
    "phrasing": lambda: Phrasing().to_json(),
    "provenance": lambda: explained().provenance.to_json(),
    "decision": lambda: explained().decision.to_json(),
    "decomposition": lambda: explained("senn").decomposition.to_json(),
}


def validator(name):
    return Draft202012Validator(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("what", WRITTEN)
def test_what_is_written_is_as_its_schema_says(what):
    errors = list(validator(what.split()[0]).iter_errors(json.loads(WRITTEN[what]())))

    assert not errors, errors[0].message[:500]


def test_every_schema_is_of_something_that_is_written():
    assert {what.split()[0] for what in WRITTEN} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_in_the_documentation_is_that_of_the_code(name):
    written = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))

    assert written == json.loads(json.dumps(schemas()[name])), "run: make schemas"


def test_the_documentation_has_no_other_schema():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one_and_says_what_it_is_of(name):
    schema = schemas()[name]

    Draft202012Validator.check_schema(schema)
    assert schema["title"] == f"explainkit.{name}/2.0" and schema["description"]


@pytest.mark.parametrize("name", NAMES)
def test_a_document_of_another_kind_breaks_the_schema(name):
    assert list(validator(name).iter_errors({})) and list(validator(name).iter_errors([]))
    assert list(validator(name).iter_errors({"schema": "explainkit.other/2.0"}))
