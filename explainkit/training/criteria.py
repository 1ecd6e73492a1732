"""What a classifier is trained and chosen by, of one class an image or of several labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def classification_loss(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of logits (N, C), right for what the labels are.

    Of one class an image, softmax cross-entropy; of multi-hot labels, and of a single logit, the binary
    cross-entropy of each label, in the mean over labels. Smoothed by Szegedy et al., CVPR 2016, section 7.

    Parameters
    ----------
    labels : Tensor, (N,) or (N, C)
        Whole numbers, below 2 for a single logit; or multi-hot.
    reduction : {"mean", "sum"}
        Over images.
    """
    if labels.ndim == 1 and logits.shape[1] > 1:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction=reduction)
    truth = (labels if labels.ndim == 2 else labels[:, None]).to(logits)
    truth = truth * (1 - label_smoothing) + label_smoothing / 2
    loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
    return loss.mean() if reduction == "mean" else loss.sum()


def mean_average_precision(scores: Tensor, truth: Tensor) -> float:
    """Average precision of each label that any image has, in the mean over labels; 0 where none has any.

    Of a label, the mean over thresholds of precision, weighted by the rise of recall; images of one score
    share a threshold (Everingham et al., IJCV 2010, section 4.2, without interpolation).

    Parameters
    ----------
    scores : Tensor, (N, C)
    truth : Tensor, (N, C), bool
    """
    order = scores.argsort(dim=0, descending=True, stable=True)
    ordered, hits = scores.gather(0, order), truth.gather(0, order).double()
    rank = torch.arange(1, len(scores) + 1, dtype=torch.double, device=scores.device)[:, None]
    precision = hits.cumsum(0) / rank
    # images of one score share the precision of the last of them
    is_last = torch.ones_like(hits, dtype=torch.bool)
    is_last[:-1] = ordered[:-1] != ordered[1:]
    index = torch.arange(len(scores), device=scores.device)[:, None].expand_as(order)
    last = torch.where(is_last, index, len(scores)).flip(0).cummin(0).values.flip(0)
    positives = hits.sum(0)
    has_positives = positives > 0
    if not has_positives.any():
        return 0.0
    average = (precision.gather(0, last.clamp(max=len(scores) - 1)) * hits).sum(0)
    return float((average[has_positives] / positives[has_positives]).mean())
