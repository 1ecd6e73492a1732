"""The vocabulary of an explainer: what its units are."""

from __future__ import annotations

from typing import Any

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from explainkit.explanations.decomposition import Pooling
from explainkit.explanations.validation import as_names, check_exemplar, check_units

UNIT_TENSORS = ("group", "reference", "score_range", "phrase_scores")
"""The fields of `Units` that are tensors, or None."""


@frozen(eq=False, kw_only=True)
class Exemplar:
    """A place in an image of the training data that a unit stands for.

    Attributes
    ----------
    id, split, label
        Which image of the training data it is, and its class.
    cell : (int, int)
        Row and column on the network's grid.
    box : (int, int, int, int)
        x0, y0, x1, y1 in pixels of the image, half-open.
    image : Tensor or None, (3, H, W), uint8
    """

    id: int
    split: str
    label: int
    cell: tuple[int, int]
    box: tuple[int, int, int, int]
    image: Tensor | None = field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        check_exemplar(self)


@frozen(eq=False, kw_only=True)
class Units:
    """The vocabulary of an explainer: what its K units are.

    Attributes
    ----------
    kind : str
        One word: ``"filter"``, ``"prototype"``, ``"concept"``, ``"pixels"`` …
    names : tuple of str, K
    pooling : {"mean", "sum", "max", "coupled", "none"}
        How a unit's map became its score.
    group : Tensor or None, (K,)
        Index into the G boxes of an explanation: which scale or part the unit belongs to.
    reference : Tensor or None, (K,)
        The score that counts as nothing to say; ``None`` for 0.
    score_range : Tensor or None, (2, C, K)
        5 % and 95 % quantiles of the score on training images of each class: what is plausible.
    phrases : tuple of (str or None) or None, K
        The unit in words, where it has some.
    phrase_scores : Tensor or None, (2, K)
        How well each phrase fits, on images that it was not chosen on, and the standard error of that; 0
        where there is no phrase. ``None`` where phrases are the units' own, and were not looked for.
    exemplars : tuple of tuple of Exemplar or None, K
    """

    kind: str
    names: tuple[str, ...] = field(converter=as_names, repr=lambda names: f"<{len(names)} names>")
    pooling: Pooling
    group: Tensor | None = field(default=None, repr=False)
    reference: Tensor | None = field(default=None, repr=False)
    score_range: Tensor | None = field(default=None, repr=False)
    phrases: tuple[str | None, ...] | None = field(default=None, repr=False)
    phrase_scores: Tensor | None = field(default=None, repr=False)
    exemplars: tuple[tuple[Exemplar, ...], ...] | None = field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        check_units(self)

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> Units:
        """The same vocabulary with its tensors on `device`."""
        tensors: dict[str, Any] = {
            name: value.to(device)
            for name in UNIT_TENSORS
            if isinstance(value := getattr(self, name), Tensor)
        }
        return evolve(self, **tensors)
