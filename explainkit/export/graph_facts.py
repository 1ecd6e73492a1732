"""What a graph says of itself: whose it is, what it takes, gives and means; as JSON in its metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explanations.files import units_to_json
from explainkit.explanations.serialization import KEY, SCHEMA
from explainkit.explanations.units import Units
from explainkit.export.explained_network import MEANING

METADATA_KEY = KEY
"""The one entry of a graph's metadata, as it is of other files."""

GraphTargets = Literal["predicted", "input"]
"""Which class is explained: the one with the largest output, or that of a further input."""


def graph_facts(
    explainer: InterpretableExplainer[Any],
    units: Units,
    outputs: Sequence[str],
    *,
    shape: Sequence[int],
    targets: GraphTargets,
    top: int | None,
) -> dict[str, Any]:
    """All that a reader of a graph's numbers has to know, as JSON values.

    Equal models give equal facts: there is no date among them.

    Parameters
    ----------
    outputs : sequence of str
        The names of the graph's outputs.
    shape : sequence of int
        Of one image: (D, H, W), or (F,) for a row.
    """
    provenance = explainer.provenance()
    return {
        "schema": f"explainkit.graph/{SCHEMA}",
        "explainer": provenance.explainer,
        "additivity": explainer.card.additivity,
        "classes": explainer.classes,
        "decision": explainer.decision.facts(),
        "input": {"shape": ["batch", *shape], "value_range": explainer.input_spec.value_range},
        "targets": targets,
        "top": top,
        "outputs": {name: MEANING[name] for name in outputs},
        "unit_of_outputs": explainer.decision.unit,
        "units": _unit_facts(units),
        "digest": provenance.model_digest,
        "settings": provenance.settings,
        "seed": provenance.seed,
        "augment": provenance.augment,
        "versions": provenance.versions,
    }


def _unit_facts(units: Units) -> dict[str, Any]:
    """The vocabulary without images and statistics; groups, parents and references as lists."""
    facts, _ = units_to_json(units.without_images())
    for name in ("group", "parent", "reference"):
        value = getattr(units, name)
        facts[name] = value.tolist() if isinstance(value, Tensor) else None
    return facts
