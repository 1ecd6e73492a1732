"""The nearest training patches of each prototype: an exact search, the same however it is cut into pieces."""

from collections.abc import Iterable, Sequence

import torch
from attrs import frozen
from torch import Tensor

from explainkit.data.types import Batch
from explainkit.networks.precision import reference_tensor
from explainkit.training.distributed import all_gather, shard
from explainkit_protopnet.model import ProtoPNetNetwork


@frozen(eq=False, kw_only=True)
class Nearest:
    """The k nearest training patches of each of P prototypes, at most one an image, the nearest first.

    Attributes
    ----------
    distance : Tensor, (P, k)
        Squared; infinite where there are fewer than k patches.
    image, cell, label : Tensor, (P, k), int64
        Id of the image, number of the cell along the rows of the grid, and the image's class.
    """

    distance: Tensor
    image: Tensor
    cell: Tensor
    label: Tensor


def merge(searches: Sequence[Nearest], count: int) -> Nearest:
    """The `count` nearest of all, from searches of disjoint images; ties go to the lowest image id.

    In whatever order and grouping they are merged, the result is the same: so a search can be shared out.
    """
    columns = {
        name: torch.cat([getattr(search, name) for search in searches], 1)
        for name in ("distance", "image", "cell", "label")
    }
    order = columns["image"].argsort(dim=1, stable=True)
    order = order.gather(1, columns["distance"].gather(1, order).argsort(dim=1, stable=True))[:, :count]
    return Nearest(**{name: values.gather(1, order) for name, values in columns.items()})


def nearest_patches(
    network: ProtoPNetNetwork, batches: Iterable[Batch], count: int, *, own: bool = False
) -> Nearest:
    """Search `batches` of training images; `network` is in eval mode, and no gradient is computed.

    Several processes share the batches, and all find the same: cut alike, the distances are equal to the bit.

    Parameters
    ----------
    own : bool
        Whether a prototype looks at images of its own class alone, as projection does.
    """
    search = _own_class if own else _all_classes
    none = network.owner.new_zeros(len(network.owner), 0)
    nearest = Nearest(distance=network.prototypes.new_zeros(none.shape), image=none, cell=none, label=none)
    for batch in shard(batches):
        on_device = batch.to(network.owner.device)
        latent = network.latent(on_device.images.to(reference_tensor(network))).flatten(2)  # (B, D, h w)
        nearest = merge([nearest, search(network, latent, on_device, count)], count)
    return merge(all_gather(nearest), count)


def _own_class(network: ProtoPNetNetwork, latent: Tensor, batch: Batch, _: int) -> Nearest:
    """Each image against the M prototypes of its class alone: a C-th of the distances."""
    members, is_member = _members(network.own)
    columns, is_real = members[batch.labels], is_member[batch.labels]  # (B, M)
    gaps = latent[:, None] - network.prototypes[columns][..., None]  # (B, M, D, h w): cells last, as they lie
    distance, cell = gaps.square_().sum(2).min(2)  # (B, M)
    wide, index = (len(batch), len(network.owner)), (is_real.nonzero()[:, 0], columns[is_real])
    shape = (len(network.owner), len(batch))
    return Nearest(
        distance=distance.new_full(wide, torch.inf).index_put(index, distance[is_real]).T,
        cell=cell.new_zeros(wide).index_put(index, cell[is_real]).T,
        image=batch.ids.expand(shape),
        label=batch.labels.expand(shape),
    )


def _all_classes(network: ProtoPNetNetwork, latent: Tensor, batch: Batch, count: int) -> Nearest:
    """The nearest images by rough distances, a few more than `count`; of these alone the cells, exactly."""
    patches, prototypes = latent.mT, network.prototypes
    rough = _rough_distances(patches, prototypes)  # (B, h w, P)
    row = rough.amin(1).T.topk(min(count + 2, len(batch)), dim=1, largest=False).indices  # (P, n)
    column = torch.arange(len(prototypes), device=row.device)[:, None]
    cell = rough[row, :, column].argmin(2)
    distance = (patches[row, cell] - prototypes[:, None]).square().sum(2)
    return Nearest(distance=distance, cell=cell, image=batch.ids[row], label=batch.labels[row])


def _rough_distances(patches: Tensor, prototypes: Tensor) -> Tensor:
    """Squared distances (B, h w, P) less what is the same for all patches of a prototype: one product."""
    center = prototypes.mean(0)
    flat = (patches - center).flatten(0, 1)
    sizes = flat.square().sum(1, keepdim=True)
    return torch.addmm(sizes, flat, (prototypes - center).T, alpha=-2).unflatten(0, patches.shape[:2])


def _members(own: Tensor) -> tuple[Tensor, Tensor]:
    """The prototypes of each class, (C, M), and which of them are real: classes may have fewer than M."""
    size = int(own.sum(0).max())
    members = own.T.int().argsort(dim=1, descending=True, stable=True)[:, :size]
    return members, own.T.gather(1, members)
