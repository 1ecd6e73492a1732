"""Rows of Parquet as `Explanations` again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.batch import Explanations
from explainkit.explanations.decisions import Decision
from explainkit.explanations.images import absent_images
from explainkit.explanations.provenance import Provenance
from explainkit.explanations.unit_validation import as_poolings
from explainkit.explanations.units import UNIT_TENSORS, Units

OTHERS = "all other units"
"""The unit that stands for those that have no place in a row."""


@frozen(eq=False, kw_only=True)
class Restorer:
    """Makes explanations of rows that some explainer's have become.

    Attributes
    ----------
    units : Units
        All of the explainer's.
    top : int or None
        How many of them a row has.
    facts : mapping
        The manifest's facts about the model.
    provenance : Provenance
    saliency : (int, int) or None
        The grid that rows have.
    """

    units: Units
    top: int | None
    facts: Mapping[str, Any]
    provenance: Provenance
    saliency: tuple[int, int] | None

    @property
    def has_all_units(self) -> bool:
        """Whether rows have all units."""
        return self.top is None or self.top >= len(self.units)

    def explanations(self, table: Any) -> Explanations:
        """The explanations of rows without errors, whose images have one size.

        Images are left out; saliency is that of the grid. Where rows have not all units, the others are one
        more, `OTHERS`, and the score and the weight of what a row has not are 0 there.
        """
        logits = _matrix(table["logits"])
        if not len(table) or not logits.shape[1]:
            raise InputError(
                "Expected rows with the logits of all classes; these were written with logits=False. Take "
                "to_arrow() or to_pandas()."
            )
        classes = tuple(self.facts["classes"])
        scores, weights = self._scores(table, logits.dtype)
        columns: dict[str, Any] = {}
        has_place = self.saliency is not None and self.units.pooling != "none"
        if has_place and table["saliency"].null_count == 0:
            height, width = self.saliency or (1, 1)
            columns = {
                "maps": logits.new_zeros(len(table), 0, height, width),
                "map_units": torch.zeros(len(table), 0, dtype=torch.long),
                "remainder_map": _matrix(table["saliency"]).view(len(table), height, width),
            }
        foils = None if table["foil"].null_count else _numbers(table["foil"], classes)
        spec, sides = self.facts["input"], (table["height"][0].as_py(), table["width"][0].as_py())
        shape = (len(table), spec["channels"], *sides)
        return Explanations(
            logits=logits,
            targets=_numbers(table["target"], classes),
            base=_vector(table["base"]),
            scores=scores,
            weights=weights,
            units=self.units if self.has_all_units else units_with_others(self.units),
            classes=classes,
            images=absent_images(shape, logits),
            additivity=self.facts["additivity"],
            provenance=self.provenance,
            foils=foils,
            decision=Decision(**self.facts["decision"]),
            diagnostics=_diagnostics(table["diagnostics"]),
            ids=_ids(table),
            **columns,
        )

    def _scores(self, table: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Scores and weights of all units, (N, K); and of the others together, where there are some."""
        lists = table["units"].combine_chunks()
        counts = np.diff(lists.offsets.to_numpy())
        structs = lists.flatten()
        rows = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
        unit = torch.from_numpy(structs.field("unit").to_numpy().astype(np.int64))
        count = len(self.units)
        reference = self.units.reference
        scores = torch.zeros(len(counts), count, dtype=dtype)
        if reference is not None:
            scores = scores + reference.to(dtype).cpu()
        weights = torch.zeros(len(counts), count, dtype=dtype)
        scores[rows, unit] = torch.tensor(structs.field("score").to_numpy(), dtype=dtype)
        weights[rows, unit] = torch.tensor(structs.field("weight").to_numpy(), dtype=dtype)
        if self.has_all_units:
            return scores, weights
        remainder = _vector(table["remainder"])[:, None]
        return torch.cat([scores, torch.ones_like(remainder)], 1), torch.cat([weights, remainder], 1)


def units_with_others(units: Units) -> Units:
    """`units`, and one more for the sum of all that a row has not: of score 1, worth that sum."""
    added: dict[str, Any] = {}
    for name in UNIT_TENSORS:
        if isinstance(value := getattr(units, name), Tensor):
            added[name] = _extended(name, value.cpu())
    parents = units.parents
    if units.parent is not None and parents is not None:
        added["parent"] = torch.cat([units.parent.cpu(), torch.tensor([len(parents)])])
        added["parents"] = (*parents, OTHERS)
    pooling = units.pooling
    if pooling != "none":
        pooling = as_poolings((*units.poolings, "none"))
    return evolve(
        units, names=(*units.names, OTHERS), pooling=pooling,
        phrases=None if units.phrases is None else (*units.phrases, None),
        pictures=None if units.pictures is None else (*units.pictures, ()), **added,
    )  # fmt: skip


def _extended(name: str, value: Tensor) -> Tensor:
    """What is known of each unit, with a value for the others: always there, and of no class."""
    if name in ("score_range", "phrase_scores"):  # (2, ..., K)
        filler = value.new_full((*value.shape[:-1], 1), 1.0 if name == "score_range" else 0.0)
        return torch.cat([value, filler], -1)
    filler = value.new_zeros(1, *value.shape[1:])
    if name == "leak":
        filler = filler + torch.nan
    return torch.cat([value, filler])


def _numbers(column: Any, classes: tuple[str, ...]) -> Tensor:
    """The numbers of classes that are given by name."""
    encoded = column.combine_chunks().dictionary_encode()
    order = {name: number for number, name in enumerate(classes)}
    known = [order[name] for name in encoded.dictionary.to_pylist()]
    return torch.tensor(known, dtype=torch.long)[
        torch.from_numpy(encoded.indices.to_numpy().astype(np.int64))
    ]


def _vector(column: Any) -> Tensor:
    return torch.tensor(column.combine_chunks().to_numpy(zero_copy_only=False))


def _matrix(column: Any) -> Tensor:
    """Lists of equal length as (N, k)."""
    lists = column.combine_chunks()
    values = torch.tensor(lists.flatten().to_numpy(zero_copy_only=False))
    return values.view(len(lists), -1) if len(lists) and len(values) else values.view(len(lists), 0)


def _diagnostics(column: Any) -> dict[str, Tensor]:
    """The numbers of each explanation by name; all rows have the same names."""
    maps = column.combine_chunks()
    values = _matrix_of_items(maps)
    names = maps.keys[: values.shape[1]].to_pylist()
    return {name: values[:, index].clone() for index, name in enumerate(names)}


def _matrix_of_items(maps: Any) -> Tensor:
    offsets = maps.offsets.to_numpy()
    values = maps.items.to_numpy(zero_copy_only=False)[: offsets[-1] - offsets[0]]
    return torch.tensor(values).view(len(maps), -1) if len(values) else torch.zeros(len(maps), 0)


def _ids(table: Any) -> tuple[int | str, ...]:
    """What the images are called: their files, or else their numbers."""
    paths, ids = table["path"].to_pylist(), table["id"].to_pylist()
    return tuple(number if path is None else path for path, number in zip(paths, ids, strict=True))
