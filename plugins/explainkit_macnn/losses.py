"""How MA-CNN learns: maps that are compact and apart, and parts that together are right (section 3.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.types import Batch
from explainkit.explanations.spatial import best_cells
from explainkit.training.criteria import classification_loss
from explainkit.training.steps import Step
from explainkit_macnn.model import MACNNNetwork, MACNNOutputs

PartLoss = Literal["joint", "each"]
"""Whether all parts together shall be right, or each by itself."""


def distance_loss(attention: Tensor) -> Tensor:
    """How far the mass of each map (N, P, h, w) lies from the map's peak, summed over parts: Dis.

    ``sum_p M_i(p) |p - t_i|^2 / (h w)``, in the mean over images; the peak t_i is taken as it is. The paper
    does not divide by the cells; so the weight of other terms would depend on the grid.
    """
    (height, width), cells = attention.shape[2:], best_cells(attention)[..., None]
    down = torch.arange(height, device=cells.device) - cells // width  # (N, P, h)
    along = torch.arange(width, device=cells.device) - cells % width  # (N, P, w)
    of_rows = (attention.sum(3) * down.square()).sum(2)
    of_columns = (attention.sum(2) * along.square()).sum(2)
    return (of_rows + of_columns).sum(1).mean() / (height * width)


def diversity_loss(attention: Tensor, margin: float) -> Tensor:
    """How much mass of each map (N, P, h, w) lies where another one is above `margin`, summed: Div.

    ``sum_p M_i(p) (max_(k != i) M_k(p) - margin)``, in the mean over images; below 0 where maps keep apart,
    ``-P margin`` at least. The maximum over no other map is 0.
    """
    others = _largest_other(attention)
    return (attention * (others - margin)).sum((1, 2, 3)).mean()


def _largest_other(attention: Tensor) -> Tensor:
    """At each cell of each map the largest value of all other maps there, (N, P, h, w)."""
    parts = attention.shape[1]
    if parts == 1:
        return torch.zeros_like(attention)
    values, order = attention.topk(2, dim=1)
    index = torch.arange(parts, device=attention.device)[:, None, None]
    return torch.where(order[:, :1] == index, values[:, 1:], values[:, :1])


def classification(
    outputs: MACNNOutputs, labels: Tensor, part_loss: PartLoss, scale: float, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of the sum of logits by part, or the sum of those of each part.

    Parameters
    ----------
    scale : float
        What logits by part were multiplied by, `MACNNNetwork.scale`: each part by itself is asked without.
    """
    if part_loss == "joint":
        return classification_loss(outputs.logits, labels, label_smoothing)
    by_part = (outputs.part_logits / scale).unbind(1)
    return torch.stack([classification_loss(logits, labels, label_smoothing) for logits in by_part]).sum()


def grouping_terms(
    attention: Tensor, weight: float, diversity_weight: float, margin: float
) -> dict[str, Tensor]:
    """``L_cng`` of section 3.2: compact maps, and apart.

    Parameters
    ----------
    margin : float
        In multiples of the value 1 / (h w) of the uniform map.
    """
    cells = attention.shape[2] * attention.shape[3]
    return {
        "distance": weight * distance_loss(attention),
        "diversity": weight * diversity_weight * diversity_loss(attention, margin / cells),
    }


def membership_loss(network: MACNNNetwork, batch: Batch, step: Step) -> dict[str, Tensor]:
    """Of the grouping layers alone: filters belong to the parts that clustering gave them."""
    logits = network.outputs(batch.images).membership_logits
    parts = torch.arange(network.parts, device=logits.device)
    given = (network.groups == parts[:, None]).to(logits).expand_as(logits)
    return {"membership": F.binary_cross_entropy_with_logits(logits, given)}


def grouping_loss(
    network: MACNNNetwork, batch: Batch, step: Step, diversity_weight: float = 2.0, margin: float = 16.0
) -> dict[str, Tensor]:
    """Of the grouping layers alone: compact maps, and apart."""
    attention = network.outputs(batch.images).attention
    return grouping_terms(attention, 1.0, diversity_weight, margin)


def part_classification_loss(
    network: MACNNNetwork,
    batch: Batch,
    step: Step,
    part_loss: PartLoss = "joint",
    grouping_weight: float = 0.0,
    diversity_weight: float = 2.0,
    margin: float = 16.0,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Of features and linear layers: parts that are right, and still compact and apart.

    Parameters
    ----------
    grouping_weight : float
        Of ``L_cng``, without which features would undo what grouping has learned.
    """
    outputs = network.outputs(batch.images)
    cross_entropy = classification(outputs, batch.labels, part_loss, network.scale, label_smoothing)
    terms = {"cross_entropy": cross_entropy}
    if grouping_weight:
        terms |= grouping_terms(outputs.attention, grouping_weight, diversity_weight, margin)
    return terms
