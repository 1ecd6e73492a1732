"""Scores set by hand, and what the network says then: the algebra answers, without another forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

import torch
from attrs import evolve
from torch import Tensor

from explainkit.errors import InputError, UnknownNameError
from explainkit.explanations.counts import is_whole
from explainkit.explanations.units import Units

if TYPE_CHECKING:
    from explainkit.explanations.batch import Explanations

UnitScore = float | Tensor | Literal["off"]
"""A score for all images, one an image (N,), or ``"off"``: the unit's reference, which adds nothing."""


def intervene(explanations: Explanations, scores: Mapping[int | str, UnitScore]) -> Explanations:
    """`Explanations.intervene`."""
    decomposition = explanations.decomposition
    if decomposition is None:
        raise InputError(
            f"Expected explanations of an architecture that decides by its units; these by "
            f"{explanations.provenance.explainer} have none whose scores could be set."
        )
    if not isinstance(scores, Mapping):
        raise InputError(f"Expected a mapping of units to scores or 'off'; got {scores!r}.")
    before = decomposition.scores
    after = before.clone()
    for unit, value in scores.items():
        column = unit_index(explanations.units, unit)
        after[:, column] = _score_of(explanations, column, unit, value)
    rows = torch.arange(len(explanations), device=before.device)
    change = decomposition.logits_at(rows, after) - decomposition.logits_at(rows, before)
    logits = decomposition.logits + change.to(decomposition.logits.dtype)
    is_coupled = decomposition.rescore is not None
    return evolve(
        explanations,
        scores=after,
        logits=logits,
        decomposition=evolve(decomposition, scores=after, logits=logits),
        remainder_map=None,  # it was distributed with other scores
        diagnostics={},  # they are of the scores as they were
        # weights that change with the scores are those from before: the residual shows what that leaves out
        additivity="approximate" if is_coupled else explanations.additivity,
    )


def unit_index(units: Units, unit: int | str) -> int:
    """The number of a unit, by number, name or phrase.

    Raises
    ------
    UnknownNameError
        For a name that no unit bears; the message offers the nearest.
    InputError
        For a number out of range, and for a phrase that several units share.
    """
    if isinstance(unit, str):
        found = [k for k, name in enumerate(units.names) if name == unit]
        found = found or [k for k, phrase in enumerate(units.phrases or ()) if phrase == unit]
        if len(found) > 1:
            names = ", ".join(units.names[k] for k in found[:5])
            raise InputError(f"Expected one unit; {unit!r} is the phrase of {len(found)}: {names}. Name one.")
        if not found:
            every = [*units.names, *(phrase for phrase in units.phrases or () if phrase)]
            close = get_close_matches(unit, every, n=3)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else f" There are {len(units)}."
            raise UnknownNameError(f"No unit is called {unit!r}.{hint}")
        return found[0]
    if not is_whole(unit) or not 0 <= unit < len(units):
        raise InputError(f"Expected a unit by name, or a number in 0 … {len(units) - 1}; got {unit!r}.")
    return int(unit)


def unit_indices(units: Units, chosen: Iterable[int | str] | int | str) -> list[int]:
    """The numbers of one unit or several, each as `unit_index` takes it; a tensor of numbers too.

    Raises
    ------
    UnknownNameError, InputError
        As `unit_index`; for what is neither a unit nor several.
    """
    several: Any = chosen.tolist() if isinstance(chosen, Tensor) else chosen
    if isinstance(several, str | bool) or is_whole(several):
        several = [several]
    if not isinstance(several, Iterable):
        raise InputError(f"Expected units by number, name or phrase, one or several; got {chosen!r}.")
    return [unit_index(units, unit) for unit in several]


def _score_of(explanations: Explanations, column: int, unit: int | str, value: Any) -> Tensor | float:
    """The score that unit number `column` is set to."""
    if isinstance(value, str):
        if value != "off":
            raise InputError(
                f"Expected the score of {unit!r} as a number, (N,) numbers or 'off'; got {value!r}."
            )
        reference = explanations.units.reference
        return 0.0 if reference is None else float(reference[column])
    like = explanations.scores
    try:
        scores = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"Expected the score of {unit!r} as a number, (N,) numbers or 'off'; got {value!r}."
        ) from None
    if scores.shape not in ((), (len(like),)) or not scores.isfinite().all():
        raise InputError(
            f"Expected the score of {unit!r} as a finite number, or one an image, ({len(like)},); got "
            f"{value!r:.80}."
        )
    return scores
