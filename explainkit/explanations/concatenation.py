"""Explanations put together, one batch after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.decomposition import concat
from explainkit.explanations.factored_maps import concat_maps
from explainkit.explanations.images import concat_images

if TYPE_CHECKING:
    from explainkit.explanations.batch import Explanations

PER_IMAGE = (
    "logits", "targets", "base", "scores", "weights", "maps", "boxes", "foils", "map_units",
    "remainder_map", "image_index",
)  # fmt: skip
"""Columns of explanations that have a row an image, beside the images."""


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
    for part in parts:
        for what, one, other in (
            ("explainer", first.provenance.explainer, part.provenance.explainer),
            ("classes", first.classes, part.classes),
            ("decision", first.decision, part.decision),
            ("units", first.units.names, part.units.names),
            ("contrast", first.foils is None, part.foils is None),
            ("maps", _shape_of_maps(first), _shape_of_maps(part)),
        ):
            if one != other:
                raise InputError(f"Expected explanations of the same {what}; got {one!r} and {other!r}.")
        index = torch.arange(len(part)) if part.image_index is None else part.image_index
        numbered.append(evolve(part, image_index=index + start) if has_several else part)
        start += int(index.max()) + 1 if len(index) else 0
    return numbered


def _shape_of_maps(explanations: Explanations) -> tuple[int, ...] | None:
    return None if explanations.maps is None else tuple(explanations.maps.shape[1:])
