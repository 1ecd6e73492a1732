import json
import math

import pytest
import torch

from explainkit import registry
from explainkit.errors import FormatError, InputError, UnknownNameError
from explainkit.explanations.batch import Explanations
from explainkit.metrics import MetricTable, evaluate_explanations
from explainkit.metrics.baselines import TRIVIAL
from explainkit.metrics.results import Row, Score
from explainkit.rendering.html import TableView
from explainkit_cam.explainer import CAM


@pytest.fixture(scope="module")
def table(small) -> MetricTable:
    return evaluate_explanations([small.cam, small.slopes], small.dataset, images=20)


def test_every_metric_of_ours_is_a_column_with_a_docstring(table) -> None:
    assert set(table.columns) == set(registry.offers("metrics"))
    for column in table.columns:
        score = table.score("oracle", column)
        assert score.name == column
        assert registry.find("metrics", column).__doc__


def test_explainers_come_first_and_every_trivial_row_stands_beside_them(small, table) -> None:
    names = [row.name for row in table.rows]

    assert names[0] == "cam" and names[1].endswith(":Slopes") and names[2:] == list(TRIVIAL)
    assert [row.trivial for row in table.rows] == [False, False] + [True] * len(TRIVIAL)
    assert all(row.network == "cam" for row in table.rows)


def test_the_oracle_is_above_every_method_and_noise_is_below_it(table) -> None:
    for row in table.rows:
        if row.name not in ("oracle", "class average"):
            assert table.score("oracle", "shapley-correlation").mean > row.scores["shapley-correlation"].mean
    assert table.score("oracle", "part-deletion").mean < table.score("random", "part-deletion").mean


def test_the_costs_are_those_of_the_methods(table) -> None:
    slopes = table.rows[1].name

    assert table.score("cam", "forward-passes").mean == 1 and table.score("cam", "backward-passes").mean == 0
    assert table.score(slopes, "forward-passes").mean == table.score(slopes, "backward-passes").mean == 1


def test_networks_are_left_as_they_were(small, table) -> None:
    hooks = [hook for layer in small.cam.network.modules() for hook in layer._forward_hooks]

    assert not hooks and all(parameter.grad is None for parameter in small.cam.network.parameters())


def test_the_truth_is_worked_out_once_for_all_explainers_of_a_network(small, monkeypatch) -> None:
    from explainkit.metrics import context

    calls = []
    real = context.part_truth
    monkeypatch.setattr(
        context, "part_truth", lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs)
    )

    evaluate_explanations(
        [small.cam, small.slopes], small.dataset, images=2, metrics=["shapley-correlation", "part-deletion"]
    )

    assert len(calls) == 1


def test_each_network_has_trivial_rows_of_its_own(small) -> None:
    other = CAM.from_network(
        torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, 4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(), torch.nn.Linear(4, 5),
        ).eval(), classes=small.dataset.classes, size=(32, 32),
    )  # fmt: skip

    table = evaluate_explanations(
        {"one": small.cam, "two": other}, small.dataset, images=3, metrics=["shapley-correlation"]
    )

    assert len(table.rows) == 2 + 2 * len(TRIVIAL)
    assert {"one", "two", "oracle (one)", "oracle (two)"} <= {row.name for row in table.rows}
    assert (
        table.skill(next(row for row in table.rows if row.name == "oracle (two)"), "shapley-correlation") == 1
    )


def test_the_same_name_twice_is_distinguished(small) -> None:
    table = evaluate_explanations([small.cam, small.cam], small.dataset, images=2, metrics=["gini"])

    assert [row.name for row in table.rows[:2]] == ["cam", "cam [2]"]


def test_what_cannot_be_measured_is_a_reason_and_the_rest_is_there(small, plain) -> None:
    explainer = CAM.from_network(
        small.cam.network.network, classes=[f"class {c}" for c in range(5)], size=(32, 32)
    )

    table = evaluate_explanations(explainer, plain, images=4)

    assert table.split == "test"
    assert "no part masks" in table.score("cam", "shapley-correlation").reason
    assert "no part masks" in table.score("cam", "pointing").reason
    for column in (
        "residual",
        "pixel-deletion",
        "pixel-insertion",
        "gini",
        "units-to-95-percent",
        "forward-passes",
    ):
        assert table.score("cam", column).reason is None
    assert table.score("random", "pixel-deletion").reason is None
    assert math.isnan(table.skill(table.rows[0], "shapley-correlation"))


def test_an_error_of_a_third_party_is_in_the_cells_that_are_its_own_alone(small, monkeypatch) -> None:
    def broken(output):
        raise ZeroDivisionError("by zero")

    class Broken(type(small.slopes)):
        def explain_batch(self, images, targets, foils) -> Explanations:
            raise KeyError("gone")

    real = registry.find
    monkeypatch.setattr(
        registry, "find", lambda kind, name: broken if name == "mine/broken" else real(kind, name)
    )
    explainers = {
        "cam": small.cam,
        "broken": Broken.from_network(small.cam.network, classes=small.dataset.classes),
    }

    table = evaluate_explanations(explainers, small.dataset, images=2, metrics=["mine/broken", "gini"])

    assert table.score("cam", "mine/broken").reason == "ZeroDivisionError: by zero"
    assert table.score("broken", "gini").reason == "KeyError: 'gone'"
    assert table.score("cam", "gini").reason is None


def test_a_table_is_read_by_name(table) -> None:
    with pytest.raises(UnknownNameError, match="No row 'camm'"):
        table.score("camm", "gini")
    with pytest.raises(UnknownNameError, match="No column 'ginny'"):
        table.score("cam", "ginny")


def test_fewer_columns_are_the_same_numbers(table) -> None:
    fewer = table.only("gini", "shapley-correlation")

    assert fewer.view()["columns"] == ["gini", "shapley-correlation ↑"]
    assert fewer.score("cam", "gini") is table.score("cam", "gini")
    assert list(json.loads(fewer.to_json())["rows"][0]["scores"]) == ["gini", "shapley-correlation"]
    with pytest.raises(UnknownNameError, match="No column 'ginny'"):
        table.only("ginny")


def test_bad_requests_are_refused_in_words(small) -> None:
    with pytest.raises(InputError, match="at least one explainer"):
        evaluate_explanations([], small.dataset)
    with pytest.raises(UnknownNameError, match="no split 'mixt'"):
        evaluate_explanations(small.cam, small.dataset, split="mixt")
    with pytest.raises(UnknownNameError, match="shapley-correlation"):
        evaluate_explanations(small.cam, small.dataset, images=2, metrics=["shapley-corelation"])


def test_json_holds_every_number_and_reason(table) -> None:
    facts = json.loads(table.to_json())

    cell = facts["rows"][0]["scores"]["shapley-correlation"]
    assert cell["mean"] == table.score("cam", "shapley-correlation").mean and len(cell["values"]) == 20
    assert facts["rows"][1]["scores"]["residual"] == {
        "mean": None, "interval": [None, None], "reason": "It claims no sum.", "undefined": 0, "skill": None,
        "better": "lower", "unit": "share of |logit|", "note": "", "values": None,
    }  # fmt: skip


def test_a_table_comes_back_from_json(table) -> None:
    again = MetricTable.from_json(table.to_json())

    assert again.to_json() == table.to_json()
    assert again.table(intervals=True) == table.table(intervals=True)
    assert again.markdown() == table.markdown()
    for row, expected in zip(again.rows, table.rows, strict=True):
        for column in table.columns:
            score, known = row.scores[column], expected.scores[column]
            assert (score.values is None) == (known.values is None) and score.reason == known.reason
            if known.values is not None:
                torch.testing.assert_close(score.values, known.values, rtol=0, atol=0, equal_nan=True)


def test_scores_of_other_seeds_and_names_come_back_from_json() -> None:
    values = torch.tensor([0.25, float("nan"), 0.5, 1.0]).double()
    score = Score(name="mine", values=values, seed=7, better="lower", unit="logit", note="made")
    row = Row(name="cam", network="cam", trivial=False, scores={"theirs": score})
    table = MetricTable(rows=(row,), columns=("theirs",), dataset="made", split="test", images=4, seed=0)

    again = MetricTable.from_json(table.to_json()).score("cam", "theirs")

    assert again.interval == score.interval and again.undefined == 1
    assert (again.name, again.seed, again.better, again.unit, again.note) == (
        "mine", 7, "lower", "logit", "made",
    )  # fmt: skip


def test_what_is_no_table_is_refused_in_words(table) -> None:
    document = json.loads(table.to_json())

    for change in (
        {"rows": 3}, {"rows": [3]}, {"rows": [{}]}, {"columns": ["ginny"]}, {"images": "20"}, {"seed": None},
        {"schema": "explainkit.metric-table/3.0"}, {"schema": "explainkit.units/2.0"},
    ):  # fmt: skip
        with pytest.raises(FormatError):
            MetricTable.from_json(json.dumps(document | change))
    with pytest.raises(FormatError):
        MetricTable.from_json("")


def test_the_table_can_be_read_printed_and_put_on_a_page(table) -> None:
    view = TableView(**table.view())

    assert len(view.rows) == len(table.rows) and all(len(row[1]) == len(table.columns) for row in view.rows)
    assert "shapley-correlation ↑" in view.columns and "It claims no sum." in view.note
    text, page = table.table(), table.markdown()
    assert "[0." in page and "[0." in table.table(intervals=True) and "[0." not in text
    assert "· random" in text and len(text.splitlines()) == len(table.rows) + 3
    assert "| *random* |" in page and page.count("\n| ") == len(table.rows) + 1
    assert len({line.count(" | ") for line in page.splitlines() if line.startswith("|")}) == 1
