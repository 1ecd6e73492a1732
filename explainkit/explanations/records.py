"""Decisions as records: what was decided of an image, why, and by which model; each can be checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

import torch

from explainkit.explanations.additivity import tolerances
from explainkit.explanations.decomposition import Additivity
from explainkit.explanations.images import as_levels
from explainkit.explanations.serialization import SCHEMA, canonical

if TYPE_CHECKING:
    from explainkit.explanations.batch import Explanations

RECORD = "explainkit.record"
"""The schema of decision records."""

ROUNDING = 1e-5
"""The share of a sum by which single precision may round it."""


class RecordedUnit(TypedDict):
    """One of the strongest units of a decision: ``contribution = weight * (score - reference)``."""

    unit: int
    name: str
    phrase: str | None
    score: float
    reference: float
    weight: float
    contribution: float


class RecordFacts(TypedDict):
    """A decision about one image, with what it was made of: `digest` is over all else."""

    schema: str
    id: int | str | None
    image: str | None
    image_of: Literal["file", "pixels"] | None
    explainer: str
    model: str
    versions: Mapping[str, str]
    created: str
    prediction: str
    target: str
    foil: str | None
    probability: float | None
    measured_in: str
    additivity: Additivity
    logit: float
    base: float
    units: list[RecordedUnit]
    remainder: float
    residual: float | None
    tolerance: float | None
    adds_up: bool | None
    sentence: str
    digest: str


def decision_records(
    explanations: Explanations,
    top: int,
    *,
    files: Sequence[str | None] | None = None,
    ids: Sequence[int | str] | None = None,
    created: str | None = None,
) -> Iterator[RecordFacts]:
    """`Explanations.records`.

    Parameters
    ----------
    files : sequence of (str or None) or None
        SHA-256 of the images' files, where they have some.
    ids : sequence of int or str, or None
        What the images are called; `Explanations.ids` unless given.
    created : str or None
        When; as the provenance says unless given.
    """
    provenance, model = explanations.provenance, explanations.provenance.model_digest
    ids = explanations.ids if ids is None else ids
    strongest = explanations.top(top)
    reference = explanations.units.reference
    references = torch.zeros_like(strongest.contribution)
    if reference is not None:
        references = reference.to(references)[strongest.unit]
    limits = None if explanations.residual is None else tolerances(explanations)
    for index, item in enumerate(explanations):
        residual, limit = item.residual, None if limits is None else limits[index].item()
        file = None if files is None else files[index]
        units: list[RecordedUnit] = []
        for place, unit in enumerate(strongest.unit[index].tolist()):
            facts = item.evidence_of(unit).facts()
            units.append(
                {
                    "unit": unit, "name": facts["name"], "phrase": facts["phrase"], "score": facts["score"],
                    "reference": references[index, place].item(), "weight": facts["weight"],
                    "contribution": facts["contribution"],
                }
            )  # fmt: skip
        record: dict[str, Any] = {
            "schema": f"{RECORD}/{SCHEMA}",
            "id": None if ids is None else ids[index],
            "image": _pixel_digest(explanations, index) if file is None else file,
            "image_of": "file" if file is not None else "pixels" if explanations.has_images else None,
            "explainer": provenance.explainer,
            "model": model,
            "versions": dict(provenance.versions),
            "created": provenance.created if created is None else created,
            "prediction": item.prediction_name,
            "target": item.target_name,
            "foil": item.foil_name,
            "probability": item.probability,
            "measured_in": explanations.unit,
            "additivity": explanations.additivity,
            "logit": item.explained_output,
            "base": item.base,
            "units": units,
            "remainder": strongest.remainder[index].item(),
            "residual": residual,
            "tolerance": limit,
            "adds_up": None if residual is None or limit is None else abs(residual) <= limit,
            "sentence": item.sentence(),
        }
        yield cast("RecordFacts", record | {"digest": record_digest(record)})


def record_digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record, but for its own digest."""
    facts = {name: value for name, value in record.items() if name != "digest"}
    return hashlib.sha256(canonical(facts).encode()).hexdigest()


def record_faults(record: Mapping[str, Any]) -> list[str]:
    """What is wrong with a record by itself: nothing, where its numbers make the decision that it states."""
    try:
        if str(record["schema"]).rpartition(".")[0] != f"{RECORD}/{SCHEMA.partition('.')[0]}":
            return [f"it is no {RECORD}/{SCHEMA}"]
        faults = [] if record["digest"] == record_digest(record) else ["it was changed after it was written"]
        parts = [record["base"], record["remainder"], record["residual"] or 0.0]
        parts += [unit["contribution"] for unit in record["units"]]
        scale = sum(map(abs, parts)) + abs(record["logit"]) + 1e-6
        for unit in record["units"]:
            product = unit["weight"] * (unit["score"] - unit["reference"])
            reach = abs(unit["weight"]) * (abs(unit["score"]) + abs(unit["reference"]))
            if not abs(product - unit["contribution"]) <= ROUNDING * (scale + reach):
                faults.append(
                    f"{unit['name']} is said to add {unit['contribution']:.6g}; it adds {product:.6g}"
                )
        if record["residual"] is None:
            return faults
        gap = record["logit"] - sum(parts)
        if not abs(gap) <= ROUNDING * scale:
            faults.append(f"its parts come to {sum(parts):.6g}, and not to {record['logit']:.6g}")
        if record["adds_up"] != (abs(record["residual"]) <= record["tolerance"]):
            faults.append("whether it adds up is not what its residual says")
        if record["additivity"] == "exact" and not record["adds_up"]:
            faults.append(f"its sum is said to be exact; the residual is {record['residual']:.3g}")
    except (KeyError, TypeError, ValueError) as error:
        return [f"it lacks what a record has: {error!r}"]
    return faults


def _pixel_digest(explanations: Explanations, index: int) -> str | None:
    """SHA-256 of an image's pixels, as bytes where it came from bytes; ``None`` where it is left out."""
    if not explanations.has_images:
        return None
    image = as_levels(explanations.images[index].detach().cpu().contiguous())
    return hashlib.sha256(image.numpy().tobytes()).hexdigest()
