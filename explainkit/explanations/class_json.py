"""Class explanations as JSON, and what their columns must be when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NotRequired, Self, TypedDict, cast

import torch
from attrs import evolve
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.json_pictures import HEAD, picture_from_json, picture_to_json
from explainkit.explanations.json_values import JsonValue, as_text, json_form, write_value
from explainkit.explanations.serialization import in_brief
from explainkit.explanations.validation import check_finite, check_floats, check_indices, check_shape

if TYPE_CHECKING:
    from explainkit.explanations.class_level import ClassExplanation, ClassExplanations

PER_UNIT = ("scores", "contributions", "std", "sign_agreement", "decisive_rate")
"""Columns of (M, K)."""


class ClassEvidenceFacts(TypedDict):
    """What one unit is to a class; of a contrast without what is of the class alone."""

    unit: int
    name: str
    phrase: str | None
    score: float
    contribution: float
    share: float
    std: NotRequired[float]
    low: NotRequired[float]
    median: NotRequired[float]
    high: NotRequired[float]
    sign_agreement: NotRequired[float]
    decisive_rate: NotRequired[float | None]


ClassFacts = TypedDict(
    "ClassFacts",
    {
        "class": str, "foil": str | None, "images": int, "accuracy": float, "explained_output": float,
        "base": float, "residual": float | None, "linear_r2": float | None, "sentence": str,
        "evidence": list[ClassEvidenceFacts],
    },
)  # fmt: skip
"""What one class is, by its strongest units."""


def class_facts(explanation: ClassExplanation, top: int) -> ClassFacts:
    """`ClassExplanation.facts`."""
    evidence: list[ClassEvidenceFacts] = []
    for item in explanation.top(top):
        facts: ClassEvidenceFacts = {
            "unit": item.unit, "name": item.name, "phrase": item.phrase, "score": item.score,
            "contribution": item.contribution, "share": item.share,
        }  # fmt: skip
        if explanation.foil is None:
            facts |= {
                "std": item.std, "low": item.low, "median": item.median, "high": item.high,
                "sign_agreement": item.sign_agreement, "decisive_rate": item.decisive_rate,
            }  # fmt: skip
        evidence.append(facts)
    return {
        "class": explanation.name, "foil": explanation.foil_name, "images": explanation.count,
        "accuracy": explanation.accuracy, "explained_output": explanation.explained_output,
        "base": explanation.base, "residual": explanation.residual, "linear_r2": explanation.linear_r2,
        "sentence": explanation.sentence(), "evidence": evidence,
    }  # fmt: skip


class DerivedClasses(TypedDict):
    """What follows from the numbers, for others to read; `from_json` works it out anew."""

    classes: list[ClassFacts]


class ClassExplanationsJson(JsonValue):
    """Class explanations as JSON."""

    __slots__ = ()

    def to_json(self, *, images: bool = False) -> str:
        """As JSON text: all numbers, which `from_json` reads, and the facts of each class for others to read.

        Parameters
        ----------
        images : bool
            Whether the pictures of units and examples are in it, as PNG.
        """
        explanations = cast("ClassExplanations", self)
        if images:
            return as_text(write_value(explanations))
        examples = evolve(explanations.examples, pictures={})
        return as_text(
            write_value(evolve(explanations, examples=examples, units=explanations.units.without_images()))
        )

    def _written_instead(self) -> Mapping[str, Any]:
        return {"derived": {"classes": [item.facts() for item in cast("ClassExplanations", self)]}}

    @classmethod
    def _read_instead(cls) -> Mapping[str, Any]:
        return {"derived": DerivedClasses}

    @classmethod
    def _made_of(cls, columns: Mapping[str, Any], size: int) -> Self:
        explanations = super()._made_of(columns, size)
        check_class_explanations(cast("ClassExplanations", explanations))
        return explanations


def check_class_explanations(explanations: ClassExplanations) -> None:
    """Refuse columns that disagree about classes and units, as what was computed never does."""
    (count,), num_classes = explanations.index.shape[:1] or (0,), len(explanations.classes)
    num_units = len(explanations.units)
    shapes: dict[str, tuple[int, ...]] = {
        "index": (count,), "counts": (count,), "base": (count,), "linear_r2": (count,),
        "logits": (count, num_classes), "confusion": (count, num_classes), "bases": (count, num_classes),
        "quantiles": (3, count, num_units),
        **dict.fromkeys(PER_UNIT, (count, num_units)),
    }  # fmt: skip
    columns = {name: getattr(explanations, name) for name in shapes}
    for name, column in columns.items():
        if column is not None:
            check_shape(name, column, shapes[name])
    whole = ("index", "counts", "confusion")
    check_indices("index", explanations.index, num_classes)
    for name in whole[1:]:
        check_indices(name, columns[name], 2**62)
    numbers = {name: column for name, column in columns.items() if name not in whole}
    check_floats(numbers)
    check_finite(numbers | {"residual": explanations.residual})
    _check_contributions(explanations, count, num_classes, num_units)
    _check_examples(explanations, count, num_units)


def _check_contributions(
    explanations: ClassExplanations, count: int, num_classes: int, num_units: int
) -> None:
    known = explanations.contributions_by_class
    if known is None:
        return
    per_class = (num_classes, num_units)
    columns = {"weights": known.weights, "scores": known.scores}
    check_shape("weights", known.weights, per_class if known.scores is not None else (count, *per_class))
    if known.scores is not None:
        check_shape("scores", known.scores, (count, num_units))
    check_floats(columns)
    check_finite(columns)


def _check_examples(explanations: ClassExplanations, count: int, num_units: int) -> None:
    examples = explanations.examples
    per_unit = (count, *examples.ids.shape[1:2], num_units)
    for name, shape in (("ids", per_unit), ("cells", per_unit), ("boxes", (*per_unit, 4))):
        values = getattr(examples, name)
        check_shape(f"examples.{name}", values, shape)
        check_indices(f"examples.{name}", values + 1, 2**62)  # -1 where there is none
    if examples.columns < 1:
        raise InputError(f"Expected examples in columns of cells, 1 or more; got {examples.columns}.")
    boxes, ids = examples.boxes, examples.ids
    is_shown = (ids >= 0) & (boxes[..., 2] > boxes[..., 0])
    if (is_shown & (boxes[..., 3] <= boxes[..., 1])).any():
        raise InputError("Expected boxes of examples as x0 < x1, y0 < y1; got some without a pixel.")
    if not examples.pictures:
        return
    known = torch.tensor(sorted(examples.pictures))
    sizes = torch.tensor([examples.pictures[id].shape[:0:-1] for id in known.tolist()])  # (P, 2): W, H
    place = torch.searchsorted(known, ids).clamp(max=len(known) - 1)
    is_shown &= known[place] == ids
    if (is_shown[..., None] & (boxes[..., 2:] > sizes[place])).any():
        raise InputError("Expected boxes of examples inside their pictures; got some that leave them.")


def _write_pictures(pictures: Mapping[int, Tensor]) -> dict[str, str]:
    return {str(id): picture_to_json(picture) for id, picture in pictures.items()}


def _read_pictures(written: Any) -> dict[int, Tensor]:
    if not isinstance(written, dict):
        raise TypeError(f"pictures are {in_brief(repr(written), 60)}")
    return {int(id): picture_from_json(text) for id, text in written.items()}


PICTURES_BY_ID = json_form(
    _write_pictures,
    _read_pictures,
    {"type": "object", "additionalProperties": {"type": "string", "pattern": f"^{HEAD}"}},
)
"""How pictures by their ids are put in JSON."""
