"""What the tensors and names of a value must be; refused in words where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor

from explainkit.errors import InputError, UnknownNameError
from explainkit.explanations.decomposition import Additivity
from explainkit.explanations.factored_maps import FACTORS, FactoredMaps, UnitMaps, take_units
from explainkit.explanations.spatial import is_localized, is_pooled_by

if TYPE_CHECKING:
    from explainkit.explanations.batch import Explanations
    from explainkit.explanations.units import Units


FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_shape(name: str, values: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse another shape."""
    if tuple(values.shape) != shape:
        raise InputError(f"Expected {name} of {shape}; got {tuple(values.shape)}.")


def check_tensor(name: str, values: Any) -> None:
    """Refuse what is no tensor."""
    if not isinstance(values, Tensor):
        kind = "None" if values is None else type(values).__name__
        raise InputError(f"Expected {name} as a tensor; got {kind}.")


def check_floats(columns: Mapping[str, Tensor | None]) -> None:
    """Refuse what is no float, or one of the short kinds that torch stores and does not add."""
    for name, values in columns.items():
        if values is None:
            continue
        check_tensor(name, values)
        if values.dtype not in FLOATS:
            raise InputError(f"Expected {name} as floats; got {values.dtype}.")


def check_finite(columns: Mapping[str, Tensor | None]) -> None:
    """One question for all columns, since each waits for the device; a sum that overflows asks each value."""
    tensors = {name: values for name, values in columns.items() if values is not None}
    if not tensors or sum(values.sum() for values in tensors.values()).isfinite():  # type: ignore[union-attr]
        return
    for name, values in tensors.items():
        if not values.isfinite().all():
            index = tuple((~values.isfinite()).nonzero()[0].tolist())
            raise InputError(f"Expected finite {name}; got {values[index].item()} at {index}.")


def check_indices(name: str, values: Tensor | None, count: int) -> None:
    """Refuse what is no index below `count`."""
    if values is None:
        return
    if values.dtype != torch.int64:
        raise InputError(f"Expected {name} of int64; got {values.dtype}.")
    if not values.numel():
        return
    low, high = (int(end) for end in values.aminmax())
    if low < 0 or high >= count:
        raise InputError(f"Expected {name} in 0 … {count - 1}; got {low if low < 0 else high}.")


def as_names(values: Iterable[str]) -> tuple[str, ...]:
    """Names as a tuple: the converter of every field that holds some.

    Raises
    ------
    InputError
        For a single text, which is no sequence of names but of letters, and for no sequence at all.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"Expected a sequence of names; got {values!r:.60}.")
    return tuple(values)


def as_floats(values: Iterable[float] | None) -> tuple[float, ...] | None:
    """Numbers as a tuple of floats, or ``None``.

    Raises
    ------
    InputError
        For what is no sequence of numbers.
    """
    if values is None:
        return None
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise InputError(f"Expected a sequence of numbers; got {values!r}.") from None


def class_index(classes: Sequence[str], target: str | int) -> int:
    """The index of `target` among `classes`, by name or by number.

    Raises
    ------
    UnknownNameError
        For a name that no class bears; the message offers the nearest.
    InputError
        For a number outside 0 … C - 1.
    """
    from difflib import get_close_matches

    if isinstance(target, str):
        if target in classes:
            return list(classes).index(target)
        close = get_close_matches(target, classes, n=3)
        hint = (
            f" Did you mean {', '.join(map(repr, close))}?"
            if close
            else f" There {'is 1 class' if len(classes) == 1 else f'are {len(classes)} classes'}."
        )
        raise UnknownNameError(f"No class is called {target!r}.{hint}")
    if not 0 <= target < len(classes):
        raise InputError(f"Expected a class index in 0 … {len(classes) - 1}; got {target}.")
    return int(target)


def class_indices(
    targets: Tensor | Sequence[int | str] | int | str, classes: Sequence[str], count: int
) -> Tensor:
    """`targets`, one an image or one for all, by name or index, as (N,) int64.

    Raises
    ------
    InputError
        For a wrong number of targets, or an index out of range.
    UnknownNameError
        For a name that no class bears.
    """
    if isinstance(targets, Tensor):
        if targets.dtype.is_floating_point or targets.dtype == torch.bool:
            raise InputError(f"Expected targets as integers; got {targets.dtype}.")
        targets = targets.tolist()
    if isinstance(targets, str) or not isinstance(targets, Iterable):
        listed = [targets] * count
    else:
        listed = list(targets)
    if len(listed) != count:
        raise InputError(f"Expected one target an image, ({count},); got {len(listed)}.")
    return torch.tensor([class_index(classes, _name_or_index(target)) for target in listed], dtype=torch.long)


def foil_indices(foils: Any, classes: Sequence[str], count: int) -> Tensor:
    """Classes to contrast with, one an image or one for all, as (N,) int64.

    Raises
    ------
    InputError, UnknownNameError
        As `class_indices`; and where there is one class alone.
    """
    if len(classes) == 1:
        raise InputError(
            f"Expected two classes or more for a contrast; there is {classes[0]!r} alone, whose explanation "
            "has what is against it too."
        )
    return class_indices(foils, classes, count)


def target_pairs(targets: Any, classes: Sequence[str], count: int) -> tuple[Tensor | None, Tensor]:
    """Targets, of which an image may have several, as which image (M,) and which class (M,) each is.

    The first is ``None`` where each image has one, in order.

    Raises
    ------
    InputError
        For a wrong number of targets, an index out of range, and where there is none at all.
    UnknownNameError
        For a name that no class bears.
    """
    if isinstance(targets, np.ndarray):
        targets = torch.as_tensor(targets)
    if isinstance(targets, Tensor) and targets.dtype == torch.bool and targets.ndim == 2:
        check_shape("targets", targets, (count, len(classes)))
        rows, indices = targets.cpu().nonzero(as_tuple=True)
    elif isinstance(targets, list | tuple) and any(isinstance(item, list | tuple) for item in targets):
        if len(targets) != count:
            raise InputError(f"Expected a list of targets for each image, {count}; got {len(targets)}.")
        lists = [item if isinstance(item, list | tuple) else [item] for item in targets]
        rows = torch.arange(count).repeat_interleave(torch.tensor([len(item) for item in lists]))
        indices = class_indices([name for item in lists for name in item], classes, len(rows))
    else:
        return None, class_indices(targets, classes, count)
    if not len(rows):
        raise InputError("Expected at least one target; got none for any image.")
    return rows, indices


def _name_or_index(target: Any) -> int | str:
    if isinstance(target, str):
        return target
    if isinstance(target, bool):
        raise InputError(
            f"Expected a target as a class name or index; got {target!r}. A mask of several targets is a "
            "bool tensor or array (N, C)."
        )
    try:
        return int(target.__index__())
    except (AttributeError, TypeError):
        raise InputError(f"Expected a target as a class name or index; got {target!r}.") from None


def check_explanations(explanations: Explanations) -> None:
    """Refuse what breaks a rule, naming field, rule and value."""
    _check_types(explanations)
    if explanations.logits.ndim != 2:
        raise InputError(f"Expected logits of (N, C); got {tuple(explanations.logits.shape)}.")
    (num_images, num_classes), num_units = explanations.logits.shape, len(explanations.units)
    images, additivity, classes = explanations.images, explanations.additivity, explanations.classes
    if additivity not in get_args(Additivity):
        raise InputError(f"Expected additivity to be one of {get_args(Additivity)}; got {additivity!r}.")
    if len(classes) != num_classes or not num_classes:
        raise InputError(f"Expected {num_classes or 'some'} class names, one a logit; got {len(classes)}.")
    per_image, per_unit = (num_images,), (num_images, num_units)
    for name in ("targets", "base"):
        check_shape(name, getattr(explanations, name), per_image)
    for name in ("scores", "weights"):
        check_shape(name, getattr(explanations, name), per_unit)
    if explanations.foils is not None:
        check_shape("foils", explanations.foils, per_image)
    if explanations.ids is not None and len(explanations.ids) != num_images:
        raise InputError(f"Expected an id an image, {num_images}; got {len(explanations.ids)}.")
    for name in ("targets", "foils"):
        check_indices(name, getattr(explanations, name), num_classes)
    if explanations.image_index is not None:
        check_shape("image_index", explanations.image_index, per_image)
        check_indices("image_index", explanations.image_index, 2**62)  # of a batch that is larger
    if explanations.is_tabular:
        spatial = (explanations.maps, explanations.boxes, explanations.remainder_map)
        if len(images) != num_images or any(values is not None for values in spatial):
            raise InputError(f"Expected {num_images} rows (N, F), without maps; got {tuple(images.shape)}.")
    elif images.ndim != 4 or len(images) != num_images or 0 in images.shape[1:]:
        raise InputError(f"Expected {num_images} images of (N, D, H, W); got {tuple(images.shape)}.")
    for name, value in explanations.diagnostics.items():
        check_shape(f"diagnostics {name!r}", value, per_image)
    columns = {
        name: getattr(explanations, name) for name in ("logits", "base", "scores", "weights", "remainder_map")
    }
    check_floats(columns | {"boxes": explanations.boxes, "images": images})
    if explanations.maps is not None:
        check_floats({"maps": _factors(explanations.maps)[-1]})
    check_finite(columns)
    _check_classes_of_units(explanations)
    _check_maps(explanations, num_images, num_units)


def _check_types(explanations: Explanations) -> None:
    """Refuse what is no tensor where one is expected."""
    for name in ("logits", "targets", "base", "scores", "weights", "images"):
        check_tensor(name, getattr(explanations, name))
    for name in ("boxes", "foils", "map_units", "remainder_map", "image_index"):
        if (values := getattr(explanations, name)) is not None:
            check_tensor(name, values)
    maps, diagnostics = explanations.maps, explanations.diagnostics
    if isinstance(maps, FactoredMaps):
        for name in FACTORS:
            check_tensor(f"maps.{name}", getattr(maps, name))
    elif not isinstance(maps, Tensor | None):
        raise InputError(f"Expected maps as a tensor or FactoredMaps; got {type(maps).__name__}.")
    if not isinstance(diagnostics, Mapping):
        raise InputError(f"Expected diagnostics as tensors by name; got {type(diagnostics).__name__}.")
    for name, values in diagnostics.items():
        check_tensor(f"diagnostics {name!r}", values)
    if isinstance(explanations.ids, str):
        raise InputError(f"Expected a sequence of ids; got {explanations.ids!r:.60}.")


def _check_classes_of_units(explanations: Explanations) -> None:
    """Refuse what units hold of each class where there are other classes."""
    num_units, num_classes = len(explanations.units), len(explanations.classes)
    affinity, ranges = explanations.units.class_affinity, explanations.units.score_range
    if affinity is not None:
        check_shape("units.class_affinity", affinity, (num_units, num_classes))
    if ranges is None:
        return
    is_exclusive = explanations.decision.is_exclusive
    expected = (2, num_classes if is_exclusive else 2 * num_classes, num_units)
    if tuple(ranges.shape) != expected:
        kinds = "of each class" if is_exclusive else "without and with each label"
        raise InputError(f"Expected units.score_range of {expected}, {kinds}; got {tuple(ranges.shape)}.")


def _check_maps(explanations: Explanations, num_images: int, num_units: int) -> None:
    maps, boxes, map_units = explanations.maps, explanations.boxes, explanations.map_units
    remainder_map = explanations.remainder_map
    precision = torch.promote_types(explanations.scores.dtype, explanations.weights.dtype)
    if maps is not None:
        for kind in [factor.dtype for factor in _factors(maps)]:
            if kind != precision:
                raise InputError(f"Expected maps of {precision}, as scores and weights; got {kind}.")
    if map_units is not None and (map_units.ndim != 2 or len(map_units) != num_images):
        raise InputError(f"Expected map_units of ({num_images}, k); got {tuple(map_units.shape)}.")
    check_indices("map_units", map_units, num_units)
    if remainder_map is not None and (
        remainder_map.ndim != 3 or len(remainder_map) != num_images or 0 in remainder_map.shape[1:]
    ):
        raise InputError(f"Expected remainder_map of ({num_images}, h, w); got {tuple(remainder_map.shape)}.")
    if maps is not None:
        if explanations.units.pooling == "none":
            raise InputError("Expected no maps of units with pooling 'none', which have no place; got some.")
        if isinstance(maps, FactoredMaps):
            _check_factors(maps, num_images, map_units)
        mapped = num_units if map_units is None else map_units.shape[1]
        if len(maps.shape) != 4 or maps.shape[:2] != (num_images, mapped) or 0 in maps.shape[2:]:
            raise InputError(f"Expected maps of ({num_images}, {mapped}, h, w); got {tuple(maps.shape)}.")
        largest = torch.ones((), dtype=precision, device=maps.device)  # a bound of products
        for factor in _factors(maps):
            if not factor.numel():
                continue
            low, high = _in_memory_order(factor).aminmax()  # one pass; NaN comes out as both
            largest = largest * high
            if not high.isfinite():
                check_finite({"maps": factor})
            if low < 0:
                raise InputError(f"Expected maps that are never negative; got {low.item():.3g}.")
        if not largest.isfinite():
            _check_products(maps)
        _check_placeless(explanations.units, maps, map_units)
    if boxes is not None:
        if boxes.ndim != 3 or boxes.shape[0] != num_images or boxes.shape[2] != 4:
            raise InputError(f"Expected boxes of ({num_images}, G, 4); got {tuple(boxes.shape)}.")
        height, width = explanations.images.shape[-2:]
        limit = boxes.new_tensor([width, height, width, height])
        corners = boxes.to(precision)  # maps are pasted in their precision, in which a width may vanish
        if not ((boxes >= 0) & (boxes <= limit)).all() or not (corners[..., 2:] > corners[..., :2]).all():
            raise InputError(f"Expected boxes x0 < x1, y0 < y1 inside images of {height} x {width} pixels.")
        check_indices("units.group", explanations.units.group, boxes.shape[1])


def _factors(maps: UnitMaps) -> tuple[Tensor, ...]:
    """The tensors that maps are made of, themselves or their factors."""
    return (maps.attention, maps.features) if isinstance(maps, FactoredMaps) else (maps,)


def _check_factors(maps: FactoredMaps, num_images: int, map_units: Tensor | None) -> None:
    """Refuse factors that do not make maps."""
    if map_units is not None:
        raise InputError("Expected a tensor of the maps of map_units; got factored maps. Call dense_maps.")
    attention, features = maps.attention.shape, maps.features.shape
    for shape in (attention, features):
        if len(shape) != 4 or shape[0] != num_images or shape[2:] != features[2:] or 0 in shape[1:]:
            raise InputError(
                f"Expected maps of attention ({num_images}, P, h, w) and features ({num_images}, D, h, w); "
                f"got {tuple(attention)} and {tuple(features)}."
            )
    for name, index, count in (("part", maps.part, attention[1]), ("channel", maps.channel, features[1])):
        check_shape(f"maps.{name}", index, (maps.part.numel(),))
        check_indices(f"maps.{name}", index, count)
    devices = {getattr(maps, name).device for name in FACTORS}
    if len(devices) > 1:
        raise InputError(f"Expected the factors of maps on one device; got {sorted(map(str, devices))}.")


def _in_memory_order(values: Tensor) -> Tensor:
    """`values` with axes as they lie in memory, channels last or not: several times as fast to run over."""
    strides = values.stride()
    return values.permute(sorted(range(values.ndim), key=lambda axis: -strides[axis]))


def _check_products(maps: UnitMaps) -> None:
    """Refuse factors whose products may overflow."""
    if not isinstance(maps, FactoredMaps) or not len(maps):
        return
    attention, features = (factor.flatten(2).amax(2) for factor in _factors(maps))
    if not (attention[:, maps.part] * features[:, maps.channel]).isfinite().all():
        raise InputError("Expected finite maps; the products of their factors' peaks are not.")


def _check_placeless(units: Units, maps: UnitMaps, map_units: Tensor | None) -> None:
    """Refuse a map of a unit that has no place."""
    if "none" not in units.poolings:
        return
    is_placeless = is_pooled_by(units.poolings, "none").to(maps.device)
    if map_units is not None:
        is_placeless = is_placeless[map_units]  # (N, k)
    columns = (is_placeless if map_units is None else is_placeless.any(0)).nonzero()[:, 0]
    has_map = is_localized(take_units(maps, columns)) & is_placeless[..., columns]
    if has_map.any():
        row, column = has_map.nonzero()[0].tolist()
        unit = columns[column] if map_units is None else map_units[row, columns[column]]
        raise InputError(
            f"Expected maps of zeros for units with pooling 'none', which have no place; got one of "
            f"{units.names[unit]!r}."
        )
