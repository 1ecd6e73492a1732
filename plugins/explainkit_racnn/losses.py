"""How RA-CNN learns: scales and proposals take turns, each held still while the other moves (section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.types import Batch
from explainkit.training.criteria import classification_loss
from explainkit.training.steps import Step
from explainkit_racnn.model import RACNNNetwork, RACNNOutputs


def classification(outputs: RACNNOutputs, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The cross-entropy of every scale's own head, summed over scales: the first sum of equation 5."""
    return torch.stack(
        [classification_loss(logits, labels, label_smoothing) for logits in outputs.by_scale]
    ).sum()


def ranking(
    outputs: RACNNOutputs, labels: Tensor, margin: float = 0.05, detach_reference: bool = True
) -> Tensor:
    """How far each finer scale is from being surer of the truth than the one before: equation 6, summed.

    The hinge ``max(0, p_s - p_(s+1) + margin)`` on softmax probabilities; at its floor, when all are sure,
    each pair still costs `margin`.

    Parameters
    ----------
    detach_reference : bool
        Take the coarser scale as it is. Literally, its own gradient cancels the one that it has as the finer
        of the pair before.
    """
    confidence = confidence_in(outputs.by_scale, labels)  # (S, N)
    before, after = confidence[:-1], confidence[1:]
    return ((before.detach() if detach_reference else before) - after + margin).clamp(min=0).mean(1).sum()


def confidence_in(by_scale: Tensor, labels: Tensor) -> Tensor:
    """The probability of the truth at each scale, (S, N); of several labels, in the mean over labels."""
    if labels.ndim == 1 and by_scale.shape[2] > 1:
        columns = labels[None, :, None].expand(len(by_scale), -1, 1)
        return by_scale.softmax(2).gather(2, columns)[..., 0]
    truth = (labels if labels.ndim == 2 else labels[:, None]).to(by_scale)
    return torch.where(truth > 0.5, by_scale, -by_scale).sigmoid().mean(2)


def warm_loss(
    network: RACNNNetwork, batch: Batch, step: Step, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """The whole image alone."""
    outputs = network.outputs(batch.images, 1)
    return {"cross_entropy": classification(outputs, batch.labels, label_smoothing)}


def look_loss(
    network: RACNNNetwork, batch: Batch, step: Step, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """All scales, each by its own head, in the boxes as they are."""
    outputs = network.outputs(batch.images)
    return {"cross_entropy": classification(outputs, batch.labels, label_smoothing)}


def rank_loss(
    network: RACNNNetwork, batch: Batch, step: Step, margin: float = 0.05, detach_reference: bool = True
) -> dict[str, Tensor]:
    """The boxes alone: where to look so that a closer look is a surer one."""
    outputs = network.outputs(batch.images)
    return {"ranking": ranking(outputs, batch.labels, margin, detach_reference)}


def aim_loss(network: RACNNNetwork, batch: Batch, step: Step, half_size: float = 0.3) -> dict[str, Tensor]:
    """Squares of one size around the strongest response: how proposals begin (section 3.3, step 2)."""
    outputs = network.outputs(batch.images)
    aims = [
        F.smooth_l1_loss(square, strongest_squares(features, half_size), beta=0.05)
        for square, features in zip(outputs.proposed, outputs.features, strict=False)
    ]
    return {"aim": torch.stack(aims).sum()}


def fusion_loss(
    network: RACNNNetwork, batch: Batch, step: Step, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Cross-entropy of the head over all scales."""
    logits = network(batch.images)
    return {"cross_entropy": classification_loss(logits, batch.labels, label_smoothing)}


def strongest_squares(features: Tensor, half_size: float) -> Tensor:
    """Squares (N, 3) of half side `half_size` around the cell of the largest mean response, moved inside."""
    height, width = features.shape[2:]
    cell = features.detach().mean(1).flatten(1).argmax(1)
    center = torch.stack([(cell % width + 0.5) / width, (cell // width + 0.5) / height], 1)
    return torch.cat([center.clamp(half_size, 1 - half_size), torch.full_like(center[:, :1], half_size)], 1)
