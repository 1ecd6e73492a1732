"""Explanations put together, one batch after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.decomposition import Decomposition, concat
from explainkit.explanations.factored_maps import UnitMaps, concat_maps
from explainkit.explanations.images import concat_images
from explainkit.explanations.units import UNIT_TENSORS, Units

if TYPE_CHECKING:
    from explainkit.explanations.batch import Explanations

PER_IMAGE = (
    "logits", "targets", "base", "scores", "weights", "maps", "boxes", "foils", "map_units",
    "remainder_map", "image_index",
)  # fmt: skip
"""Columns of explanations that have a row an image, beside the images."""

SAID_OF_UNITS = (
    "kind", "names", "pooling", "parents", "phrases", "phrasing", "receptive_field", *UNIT_TENSORS,
)  # fmt: skip
"""The fields of units that numbers and words follow from: all but pictures."""


def concatenate(batches: Sequence[Explanations]) -> Explanations:
    """Explanations by one explainer, one after the other."""
    if len(batches) == 1:
        return batches[0]
    columns: dict[str, Any] = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in PER_IMAGE
        if isinstance(getattr(batches[0], name), Tensor) and name != "maps"
    }
    if batches[0].maps is not None:
        columns["maps"] = concat_maps([batch.maps for batch in batches if batch.maps is not None])
    columns["images"] = concat_images([batch.images for batch in batches])
    columns["diagnostics"] = {
        name: torch.cat([batch.diagnostics[name] for batch in batches]) for name in batches[0].diagnostics
    }
    if all(batch.ids is not None for batch in batches):
        columns["ids"] = tuple(name for batch in batches for name in batch.ids or ())
    decompositions = [batch.decomposition for batch in batches if batch.decomposition is not None]
    decomposition = (
        concat(decompositions, columns.get("maps")) if len(decompositions) == len(batches) else None
    )
    return evolve(batches[0], **columns, decomposition=decomposition)


def checked_parts(parts: Sequence[Explanations]) -> list[Explanations]:
    """Parts that can follow each other, with images numbered through."""
    if not parts:
        raise InputError("Expected at least one batch of explanations; got none.")
    first, numbered, start = parts[0], [], 0
    if len({part.has_images for part in parts if len(part)}) > 1:
        raise InputError("Expected images in all explanations or in none; got both. Call without_images().")
    has_several = any(part.image_index is not None for part in parts)
    expected = _alike(first)
    for place, part in enumerate(parts):
        for what, found in _alike(part).items():
            if found != expected[what]:
                raise InputError(
                    f"Expected explanations of the same {what}; got {expected[what]!r:.80} and {found!r:.80}."
                )
        _check_units(first.units, part.units, place)
        _check_weights(first.decomposition, part.decomposition, place)
        index = torch.arange(len(part)) if part.image_index is None else part.image_index
        numbered.append(evolve(part, image_index=index + start) if has_several else part)
        start += int(index.max()) + 1 if len(index) else 0
    return numbered


def _alike(part: Explanations) -> dict[str, Any]:
    """What must be the same in all parts, by what it is called, beside units and weights."""
    columns = ("maps", "map_units", "boxes", "remainder_map", "images")
    return {
        "explainer": part.provenance.explainer,
        "classes": part.classes,
        "decision": part.decision,
        "additivity": part.additivity,
        "contrast": part.foils is None,
        **{name: _shape_of_one(getattr(part, name)) for name in columns},
        "diagnostics": sorted(part.diagnostics),
    }


def _shape_of_one(values: UnitMaps | None) -> tuple[int, ...] | None:
    """The shape of what belongs to one image."""
    return None if values is None else tuple(values.shape[1:])


def _check_units(first: Units, units: Units, place: int) -> None:
    """Refuse units from which other numbers or words follow; those of one explainer are one object."""
    if units is first:
        return
    for name in SAID_OF_UNITS:
        if not _is_equal(getattr(first, name), getattr(units, name)):
            raise InputError(
                f"Expected explanations of the same units.{name}; got another in part {place}, counted from "
                "0. Its sums or sentences would change: keep it apart, or explain all with one explainer."
            )


def _check_weights(first: Decomposition | None, found: Decomposition | None, place: int) -> None:
    """Refuse weights of all classes that cannot follow each other, or belong to another network."""
    if first is found:
        return
    if first is None or found is None or not _is_one_network(first, found):
        raise InputError(
            f"Expected explanations of the same weights of all classes, or all without; got others, or none, "
            f"in part {place}, counted from 0. Take evolve(part, decomposition=None) of each part, which "
            "leaves contrasts out."
        )


def _is_one_network(one: Decomposition, other: Decomposition) -> bool:
    """Whether both have the same parts, and for all images the same weights and bias where there are such."""
    columns = ("rescore", "boxes")
    if [getattr(one, name) is None for name in columns] != [getattr(other, name) is None for name in columns]:
        return False
    if one.extras.keys() != other.extras.keys() or one.bias.ndim != other.bias.ndim:
        return False
    if one.bias.ndim == 1 and not _is_equal(one.bias, other.bias):
        return False
    if isinstance(one.weights, Tensor) or isinstance(other.weights, Tensor):
        return _is_equal(one.weights, other.weights)
    return True


def _is_equal(one: Any, other: Any) -> bool:
    """Whether values are the same; tensors that share their memory are not looked at."""
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        are_listed = isinstance(one, tuple | list) and isinstance(other, tuple | list)
        return tuple(one) == tuple(other) if are_listed else type(one) is type(other) and one == other
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    is_same_memory = one.data_ptr() == other.data_ptr() and one.stride() == other.stride()
    return (is_same_memory and one.device == other.device) or torch.equal(one, other.to(one.device))
