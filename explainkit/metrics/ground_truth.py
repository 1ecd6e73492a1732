"""What each part is truly worth to a network: its logits on every subset of an object's parts, drawn anew.

Nothing is masked or blurred: a scene without a part is a picture like those that the network was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import NDArray
from torch import Tensor

from explainkit.explanations.decisions import Decision
from explainkit.protocols import Images, Intervenable

Value = Literal["logit", "centered"]
"""What a part is worth something to: the target's logit, or that less the mean over classes."""

_Indices = NDArray[np.intp]

_CHUNK = 512
"""Pictures drawn and classified at a time."""


@frozen(eq=False, kw_only=True)
class PartTruth:
    """A network's logits on all S = 2^P subsets of the parts of N objects.

    Attributes
    ----------
    logits : Tensor, (N, S, C)
        In subset s stand the parts whose bits are set in s.
    targets : Tensor, (N,)
    present : Tensor, (N, P), bool
        Which parts the whole scene has.
    value : {"logit", "centered"}
        What `shapley` divides among the parts.
    decision : Decision
        The network's.
    """

    logits: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    present: Tensor = field(repr=False)
    value: Value = "logit"
    decision: Decision = field(factory=Decision)

    @property
    def values(self) -> Tensor:
        """The target's value with each subset, (N, S), float64."""
        logits = self.logits.double()
        explained = self._of_target(logits)
        return explained if self.value == "logit" else explained - logits.mean(2)

    @property
    def probabilities(self) -> Tensor:
        """The target's probability with each subset, (N, S), float64."""
        return self._of_target(self.decision.probabilities(self.logits.double()))

    @cached_property
    def shapley(self) -> Tensor:
        """What each part is worth, (N, P): its exact Shapley value; 0 for a part that is not there."""
        return shapley(self.values) * self.present

    def _of_target(self, values: Tensor) -> Tensor:
        return values.gather(2, self.targets[:, None, None].expand(-1, values.shape[1], 1))[..., 0]


def shapley(values: Tensor) -> Tensor:
    """Exact Shapley values (N, P) of games given by the values (N, 2^P) of every coalition.

    Shapley: A value for n-person games, 1953. Player p is in coalition s where bit p of s is set. The
    marginals of all are summed in the same order, so that players who are alike get the same number to the
    last bit.
    """
    parts = values.shape[1].bit_length() - 1
    others = torch.arange(1 << (parts - 1))
    sizes = (others[:, None] >> torch.arange(max(parts - 1, 1)) & 1).sum(1)
    probabilities = torch.tensor([1 / (parts * math.comb(parts - 1, size)) for size in sizes.tolist()])
    bits = torch.arange(parts)[:, None]
    without = (others >> bits << (bits + 1)) | (others & ((1 << bits) - 1))  # (P, 2^(P-1)): bit p put in as 0
    without = without.to(values.device)
    marginals = values[:, without | (1 << bits).to(values.device)] - values[:, without]
    return (marginals * probabilities.to(values)).sum(2)


def part_truth(
    predict: Callable[[Images], Tensor], split: Intervenable, ids: Tensor, targets: Tensor
) -> PartTruth:
    """The truth about the scenes `ids` (N,) of `split`; the costly part of a table, needed once a network.

    Subsets that differ only in parts that a scene lacks anyway are one picture, drawn once.

    Parameters
    ----------
    predict : callable
        A batch of n images to logits (n, C).
    """
    present = split.part_presence(ids)  # (N, P)
    table = subset_table(present.shape[1])
    rows, subsets, index = _distinct_pictures(present.numpy(), table.numpy())
    logits = torch.cat(
        [
            predict(split.with_parts(ids.cpu()[torch.from_numpy(row)], table[torch.from_numpy(subset)]))
            for row, subset in zip(_chunks(rows), _chunks(subsets), strict=True)
        ]
    )
    return PartTruth(
        logits=logits[torch.from_numpy(index).to(logits.device)].view(len(ids), len(table), -1),
        targets=targets.to(logits.device),
        present=present.to(logits.device),
    )


def subset_table(parts: int) -> Tensor:
    """Every subset of `parts` parts, (2^P, P), bool: in row s stand the parts whose bits are set in s."""
    return torch.arange(1 << parts)[:, None] >> torch.arange(parts) & 1 > 0


def _chunks(values: _Indices) -> list[_Indices]:
    return [values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK)]


def _distinct_pictures(
    present: NDArray[np.bool_], table: NDArray[np.bool_]
) -> tuple[_Indices, _Indices, _Indices]:
    """Row and subset of each picture that differs from all others, and which one each (scene, subset) is."""
    bits = 1 << np.arange(table.shape[1])
    visible = np.arange(len(table)) & (present @ bits)[:, None]  # (N, S): the subset that is left to see
    pictures, index = np.unique(
        (np.arange(len(present))[:, None] * len(table) + visible).ravel(), return_inverse=True
    )
    return pictures // len(table), pictures % len(table), index
