"""The settings of an explainer: its attrs fields, checked, and by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_origin

import attrs
from torch import nn

from explainkit.errors import InputError

if TYPE_CHECKING:
    from explainkit.explainers.interface import Explainer

PART = {"is_part": True}
"""Metadata of a field that names a part of a network trained elsewhere, and so is no setting to be saved."""


def check_settings(explainer: Explainer) -> None:
    """Refuse numbers, texts, switches and mappings of another kind than a setting has.

    Raises
    ------
    InputError
    """
    for item in attrs.fields(type(explainer)):
        value = getattr(explainer, item.name)
        kind = {"int": int, "float": float, "str": str, "bool": bool}.get(str(item.type), item.type)
        if item.init and get_origin(kind) is Mapping and not isinstance(value, Mapping):
            raise InputError(
                f"Expected {item.name} of {explainer.card.title} as a mapping of names to values; "
                f"got {value!r}."
            )
        if not item.init or kind not in (int, float, str, bool):
            continue
        is_right = isinstance(value, (int, float) if kind is float else kind)
        if not is_right or (kind is not bool and isinstance(value, bool)) or value != value:
            raise InputError(
                f"Expected {item.name} of {explainer.card.title} as {kind.__name__}; got {value!r}."
            )


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
