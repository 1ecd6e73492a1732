"""What units and their pictures must be; refused in words where they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import torch

from explainkit.errors import InputError
from explainkit.explanations.decomposition import Pooling
from explainkit.explanations.validation import check_finite, check_floats, check_indices, check_shape

if TYPE_CHECKING:
    from explainkit.explanations.units import UnitPicture, Units


def as_poolings(values: Any) -> Any:
    """One pooling as it is, several as a tuple."""
    return tuple(values) if isinstance(values, list) else values


def check_units(units: Units) -> None:
    """Refuse units whose columns disagree, naming the field."""
    count = len(units)
    if not all(isinstance(word, str) for word in (units.kind, *units.names)):
        raise InputError("Expected units.kind and units.names as words.")
    if isinstance(units.pooling, tuple) and len(units.pooling) != count:
        raise InputError(f"Expected units.pooling for {count} units; got {len(units.pooling)}.")
    for pooling in units.pooling if isinstance(units.pooling, tuple) else (units.pooling,):
        if pooling not in get_args(Pooling):
            raise InputError(f"Expected units.pooling to be one of {get_args(Pooling)}; got {pooling!r}.")
    for name in ("phrases", "pictures"):
        value = getattr(units, name)
        if value is not None and len(value) != count:
            raise InputError(f"Expected units.{name} for {count} units; got {len(value)}.")
    if not all(isinstance(phrase, str | None) for phrase in units.phrases or ()):
        raise InputError("Expected units.phrases as words, or None where there are none.")
    columns = {"units.group": units.group, "units.reference": units.reference}
    for name, values in columns.items():
        if values is not None:
            check_shape(name, values, (count,))
    if units.score_range is not None and (
        units.score_range.ndim != 3 or units.score_range.shape[::2] != (2, count)
    ):
        raise InputError(
            f"Expected units.score_range of (2, C, {count}); got {tuple(units.score_range.shape)}."
        )
    _check_belonging(units, count)
    if units.phrase_scores is not None:
        check_shape("units.phrase_scores", units.phrase_scores, (2, count))
    for name in ("reference", "score_range", "phrase_scores"):
        check_floats({f"units.{name}": getattr(units, name)})
        check_finite({f"units.{name}": getattr(units, name)})


def check_picture(picture: UnitPicture) -> None:
    """Refuse a picture whose box is not inside its image, or whose fields are no numbers."""
    (x0, y0, x1, y1), image, cell = picture.box, picture.image, picture.cell
    height, width = (y1 + 1, x1 + 1) if image is None else image.shape[-2:]
    numbers = (*picture.box, *(cell or ()), *(n for n in (picture.id, picture.label) if n is not None))
    if picture.kind not in ("training", "decoded", "least"):
        raise InputError(
            f"Expected the kind of a picture as 'training', 'decoded' or 'least'; got {picture.kind!r}."
        )
    if not all(type(number) is int for number in numbers) or len(cell or (0, 0)) != 2:
        raise InputError(f"Expected the places of a picture as whole numbers; got {picture!r}.")
    if not isinstance(picture.split, str | None):
        raise InputError(f"Expected the split of a picture by name; got {picture.split!r}.")
    if picture.kind != "decoded" and picture.id is None:
        raise InputError(f"Expected the id of a picture of the data; got {picture!r}.")
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InputError(f"Expected a picture's box inside its image; got {picture.box}.")
    if image is not None and (image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8):
        raise InputError(
            f"Expected a picture's image of (3, H, W) in bytes; got {image.dtype} {tuple(image.shape)}."
        )


def _check_belonging(units: Units, count: int) -> None:
    """Refuse parents and classes of units that there are not."""
    if (units.parent is None) != (units.parents is None):
        raise InputError("Expected units.parent and units.parents both, or neither.")
    if units.parent is not None and units.parents is not None:
        check_shape("units.parent", units.parent, (count,))
        check_indices("units.parent", units.parent, len(units.parents))
        if not all(isinstance(name, str) for name in units.parents):
            raise InputError("Expected units.parents as words.")
    affinity = units.class_affinity
    if affinity is not None:
        if affinity.ndim != 2 or affinity.shape[0] != count:
            raise InputError(f"Expected units.class_affinity of ({count}, C); got {tuple(affinity.shape)}.")
        check_floats({"units.class_affinity": affinity})
        check_finite({"units.class_affinity": affinity})
        if affinity.numel() and not 0 <= float(affinity.min()) <= float(affinity.max()) <= 1:
            raise InputError("Expected units.class_affinity in 0 … 1.")
