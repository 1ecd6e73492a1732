"""How a network's outputs become an answer: one class of several, labels that hold or not, or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from attrs import frozen
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.json_values import JsonValue
from explainkit.explanations.sentences import listed

Rule = Literal["softmax", "sigmoid", "identity"]
"""One class of several; each label for itself; numbers that decide nothing."""

Outputs = Literal["logits", "probabilities", "log-probabilities"]
"""What a network returns."""

NUMBERS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip

UNITS: dict[Outputs, str] = {
    "logits": "logit", "probabilities": "probability", "log-probabilities": "log-probability",
}  # fmt: skip


@frozen(kw_only=True)
class Decision(JsonValue):
    """How the outputs (N, C) of a network become an answer.

    Attributes
    ----------
    rule : {"softmax", "sigmoid", "identity"}
        ``"softmax"``: the class with the largest output, of C that exclude each other. ``"sigmoid"``: each
        of C labels for itself, where its probability is above 0.5. ``"identity"``: the outputs are numbers
        of their own, such as an age, and decide nothing.
    outputs : {"logits", "probabilities", "log-probabilities"}
        What the network returns.
    negative : str or None
        What an input is called for which the only label does not hold, such as ``"healthy"``.

    Raises
    ------
    InputError
        On construction, for another rule or kind of output.

    Examples
    --------
    >>> decision = Decision(rule="sigmoid")
    >>> decision.holds(torch.tensor([[-8.65], [2.0]])).tolist()
    [[False], [True]]
    """

    rule: Rule = "softmax"
    outputs: Outputs = "logits"
    negative: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise InputError(f"Expected decision as one of {get_args(Rule)}; got {self.rule!r}.")
        if self.outputs not in get_args(Outputs):
            raise InputError(f"Expected outputs as one of {get_args(Outputs)}; got {self.outputs!r}.")
        if not (self.negative is None or isinstance(self.negative, str)):
            raise InputError(f"Expected the negative class by name; got {self.negative!r}.")

    @property
    def is_exclusive(self) -> bool:
        """Whether one class wins over all others."""
        return self.rule != "sigmoid"

    @property
    def unit(self) -> str:
        """What one output is called: ``"logit"``, ``"probability"``, ``"log-probability"``, ``"output"``."""
        return "output" if self.rule == "identity" and self.outputs == "logits" else UNITS[self.outputs]

    @property
    def threshold(self) -> float:
        """The output above which a label holds."""
        return {"logits": 0.0, "probabilities": 0.5, "log-probabilities": -0.6931471805599453}[self.outputs]

    def holds(self, outputs: Tensor) -> Tensor:
        """Which classes or labels the network says, (N, C), bool: one an image, unless labels are."""
        if self.is_exclusive:
            largest = outputs.argmax(1, keepdim=True)
            return torch.zeros_like(outputs, dtype=torch.bool).scatter(1, largest, True)
        return outputs > self.threshold

    def strongest(self, outputs: Tensor) -> Tensor:
        """The class or label with the largest output, (N,), int64."""
        return outputs.argmax(1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Of each class or label, (..., C).

        Raises
        ------
        InputError
            For outputs that decide nothing.
        """
        if self.outputs == "probabilities":
            return outputs
        if self.outputs == "log-probabilities":
            return outputs.exp()
        if self.rule == "identity":
            raise InputError("Expected outputs that decide something; with decision 'identity' none does.")
        return outputs.softmax(-1) if self.rule == "softmax" else outputs.sigmoid()

    def explained(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """What is explained unless targets are given: rows (M,) and classes (M,).

        The class that wins; each label that holds, and where none does the one that is nearest to it; each
        of several numbers.
        """
        if self.rule == "identity":
            count, numbers = outputs.shape
            rows = torch.arange(count, device=outputs.device).repeat_interleave(numbers)
            return rows, torch.arange(numbers, device=outputs.device).repeat(count)
        if self.is_exclusive or outputs.shape[1] == 1:
            return torch.arange(len(outputs), device=outputs.device), self.strongest(outputs)
        holds = self.holds(outputs)
        nearest = torch.zeros_like(holds).scatter(1, outputs.argmax(1, keepdim=True), True)
        rows, classes = (holds | (nearest & ~holds.any(1, keepdim=True))).nonzero(as_tuple=True)
        return rows, classes

    def truth(self, labels: Tensor, count: int) -> Tensor:
        """Labels (N,), or multi-hot (N, C), as which of `count` classes hold, (N, C), bool.

        Raises
        ------
        InputError
            For labels of another shape or range.
        """
        if labels.ndim == 2 and labels.shape[1] == count:
            return labels > 0.5
        names = 2 if count == 1 and not self.is_exclusive else count
        if labels.ndim != 1 or labels.is_floating_point():
            raise InputError(
                f"Expected labels as whole numbers (N,), or multi-hot (N, {count}); got {labels.dtype} "
                f"{tuple(labels.shape)}."
            )
        low, high = (int(end) for end in labels.aminmax()) if len(labels) else (0, 0)
        if not 0 <= low <= high < names:
            raise InputError(f"Expected labels in 0 … {names - 1}; got {low} … {high}.")
        if names > count:
            return labels[:, None] == 1
        return torch.nn.functional.one_hot(labels.long(), count) > 0

    def kinds(self, truth: Tensor) -> Tensor:
        """Which kinds images of classes `truth` (N, C) are of, bool: their class, (N, C).

        Of labels there are two kinds each, without and with it, one after the other: (N, 2 C).
        """
        if self.is_exclusive:
            return truth
        return torch.stack([~truth, truth], 2).flatten(1)

    def describe(self, holds: Tensor, classes: Sequence[str]) -> str:
        """What an input is of which the classes `holds` (C,) hold, in words.

        Examples
        --------
        >>> decision = Decision(rule="sigmoid")
        >>> decision.describe(torch.tensor([False, False, False]), ("cat", "dog", "hen"))
        'none of the three labels'
        >>> decision.describe(torch.tensor([True, False, True]), ("cat", "dog", "hen"))
        'cat and hen'
        """
        names = [name for name, is_held in zip(classes, holds.tolist(), strict=True) if is_held]
        if names:
            return listed(names)
        if len(classes) == 1:
            return self.absent(classes[0])
        count = NUMBERS[len(classes)] if len(classes) < len(NUMBERS) else str(len(classes))
        return f"none of the {count} labels"

    def class_names(self, classes: Sequence[str]) -> tuple[str, ...]:
        """The names of all that an input can be, the negative class first."""
        return tuple(classes) if self.negative is None else (self.negative, *classes)

    def sides(self, classes: Sequence[str]) -> tuple[str, str]:
        """What an input is called for which the only label does not hold, and does."""
        return self.absent(classes[0]), classes[0]

    def absent(self, name: str) -> str:
        """What an input is called for which the label `name` does not hold."""
        return self.negative or f"not {name}"

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return {"rule": self.rule, "outputs": self.outputs, "negative": self.negative}


def as_decision(decision: Decision | str) -> Decision:
    """A rule by name as a `Decision`."""
    return decision if isinstance(decision, Decision) else Decision(rule=decision)  # type: ignore[arg-type]
