"""Projection: each prototype becomes the nearest training patch of its class, and remembers which."""

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.types import ImageDataset
from explainkit.errors import TrainingError
from explainkit.explanations.colors import as_rgb
from explainkit.explanations.spatial import Keep, activation_regions, bounding_boxes
from explainkit.networks.precision import reference_tensor
from explainkit.training.evaluation import evaluate
from explainkit_protopnet.model import ProtoPNetNetwork, grid_cell, similarity
from explainkit_protopnet.nearest import Nearest, nearest_patches


def project(
    network: ProtoPNetNetwork,
    dataset: ImageDataset,
    *,
    distinct: bool = False,
    box_region: Keep = "all",
    batch_size: int = 64,
) -> None:
    """Replace each prototype by the nearest latent patch of its class: section 2.2, stage 2.

    Parameters
    ----------
    distinct : bool
        Prototypes of a class come from different images: the assignment of the least total distance.
    box_region : {"all", "peak", "largest"}
        Which pieces of the activated region a prototype's box encloses; the paper encloses all.
    """
    before = evaluate(network, dataset, "validation", network.owner.device).accuracy
    count = int(network.own.sum(0).max()) if distinct else 1
    candidates = nearest_patches(network, dataset.batches("train", batch_size), count, own=True)
    rank = _distinct_ranks(candidates, network.owner) if distinct else torch.zeros_like(network.owner)
    chosen = Nearest(
        **{
            name: getattr(candidates, name).gather(1, rank[:, None])
            for name in ("distance", "image", "cell", "label")
        }
    )
    missing = network.owner[chosen.distance[:, 0].isinf()].unique().tolist()
    if missing:
        names = ", ".join(repr(dataset.classes[label]) for label in missing)
        raise TrainingError(f"Expected training images of every class; there are none of {names}.")
    _copy_patches(network, dataset, chosen, box_region, batch_size)
    after = evaluate(network, dataset, "validation", network.owner.device).accuracy
    network.accuracies.copy_(torch.tensor([before, after, after]))
    network.projected.fill_(True)


def activation_boxes(
    maps: Tensor, size: Sequence[int], box_region: Keep = "all", share: float = 0.95
) -> Tensor:
    """The box around the most activated 5 % of the pixels, (M, 4): section 2.3 of the paper.

    Parameters
    ----------
    maps : Tensor, (M, h, w)
        Similarities; enlarged by bicubic interpolation. A flat map has the whole image as its box.
    """
    enlarged = F.interpolate(maps[:, None].float(), size=tuple(size), mode="bicubic", align_corners=False)[
        :, 0
    ]
    flat = maps.flatten(1).amax(1) == maps.flatten(1).amin(1)
    enlarged = enlarged.clamp(min=0) * ~flat[:, None, None]
    level = enlarged.flatten(1).quantile(share, dim=1)
    peak = enlarged.flatten(1).amax(1)
    return bounding_boxes(activation_regions(enlarged, size, level / peak.clamp(min=1e-30), box_region))


def _distinct_ranks(candidates: Nearest, owner: Tensor) -> Tensor:
    """For each prototype, which of its candidates (P, M) it takes, so that no image of a class serves twice.

    M candidates each are enough: the others of the class can take away M - 1 of them.
    """
    rank = torch.zeros_like(owner)
    for label in owner.unique().tolist():
        rows = (owner == label).nonzero()[:, 0]
        distance, image = candidates.distance[rows], candidates.image[rows]
        is_patch = distance.isfinite()
        images = image[is_patch].unique()
        if len(images) < len(rows):
            raise TrainingError(
                f"Expected at least {len(rows)} images of class {label} for as many distinct sources; "
                f"got {len(images)}. Use distinct=False, or fewer prototypes."
            )
        column = torch.searchsorted(images, image.where(is_patch, images[0]))
        row = torch.arange(len(rows), device=owner.device)[:, None].expand_as(image)
        cost = distance.new_full((len(rows), len(images)), 1e9).index_put(
            (row[is_patch], column[is_patch]), distance[is_patch]
        )
        assigned = torch.from_numpy(linear_sum_assignment(cost.double().cpu().numpy())[1]).to(owner.device)
        rank[rows] = ((column == assigned[:, None]) & is_patch).int().argmax(1)
    return rank


def _copy_patches(
    network: ProtoPNetNetwork, dataset: ImageDataset, chosen: Nearest, box_region: Keep, batch_size: int
) -> None:
    """Copy the chosen patches, and where they are from; only their images are seen once more."""
    sources, before = network.sources, network.prototypes.detach().clone()
    image, cell = chosen.image[:, 0], chosen.cell[:, 0]
    pictures = torch.empty(len(image), 3, *dataset.size, dtype=torch.uint8, device=image.device)
    for ids in image.unique().split(batch_size):
        batch = dataset.train.batch(ids.cpu()).to(image.device)
        rows = torch.isin(image, ids).nonzero()[:, 0]
        in_batch = torch.searchsorted(ids, image[rows])
        latent = network.latent(batch.images.to(reference_tensor(network)))
        patches = latent.flatten(2).mT[in_batch]  # (m, h w, D)
        vectors = patches.gather(1, cell[rows, None, None].expand(-1, -1, patches.shape[2]))
        maps = similarity((patches - vectors).square().sum(2), network.epsilon)
        network.prototypes[rows] = vectors[:, 0]
        sources.cell[rows] = grid_cell(cell[rows], latent.shape[2:])
        sources.box[rows] = activation_boxes(maps.unflatten(1, latent.shape[2:]), dataset.size, box_region)
        pictures[rows] = (as_rgb(batch.images[in_batch]) * 255).round().byte()
    sources.picture = pictures
    sources.image.copy_(image)
    sources.moved.copy_((network.prototypes - before).square().sum(1))
