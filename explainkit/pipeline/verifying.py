"""Whether decision records are what was written, add up, and are what the model says of the images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field

from explainkit.data.reading import list_images
from explainkit.errors import ExplainKitError, InputError
from explainkit.explainers.interface import Explainer
from explainkit.explanations.records import record_faults
from explainkit.explanations.serialization import in_brief, parse_json

BATCH_SIZE = 64
"""Images that are explained again at once."""


@define(eq=False, kw_only=True)
class Verification:
    """What came of checking records.

    Attributes
    ----------
    count : int
        Records that were read.
    repeated : int
        Those whose decision was made again, and came out the same or is among the faults.
    faults : list of str
        What is wrong, with file and line.
    """

    count: int = 0
    repeated: int = 0
    faults: list[str] = field(factory=list, repr=False)


def verify_records(
    paths: Sequence[Path], model: Explainer | None = None, images: Path | None = None
) -> Verification:
    """Check every record in files of JSON lines.

    Parameters
    ----------
    paths : sequence of path
        Files, or folders with some.
    model : Explainer or None
        That the records are said to be by.
    images : path or None
        A folder with the images' files, which are found by their SHA-256 whatever they are called: their
        decisions are made again.

    Raises
    ------
    InputError
        For a file that is not there, and for images without a model.
    """
    if images is not None and model is None:
        raise InputError("Expected a model that decides again about the images; got images alone.")
    found = {} if images is None else {_digest(path): path for path in list_images(images)}
    verification, waiting = Verification(), []
    digest = None if model is None else model.provenance().model_digest
    for place, record in _records(paths, verification):
        verification.count += 1
        faults = record_faults(record)
        if not faults and digest is not None and record["model"] != digest:
            faults = [f"it is by another model, {record['model'][:12]}…, and not {digest[:12]}…"]
        verification.faults += [f"{place}: {fault}" for fault in faults]
        if not faults and model is not None and record["image_of"] == "file" and record["image"] in found:
            waiting.append((place, record, found[record["image"]]))
        if model is not None and len(waiting) == BATCH_SIZE:
            _repeat(model, waiting, verification)
            waiting = []
    if model is not None and waiting:
        _repeat(model, waiting, verification)
    return verification


def _records(paths: Sequence[Path], verification: Verification) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each record is, and what it says; lines that are no record are faults."""
    for path in paths:
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise InputError(
                f"Expected a file of records, or a folder of some, at {str(path)!r}; there is none. "
                "explain_dataset writes them with records=True."
            )
        for file in files:
            with file.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        record = parse_json(line)
                        if not isinstance(record, dict):
                            raise ValueError("it is no JSON object")
                    except (ValueError, RecursionError) as error:
                        verification.count += 1
                        verification.faults.append(f"{file}:{number}: it is no record: {in_brief(error, 80)}")
                        continue
                    yield f"{file}:{number}", record


def _repeat(
    model: Explainer, waiting: Sequence[tuple[str, Mapping[str, Any], Path]], verification: Verification
) -> None:
    """Make decisions again, and compare them with what is on record."""
    foils = [record["foil"] for _, record, _ in waiting]
    try:
        explanations = model.explain(
            [path for _, _, path in waiting],
            [record["target"] for _, record, _ in waiting],
            foils=foils if all(foil is not None for foil in foils) else None,
        )
    except ExplainKitError as error:
        verification.faults.append(f"{waiting[0][0]}: its decision cannot be made again: {error}")
        return
    for (place, record, _), item in zip(waiting, explanations, strict=True):
        verification.repeated += 1
        again = item.contributions
        known = {unit["unit"]: unit["contribution"] for unit in record["units"]}
        limit = 1e-4 * max(abs(record["logit"]), again.abs().sum().item(), 1e-6)
        gaps = [abs(again[unit].item() - value) for unit, value in known.items() if unit < len(again)]
        if item.prediction_name != record["prediction"]:
            verification.faults.append(
                f"{place}: the model says {item.prediction_name!r}; {record['prediction']!r} is on record"
            )
        elif max([abs(item.explained_output - record["logit"]), *gaps]) > limit or len(gaps) < len(known):
            verification.faults.append(
                f"{place}: the model decides so for other reasons than those on record"
            )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
