"""How ProtoPNet learns: one function a loss, each of squared distances (N, P) to the nearest patches."""

from __future__ import annotations

import torch
from torch import Tensor

from explainkit.data.types import Batch
from explainkit.training.criteria import classification_loss
from explainkit.training.steps import Step
from explainkit_protopnet.model import ProtoPNetNetwork


def cluster(distances: Tensor, owned: Tensor) -> Tensor:
    """How far the nearest prototype of the right class is, ``Clst`` of section 2.2, stage 1.

    Parameters
    ----------
    distances : Tensor, (N, P)
    owned : Tensor, (N, P), bool
        Which prototypes are of the image's class.
    """
    return distances.masked_fill(~owned, torch.inf).amin(1).mean()


def separation(distances: Tensor, owned: Tensor) -> Tensor:
    """How near the nearest prototype of a wrong class is, ``Sep`` of section 2.2, stage 1; never above 0."""
    return -distances.masked_fill(owned, torch.inf).amin(1).mean()


def off_class_l1(weight: Tensor, own: Tensor) -> Tensor:
    """The sum of ``|weight|`` (C, P) between classes and prototypes of others: section 2.2, stage 3."""
    return weight.masked_fill(own.T, 0).abs().sum()


def clustering_loss(
    network: ProtoPNetNetwork,
    batch: Batch,
    step: Step,
    cluster_weight: float = 0.8,
    separation_weight: float = 0.08,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """The objective of stage 1, section 2.2: cross-entropy, ``Clst`` and ``Sep``."""
    outputs = network.outputs(batch.images)
    owned = network.own.T[batch.labels]
    return {
        "cross_entropy": classification_loss(outputs.logits, batch.labels, label_smoothing),
        "cluster": cluster_weight * cluster(outputs.distances, owned),
        "separation": separation_weight * separation(outputs.distances, owned),
    }


def start_loss(
    network: ProtoPNetNetwork, batch: Batch, step: Step, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Cross-entropy of a plain classifier: no part of the paper, whose backbones come with weights.

    In the prototype layer the best patch alone has a gradient, which is too little to learn from scratch.
    """
    return {"cross_entropy": classification_loss(network(batch.images), batch.labels, label_smoothing)}
