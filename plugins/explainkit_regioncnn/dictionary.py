"""Where centers of regions begin, and what is measured of regions at the end of training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from explainkit.data.splits import spread_ids
from explainkit.data.types import ImageDataset
from explainkit_regioncnn.model import RegionCNNNetwork
from explainkit_regioncnn.recoloring import recolored

IMAGES = 512
"""Training images that centers are found on, and regions measured."""

CHUNK = 128
"""Images that are looked at at once."""

MAX_POINTS = 20_000
"""Cells that are clustered at most."""


def cluster_centers(
    network: RegionCNNNetwork, dataset: ImageDataset, *, recolorings: int = 0, seed: int = 0
) -> None:
    """Let centers begin as those of clusters of cells of training images, by k-means.

    Parameters
    ----------
    recolorings : int
        How many recolored copies of each image the feature of a cell is averaged with, so that clusters do
        not go by colors.
    """
    cells = []
    for images in _images(network, dataset):
        numbers = torch.arange(len(images))
        copies = [images, *(recolored(images, numbers, copy) for copy in range(recolorings))]
        features = torch.stack([network.cell_features(copy) for copy in copies]).mean(0)
        cells.append(features.flatten(2).mT.flatten(0, 1))
    points = _drawn(torch.cat(cells), MAX_POINTS, seed)
    network.dictionary.copy_(k_means(points, len(network.dictionary), seed=seed))


def measure_border(network: RegionCNNNetwork, dataset: ImageDataset) -> None:
    """Take down how dense each region is at the border of training images, as `border_density` says."""
    masses = [border_masses(network.outputs(images).shares).sum(1) for images in _images(network, dataset)]
    total = torch.stack(masses).sum(0)  # (2, K)
    network.border_density.copy_(total[0] / total[1].clamp(min=1e-12))


def border_masses(shares: Tensor) -> Tensor:
    """How much of each region lies on the frame of the grid, and would if it lay evenly: (2, N, K).

    Parameters
    ----------
    shares : Tensor, (N, K, h, w)
    """
    height, width = shares.shape[2:]
    total = shares.sum((2, 3))
    inside = shares[:, :, 1:-1, 1:-1].sum((2, 3))
    frame = 1 - max(height - 2, 0) * max(width - 2, 0) / (height * width)
    return torch.stack([total - inside, frame * total])


def k_means(points: Tensor, count: int, *, steps: int = 30, seed: int = 0) -> Tensor:
    """The means (count, D) of clusters of `points` (n, D), by SciPy's k-means.

    It begins by k-means++ (Arthur and Vassilvitskii, SODA 2007). A cluster that loses all of its points keeps
    its center.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of clusters without points
        means, _ = kmeans2(points.cpu().numpy(), count, iter=steps, minit="++", seed=seed)
    return torch.from_numpy(means).to(points)


def _drawn(points: Tensor, count: int, seed: int) -> Tensor:
    """At most `count` of the points (n, D), without replacement."""
    if len(points) <= count:
        return points
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
    return points[order[:count].to(points.device)]


def _images(network: RegionCNNNetwork, dataset: ImageDataset) -> Iterator[Tensor]:
    """Training images as the network takes them, evenly spread over the split."""
    for part in spread_ids(len(dataset.train), IMAGES).split(CHUNK):
        yield dataset.train.batch(part).images.to(network.dictionary)
