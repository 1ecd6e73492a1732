"""Mean contributions to all classes, kept as the factors that they are products of where they are."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from explainkit.errors import InputError


@frozen(eq=False, kw_only=True)
class ClassContributions:
    """What K units add to the logits of all C classes, in the mean over the images of each of M classes.

    Where weights are the same in every image a mean contribution is the weight times the mean score: C x K
    and M x K numbers instead of M x C x K. Where they are not, all numbers are kept.

    Attributes
    ----------
    weights : Tensor, (C, K); or (M, C, K)
        What one unit of score is worth to each class; or, without `scores`, the mean contributions.
    scores : Tensor or None, (M, K)
        Mean scores over the reference, in float64: contributions come in float32.

    Raises
    ------
    InputError
        On construction, for shapes that disagree.

    Examples
    --------
    >>> contributions = ClassContributions(
    ...     weights=torch.tensor([[1.0, 2.0], [3.0, -1.0]]), scores=torch.tensor([[2.0, 10.0]]).double()
    ... )
    >>> contributions.to_class(0, 1).tolist()
    [6.0, -10.0]
    >>> contributions.dense().shape
    torch.Size([1, 2, 2])
    """

    weights: Tensor
    scores: Tensor | None = None

    def __attrs_post_init__(self) -> None:
        expected = 3 if self.scores is None else 2
        units = self.weights.shape[-1:] if self.scores is None else self.scores.shape[1:]
        if self.weights.ndim != expected or self.weights.shape[-1:] != units:
            scores = None if self.scores is None else tuple(self.scores.shape)
            raise InputError(
                "Expected weights (C, K) with scores (M, K), or contributions (M, C, K) alone; got "
                f"{tuple(self.weights.shape)} with {scores}."
            )

    def to_class(self, row: int, target: int) -> Tensor:
        """Mean contributions to the class `target`, over images of the class in `row`: (K,)."""
        if self.scores is None:
            return self.weights[row, target]
        return (self.weights[target].double() * self.scores[row]).float()

    def dense(self) -> Tensor:
        """All of them, (M, C, K): 8 GB for 1,000 classes and 2,048 units."""
        if self.scores is None:
            return self.weights
        dense = torch.empty(len(self.scores), *self.weights.shape, dtype=torch.float32)
        weights = self.weights.double()
        for row, scores in enumerate(self.scores):  # at once there would be as many in float64
            dense[row] = weights * scores
        return dense
