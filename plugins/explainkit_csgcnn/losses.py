"""How CSG-CNN learns: a standard path, a path through the gate of the true class, and a sparse gate."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.types import Batch
from explainkit.training.criteria import classification_loss
from explainkit.training.steps import Step
from explainkit_csgcnn.model import CSGCNNNetwork, projected


def sparsity(gate: Tensor, budget: float) -> Tensor:
    """By how much the sum of `gate` (K, C) is above `budget`: ``ReLU(||G||_1 - g)``.

    A sum over entries, as in the authors' code: the gradient of an entry does not shrink with their number.
    """
    return F.relu(gate.abs().sum() - budget)


def starvation(gate: Tensor, least: float) -> Tensor:
    """How many filters classes lack of `least` each, by the columns of `gate` (K, C); summed over classes."""
    return F.relu(least - gate.sum(0)).sum()


def standard_loss(
    network: CSGCNNNetwork, batch: Batch, step: Step, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Cross-entropy of the standard path, which does without the gate."""
    logits = network(batch.images)
    return {"cross_entropy": classification_loss(logits, batch.labels, label_smoothing)}


def gated_loss(
    network: CSGCNNNetwork,
    batch: Batch,
    step: Step,
    *,
    is_joint: bool = True,
    gated_weight: float = 1.0,
    sparsity_weight: float = 1e-2,
    classes_per_filter: float = 1.25,
    gate_density: float | None = None,
    starvation_weight: float = 0.0,
    min_filter_share: float = 0.5,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Cross-entropy through the gate of the true class, the price of the gate's sum, and its guard.

    ``CE(y, softmax(W a + b)) + l1 CE(y, softmax(W (G_y a) + b)) + l2 ReLU(||G||_1 - g)``: the relaxed problem
    of section 3.2 of the paper.

    Parameters
    ----------
    is_joint : bool
        Whether the standard path is in the same step; else it takes turns with this one.
    classes_per_filter, gate_density : float, float or None
        What g is: per filter, or as a share of all K x C entries, which goes first where it is given.
    min_filter_share : float
        Share of K/C filters below which a class lacks some.
    """
    outputs = network.outputs(batch.images, batch.labels)
    gated = classification_loss(outputs.gated_logits, batch.labels, label_smoothing)
    terms = {"gated_cross_entropy": gated_weight * gated}
    if is_joint:
        terms["cross_entropy"] = classification_loss(outputs.logits, batch.labels, label_smoothing)
    filters, classes = network.gate.shape
    budget = gate_budget(filters, classes, classes_per_filter, gate_density)
    terms["sparsity"] = sparsity_weight * sparsity(network.gate, budget)
    if starvation_weight:
        least = min_filter_share * filters / classes
        terms["starvation"] = starvation_weight * starvation(network.gate, least)
    return terms


def gate_budget(
    filters: int, classes: int, classes_per_filter: float = 1.25, gate_density: float | None = None
) -> float:
    """The sum of the gate that costs nothing, g.

    Examples
    --------
    >>> gate_budget(64, 8), gate_budget(64, 8, gate_density=0.5)
    (80.0, 256.0)
    """
    if gate_density is not None:
        return gate_density * filters * classes
    return classes_per_filter * filters


def project_gate(network: CSGCNNNetwork, step: Step) -> None:
    """Bring the gate back to what it may be, after a step of the optimizer; the same in every process."""
    with torch.no_grad():
        network.gate.copy_(projected(network.gate))
