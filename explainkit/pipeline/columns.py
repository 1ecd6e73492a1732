"""Explanations as rows of Arrow, from whole tensors: nothing loops over images or units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from explainkit.explanations.batch import Explanations
from explainkit.pipeline.row_schema import UNIT, require_arrow
from explainkit.pipeline.windows import Window

Array = Any
"""A ``pyarrow.Array``."""


@frozen(kw_only=True)
class Rows:
    """How explanations become rows.

    Attributes
    ----------
    schema : pyarrow.Schema
    top : int or None
        Units of a row; ``None``: all.
    saliency : (int, int) or None
        The grid that contributions are distributed on.
    logits, sentences : bool
        Whether these columns have something in them.
    labels : tuple of str
        What the numbers of labels are called.
    """

    schema: Any
    top: int | None
    saliency: tuple[int, int] | None
    logits: bool
    sentences: bool
    labels: tuple[str, ...]

    def explained(self, explanations: Explanations, window: Window, position: Tensor) -> Any:
        """A record batch of a row an explanation; `position` (M,) says which image of `window` each is of."""
        count, decision = len(explanations), explanations.decision
        classes = _words(explanations.classes)
        height, width = explanations.images.shape[-2:]
        strongest = decision.strongest(explanations.logits)
        has_probability = not (decision.rule == "identity" and decision.outputs == "logits")
        probabilities = decision.probabilities(explanations.logits.double()) if has_probability else None
        units = explanations.top(len(explanations.units) if self.top is None else self.top)
        saliency = explanations.saliency(self.saliency) if self.saliency else None
        columns = self._of_images(window, position) | {
            "is_label": self._are_labels(explanations, window, position),
            "height": _repeated(height, count),
            "width": _repeated(width, count),
            "prediction": _predictions(explanations, strongest, classes),
            "prediction_probability": _picked(probabilities, strongest),
            "target": classes.take(_array(explanations.targets)),
            "target_probability": _picked(probabilities, explanations.targets),
            "foil": None if explanations.foils is None else classes.take(_array(explanations.foils)),
            "logit": _array(explanations.explained_output),
            "base": _array(explanations.base),
            "units": self._unit_lists(explanations, units.unit, units.contribution),
            "remainder": _array(units.remainder),
            "residual": None if explanations.residual is None else _array(explanations.residual),
            "nonspatial": _array(explanations.nonspatial),
            "saliency": None if saliency is None else self._lists(saliency.flatten(1), "saliency"),
            "logits": self._lists(explanations.logits, "logits") if self.logits else None,
            "diagnostics": self._maps(explanations),
            "sentence": [item.sentence() for item in explanations] if self.sentences else None,
        }
        return self._record_batch(columns, count)

    def failed(self, window: Window, errors: dict[int, str]) -> Any:
        """A record batch of a row an image of `window` that cannot be explained, by its place in it."""
        position = torch.tensor(list(errors), dtype=torch.long)
        columns = self._of_images(window, position) | {"error": list(errors.values())}
        return self._record_batch(columns, len(errors))

    def _of_images(self, window: Window, position: Tensor) -> dict[str, Any]:
        """What is known of images before they are explained."""
        at = position.numpy()
        labels, names = window.labels, None
        if labels is not None and labels.ndim == 1:
            names = _words((*self.labels, None)).take(_array(labels[position]))
        paths = None if window.paths is None else _words(window.paths).take(require_arrow().array(at))
        return {"id": window.start + at, "path": paths, "label": names}

    def _are_labels(self, explanations: Explanations, window: Window, position: Tensor) -> Any:
        """Whether each target is a label of its image; null where nothing is known."""
        if window.labels is None:
            return None
        labels = window.labels[position]
        if labels.ndim == 1:
            is_known = labels < len(self.labels)
            labels = labels.where(is_known, torch.zeros_like(labels))
        else:
            is_known = torch.ones(len(labels), dtype=torch.bool)
        truth = explanations.decision.truth(labels, len(explanations.classes))
        holds = truth.gather(1, explanations.targets.cpu()[:, None])[:, 0]
        return require_arrow().array(holds.numpy(), mask=~is_known.numpy())

    def _unit_lists(self, explanations: Explanations, units: Tensor, contributions: Tensor) -> Array:
        """The units (N, k) of each explanation, as lists of structs: columns, and where each list begins."""
        arrow = require_arrow()
        kind = self.schema.field("units").type.value_type
        scores, flat = explanations.scores.gather(1, units), _array(units.flatten().int())
        names, phrases = explanations.units.names, explanations.units.phrases
        values = {
            "unit": flat,
            "name": _words(names).take(flat),
            "phrase": _words(phrases).take(flat) if phrases else arrow.nulls(len(flat), arrow.string()),
            "score": _array(scores.flatten()),
            "weight": _array(explanations.weights.gather(1, units).flatten()),
            "contribution": _array(contributions.flatten()),
            "is_absent": _array(explanations.units.are_absent(units, scores).flatten()),
        }
        arrays = [_cast(values[item.name], kind.field(item.name).type) for item in UNIT]
        structs = arrow.StructArray.from_arrays(arrays, fields=list(kind))
        return arrow.ListArray.from_arrays(_offsets(*units.shape), structs)

    def _lists(self, values: Tensor, column: str) -> Array:
        """A tensor (N, k) as lists of k numbers."""
        flat = _cast(_array(values.flatten()), self.schema.field(column).type.value_type)
        return require_arrow().ListArray.from_arrays(_offsets(*values.shape), flat)

    def _maps(self, explanations: Explanations) -> Array:
        """The diagnostics of each explanation by name."""
        arrow, kind = require_arrow(), self.schema.field("diagnostics").type
        names, count = sorted(explanations.diagnostics), len(explanations)
        columns = [explanations.diagnostics[name].detach().cpu() for name in names]
        values = torch.stack(columns, 1).flatten() if columns else torch.zeros(0)
        keys = arrow.array(names * count, type=arrow.string())
        return arrow.MapArray.from_arrays(
            _offsets(count, len(names)), keys, _cast(_array(values), kind.item_type)
        )

    def _record_batch(self, columns: dict[str, Any], count: int) -> Any:
        """Columns in order, as the schema types them; null where there is none."""
        arrow = require_arrow()
        arrays = []
        for field in self.schema:
            values = columns.get(field.name)
            arrays.append(arrow.nulls(count, field.type) if values is None else _cast(values, field.type))
        return arrow.RecordBatch.from_arrays(arrays, schema=self.schema)


def in_order(batches: Sequence[Any]) -> Any:
    """Rows of one window, in the order of their images."""
    arrow = require_arrow()
    if len(batches) == 1:
        return batches[0]
    table = arrow.Table.from_batches(batches).combine_chunks()
    order = np.argsort(table["id"].to_numpy(), kind="stable")
    return table.take(arrow.array(order)).combine_chunks().to_batches()[0]


def _predictions(explanations: Explanations, strongest: Tensor, classes: Array) -> Array:
    """What the network says of each image; of labels, each set that is there is put in words once."""
    decision = explanations.decision
    if decision.is_exclusive:
        return classes.take(_array(strongest))
    kinds, index = explanations.holds.cpu().unique(dim=0, return_inverse=True)
    return _words([decision.describe(row, explanations.classes) for row in kinds]).take(_array(index))


def _picked(values: Tensor | None, classes: Tensor) -> Array | None:
    return None if values is None else _array(values.gather(1, classes[:, None])[:, 0])


def _words(words: Sequence[str | None]) -> Array:
    arrow = require_arrow()
    return arrow.array(words, type=arrow.string())


def _array(values: Tensor) -> Array:
    """A tensor as an array; what Arrow has not, in single precision."""
    values = values.detach().cpu()
    if values.dtype in (torch.bfloat16, torch.float16):
        values = values.float()
    return require_arrow().array(values.numpy())


def _cast(values: Any, kind: Any) -> Array:
    arrow = require_arrow()
    if isinstance(values, arrow.Array):
        return values if values.type == kind else values.cast(kind)
    return arrow.array(values, type=kind)


def _repeated(value: int, count: int) -> Array:
    return require_arrow().array(np.full(count, value, dtype=np.int32))


def _offsets(count: int, length: int) -> Array:
    """Where each of `count` lists of `length` begins, and the last ends."""
    return require_arrow().array(np.arange(count + 1, dtype=np.int32) * length)
