"""What happens between the phases of MA-CNN, and what is measured in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from explainkit.data.splits import spread_ids
from explainkit.data.types import Batch, ImageDataset
from explainkit.training import Epoch
from explainkit_macnn.attention import peak_points
from explainkit_macnn.grouping import QUANTILE, confident, group_channels
from explainkit_macnn.losses import distance_loss, diversity_loss
from explainkit_macnn.model import MACNNNetwork, MACNNOutputs

CHUNK = 256
"""Images looked at at a time."""


def group_filters(
    network: MACNNNetwork, dataset: ImageDataset, images: int = 1000, quantile: float = QUANTILE
) -> None:
    """Give each filter its part, by where it peaks in `images` of the training split.

    They are spread evenly over the split, in its order, and seen as they are, without augmentation. A part
    has at least a fourth of an even share of the filters.
    """
    points, strength = [], []
    for features in map(network.features, _spread_images(network, dataset, images)):
        points.append(peak_points(features).cpu())
        strength.append(features.flatten(2).amax(2).cpu())
    weights = confident(torch.cat(strength), quantile)
    min_size = network.channels // (4 * network.parts)
    groups = group_channels(torch.cat(points), weights, network.parts, min_size)
    network.groups.copy_(groups.to(network.groups.device))


def begin_attending(network: MACNNNetwork, dataset: ImageDataset, images: int = 1000) -> None:
    """From now on parts look where their filters respond, not everywhere.

    Features at a peak are larger than their mean over the image. The linear layers take that over: each
    part's is divided by how much longer its features become, in the mean over `images`.
    """
    network.is_grouped.fill_(True)
    before, after = [], []
    for outputs in map(network.outputs, _spread_images(network, dataset, images)):
        before.append(outputs.features.mean((2, 3)).norm(dim=1))  # (n,)
        after.append(outputs.scores.norm(dim=2))  # (n, P)
    ratio = torch.cat(before).mean() / torch.cat(after).mean(0).clamp(min=1e-12)
    network.heads.weight.mul_(ratio[:, None, None])


def measure_parts(network: MACNNNetwork, dataset: ImageDataset) -> None:
    """How often each part alone is right on the validation split, which the network keeps."""
    if not len(dataset.validation):
        return
    right = [
        correct_by_part(outputs, batch, dataset)
        for batch, outputs in _outputs_of(network, dataset.batches("validation", CHUNK))
    ]
    network.part_accuracy.copy_(torch.cat(right).mean(0))


def correct_by_part(outputs: MACNNOutputs, batch: Batch, dataset: ImageDataset) -> Tensor:
    """Whether each part alone is right of each image, (N, P), 0 or 1; of labels, the share that it has."""
    logits = outputs.part_logits
    truth = dataset.decision.truth(batch.labels.to(logits.device), logits.shape[2])
    is_right = torch.stack([dataset.decision.holds(of_part) == truth for of_part in logits.unbind(1)], 1)
    share = is_right.to(logits).mean(2)
    return (share == 1).to(share) if dataset.decision.is_exclusive else share


def part_metrics(
    network: MACNNNetwork, dataset: ImageDataset, images: int = 256, margin: float = 16.0
) -> Mapping[str, float]:
    """What is recorded of an epoch on the first validation images.

    Accuracy by part; both terms of ``L_cng`` without weights; over how many cells a map is spread, exp of its
    entropy; and how far apart the peaks of two parts are in the mean, as a share of the grid's diagonal.
    """
    if not len(dataset.validation):
        return {}
    batch = dataset.validation.batch(torch.arange(min(images, len(dataset.validation))))
    ((batch, outputs),) = _outputs_of(network, [batch])
    attention, cells = outputs.attention, outputs.attention[0, 0].numel()
    accuracy = correct_by_part(outputs, batch, dataset).mean(0)
    entropy = torch.special.entr(attention).sum((2, 3)).mean()
    return {f"accuracy of part {i + 1}": value for i, value in enumerate(accuracy.tolist())} | {
        "distance": distance_loss(attention).item(),
        "diversity": diversity_loss(attention, margin / cells).item(),
        "cells": entropy.exp().item(),
        "peaks apart": peaks_apart(attention),
    }


def peaks_apart(attention: Tensor) -> float:
    """The mean distance of the peaks of two parts, as a share of the grid's diagonal; 0 of a single part."""
    parts = attention.shape[1]
    if parts < 2:
        return 0.0
    points = peak_points(attention, refine=True)
    diagonal = (attention.shape[2] ** 2 + attention.shape[3] ** 2) ** 0.5
    return float(torch.cdist(points, points).sum() / (len(points) * parts * (parts - 1)) / diagonal)


def settled(_: MACNNNetwork, __: ImageDataset, history: Sequence[Epoch], change: float = 0.002) -> bool:
    """Whether neither half changed much in the last round: parts stay where they are, and as right."""
    ends = [epoch for epoch in history if epoch.phase == "classify" and epoch.epoch == history[-1].epoch]
    if len(ends) < 2 or not ends[-1].val_metrics:
        return False
    before, after = ends[-2].val_metrics, ends[-1].val_metrics
    names = [name for name in after if name.startswith(("accuracy", "peaks"))]
    return all(abs(after[name] - before[name]) < change for name in names)


def _spread_images(network: MACNNNetwork, dataset: ImageDataset, images: int) -> Iterator[Tensor]:
    """`images` of the training split, spread evenly over it, as the network takes them."""
    like = network.heads.weight
    for part in spread_ids(len(dataset.train), images).split(CHUNK):
        yield dataset.train.batch(part).images.to(like.device, like.dtype)


def _outputs_of(
    network: MACNNNetwork, batches: Iterator[Batch] | Sequence[Batch]
) -> Iterator[tuple[Batch, MACNNOutputs]]:
    like = network.heads.weight
    for batch in batches:
        yield batch, network.outputs(batch.images.to(like.device, like.dtype))
