"""Explanations as tables: Arrow for files and engines, pandas for notebooks; no loop over units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from explainkit.errors import MissingPackageError
from explainkit.explanations.json_values import write_value
from explainkit.explanations.serialization import SCHEMA, canonical

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from explainkit.explanations.batch import Explanations
    from explainkit.explanations.class_level import ClassExplanations

TABLE = "explainkit.table"
"""The schema of Arrow tables, which their metadata name."""

Column = Any
"""An array of numpy, or a list with None."""


class ExplanationTables:
    """Explanations as tables."""

    __slots__ = ()

    def to_arrow(self, top: int = 10, *, sentences: bool = True) -> pyarrow.Table:
        """As a table of Arrow, a row an explanation; the metadata has provenance and what units are, as JSON.

        Parameters
        ----------
        top : int
            Units of each explanation in the column ``units``; `remainder` is the sum of all others.
        sentences : bool
            Whether there is a column of them: they take longest.

        Raises
        ------
        MissingPackageError
            Without pyarrow: ``pip install 'explainkit-sdk[arrow]'``.
        """
        return arrow_table(cast("Explanations", self), top, sentences)

    def to_pandas(
        self, top: int | None = 10, *, units: bool = False, sentences: bool = True
    ) -> pandas.DataFrame:
        """As a data frame: a row an explanation; with `units`, a row for each explanation and unit.

        Parameters
        ----------
        top : int or None
            With `units`, the strongest of each explanation that have a row; ``None``: all. `remainder` is
            the sum of all others.
        sentences : bool
            Whether there is a column of them, where a row is an explanation.

        Raises
        ------
        MissingPackageError
            Without pandas: ``pip install 'explainkit-sdk[pandas]'``.
        """
        explanations = cast("Explanations", self)
        count = len(explanations.units) if top is None else top
        if units:
            return _frame(unit_columns(explanations, count))
        return _frame(explanation_columns(explanations, count, sentences))


def explanation_columns(explanations: Explanations, top: int, sentences: bool) -> dict[str, Column]:
    """What there is to say of each explanation, a column of N each."""
    count, decision = len(explanations), explanations.decision
    said, probabilities = decision.strongest(explanations.logits), _probabilities(explanations)
    index, residual = explanations.image_index, explanations.residual
    columns: dict[str, Column] = {
        "id": [None] * count if explanations.ids is None else list(explanations.ids),
        "image_index": np.arange(count) if index is None else _array(index),
        "prediction": _predictions(explanations),
        "prediction_probability": _picked(probabilities, said),
        "target": _named(explanations.classes, explanations.targets),
        "target_probability": _picked(probabilities, explanations.targets),
        "foil": [None] * count
        if explanations.foils is None
        else _named(explanations.classes, explanations.foils),
        "explained_output": _array(explanations.explained_output),
        "base": _array(explanations.base),
        "residual": _array(torch.full_like(explanations.base, torch.nan) if residual is None else residual),
        "nonspatial": _array(explanations.nonspatial),
        "remainder": _array(explanations.top(top).remainder),
    }
    for name, value in explanations.diagnostics.items():
        columns[f"diagnostics.{name}"] = _array(value)
    if sentences:
        columns["sentence"] = [item.sentence() for item in explanations]
    return columns


def unit_columns(explanations: Explanations, top: int) -> dict[str, Column]:
    """What the `top` strongest units of each explanation add, a row for each explanation and unit."""
    units = explanations.top(top).unit
    rows = torch.arange(len(units)).repeat_interleave(units.shape[1])
    ids = [None] * len(explanations) if explanations.ids is None else explanations.ids
    columns: dict[str, Column] = {
        "explanation": _array(rows),
        "id": np.array([*ids, None], dtype=object)[:-1][_array(rows)],
        "target": _named(explanations.classes, explanations.targets[rows.to(units.device)]),
        "rank": np.tile(np.arange(units.shape[1]), len(units)),
    }
    columns |= evidence_columns(explanations, units)
    columns["share"] = _array(explanations.shares.gather(1, units).flatten())
    return columns


def evidence_columns(explanations: Explanations, units: Tensor) -> dict[str, Column]:
    """What the units (N, k) of each explanation are in it, N x k of each."""
    scores, numbers = explanations.scores.gather(1, units), units.flatten()
    names, phrases = explanations.units.names, explanations.units.phrases
    return {
        "unit": _array(numbers),
        "name": _named(names, numbers),
        "phrase": _named(phrases or [None] * len(names), numbers),
        "score": _array(scores.flatten()),
        "weight": _array(explanations.weights.gather(1, units).flatten()),
        "contribution": _array(explanations.contributions.gather(1, units).flatten()),
        "is_absent": _array(explanations.units.are_absent(units, scores).flatten()),
    }


def arrow_table(explanations: Explanations, top: int, sentences: bool) -> pyarrow.Table:
    """`Explanations.to_arrow`."""
    arrow = _library("pyarrow", "arrow")
    columns = explanation_columns(explanations, top, sentences)
    words = arrow.string()
    kinds = {name: words for name in ("prediction", "target", "foil", "sentence")}
    kinds |= {name: arrow.float64() for name in ("prediction_probability", "target_probability")}
    kinds["id"] = words
    if explanations.ids is not None and all(isinstance(name, int) for name in explanations.ids):
        kinds["id"] = arrow.int64()
    else:
        columns["id"] = [None if name is None else str(name) for name in columns["id"]]
    arrays = {
        name: arrow.array(column, type=kinds.get(name), from_pandas=True) for name, column in columns.items()
    }
    at = list(arrays).index("remainder") + 1
    ordered = list(arrays.items())
    ordered.insert(at, ("units", _unit_lists(arrow, explanations, top)))
    return arrow.table(dict(ordered)).replace_schema_metadata({"explainkit": canonical(_about(explanations))})


def class_columns(explanations: ClassExplanations) -> dict[str, Column]:
    """What each unit is to each class, a row for each class and unit."""
    count, units = len(explanations), explanations.units
    numbers = torch.arange(len(units)).repeat(count)
    low, median, high = explanations.quantiles
    output = explanations.explained_output[:, None]
    share = torch.where(output == 0, 0, explanations.contributions / output)
    decisive = explanations.decisive_rate
    absent = units.are_absent(torch.arange(len(units)).expand(count, -1), explanations.scores)
    return {
        "class": _named(explanations.classes, explanations.index.repeat_interleave(len(units))),
        "images": _array(explanations.counts.repeat_interleave(len(units))),
        "unit": _array(numbers),
        "name": _named(units.names, numbers),
        "phrase": [None] * len(numbers) if units.phrases is None else _named(units.phrases, numbers),
        "score": _array(explanations.scores.flatten()),
        "contribution": _array(explanations.contributions.flatten()),
        "share": _array(share.flatten()),
        "std": _array(explanations.std.flatten()),
        "low": _array(low.flatten()), "median": _array(median.flatten()), "high": _array(high.flatten()),
        "sign_agreement": _array(explanations.sign_agreement.flatten()),
        "decisive_rate": np.full(len(numbers), np.nan) if decisive is None else _array(decisive.flatten()),
        "is_absent": _array(absent.flatten()),
    }  # fmt: skip


def class_frame(explanations: ClassExplanations) -> pandas.DataFrame:
    """`ClassExplanations.to_pandas`."""
    return _frame(class_columns(explanations))


def _unit_lists(arrow: Any, explanations: Explanations, top: int) -> Any:
    """The strongest units of each explanation, as lists of structs: columns and where each list begins."""
    units, words = explanations.top(top).unit, arrow.string()
    fields = {
        name: arrow.array(column, type=words if name in ("name", "phrase") else None)
        for name, column in evidence_columns(explanations, units).items()
    }
    structs = arrow.StructArray.from_arrays(list(fields.values()), names=list(fields))
    starts = arrow.array(np.arange(len(units) + 1, dtype=np.int32) * units.shape[1])
    return arrow.ListArray.from_arrays(starts, structs)


def _about(explanations: Explanations) -> dict[str, Any]:
    """What all rows of a table have in common."""
    units = explanations.units
    return {
        "schema": f"{TABLE}/{SCHEMA}",
        "additivity": explanations.additivity,
        "measured_in": explanations.unit,
        "classes": list(explanations.classes),
        "decision": explanations.decision.facts(),
        "units": {"kind": units.kind, "pooling": units.pooling, "phrasing": units.phrasing.facts()},
        "provenance": write_value(explanations.provenance),
    }


def _probabilities(explanations: Explanations) -> Tensor | None:
    """Of all classes, (N, C), float64; ``None`` where outputs are no logits and no probabilities."""
    decision = explanations.decision
    if decision.rule == "identity" and decision.outputs == "logits":
        return None
    return decision.probabilities(explanations.logits.double())


def _predictions(explanations: Explanations) -> Column:
    """What the network says each image is, in words."""
    if explanations.decision.is_exclusive:
        return _named(explanations.classes, explanations.decision.strongest(explanations.logits))
    return [explanations.decision.describe(row, explanations.classes) for row in explanations.holds]


def _picked(values: Tensor | None, classes: Tensor) -> Column:
    if values is None:
        return np.full(len(classes), np.nan)
    return _array(values.gather(1, classes[:, None])[:, 0])


def _named(names: Sequence[str | None], index: Tensor) -> Column:
    """The names at `index`, as an array of objects."""
    return np.array([*names, None], dtype=object)[_array(index)]


def _array(values: Tensor) -> Column:
    """A tensor as an array; bfloat16, which numpy has not, as float32."""
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _frame(columns: Mapping[str, Column]) -> pandas.DataFrame:
    frame: pandas.DataFrame = _library("pandas", "pandas").DataFrame(dict(columns))
    return frame


def _library(name: str, extra: str) -> ModuleType:
    """An optional library."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"Tables need {name}, which is not installed: pip install 'explainkit-sdk[{extra}]'."
        ) from error
