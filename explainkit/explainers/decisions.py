"""Which decision a network's outputs stand for, as is said or as its last operation shows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from explainkit.errors import DecisionWarning, InputError, UnsupportedNetworkError
from explainkit.explainers.identity import check_class_names
from explainkit.explanations.decisions import Decision, Outputs, as_decision
from explainkit.explanations.validation import target_pairs

LAST_OPERATIONS: dict[str, tuple[str, Outputs]] = {
    "SoftmaxBackward0": ("softmax", "probabilities"),
    "LogSoftmaxBackward0": ("softmax", "log-probabilities"),
    "SigmoidBackward0": ("sigmoid", "probabilities"),
}
"""What the outputs are of a network that ends so."""

PASSIVE = (
    "View",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Clone",
    "Alias",
    "ToCopy",
    "Select",
    "Slice",
    "Flatten",
)
"""Operations that change no number."""


def decide(
    count: int, classes: Sequence[str] | None, decision: Decision | str | None, last: Decision | None = None
) -> tuple[tuple[str, ...], Decision]:
    """The names of a network's `count` outputs, and how they become an answer.

    Parameters
    ----------
    classes : sequence of str or None
        One a output, or two for a network of one logit: what it says below 0, and above.
    decision : Decision, str or None
        As it was said; ``None``: as `last` shows, sigmoid for one output, softmax for more.
    last : Decision or None
        What the network's last operation shows.

    Raises
    ------
    InputError
        For softmax over one output, and for names that do not differ.
    UnsupportedNetworkError
        For another number of names than outputs.
    """
    last = last or Decision()
    if decision is not None:
        said = as_decision(decision)
        negative, outputs = said.negative, last.outputs if said.outputs == "logits" else said.outputs
        chosen = Decision(rule=said.rule, outputs=outputs, negative=negative)
    elif count == 1:
        chosen = Decision(rule="sigmoid", outputs=last.outputs)
        warnings.warn(
            "The network has one output, which is read as a label that holds above "
            f"{chosen.threshold:g} (decision='sigmoid'). Say so, or decision='identity' for a number.",
            DecisionWarning,
            stacklevel=5,
        )
    else:
        chosen = last
    if chosen.rule == "softmax" and count == 1:
        raise InputError(
            "Expected two classes or more for decision 'softmax'; the network has one output. "
            "Give decision='sigmoid', or 'identity' for a number."
        )
    if classes is None:
        return tuple(f"class {index}" for index in range(count)), chosen
    names = check_class_names(classes)
    if count == 1 and len(names) == 2 and chosen.rule == "sigmoid":
        return names[1:], Decision(rule="sigmoid", outputs=chosen.outputs, negative=names[0])
    if len(names) != count:
        raise UnsupportedNetworkError(f"Expected {count} class names, one a logit; got {len(names)}.")
    return names, chosen


def last_operation(network: nn.Module, images: Tensor) -> Decision:
    """What the end of `network` says of its outputs: softmax, sigmoid, or logits where it is neither.

    Read off the graph of gradients, so that functional operations are seen; where there is none, outputs
    that are never negative and sum to 1 are probabilities.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            outputs = network(images.detach().clone().requires_grad_())
    except (NotImplementedError, RuntimeError):  # of integer kernels and scripts that have no gradients
        with torch.no_grad():
            outputs = network(images)
    node: Any = outputs.grad_fn
    if node is None:
        sums = outputs.detach().double().sum(1)
        is_distribution = outputs.shape[1] > 1 and bool(
            (outputs >= 0).all() and ((sums - 1).abs() < 1e-4).all()
        )
        return Decision(outputs="probabilities") if is_distribution else Decision()
    while node is not None and node.name().startswith(PASSIVE) and node.next_functions:
        node = node.next_functions[0][0]
    rule, kind = LAST_OPERATIONS.get("" if node is None else node.name(), ("softmax", "logits"))
    return Decision(rule=rule, outputs=kind)  # type: ignore[arg-type]


def given_targets(
    decision: Decision, classes: Sequence[str], targets: Any, count: int, device: torch.device
) -> tuple[Tensor | None, Tensor]:
    """Which of `count` images each explanation is about, and its class; ``None``: one each, in order.

    The name of the negative class stands for the one label, by which either side is explained.

    Raises
    ------
    InputError, UnknownNameError
        As `target_pairs`.
    """
    if decision.negative is not None:
        targets = _replace_name(targets, decision.negative, classes[0])
    rows, indices = target_pairs(targets, classes, count)
    return None if rows is None else rows.to(device), indices.to(device)


def _replace_name(targets: Any, name: str, other: str) -> Any:
    """`targets`, in whatever lists they are, with `name` replaced."""
    if isinstance(targets, list | tuple):
        return [_replace_name(item, name, other) for item in targets]
    return other if isinstance(targets, str) and targets == name else targets
