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
    if isinstance(decision, Decision):
        chosen = decision
    elif decision is not None:
        chosen = Decision(rule=as_decision(decision).rule, outputs=last.outputs)
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
    if chosen.negative is not None and (count > 1 or chosen.rule != "sigmoid"):
        raise InputError(
            f"Expected a negative class, as {chosen.negative!r}, for one output with decision 'sigmoid'; "
            f"got {count} outputs and decision {chosen.rule!r}."
        )
    if classes is None:
        return tuple(f"class {index}" for index in range(count)), chosen
    names = check_class_names(classes)
    if count == 1 and len(names) == 2 and chosen.rule == "sigmoid":
        return names[1:], Decision(rule="sigmoid", outputs=chosen.outputs, negative=names[0])
    if len(names) != count:
        more = ", or two: below its threshold, and above" if count == 1 else ""
        raise UnsupportedNetworkError(
            f"Expected {count} class names, one a logit{more}; got {len(names)}."
            if count > 1
            else f"Expected a class name for the one output{more}; got {len(names)}."
        )
    if chosen.negative in names:
        raise InputError(f"Expected class names that differ, as a list; got {[chosen.negative, *names]!r}.")
    return names, chosen


def stated_decision(network: nn.Module) -> Decision | None:
    """How `network` says that it decides, where explainkit has written that down on it."""
    stated = getattr(network, "output_decision", None)
    return stated if isinstance(stated, Decision) else None  # networks have attributes of all names


def last_operation(network: nn.Module, images: Tensor) -> Decision:
    """What the end of `network` says of its outputs: softmax, sigmoid, or logits where it is neither.

    Read off the graph of gradients, so that functional operations are seen. Other outputs that are never
    negative and sum to 1 are probabilities too, such as the mean of several softmaxes.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            outputs = network(images.detach().clone().requires_grad_())
    except (NotImplementedError, RuntimeError):  # of integer kernels and scripts that have no gradients
        with torch.no_grad():
            outputs = network(images)
    node: Any = outputs.grad_fn
    while node is not None and node.name().startswith(PASSIVE) and node.next_functions:
        node = node.next_functions[0][0]
    name = "" if node is None else node.name()
    if name not in LAST_OPERATIONS:
        gap = (outputs.detach().double().sum(1) - 1).abs()
        is_distribution = outputs.shape[1] > 1 and bool((outputs >= 0).all() and (gap < 1e-4).all())
        return Decision(outputs="probabilities") if is_distribution else Decision()
    rule, kind = LAST_OPERATIONS[name]
    return Decision(rule=rule, outputs=kind)  # type: ignore[arg-type]


def given_targets(
    decision: Decision, classes: Sequence[str], targets: Any, count: int, device: torch.device
) -> tuple[Tensor | None, Tensor]:
    """Which of `count` images each explanation is about, and its class; ``None``: one each, in order.

    Of a single label either side can be named, by name or as 0 and 1: both are explained by its one output.

    Raises
    ------
    InputError, UnknownNameError
        As `target_pairs`.
    """
    is_mask = getattr(targets, "dtype", None) in (torch.bool, bool)
    if len(classes) == 1 and decision.rule == "sigmoid" and not is_mask:
        rows, sides = target_pairs(targets, decision.sides(classes), count)
        indices = torch.zeros_like(sides)
    else:
        rows, indices = target_pairs(targets, classes, count)
    return None if rows is None else rows.to(device), indices.to(device)
