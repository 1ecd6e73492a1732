"""How ProtoPNet learns: one function a loss, each of squared distances (N, P) to the nearest patches."""

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.images import Batch, ImageData
from explainkit.decomposition import full_precision
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
    cluster_weight: float = 0.8,
    separation_weight: float = 0.08,
    smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """The objective of stage 1, section 2.2: cross-entropy, ``Clst`` and ``Sep``."""
    parts = network.decompose(batch.images)
    owned = network.own.T[batch.labels]
    return {
        "cross_entropy": F.cross_entropy(parts.logits, batch.labels, label_smoothing=smoothing),
        "cluster": cluster_weight * cluster(parts.distances, owned),
        "separation": separation_weight * separation(parts.distances, owned),
    }


def start_loss(network: ProtoPNetNetwork, batch: Batch, smoothing: float = 0.0) -> dict[str, Tensor]:
    """Cross-entropy of a plain classifier: no part of the paper, whose backbones come with weights.

    In the prototype layer the best patch alone has a gradient, which is too little to learn from scratch.
    """
    return {"cross_entropy": F.cross_entropy(network(batch.images), batch.labels, label_smoothing=smoothing)}


def begin_at_patches(network: ProtoPNetNetwork, data: ImageData, images: int = 64, patches: int = 4) -> None:
    """End the start: let prototypes begin where the plain classifier found its evidence.

    Of some `images` of each class, the `patches` that speak most for it are clustered; a prototype begins as
    the middle of a cluster, so that there is something like it in many images.
    """
    start = network.start
    if start is None:
        return
    device = network.owner.device
    contrast = start.weight - start.weight.mean(0)
    for label in network.owner.unique().tolist():
        mine = (network.owner == label).nonzero()[:, 0]
        ids = (data.train.labels == label).nonzero()[:images, 0]
        features = full_precision(network.backbone(data.train.batch(ids).images.to(device)))
        evidence = (features * contrast[label][:, None, None]).sum(1).flatten(1)  # (n, h w)
        best = evidence.topk(min(patches, evidence.shape[1]), dim=1)
        latent = full_precision(network.add_on(features)).flatten(2).mT
        candidates = latent.gather(1, best.indices[:, :, None].expand(-1, -1, latent.shape[2])).flatten(0, 1)
        network.prototypes[mine] = _middles(candidates, int(best.values.argmax()), len(mine))
    network.start = None


def _middles(points: Tensor, first: int, count: int, steps: int = 20) -> Tensor:
    """The means of `count` clusters of points (n, D): k-means from points that are far from each other."""
    taken, nearest = [first], (points - points[first]).square().sum(1)
    for _ in range(count - 1):
        taken.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (points - points[taken[-1]]).square().sum(1))
    means = points[taken]
    for _ in range(steps):
        member = F.one_hot(torch.cdist(points, means).argmin(1), count).to(points)
        size = member.sum(0)[:, None]
        means = torch.where(size > 0, member.T @ points / size.clamp(min=1), means)
    return means
