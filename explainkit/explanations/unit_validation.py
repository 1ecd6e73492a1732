"""What units and their pictures must be; refused in words where they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import torch

from explainkit.errors import InputError
from explainkit.explanations.decomposition import Pooling
from explainkit.explanations.phrasing import Phrasing
from explainkit.explanations.receptive_field import ReceptiveField
from explainkit.explanations.validation import (
    check_finite,
    check_floats,
    check_indices,
    check_shape,
    check_tensor,
)

if TYPE_CHECKING:
    from explainkit.explanations.units import UnitPicture, Units


def as_poolings(values: Any) -> Any:
    """One pooling as it is, several as a tuple."""
    return tuple(values) if isinstance(values, list) else values


def check_units(units: Units, picture_type: type[UnitPicture]) -> None:
    """Refuse units whose columns disagree, naming the field."""
    count = len(units)
    if not all(isinstance(word, str) for word in (units.kind, *units.names)):
        raise InputError("Expected units.kind and units.names as words.")
    if isinstance(units.pooling, tuple) and len(units.pooling) != count:
        raise InputError(f"Expected units.pooling for {count} units; got {len(units.pooling)}.")
    for pooling in units.pooling if isinstance(units.pooling, tuple) else (units.pooling,):
        if pooling not in get_args(Pooling):
            raise InputError(f"Expected units.pooling to be one of {get_args(Pooling)}; got {pooling!r}.")
    if not isinstance(units.receptive_field, ReceptiveField | None):
        raise InputError(
            f"Expected units.receptive_field as a ReceptiveField or None; got {units.receptive_field!r:.60}."
        )
    if not isinstance(units.phrasing, Phrasing):
        raise InputError(f"Expected units.phrasing as a Phrasing; got {units.phrasing!r:.60}.")
    for name in ("phrases", "pictures"):
        if (values := getattr(units, name)) is not None:
            _check_sequence(name, values)
            if len(values) != count:
                raise InputError(f"Expected units.{name} for {count} units; got {len(values)}.")
    for phrase in units.phrases or ():
        if phrase is not None and not (isinstance(phrase, str) and phrase.strip()):
            raise InputError(
                f"Expected units.phrases as words, or None where there are none; got {phrase!r:.60}."
            )
    _check_pictures(units, picture_type)
    for name, shape in {
        "group": (count,),
        "reference": (count,),
        "phrase_scores": (2, count),
        "leak": (count,),
    }.items():
        if (column := getattr(units, name)) is not None:
            check_tensor(f"units.{name}", column)
            check_shape(f"units.{name}", column, shape)
    check_indices("units.group", units.group, 2**62)  # of boxes, which explanations have
    _check_belonging(units, count)
    if units.leak is not None:
        check_floats({"units.leak": units.leak})
    for name in ("reference", "score_range", "phrase_scores"):
        check_floats({f"units.{name}": getattr(units, name)})
        check_finite({f"units.{name}": getattr(units, name)})
    _check_ranges(units, count)


def check_picture(picture: UnitPicture) -> None:
    """Refuse a picture whose box is not inside its image, or whose fields are no numbers."""
    box, image, cell = picture.box, picture.image, picture.cell
    numbers = [number for number in (picture.id, picture.label) if number is not None]
    if picture.kind not in ("training", "decoded", "least"):
        raise InputError(
            f"Expected the kind of a picture as 'training', 'decoded' or 'least'; got {picture.kind!r}."
        )
    if not (_are_whole(box, 4) and (cell is None or _are_whole(cell, 2)) and _are_whole(numbers)):
        raise InputError(f"Expected the places of a picture as whole numbers; got {picture!r}.")
    if numbers and min(numbers) < 0:
        raise InputError(f"Expected the numbers of a picture and its class from 0 on; got {min(numbers)}.")
    if not isinstance(picture.split, str | None):
        raise InputError(f"Expected the split of a picture by name; got {picture.split!r}.")
    if picture.kind != "decoded" and picture.id is None:
        raise InputError(f"Expected the id of a picture of the data; got {picture!r}.")
    x0, y0, x1, y1 = box
    height, width = y1 + 1, x1 + 1
    if image is not None:
        check_tensor("a picture's image", image)
        if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
            raise InputError(
                f"Expected a picture's image of (3, H, W) in bytes; got {image.dtype} {tuple(image.shape)}."
            )
        height, width = image.shape[-2:]
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InputError(f"Expected a picture's box inside its image; got {picture.box}.")


def _are_whole(numbers: Any, count: int | None = None) -> bool:
    """Whether these are whole numbers, `count` of them."""
    return (
        isinstance(numbers, tuple | list)
        and all(type(number) is int for number in numbers)
        and count in (None, len(numbers))
    )


def _check_sequence(name: str, values: Any) -> None:
    """Refuse what is no sequence, and a text, which is one of letters."""
    if not isinstance(values, tuple | list):
        raise InputError(f"Expected units.{name} as a sequence; got {values!r:.60}.")


def _check_pictures(units: Units, picture_type: type[UnitPicture]) -> None:
    """Refuse pictures that are none."""
    for pictures in units.pictures or ():
        if not isinstance(pictures, tuple | list) or not all(type(item) is picture_type for item in pictures):
            raise InputError(
                f"Expected units.pictures as a sequence of UnitPicture for each unit; got {pictures!r:.60}."
            )


def _check_ranges(units: Units, count: int) -> None:
    """Refuse plausible scores that are not from low to high, of one class or more."""
    ranges = units.score_range
    if ranges is None:
        return
    if ranges.ndim != 3 or ranges.shape[::2] != (2, count):
        raise InputError(f"Expected units.score_range of (2, C, {count}); got {tuple(ranges.shape)}.")
    if not ranges.shape[1]:
        raise InputError(f"Expected units.score_range of one class or more; got {tuple(ranges.shape)}.")
    low, high = ranges
    if (low > high).any():
        kind, unit = (low > high).nonzero()[0].tolist()
        raise InputError(
            f"Expected units.score_range from low to high; got {low[kind, unit].item():.3g} … "
            f"{high[kind, unit].item():.3g} of {units.names[unit]!r}."
        )


def _check_belonging(units: Units, count: int) -> None:
    """Refuse parents and classes of units that there are not."""
    if (units.parent is None) != (units.parents is None):
        raise InputError("Expected units.parent and units.parents both, or neither.")
    if units.parent is not None and units.parents is not None:
        _check_sequence("parents", units.parents)
        check_tensor("units.parent", units.parent)
        check_shape("units.parent", units.parent, (count,))
        check_indices("units.parent", units.parent, len(units.parents))
        if not all(isinstance(name, str) for name in units.parents):
            raise InputError("Expected units.parents as words.")
    affinity = units.class_affinity
    if affinity is not None:
        check_tensor("units.class_affinity", affinity)
        if affinity.ndim != 2 or affinity.shape[0] != count:
            raise InputError(f"Expected units.class_affinity of ({count}, C); got {tuple(affinity.shape)}.")
        check_floats({"units.class_affinity": affinity})
        check_finite({"units.class_affinity": affinity})
        if affinity.numel() and not 0 <= float(affinity.min()) <= float(affinity.max()) <= 1:
            raise InputError("Expected units.class_affinity in 0 … 1.")
