"""Where prototypes begin, how they are projected, and what is kept of them when training is over."""

from __future__ import annotations

import warnings

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from explainkit.data.types import ImageDataset
from explainkit.explanations.colors import as_rgb
from explainkit_prototypednn.model import NEAREST, PrototypeDNNNetwork, squared_distances

ROUNDS = 20
"""Of k-means."""

LEAST_SPREAD = 0.1
"""Of distances, so that first weights are at most 10: Adam moves larger ones too slowly."""


def latent_points(network: PrototypeDNNNetwork, dataset: ImageDataset, batch_size: int = 256) -> Tensor:
    """Latent points of all training images as they are, (N, q)."""
    batches = dataset.batches("train", batch_size)
    return torch.cat([network.encode(batch.images.to(network.prototypes)) for batch in batches])


def all_distances(points: Tensor, prototypes: Tensor, chunk: int = 256) -> Tensor:
    """`squared_distances` of many points (N, q), so few at once that the differences fit: (N, K)."""
    return torch.cat([squared_distances(part, prototypes) for part in points.split(chunk)])


def begin_at_images(network: PrototypeDNNNetwork, dataset: ImageDataset) -> None:
    """Prototypes become means of what is alike: k-means of latent points, by class where there are enough.

    Each class gets as many as any other, or one more; with fewer prototypes than classes, or several labels
    an image, prototypes are of no class and the last layer stays. Else a class's logit is from then on minus
    the mean distance to its own prototypes, in such units that the logits of an image deviate by 1 or less.
    """
    points = latent_points(network, dataset)
    labels = dataset.train.labels.to(points.device)
    count, classes = len(network.prototypes), network.head.out_features
    by_class = labels.ndim == 1 and dataset.decision.is_exclusive and count >= classes
    owners = torch.arange(count, device=points.device) % (classes if by_class else 1)
    groups = labels if by_class else torch.zeros(len(points), dtype=torch.long, device=points.device)
    means = k_means(points, groups, owners)
    network.prototypes.copy_(means)
    if by_class:
        own = torch.zeros_like(network.head.weight)
        own[owners, torch.arange(count, device=points.device)] = 1
        own /= own.sum(1, keepdim=True)
        spread = (all_distances(points, means) @ own.T).std(1).mean()
        network.head.weight.copy_(-own / spread.clamp(min=LEAST_SPREAD))


def k_means(points: Tensor, groups: Tensor, owners: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Means (K, q) of points (N, q), by SciPy's k-means; mean k is of points of the group ``owners[k]``.

    It begins with points spread over each group by their order, so that it is the same in every run. A mean
    that no point is nearest to stays where it is, and one of a group without points where all points lie.

    Parameters
    ----------
    groups : Tensor, (N,)
    owners : Tensor, (K,)
    """
    means = spread_points(points, groups, owners)
    for group in owners.unique():
        rows, own = points[groups == group], owners == group
        if len(rows):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of means that no point is nearest to
                moved, _ = kmeans2(rows.cpu().numpy(), means[own].cpu().numpy(), iter=rounds, minit="matrix")
            means[own] = torch.from_numpy(moved).to(means)
    return means


def spread_points(points: Tensor, groups: Tensor, owners: Tensor) -> Tensor:
    """One point of its own group for each of `owners`, evenly spaced among that group's, (K, q)."""
    order = groups.argsort(stable=True)
    largest = int(torch.cat([groups, owners]).max()) + 1
    sizes = torch.bincount(groups, minlength=largest)
    starts = sizes.cumsum(0) - sizes
    same = owners[:, None] == owners  # (K, K)
    rank, shares = same.tril(-1).sum(1), same.sum(1)
    position = starts[owners] + torch.div(rank * sizes[owners], shares, rounding_mode="floor")
    chosen = points[order[position.clamp(max=len(points) - 1)]]
    return torch.where((sizes[owners] > 0)[:, None], chosen, points.mean(0))


def project(network: PrototypeDNNNetwork, dataset: ImageDataset) -> None:
    """Each prototype becomes the latent point of the training image that is nearest to it; not in the paper.

    Of images that are equally near, the one of the lowest id.
    """
    points = latent_points(network, dataset)
    network.prototypes.copy_(points[all_distances(points, network.prototypes).argmin(0)])


def keep_references(network: PrototypeDNNNetwork, dataset: ImageDataset, batch_size: int = 256) -> None:
    """Keep what explanations are relative to: mean distances, and the training images nearest to each.

    Both are of training images as they are, without distortion.
    """
    points = latent_points(network, dataset, batch_size)
    distances = all_distances(points, network.prototypes)
    network.reference.copy_(distances.double().mean(0))
    count = min(NEAREST, len(points))
    ids = distances.argsort(dim=0, stable=True)[:count].T  # (K, E)
    sources = network.sources
    sources.image[:, :count] = ids
    sources.distance[:, :count] = distances.T.gather(1, ids)
    images, index = ids.unique(return_inverse=True)
    shown = dataset.train.batch(images.cpu())
    if shown.labels.ndim == 1:  # of several there is none to name
        sources.label[:, :count] = shown.labels.to(ids.device)[index]
    pictures = (as_rgb(shown.images) * 255).round().byte().to(ids.device)
    sources.picture.unflatten(0, (-1, NEAREST))[:, :count] = pictures[index]
