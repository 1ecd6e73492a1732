"""The JSON Schema of everything that is written as JSON.

``python -m explainkit.testing.json_schemas docs/schemas`` writes them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from explainkit.comparison.comparison import Comparison, ComparisonFacts
from explainkit.explanations.batch import Explanations
from explainkit.explanations.class_level import ClassExplanations
from explainkit.explanations.counterfactuals import Counterfactuals
from explainkit.explanations.decisions import Decision
from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.intervention_curve import InterventionCurve
from explainkit.explanations.json_explanations import EVIDENCE, EvidenceFacts
from explainkit.explanations.json_schemas import document_schema
from explainkit.explanations.json_values import schema_name
from explainkit.explanations.leak import Leak
from explainkit.explanations.phrasing import Phrasing
from explainkit.explanations.provenance import Provenance
from explainkit.explanations.records import RECORD, RecordFacts
from explainkit.explanations.units import UnitPicture, Units
from explainkit.metrics.posthoc_comparison import PostHocComparison
from explainkit.metrics.results import MetricTable, Score
from explainkit.questions.naming import Names

VALUES = (
    Explanations, ClassExplanations, Counterfactuals, InterventionCurve, Units, UnitPicture, Phrasing,
    Provenance, Decision, Decomposition, Names, PostHocComparison, Leak,
)  # fmt: skip


def schemas() -> dict[str, dict[str, Any]]:
    """The schema of each kind of document, by its name, such as ``"metric-table"``."""
    found = {schema_name(kind): document_schema(kind) for kind in VALUES}
    found[EVIDENCE] = document_schema(EvidenceFacts, name=EVIDENCE)
    found[RECORD] = document_schema(RecordFacts, name=RECORD)
    found[schema_name(MetricTable)] = metric_table_schema()
    found[schema_name(Comparison)] = document_schema(ComparisonFacts, name=schema_name(Comparison))
    return {name.removeprefix("explainkit."): found[name] for name in sorted(found)}


def metric_table_schema() -> dict[str, Any]:
    """The schema of tables: a score goes by its column, and has what follows from its values beside them."""
    schema = document_schema(MetricTable)
    score = schema["$defs"][Score.__name__]
    number, count = {"type": ["number", "null"]}, {"type": "integer"}
    score["properties"] |= {
        "mean": number, "skill": number, "undefined": count, "interval": {"type": "array", "items": number},
    }  # fmt: skip
    score["required"].remove("name")
    return schema


def write_schemas(folder: Path) -> None:
    """Write each schema to a file of `folder`, named after what it is of."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        text = json.dumps(schema, indent=1, ensure_ascii=False)
        (folder / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
