"""The page of pipelines names the columns that there are, and its queries run where their engines are."""

import re
from pathlib import Path

import pytest

import explainkit as ek
from explainkit.explanations.serialization import SCHEMA
from explainkit.pipeline.row_schema import COLUMNS, DATASET, UNIT
from explainkit.testing import tiny_dataset

PAGE = (Path(__file__).parents[2] / "docs" / "pipelines.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("columns", [COLUMNS, UNIT], ids=["rows", "units"])
def test_the_page_has_each_column_with_its_type_and_meaning(columns):
    table = "\n".join(f"| `{item.name}` | {item.kind} | {item.meaning} |" for item in columns)

    assert table in PAGE
    assert f"`{DATASET}/{SCHEMA}`" in PAGE


@pytest.mark.parametrize("engine", ["duckdb", "polars"])
def test_the_queries_of_the_page_run(engine, model, tmp_path, monkeypatch, capfd):
    pytest.importorskip(engine)
    ek.explain_dataset(model, tiny_dataset().batches("train"), tmp_path / "explanations", top=None)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)

    namespace = {}
    for block in blocks:
        if engine in block:
            exec(block.replace("'seven'", "'square 1'").replace('"seven"', '"square 1"'), namespace)

    assert capfd.readouterr().out
