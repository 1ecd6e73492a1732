"""Explanations as JSON: all numbers to be read back, or the strongest units of each for programs to show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypedDict, cast

from attrs import evolve, frozen
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.files import check_results, with_all_classes
from explainkit.explanations.json_values import (
    JsonValue,
    as_text,
    write_value,
)
from explainkit.explanations.serialization import SCHEMA
from explainkit.explanations.single import ExplanationFacts

if TYPE_CHECKING:
    from explainkit.explanations.batch import Explanations

EVIDENCE = "explainkit.evidence"
"""The schema of explanations with their strongest units alone."""


@frozen(eq=False, kw_only=True)
class AllClasses:
    """What explanations in JSON know of all classes, beside their logits and scores.

    Attributes
    ----------
    weights : Tensor, (C, K) or (N, C, K)
    bias : Tensor, (C,) or (N, C)
    """

    weights: Tensor
    bias: Tensor


class Derived(TypedDict):
    """What follows from the numbers, for others to read; `from_json` works it out anew."""

    explained_output: Tensor
    residual: Tensor | None
    contributions: Tensor
    sentences: list[str]


class EvidenceFacts(TypedDict):
    """What each explanation says, by its strongest units: rows that a program can show."""

    schema: str
    explainer: str
    classes: list[str]
    unit_kind: str
    explanations: list[ExplanationFacts]


class ExplanationsJson(JsonValue):
    """Explanations as JSON."""

    __slots__ = ()

    def to_json(self, *, top: int | None = None, images: bool = False, maps: bool = False) -> str:
        """As JSON text: all numbers and words, which `from_json` reads, and sentences for others to read.

        Parameters
        ----------
        top : int or None
            Write the `top` strongest units of each explanation and the sum of the others instead, for
            programs that show them: ``explainkit.evidence``, which is not read back.
        images, maps : bool
            Whether these are in it: images, those of units too, as PNG where they came from bytes.
        """
        explanations = cast("Explanations", self)
        if top is not None and (images or maps):
            raise InputError("Expected images and maps with all units; got top= too, which leaves them out.")
        if top is not None:
            return as_text(evidence_facts(explanations, top))
        explanations = explanations if images else without_any_image(explanations)
        return as_text(write_value(explanations if maps else explanations.without_maps()))

    def _written_instead(self) -> Mapping[str, Any]:
        explanations = cast("Explanations", self)
        decomposition, known = explanations.decomposition, None
        if decomposition is not None and (weights := decomposition.all_weights()) is not None:
            known = AllClasses(weights=weights, bias=decomposition.bias)
        derived: Derived = {
            "explained_output": explanations.explained_output,
            "residual": explanations.residual,
            "contributions": explanations.contributions,
            "sentences": [item.sentence() for item in explanations],
        }
        return {"decomposition": known, "derived": derived}

    @classmethod
    def _read_instead(cls) -> Mapping[str, Any]:
        return {"decomposition": AllClasses | None, "derived": Derived}

    @classmethod
    def _made_of(cls, columns: Mapping[str, Any], size: int) -> Self:
        known: AllClasses | None = columns.get("decomposition")
        decomposition = None
        if known is not None:
            tensors = {"decomposition.weights": known.weights, "decomposition.bias": known.bias}
            decomposition = with_all_classes({**columns, **tensors})
        explanations = super()._made_of({**columns, "decomposition": decomposition}, size)
        check_results(cast("Explanations", explanations), size)
        return explanations


def evidence_facts(explanations: Explanations, top: int) -> EvidenceFacts:
    """What each explanation says, by its `top` strongest units."""
    return {
        "schema": f"{EVIDENCE}/{SCHEMA}",
        "explainer": explanations.provenance.explainer,
        "classes": list(explanations.classes),
        "unit_kind": explanations.units.kind,
        "explanations": [item.facts(top) for item in explanations],
    }


def without_any_image(explanations: Explanations) -> Explanations:
    """Without images, and without the pictures of units, whose places stay."""
    return evolve(explanations.without_images(), units=explanations.units.without_images())
