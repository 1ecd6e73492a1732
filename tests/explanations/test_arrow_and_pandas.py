"""Explanations as tables say what the explanations say, one by one."""

import json
import sys

import pytest
import torch
from cam_cases import make_cam, make_images
from explanation_cases import REFERENCE, drawn, make_explanations, make_units

import explainkit as ek
from explainkit.errors import MissingPackageError
from explainkit.testing import fitted_example, tiny_dataset, tiny_images

CASES = {
    "numbered": {"ids": (5, 6, 7, 8)},
    "named files": {"ids": ("a.png", 6, "b.png", "c")},
    "a reference": {"reference": REFERENCE},
    "foils": {"foils": torch.tensor([1, 2, 0, 1]), "decomposition": None},
    "labels": {"decision": "sigmoid", "image_index": torch.tensor([0, 0, 1, 1])},
    "numbers": {"decision": "identity"},
    "no sum": {"additivity": "none", "base": torch.zeros(4, dtype=torch.float64), "decomposition": None},
    "diagnostics": {"diagnostics": {"drift": torch.tensor([0.5, 1, 2, 3])}},
    "phrases": {
        "units": make_units(
            phrases=("red", None, None, "blue", None),
            score_range=drawn(2, 3, 5).sort(0).values * 20,
            reference=REFERENCE,
        )
    },
    "distances": {
        "units": make_units(
            phrasing=ek.Phrasing(absent_scores="high"),
            score_range=drawn(2, 3, 5).sort(0).values,
            reference=REFERENCE,
        )
    },
}


def made(name):
    fields = dict(CASES[name])
    return make_explanations(**fields)


@pytest.mark.parametrize("name", CASES)
def test_each_row_of_the_arrow_table_says_what_its_explanation_says(name):
    explanations = made(name)

    rows = explanations.to_arrow(3).to_pylist()

    assert len(rows) == len(explanations)
    for row, item in zip(rows, explanations, strict=True):
        facts = item.facts(3)
        for column in ("prediction", "target", "foil", "sentence", "image_index"):
            assert row[column] == facts[column], column
        for column in ("explained_output", "base", "residual", "nonspatial"):
            assert row[column] == pytest.approx(facts[column]), column
        assert row["target_probability"] == facts["probability"]
        assert row["remainder"] == pytest.approx(facts["others"])
        assert row["units"] == facts["evidence"]
        for diagnostic, value in facts["diagnostics"].items():
            assert row[f"diagnostics.{diagnostic}"] == value
        ids = explanations.ids
        are_numbers = ids is not None and all(isinstance(each, int) for each in ids)
        assert row["id"] == (None if ids is None else facts["id"] if are_numbers else str(facts["id"]))


@pytest.mark.parametrize("name", CASES)
def test_a_row_adds_up(name):
    explanations = made(name)

    for row in explanations.to_arrow(2).to_pylist():
        total = row["base"] + sum(unit["contribution"] for unit in row["units"]) + row["remainder"]
        if row["residual"] is not None:
            assert total + row["residual"] == pytest.approx(row["explained_output"])


def test_the_probability_of_the_prediction_is_the_largest():
    explanations = make_explanations()

    for row, logits in zip(explanations.to_arrow().to_pylist(), explanations.logits, strict=True):
        assert row["prediction_probability"] == pytest.approx(logits.softmax(0).max().item())


def test_the_metadata_say_what_made_it_and_what_units_are():
    explanations = make_cam().explain(make_images())

    facts = json.loads(explanations.to_arrow().schema.metadata[b"explainkit"])

    assert facts["schema"] == "explainkit.table/2.0"
    assert facts["units"]["kind"] == "filter" and facts["units"]["pooling"] == "mean"
    assert facts["provenance"]["digest"] == explanations.provenance.model_digest
    assert facts["additivity"] == "exact" and facts["classes"] == list(explanations.classes)


def test_tables_of_a_stream_have_one_schema():
    explanations = make_explanations(ids=(1, 2, 3, 4), diagnostics={"drift": torch.rand(4)})

    schemas = [explanations[rows].to_arrow(2).schema for rows in (slice(0, 1), slice(1, 4), slice(0, 0))]

    assert schemas[0].equals(schemas[1], check_metadata=True) and schemas[0].equals(schemas[2])


def test_a_table_survives_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = make_explanations().to_arrow(2)

    parquet.write_table(table, tmp_path / "explanations.parquet")

    again = parquet.read_table(tmp_path / "explanations.parquet")
    assert again.to_pylist() == table.to_pylist() and again.schema.metadata == table.schema.metadata


def test_sentences_are_left_out_where_they_are_not_wanted():
    explanations = make_explanations()

    assert "sentence" not in explanations.to_arrow(sentences=False).column_names
    assert "sentence" not in explanations.to_pandas(sentences=False)


@pytest.mark.parametrize("name", CASES)
def test_a_data_frame_has_the_columns_of_the_arrow_table(name):
    explanations = made(name)

    frame, table = explanations.to_pandas(3), explanations.to_arrow(3)

    assert list(frame) == [column for column in table.column_names if column != "units"]
    assert frame["target"].tolist() == table["target"].to_pylist()
    torch.testing.assert_close(torch.tensor(frame["base"]), explanations.base)


@pytest.mark.parametrize("top", [0, 2, None, 99])
def test_a_long_data_frame_has_a_row_for_each_explanation_and_unit(top):
    explanations = make_explanations(reference=REFERENCE)

    frame = explanations.to_pandas(top, units=True)

    count = 5 if top is None else min(top, 5)
    assert len(frame) == 4 * count
    for row in frame.to_dict("records"):
        item = explanations[row["explanation"]].top(count)[row["rank"]]
        assert (row["unit"], row["name"], row["is_absent"]) == (item.unit, item.name, item.is_absent)
        assert (row["score"], row["weight"], row["contribution"]) == (
            item.score, item.weight, item.contribution,
        )  # fmt: skip
        assert row["share"] == explanations.shares[row["explanation"], item.unit].item()
    if top is None:
        sums = frame.groupby("explanation")["contribution"].sum()
        torch.testing.assert_close(torch.tensor(sums.to_numpy()), explanations.contributions.sum(1))


def test_no_explanation_is_an_empty_table():
    empty = make_explanations()[:0]

    assert empty.to_arrow().num_rows == len(empty.to_pandas()) == len(empty.to_pandas(units=True)) == 0


@pytest.mark.parametrize("name", ["protopnet", "senn", "captum/integrated-gradients"])
def test_explanations_of_fitted_explainers_become_tables(name):
    explanations = fitted_example(name).explain(tiny_images())

    for row, item in zip(explanations.to_arrow(4).to_pylist(), explanations, strict=True):
        assert [unit["is_absent"] for unit in row["units"]] == [unit.is_absent for unit in item.top(4)]


def test_a_data_frame_of_classes_says_what_the_evidence_says():
    class_explanations = fitted_example("protopnet").explain_class(tiny_dataset())

    frame = class_explanations.to_pandas()

    assert len(frame) == len(class_explanations) * len(class_explanations.units)
    for row in frame.to_dict("records"):
        item = class_explanations[row["class"]].evidence_of(row["unit"])
        assert (row["name"], row["is_absent"]) == (item.name, item.is_absent)
        for column in ("score", "contribution", "std", "low", "median", "high", "sign_agreement"):
            assert row[column] == getattr(item, column), column
        assert row["share"] == pytest.approx(item.share)
        assert row["decisive_rate"] == item.decisive_rate
        assert row["images"] == class_explanations[row["class"]].count


@pytest.mark.parametrize(
    ("library", "extra", "ask"),
    [
        ("pyarrow", "arrow", lambda explanations: explanations.to_arrow()),
        ("pandas", "pandas", lambda explanations: explanations.to_pandas()),
        ("pandas", "pandas", lambda explanations: explanations.to_pandas(units=True)),
    ],
)
def test_a_missing_library_is_named_with_its_extra(monkeypatch, library, extra, ask):
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(MissingPackageError, match=rf"{library}.*explainkit-sdk\[{extra}\]"):
        ask(make_explanations())
