"""What a network says as the scores of its units are set, one after the other or each alone: by the algebra.

Where logits are sums they are summed anew in float64: the terms of units that are set, and of those that are
not yet. Nothing is subtracted, so that units without a contribution leave no rounding, which could decide
between equal classes. Where scores are coupled the network's `rescore` is asked.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from attrs import frozen
from torch import Tensor
from torch.nn import functional as F

from explainkit.explanations.decisions import Decision
from explainkit.explanations.decomposition import Decomposition


@frozen(eq=False, kw_only=True)
class ScoreChanges:
    """Scores that n images get, unit by unit.

    Attributes
    ----------
    decomposition : Decomposition
    rows : Tensor, (n,)
        The images in it.
    new_scores : Tensor, (n, K), float64
    truth : Tensor, (n, C), bool
    decision : Decision
    is_exact : bool
        Whether logits are sums but for rounding; else what they are beside the sum stays.
    """

    decomposition: Decomposition
    rows: Tensor
    new_scores: Tensor
    truth: Tensor
    decision: Decision
    is_exact: bool

    def along(self, orders: Tensor) -> tuple[Tensor, Tensor]:
        """Whether images are right, and their true logits, with units set along `orders` (R, M): (n, M + 1).

        In the mean over orders.
        """
        is_coupled = self.decomposition.rescore is not None
        logits = self._rescored_along(orders) if is_coupled else self._summed_along(orders)
        measured = [self._measure(after) for after in logits]
        right, true_logit = (torch.stack(values).mean(0) for values in zip(*measured, strict=True))
        return right, true_logit

    def alone(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """The same with none of the units (M,) set, and then each alone."""
        if self.decomposition.rescore is not None:
            return self._measure(self._rescored(F.one_hot(units, self._scores.shape[1]) > 0))
        moves = self._weights() * (self.new_scores - self._scores)[:, None]
        return self._measure(self._logits[:, None] + moves[:, :, units].mT)

    def sizes(self, units: Tensor) -> Tensor:
        """By how much setting units (M,) moves the true class, or all labels in the mean: (n, M)."""
        moves = self._weights() * (self.new_scores - self._scores)[:, None]
        sizes = moves[:, :, units].abs()  # (n, C, M)
        return sizes[self.truth] if self.decision.is_exclusive else sizes.mean(1)

    @property
    def _logits(self) -> Tensor:
        return self.decomposition.logits.cpu()[self.rows].double()

    @property
    def _scores(self) -> Tensor:
        return self.decomposition.scores.cpu()[self.rows].double()

    def _weights(self) -> Tensor:
        """Of all classes, (n, C, K)."""
        n, c = self.truth.shape
        rows = self.rows.to(self.decomposition.logits.device)
        targets = torch.arange(c, device=rows.device).repeat(n)
        weights = self.decomposition.weights_at(rows.repeat_interleave(c), targets)
        return weights.detach().cpu().double().unflatten(0, (n, c))

    def _summed_along(self, orders: Tensor) -> Iterator[Tensor]:
        """Logits with the first 1 … M units of each order set, (n, M, C): by the sum."""
        weights, bias = self._weights(), self.decomposition.bias.detach().cpu().double()
        before, after = weights * self._scores[:, None], weights * self.new_scores[:, None]  # (n, C, K)
        bias = bias if bias.ndim == 1 else bias[self.rows]
        if not self.is_exact:
            bias = self._logits - before.sum(2)
        for order in orders:
            is_left = torch.ones(before.shape[2], dtype=torch.bool).index_fill(0, order, False)
            others = bias + before[:, :, is_left].sum(2)
            yet_to_come = before[:, :, order.flip(0)].cumsum(2).flip(2)
            yet_to_come = F.pad(yet_to_come[:, :, 1:], (0, 1))
            yield (others[:, :, None] + after[:, :, order].cumsum(2) + yet_to_come).mT

    def _rescored_along(self, orders: Tensor) -> Iterator[Tensor]:
        """The same by the network's `rescore`."""
        return (self._rescored(F.one_hot(order, self._scores.shape[1]).cumsum(0) > 0) for order in orders)

    def _rescored(self, is_set: Tensor) -> Tensor:
        """Logits by the network's `rescore` with the units `is_set` (M, K) set: (n, M, C)."""
        decomposition = self.decomposition
        rows = self.rows.to(decomposition.scores.device)
        scores = decomposition.scores[rows]
        changed = torch.where(is_set.to(scores.device), self.new_scores.to(scores)[:, None], scores[:, None])
        with torch.no_grad():
            after = decomposition.logits_at(rows.repeat_interleave(len(is_set)), changed.flatten(0, 1))
            moved = after.unflatten(0, (len(rows), -1)) - decomposition.logits_at(rows, scores)[:, None]
        return self._logits[:, None] + moved.cpu().double()

    def _measure(self, after: Tensor) -> tuple[Tensor, Tensor]:
        """Whether images are right, and true logits: (n, M + 1), as they are and by `after` (n, M, C)."""
        logits = torch.cat([self._logits[:, None], after], 1)
        holds = self.decision.holds(logits.flatten(0, 1)).unflatten(0, logits.shape[:2])
        is_right = holds == self.truth[:, None]
        if self.decision.is_exclusive:
            true_logit = logits.mT[self.truth]  # (n, M + 1), of the one true class
            return is_right.all(2).double(), true_logit
        sides = torch.where(self.truth, 1.0, -1.0).double()[:, None]
        return is_right.double().mean(2), ((logits - self.decision.threshold) * sides).mean(2)
