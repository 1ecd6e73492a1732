"""The settings of an explainer: its attrs fields, checked, and by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
from torch import nn

from explainkit.errors import InputError

if TYPE_CHECKING:
    from explainkit.explainers.interface import Explainer

PART = {"is_part": True}
"""Metadata of a field that names a part of a network trained elsewhere, and so is no setting to be saved."""


def check_settings(explainer: Explainer) -> None:
    """Refuse values of another kind than a setting has; a path becomes text.

    Raises
    ------
    InputError
    """
    kinds = _kinds_of(type(explainer))
    for item in attrs.fields(type(explainer)):
        if not item.init:
            continue
        value, kind = getattr(explainer, item.name), kinds.get(item.name, item.type)
        if isinstance(value, Path) and is_of_kind(str(value), kind):
            setattr(explainer, item.name, str(value))
        elif not is_of_kind(value, kind):
            raise InputError(
                f"Expected {item.name} of {explainer.card.title} as {describe_kind(kind)}; got {value!r}."
            )


def check_ranges(explainer: Explainer, ranges: Mapping[str, Sequence[str]]) -> None:
    """Refuse settings that are not in an interval; ``None`` is in each, infinity in none.

    Parameters
    ----------
    explainer : Explainer
    ranges : mapping of str to sequence of str
        Names of settings by interval, as ``{"[1, inf)": ("batch_size",), "[0, 1)": ("label_smoothing",)}``.

    Raises
    ------
    InputError
        With the setting, the interval and the value.
    """
    for interval, names in ranges.items():
        low, high = map(float, interval[1:-1].split(","))
        for name in names:
            value = getattr(explainer, name)
            if value is None:
                continue
            is_above = low <= value if interval[0] == "[" else low < value
            is_below = value <= high if interval[-1] == "]" else value < high
            if not (is_above and is_below):
                expected = f"in {interval}"
                if high == float("inf"):
                    expected = f"as {low:g} or more" if interval[0] == "[" else f"above {low:g}"
                raise InputError(f"Expected {name} of {explainer.card.title} {expected}; got {value!r}.")


def is_of_kind(value: object, kind: Any) -> bool:
    """Whether `value` is what the annotation `kind` says; of classes that are no plain values all is taken.

    Examples
    --------
    >>> is_of_kind(3, float), is_of_kind(True, int), is_of_kind("x", float | None)
    (True, False, False)
    """
    origin, choices = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in choices)
    if origin in (Union, UnionType):
        return any(is_of_kind(value, choice) for choice in choices)
    if origin is Mapping:
        return isinstance(value, Mapping)
    if origin is Sequence:
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        return all(is_of_kind(item, choices[0]) for item in value)
    if kind is None or kind is NoneType:
        return value is None
    if kind in (int, float):
        is_number = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
        return is_number and value == value
    return isinstance(value, kind) if kind in (str, bool) else True


def describe_kind(kind: Any) -> str:
    """What `is_of_kind` takes, in words.

    Examples
    --------
    >>> describe_kind(float | None), describe_kind(Literal["mi", "target"])
    ('float or None', "one of 'mi', 'target'")
    """
    origin, choices = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(repr, choices))}"
    if origin in (Union, UnionType):
        return " or ".join(describe_kind(choice) for choice in choices)
    if origin is Mapping:
        return "a mapping of names to values"
    if origin is Sequence:
        return f"a sequence of {describe_kind(choices[0])}"
    return "None" if kind in (None, NoneType) else getattr(kind, "__name__", str(kind))


@cache
def _kinds_of(kind: type) -> Mapping[str, Any]:
    """The annotations of a class; nothing where some can only be read by a type checker."""
    try:
        return get_type_hints(kind)
    except NameError:
        plain = {"int": int, "float": float, "str": str, "bool": bool}
        return {item.name: plain.get(str(item.type), item.type) for item in attrs.fields(kind)}


def settings_of(explainer: Explainer) -> dict[str, Any]:
    """What `explainer` was made with, by name, less the parts of a network."""
    return {
        item.name.lstrip("_"): getattr(explainer, item.name)
        for item in attrs.fields(type(explainer))
        if item.init
        and "is_part" not in item.metadata
        and not isinstance(getattr(explainer, item.name), nn.Module)
    }


@contextmanager
def without_weights_setting(explainer: Explainer) -> Iterator[None]:
    """`explainer` without the name of trained weights, where it has a setting for one."""
    weights = getattr(explainer, "weights", None)
    if weights is None:
        yield
        return
    explainer.weights = None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        explainer.weights = weights  # type: ignore[attr-defined]
