"""Counterfactuals as JSON, and what their columns must be when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypedDict, cast

import torch
from attrs import evolve, fields
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.edits import ImageEdits, RegionSwaps, ScoreEdits
from explainkit.explanations.json_explanations import without_any_image
from explainkit.explanations.json_values import JsonValue, as_text, write_value
from explainkit.explanations.serialization import in_brief
from explainkit.explanations.validation import check_finite, check_floats, check_indices, check_shape

if TYPE_CHECKING:
    from explainkit.explanations.batch import Explanations
    from explainkit.explanations.counterfactuals import Counterfactuals


class DerivedCounterfactuals(TypedDict):
    """What follows from the numbers, for others to read; `from_json` works it out anew."""

    success: list[bool]
    sentences: list[str]


class CounterfactualsJson(JsonValue):
    """Counterfactuals as JSON."""

    __slots__ = ()

    def to_json(self, *, images: bool = False) -> str:
        """As JSON text: all numbers, which `from_json` reads, and sentences for others to read.

        Parameters
        ----------
        images : bool
            Whether images, as they are and as edited, and those of units, are in it, as PNG where they came
            from bytes.
        """
        counterfactuals = cast("Counterfactuals", self)
        explanations = counterfactuals.explanations.without_maps()
        if not images:
            counterfactuals = counterfactuals.without_images()
            explanations = without_any_image(explanations)
        return as_text(write_value(evolve(counterfactuals, explanations=explanations)))

    def _written_instead(self) -> Mapping[str, Any]:
        counterfactuals = cast("Counterfactuals", self)
        derived: DerivedCounterfactuals = {
            "success": counterfactuals.success.tolist(),
            "sentences": [item.sentence() for item in counterfactuals],
        }
        return {"derived": derived}

    @classmethod
    def _read_instead(cls) -> Mapping[str, Any]:
        return {"derived": DerivedCounterfactuals}

    @classmethod
    def _made_of(cls, columns: Mapping[str, Any], size: int) -> Self:
        counterfactuals = super()._made_of(columns, size)
        check_counterfactuals(cast("Counterfactuals", counterfactuals))
        return counterfactuals


def check_counterfactuals(counterfactuals: Counterfactuals) -> None:
    """Refuse edits that disagree with the explanations about images, classes and units."""
    explanations = counterfactuals.explanations
    if not counterfactuals.edits:
        raise InputError("Expected edits by one method or more; got none.")
    if counterfactuals.wanted is not None:
        _check_mask("wanted", counterfactuals.wanted, len(explanations))
    for method, edits in counterfactuals.edits.items():
        check_edits(method, edits, explanations)


def check_edits(method: str, edits: ScoreEdits | ImageEdits, explanations: Explanations) -> None:
    """Refuse edits that disagree with the explanations about images, classes and units, or are not whole."""
    for item in fields(type(edits)):
        value = getattr(edits, item.name)
        if item.type in ("Tensor", "Tensor | None") and not isinstance(value, Tensor):
            if value is None and item.default is None:
                continue
            raise InputError(f"Expected {method}.{item.name} as a tensor; got {type(value).__name__}.")
    if isinstance(edits, ScoreEdits):
        _check_score_edits(method, edits, explanations.logits, explanations.scores)
    else:
        _check_image_edits(method, edits, explanations.logits, explanations.images)


def _check_score_edits(method: str, edits: ScoreEdits, logits: Tensor, scores: Tensor) -> None:
    floats = {f"{method}.{name}": getattr(edits, name) for name in ("before", "after", "gains")}
    for name, values in floats.items():
        check_shape(name, values, tuple(scores.shape))
    check_shape(f"{method}.logits", edits.logits, tuple(logits.shape))
    floats[f"{method}.logits"] = edits.logits
    check_floats(floats)
    check_finite(floats)
    for name in ("feasible", "exact"):
        _check_mask(f"{method}.{name}", getattr(edits, name), len(logits))
    if edits.lower_bound is not None:
        check_shape(f"{method}.lower_bound", edits.lower_bound, (len(logits),))
        check_indices(f"{method}.lower_bound", edits.lower_bound, 2**31)
    _check_texts(method, "descriptions", edits.descriptions, len(logits))


def _check_image_edits(method: str, edits: ImageEdits, logits: Tensor, images: Tensor) -> None:
    count = len(logits)
    check_shape(f"{method}.images", edits.images, tuple(images.shape))
    if edits.sources is not None:
        check_shape(f"{method}.sources", edits.sources, tuple(images.shape))
    if edits.logits is None or edits.success is None or (edits.sizes is None and edits.regions is None):
        raise InputError(f"Expected {method} with logits, success and sizes; it lacks some.")
    check_shape(f"{method}.logits", edits.logits, tuple(logits.shape))
    check_finite({f"{method}.logits": edits.logits})
    _check_mask(f"{method}.success", edits.success, count)
    _check_texts(method, "descriptions", edits.descriptions, count)
    _check_texts(method, "failures", edits.failures, count)
    for name, word in {"unit": edits.unit, "source_label": edits.source_label}.items():
        if not isinstance(word, str) or not word.strip():
            raise InputError(f"Expected the {name} of {method} as a word; got {word!r}.")
    if edits.regions is not None:
        shape = edits.regions.shape
        if edits.regions.dtype != torch.bool or len(shape) != 3 or shape[0] != count or 0 in shape[1:]:
            raise InputError(f"Expected {method}.regions of ({count}, h, w), bool; got {tuple(shape)}.")
    whole = {"sizes": edits.sizes, "lower_bound": edits.lower_bound}
    if isinstance(edits, RegionSwaps):
        if edits.regions is None:
            raise InputError(f"Expected the regions of {method}; got none.")
        _check_mask(f"{method}.mirrored", edits.mirrored, count)
        check_shape(f"{method}.shifts", edits.shifts, (count, 2))
        whole |= {"exemplars": edits.exemplars + 1, "predicted_size": edits.predicted_size}
    for name, values in whole.items():
        if values is not None:
            check_shape(f"{method}.{name}", values, (count,))
            check_indices(f"{method}.{name}", values, 2**62)


def _check_texts(method: str, name: str, words: tuple[str | None, ...], count: int) -> None:
    if not isinstance(words, tuple) or not all(isinstance(word, str | None) for word in words):
        raise InputError(f"Expected {name} of {method} as a tuple of texts; got {in_brief(words, 60)!r}.")
    if words and len(words) != count:
        raise InputError(f"Expected {count} {name} of {method}; got {len(words)}.")


def _check_mask(name: str, values: Tensor, count: int) -> None:
    check_shape(name, values, (count,))
    if values.dtype != torch.bool:
        raise InputError(f"Expected {name} as true or false; got {values.dtype}.")
