"""Where prototypes begin: at patches of training images of their class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.types import ImageDataset
from explainkit.networks.precision import full_precision
from explainkit_protopnet.model import ProtoPNetNetwork


def begin_at_patches(
    network: ProtoPNetNetwork, dataset: ImageDataset, images: int = 64, patches: int = 4
) -> None:
    """End the start: let prototypes begin where the plain classifier found its evidence.

    Of up to `images` images of each class, the `patches` that support it most are clustered; a prototype
    begins as the middle of a cluster, so that there is something like it in many images.
    """
    start = network.start
    if start is None:
        return
    contrast = start.weight - start.weight.mean(0)
    for label in network.owner.unique().tolist():
        rows = (network.owner == label).nonzero()[:, 0]
        ids = (dataset.train.labels == label).nonzero()[:images, 0]
        features = full_precision(network.backbone(dataset.train.batch(ids).images.to(start.weight)))
        evidence = (features * contrast[label][:, None, None]).sum(1).flatten(1)  # (n, h w)
        best = evidence.topk(min(patches, evidence.shape[1]), dim=1)
        latent = full_precision(network.add_on(features)).flatten(2).mT
        candidates = latent.gather(1, best.indices[:, :, None].expand(-1, -1, latent.shape[2])).flatten(0, 1)
        network.prototypes[rows] = _cluster_means(candidates, int(best.values.argmax()), len(rows))
    network.start = None


def _cluster_means(points: Tensor, first: int, count: int, steps: int = 20) -> Tensor:
    """The means of `count` clusters of points (n, D): k-means from points that are far from each other."""
    chosen, nearest = [first], (points - points[first]).square().sum(1)
    for _ in range(count - 1):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).square().sum(1))
    means = points[chosen]
    for _ in range(steps):
        member = F.one_hot(torch.cdist(points, means).argmin(1), count).to(points)
        size = member.sum(0)[:, None]
        means = torch.where(size > 0, member.T @ points / size.clamp(min=1), means)
    return means
