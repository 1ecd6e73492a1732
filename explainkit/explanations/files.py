"""Explanations in files: one safetensors file with one metadata key, whole or not at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any

import torch
from attrs import asdict, fields
from torch import Tensor

from explainkit.errors import FormatError, InputError
from explainkit.explanations.counts import check_count
from explainkit.explanations.decisions import Decision
from explainkit.explanations.decomposition import LARGEST_WEIGHTS, Decomposition, weight_fn
from explainkit.explanations.factored_maps import FACTORS, FactoredMaps, UnitMaps
from explainkit.explanations.images import absent_images, as_levels, from_levels
from explainkit.explanations.phrasing import Phrasing
from explainkit.explanations.provenance import Digest, Provenance
from explainkit.explanations.receptive_field import ReceptiveField
from explainkit.explanations.serialization import (
    SCHEMA,
    as_format_error,
    check_schema,
    content_digest,
    in_brief,
    pack,
    read,
    unpack,
    write,
)
from explainkit.explanations.units import UNIT_TENSORS, UnitPicture, Units
from explainkit.explanations.validation import FLOATS, check_finite, check_floats, check_shape

if TYPE_CHECKING:
    from explainkit.explanations.batch import Explanations

LARGEST_WORK, WORK_PER_BYTE = 2**24, 16
"""Numbers that it may take to show what a file holds: so many, and so many for each of its bytes."""

PIXELS_PER_BYTE = 2**14
"""Pixels of images that are left out, for each byte of a file: a saliency of all is as large as they are."""

EXPLANATIONS: Mapping[str, type | UnionType] = {
    "classes": list, "additivity": str, "units": dict, "provenance": dict, "decision": dict,
    "ids": list | None,
}  # fmt: skip

PROVENANCE: Mapping[str, type | UnionType] = {
    "explainer": str, "created": str, "versions": dict, "settings": dict, "seed": int | None, "augment": dict,
    "device": str, "dtype": str, "threads": int, "digest": str,
}  # fmt: skip

UNITS: Mapping[str, type | UnionType] = {
    "kind": str, "names": list, "pooling": str | list, "phrases": list | None, "pictures": list | None,
    "parents": list | None, "phrasing": dict,
}  # fmt: skip
"""Those that files have had from the beginning; the receptive field came later."""

COLUMNS = (
    "logits", "targets", "base", "scores", "weights", "boxes", "foils", "map_units", "remainder_map",
    "image_index",
)  # fmt: skip
"""Tensors that are saved as they are."""

RECEPTIVE_FIELD = tuple(item.name for item in fields(ReceptiveField))
PICTURE = ("kind", "box", "cell", "id", "label", "split")
PHRASING = tuple(item.name for item in fields(Phrasing))


def save_explanations(explanations: Explanations, path: Path, maps: int | None, dtype: torch.dtype) -> Path:
    """`Explanations.save`."""
    if dtype not in FLOATS:
        kinds = ", ".join(str(kind).removeprefix("torch.") for kind in FLOATS)
        raise InputError(f"Expected dtype of maps as one of torch's {kinds}; got {dtype!r}.")
    if maps is not None:
        explanations = explanations.keep_maps(check_count("maps", maps, 0))
    unit_facts, tensors = units_to_json(explanations.units)
    for name in COLUMNS:
        if isinstance(value := getattr(explanations, name), Tensor):
            tensors[name] = value
    if explanations.maps is not None:
        tensors |= _pack_maps(explanations.maps, dtype)
    tensors |= {f"diagnostics.{name}": value for name, value in explanations.diagnostics.items()}
    if explanations.has_images:
        tensors["images"] = as_levels(explanations.images)
    decomposition = explanations.decomposition
    if decomposition is not None and (weights := decomposition.all_weights(LARGEST_WEIGHTS)) is not None:
        tensors |= {"decomposition.weights": weights, "decomposition.bias": decomposition.bias}
    provenance = asdict(explanations.provenance) | {"digest": explanations.provenance.model_digest}
    facts = {
        "schema": f"explainkit.explanations/{SCHEMA}",
        "classes": explanations.classes,
        "additivity": explanations.additivity,
        "decision": explanations.decision.facts(),
        "units": unit_facts,
        "provenance": provenance,
        "ids": explanations.ids,
        "image_shape": list(explanations.images.shape[1:]),
    }
    facts["digest"] = content_digest(facts, tensors)
    write(path, pack(tensors, facts))
    return path


def load_explanations(path: Path, build: Callable[..., Explanations]) -> Explanations:
    """`Explanations.load`."""
    content = read(path)
    tensors, facts = unpack(content, path)
    check_schema(facts, "explainkit.explanations", path)
    if facts.pop("digest", None) != content_digest(facts, tensors):
        raise FormatError(f"{str(path)!r} is not what was saved: its SHA-256 differs from the one on record.")
    with as_format_error(f"{str(path)!r} breaks a rule of explanations"):
        explanations = build(**_columns(tensors, facts))
        check_results(explanations, len(content))
    return explanations


def _columns(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of explanations that a file holds."""
    check_kinds(facts, EXPLANATIONS)
    check_kinds(facts["provenance"], PROVENANCE)
    provenance = {name: facts["provenance"][name] for name in PROVENANCE}
    digest = provenance.pop("digest")
    logits, images = tensors["logits"], tensors.get("images")
    if images is None:
        check_kinds(facts, {"image_shape": list})
        images = absent_images((len(logits), *facts["image_shape"]), logits)
    optional = ("boxes", "foils", "map_units", "remainder_map", "image_index")
    return dict(
        logits=logits, targets=tensors["targets"], base=tensors["base"], scores=tensors["scores"],
        weights=tensors["weights"], images=from_levels(images, logits.dtype),
        classes=checked_names(facts["classes"]), additivity=facts["additivity"],
        decision=Decision(**facts["decision"]), ids=None if facts["ids"] is None else tuple(facts["ids"]),
        units=units_from_json(facts["units"], tensors), decomposition=with_all_classes(tensors),
        maps=_unpack_maps(tensors, logits.dtype),
        provenance=Provenance(**provenance, digest=Digest(digest)),
        diagnostics={
            name.removeprefix("diagnostics."): value
            for name, value in tensors.items() if name.startswith("diagnostics.")
        },
        **{name: tensors.get(name) for name in optional},
    )  # fmt: skip


def with_all_classes(tensors: Mapping[str, Tensor]) -> Decomposition | None:
    """All classes, where the file has them."""
    if "decomposition.weights" not in tensors:
        return None
    logits, scores = tensors["logits"], tensors["scores"]
    weights, bias = tensors["decomposition.weights"], tensors["decomposition.bias"]
    shape = (*logits.shape, *scores.shape[1:])  # (N, C, K)
    check_shape("decomposition.weights", weights, shape if weights.ndim == 3 else shape[1:])
    check_shape("decomposition.bias", bias, tuple(logits.shape if bias.ndim == 2 else logits.shape[1:]))
    columns = {"decomposition.weights": weights, "decomposition.bias": bias}
    check_floats(columns)
    check_finite(columns)
    return Decomposition(
        logits=logits, bias=bias, scores=scores, weights=weight_fn(weights), boxes=tensors.get("boxes")
    )


def check_results(explanations: Explanations, size: int) -> None:
    """Refuse numbers that overflow when added, and maps that take far more than `size` bytes to be shown.

    Saliency holds a map of the image for each group, and spreads cells over pixels along each side.
    """
    check_finite({name: getattr(explanations, name) for name in ("contributions", "residual")})
    if explanations.has_images:
        check_finite({"images": explanations.images})
    else:
        _check_absent(explanations.images, size)
    groups = 0 if explanations.boxes is None else explanations.boxes.shape[1]
    if explanations.is_tabular:
        return
    height, width = explanations.images.shape[2:]
    work = len(explanations) * groups * (len(explanations.units) + height * width)
    for grid in (explanations.maps, explanations.remainder_map):
        if grid is not None:
            work += grid.shape[-2] * height + grid.shape[-1] * width
    if isinstance(explanations.maps, FactoredMaps):
        pairs = explanations.maps.attention.shape[1] * explanations.maps.features.shape[1]
        work += math.prod(explanations.maps.shape) + len(explanations) * max(1, groups) * pairs
    if work > LARGEST_WORK + WORK_PER_BYTE * size:
        raise InputError(f"expected maps that can be shown; these of {size:,} bytes would take {work:,}")


def _check_absent(images: Tensor, size: int) -> None:
    """Refuse images said to be so large that what is drawn over them takes far more than `size` bytes."""
    pixels = math.prod(images.shape) // max(images.shape[1], 1)
    if pixels > LARGEST_WORK + PIXELS_PER_BYTE * size:
        raise InputError(
            f"expected images that can be drawn over; got {tuple(images.shape)} in {size:,} bytes"
        )


def _pack_maps(maps: UnitMaps, dtype: torch.dtype) -> dict[str, Tensor]:
    """Maps in `dtype`, each as shares of its peak, so that its range is no matter.

    Factors are kept as they are: where one is faint the other may not be, and a rounded product has another
    best cell.
    """
    if isinstance(maps, FactoredMaps):
        return {f"maps.{name}": getattr(maps, name) for name in FACTORS}
    if dtype == maps.dtype:
        return {"maps": maps}
    peak = maps.flatten(2).amax(2)
    scale = peak.where(peak > 0, torch.ones_like(peak))[:, :, None, None]
    flat = (maps / scale).to(dtype).flatten(2)
    best = maps.flatten(2).argmax(2, keepdim=True)  # stays the one best cell, though others round up to it
    flat = flat.clamp(max=1 - torch.finfo(dtype).eps / 2).scatter(2, best, flat.gather(2, best))
    return {"maps": flat.view_as(maps), "maps.peak": peak}


def _unpack_maps(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> UnitMaps | None:
    if "maps.attention" in tensors:
        return FactoredMaps(**{name: tensors[f"maps.{name}"] for name in FACTORS})
    if "maps" not in tensors or "maps.peak" not in tensors:
        return tensors.get("maps")
    maps, peak = tensors["maps"], tensors["maps.peak"]
    check_shape("maps.peak", peak, tuple(maps.shape[:2]))
    check_floats({"maps": maps, "maps.peak": peak})
    return maps.to(dtype) * peak.to(dtype)[:, :, None, None]


def units_to_json(units: Units) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A vocabulary as JSON, and its tensors."""
    tensors: dict[str, Tensor] = {}
    for name in UNIT_TENSORS:
        if isinstance(value := getattr(units, name), Tensor):
            tensors[f"units.{name}"] = value
    pictures = None
    if units.pictures is not None:
        pictures = []
        for k, of_unit in enumerate(units.pictures):
            pictures.append([asdict(item, filter=lambda field, _: field.name != "image") for item in of_unit])
            for i, item in enumerate(of_unit):
                if item.image is not None:
                    tensors[f"units.picture.{k}.{i}"] = item.image
    return {
        "kind": units.kind, "names": units.names, "pooling": units.pooling, "phrases": units.phrases,
        "pictures": pictures, "parents": units.parents, "phrasing": units.phrasing.facts(),
        "receptive_field": None if units.receptive_field is None else asdict(units.receptive_field),
    }, tensors  # fmt: skip


def units_from_json(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Units:
    """The vocabulary that `units_to_json` wrote."""
    check_kinds(facts, UNITS)
    phrases, parents, pictures = facts["phrases"], facts["parents"], None
    field = facts.get("receptive_field")
    if facts["pictures"] is not None:
        pictures = tuple(
            tuple(
                UnitPicture(
                    **{name: with_tuples(item)[name] for name in PICTURE},
                    image=tensors.get(f"units.picture.{k}.{i}"),
                )
                for i, item in enumerate(of_unit)
            )
            for k, of_unit in enumerate(facts["pictures"])
        )
    return Units(
        kind=facts["kind"],
        names=checked_names(facts["names"]),
        pooling=facts["pooling"],
        phrases=None if phrases is None else tuple(phrases),
        pictures=pictures,
        parents=None if parents is None else checked_names(parents),
        phrasing=Phrasing(**{name: facts["phrasing"][name] for name in PHRASING}),
        receptive_field=None if field is None else ReceptiveField(**{k: field[k] for k in RECEPTIVE_FIELD}),
        **{name: tensors.get(f"units.{name}") for name in UNIT_TENSORS},
    )


def check_kinds(facts: Mapping[str, Any], kinds: Mapping[str, type | UnionType]) -> None:
    """Refuse, as TypeError, a value that is not of its kind."""
    for name, kind in kinds.items():
        if not isinstance(facts[name], kind) or (kind is not bool and isinstance(facts[name], bool)):
            raise TypeError(f"{name} is {in_brief(facts[name], 60)!r}")


def checked_names(names: Any) -> tuple[str, ...]:
    """A list of strings as a tuple, or a TypeError."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"a list of names is {in_brief(names, 60)!r}")
    return tuple(names)


def with_tuples(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they were before JSON made lists of tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
