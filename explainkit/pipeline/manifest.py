"""What all rows of a folder have in common: the model, its units, the settings and the source."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen

from explainkit.errors import FormatError, InputError
from explainkit.explainers.identity import name_of
from explainkit.explainers.interface import Explainer
from explainkit.explanations.files import units_from_json, units_to_json
from explainkit.explanations.json_values import read_value, write_value
from explainkit.explanations.provenance import Provenance
from explainkit.explanations.serialization import (
    SCHEMA,
    as_format_error,
    as_json,
    canonical,
    check_schema,
    in_brief,
    pack,
    read,
    read_json,
    tensors_digest,
    unpack,
    write,
)
from explainkit.explanations.units import Units
from explainkit.pipeline.row_schema import DATASET
from explainkit.pipeline.sources import Source

MANIFEST = "manifest.json"
UNITS = "units.safetensors"

COMPARED = ("schema", "model", "units", "settings", "source", "versions")
"""The sections of a manifest that runs into one folder must have alike; the others say who began it."""


@frozen(eq=False, kw_only=True)
class Manifest:
    """What all rows of a folder have in common.

    Attributes
    ----------
    facts : mapping
        As in ``manifest.json``.
    units : Units
        As in ``units.safetensors``.
    """

    facts: Mapping[str, Any]
    units: Units = field(repr=False)

    @property
    def run(self) -> str:
        """A digest of what runs into one folder must have alike; every file names it."""
        compared = {name: self.facts[name] for name in COMPARED}
        return hashlib.sha256(canonical(compared).encode()).hexdigest()

    @property
    def count(self) -> int:
        """Images of the source."""
        return int(self.facts["source"]["count"])

    @property
    def images_per_file(self) -> int:
        """Images of a file, but for the last."""
        return int(self.facts["settings"]["images_per_file"])

    @property
    def provenance(self) -> Provenance:
        """Of the explainer, as it was when the folder was begun."""
        document = self.facts["provenance"]
        return read_value(Provenance, document, len(canonical(document)))


def describe_run(explainer: Explainer, units: Units, settings: Mapping[str, Any], source: Source) -> Manifest:
    """The manifest of a run by `explainer` over `source`."""
    provenance = explainer.provenance()
    unit_facts, unit_tensors = units_to_json(units)
    unit_digest = hashlib.sha256(f"{canonical(unit_facts)}{tensors_digest(unit_tensors)}".encode())
    learned = {} if explainer.card.learns_from is None else explainer.saved_state()
    facts = {
        "schema": f"{DATASET}/{SCHEMA}",
        "model": {
            "explainer": name_of(type(explainer)),
            "digest": provenance.model_digest,
            "learned": tensors_digest(learned),
            "settings": explainer.settings(),
            "classes": explainer.classes,
            "decision": explainer.decision.facts(),
            "input": asdict(explainer.input_spec),
            "additivity": explainer.card.additivity,
        },
        "units": {
            "kind": units.kind, "names": units.names, "pooling": units.pooling, "phrases": units.phrases,
            "parents": units.parents, "phrasing": units.phrasing.facts(), "digest": unit_digest.hexdigest(),
        },
        "settings": settings,
        "source": source.facts(),
        "source_name": source.name,
        "versions": provenance.versions,
        "provenance": write_value(provenance),
    }  # fmt: skip
    return Manifest(facts=as_json(facts), units=units)


def enter_folder(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest of `folder`, which is made one of this run, or found to be; by several processes at once.

    Raises
    ------
    InputError
        For a folder of something else, of another model, source or settings; the message says what differs.
    """
    path = folder / MANIFEST
    if not path.exists():
        if folder.exists() and (folder.is_file() or any(_foreign(folder))):
            raise InputError(
                f"Expected a new or empty folder, or explanations; {str(folder)!r} is something else."
            )
        write(folder / UNITS, pack(*_packed_units(manifest.units)))
        _write_once(path, canonical(manifest.facts, indent=1).encode())
    known = read_manifest(folder)
    check_same_run(known, manifest, folder)
    return known


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`.

    Raises
    ------
    InputError
        For a folder without one.
    FormatError
        For one that is damaged, foreign, or of another schema version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"Expected a folder that explain_dataset wrote, with {MANIFEST}; there is none in "
            f"{str(folder)!r}."
        )
    facts = read_json(path)
    check_schema(facts, DATASET, path)
    with as_format_error(f"{str(path)!r} lacks what a manifest has"):
        tensors, unit_facts = unpack(read(folder / UNITS), folder / UNITS)
        manifest = Manifest(facts=facts, units=units_from_json(unit_facts, tensors))
        if manifest.count < 0 or manifest.images_per_file < 1:
            raise ValueError("its numbers of images make no sense")
        manifest.run, manifest.provenance  # noqa: B018
        return manifest


def check_same_run(known: Manifest, manifest: Manifest, folder: Path) -> None:
    """Refuse another model, source or settings than those of `folder`, with what differs."""
    if known.run == manifest.run:
        return
    for section in COMPARED:
        for name, old, new in _differences(known.facts[section], manifest.facts[section], section):
            raise InputError(
                f"Expected the run that {str(folder)!r} was begun with; its {name} is "
                f"{in_brief(repr(old), 80)}, and now {in_brief(repr(new), 80)}. Take another folder, or the "
                "same model, source and settings."
            )
    raise FormatError(f"{str(folder / MANIFEST)!r} is damaged.")


def _differences(old: Any, new: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """The places where two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys(), key=lambda key: (key != "explainer", key)):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}")
    elif old != new:
        yield name, old, new


def _packed_units(units: Units) -> tuple[dict[str, Any], dict[str, Any]]:
    facts, tensors = units_to_json(units.without_images())
    return tensors, facts


def _foreign(folder: Path) -> Iterator[Path]:
    """What is in a folder that is not of another process that makes it just now."""
    ours = (f".{MANIFEST}.", f".{UNITS}.")
    return (path for path in folder.iterdir() if path.name != UNITS and not path.name.startswith(ours))


def _write_once(path: Path, content: bytes) -> None:
    """The file under its name unless there is one: the first of several processes writes it."""
    half = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        half.write_bytes(content)
        try:
            os.link(half, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            if not path.exists():
                os.replace(half, path)
        with suppress(FileNotFoundError):
            half.unlink()
    except OSError as error:
        raise InputError(
            f"Expected a folder that can be written; got {str(path.parent)!r}: {error.strerror}."
        ) from None
