"""What a counterfactual is to reach: another class, or a label that holds or no longer does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.decisions import Decision
from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.validation import class_indices


@frozen(eq=False, kw_only=True)
class Goals:
    """For N images, what the network shall say.

    Attributes
    ----------
    decision : Decision
    targets : Tensor, (N,), int64
        A class, or a label.
    wanted : Tensor, (N,), bool
        Whether the label shall hold; true for a class.
    """

    decision: Decision
    targets: Tensor
    wanted: Tensor

    @property
    def kind(self) -> Tensor:
        """A number (N,) for each class; for each label two, for without and with it: see `Decision.kinds`."""
        return self.targets if self.decision.is_exclusive else 2 * self.targets + self.wanted

    def select(self, rows: Tensor) -> Goals:
        """The goals of the images `rows` (n,)."""
        return Goals(decision=self.decision, targets=self.targets[rows], wanted=self.wanted[rows])

    def to(self, device: torch.device | str) -> Goals:
        """The same with tensors on `device`."""
        return Goals(decision=self.decision, targets=self.targets.to(device), wanted=self.wanted.to(device))

    def are_reached(self, logits: Tensor) -> Tensor:
        """Whether the network says so by logits (N, C), (N,), bool; what is not finite says nothing."""
        if not logits.isfinite().all():
            is_finite = logits.isfinite().all(1)
            return is_finite & self.are_reached(logits.nan_to_num(0, 0, 0))
        if self.decision.is_exclusive:
            return logits.argmax(1) == self.targets
        return self.decision.holds(logits).gather(1, self.targets[:, None])[:, 0] == self.wanted

    def gaps(self, logits: Tensor) -> Tensor:
        """How far the goal is from being reached by logits (N, C), (N,): 0 or less where it is."""
        own = logits.gather(1, self.targets[:, None])[:, 0]
        if self.decision.is_exclusive:
            return logits.amax(1) - own
        return (self.decision.threshold - own) * self.signs(logits)

    def signs(self, like: Tensor) -> Tensor:
        """(N,): 1 where the target's logit shall rise, -1 where it shall fall."""
        return self.wanted.to(like) * 2 - 1

    def weights(self, decomposition: Decomposition, foils: Tensor) -> Tensor:
        """What each score adds to the way to the goal, (N, K).

        Parameters
        ----------
        foils : Tensor, (N,)
            The classes that win as it is.
        """
        own = decomposition.weights_for(self.targets)
        if self.decision.is_exclusive:
            return own - decomposition.weights_for(foils)
        return own * self.signs(own)[:, None]

    def lead(self, logits: Tensor, foils: Tensor) -> Tensor:
        """By how much the goal is ahead of `foils` (N,), or past the threshold, by logits (N, C): (N,)."""
        own = logits.gather(1, self.targets[:, None])[:, 0]
        if self.decision.is_exclusive:
            return own - logits.gather(1, foils[:, None])[:, 0]
        return (own - self.decision.threshold) * self.signs(own)


def default_goals(decision: Decision, logits: Tensor) -> Goals:
    """The runners-up; or the label that is nearest to holding, or to not holding.

    Raises
    ------
    InputError
        For a network of one class.
    """
    if decision.is_exclusive:
        if logits.shape[1] < 2:
            raise InputError("Expected a network of two classes or more: there is none to change to.")
        targets = logits.topk(2, 1).indices[:, 1]
        return Goals(decision=decision, targets=targets, wanted=torch.ones_like(targets, dtype=torch.bool))
    targets = (logits - decision.threshold).abs().argmin(1)
    holds = decision.holds(logits).gather(1, targets[:, None])[:, 0]
    return Goals(decision=decision, targets=targets, wanted=~holds)


def goals_for(decision: Decision, targets: Any, classes: Sequence[str], count: int) -> Goals:
    """The goals that a caller names: classes by name or index; of labels also ``"not <label>"``.

    Of a single label 0 is without it, 1 with it.

    Raises
    ------
    InputError, UnknownNameError
        As `class_indices`.
    """
    if len(classes) == 1 and not decision.is_exclusive:
        sides = class_indices(targets, decision.sides(classes), count)
        return Goals(decision=decision, targets=torch.zeros_like(sides), wanted=sides == 1)
    if decision.is_exclusive or isinstance(targets, Tensor):
        indices = class_indices(targets, classes, count)
        return Goals(decision=decision, targets=indices, wanted=torch.ones(count, dtype=torch.bool))
    is_one = isinstance(targets, str) or not isinstance(targets, Iterable)
    items: list[Any] = [targets] * count if is_one else list(targets)
    if any(isinstance(item, list | tuple) for item in items):
        raise InputError("Expected one target an image, which shall hold or no longer do; got lists of them.")
    labels = {decision.absent(name): name for name in classes} | {f"not {name}": name for name in classes}
    wanted = [item in classes or item not in labels for item in items]
    names = [item if is_wanted else labels[item] for item, is_wanted in zip(items, wanted, strict=True)]
    return Goals(decision=decision, targets=class_indices(names, classes, count), wanted=torch.tensor(wanted))
