"""The nearest training patches of each prototype: an exact search, the same however it is cut into pieces."""

from collections.abc import Iterable, Sequence

import torch
from attrs import frozen
from torch import Tensor

from explainkit.data.images import Batch
from explainkit_protopnet.model import ProtoPNetNetwork, distances_at, squared_distances


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


def merge(pieces: Sequence[Nearest], count: int) -> Nearest:
    """The `count` nearest of all, from searches of disjoint images; ties go to the lowest image id.

    In whatever order and grouping pieces are merged, the answer is the same: so a search can be shared out.
    """
    columns = {
        name: torch.cat([getattr(piece, name) for piece in pieces], 1)
        for name in ("distance", "image", "cell", "label")
    }
    order = columns["image"].argsort(dim=1, stable=True)
    order = order.gather(1, columns["distance"].gather(1, order).argsort(dim=1, stable=True))[:, :count]
    return Nearest(**{name: values.gather(1, order) for name, values in columns.items()})


def nearest_patches(
    network: ProtoPNetNetwork, batches: Iterable[Batch], count: int, *, own: bool = False
) -> Nearest:
    """Search `batches` of training images; `network` is in eval mode, and no gradient is wanted.

    Parameters
    ----------
    own : bool
        Whether a prototype looks at images of its own class alone, as projection does.
    """
    search = _own_class if own else _all_classes
    none = network.owner.new_zeros(len(network.owner), 0)
    found = Nearest(distance=network.prototypes.new_zeros(none.shape), image=none, cell=none, label=none)
    for batch in batches:
        on_device = batch.to(network.owner.device)
        patches = network.latent(on_device.images).flatten(2).mT  # (B, h w, D)
        found = merge([found, search(network, patches, on_device)], count)
    return found


def _own_class(network: ProtoPNetNetwork, patches: Tensor, batch: Batch) -> Nearest:
    """Each image against the M prototypes of its class alone: a C-th of the distances."""
    members, real = _members(network.own)
    wanted = members[batch.labels]  # (B, M)
    gaps = patches[:, :, None] - network.prototypes[wanted][:, None]  # (B, h w, M, D)
    distance, cell = gaps.square().sum(3).min(1)  # (B, M)
    wide = (len(batch), len(network.owner))
    wanted, distance, cell = (
        wanted[real[batch.labels]],
        distance[real[batch.labels]],
        cell[real[batch.labels]],
    )
    row = torch.arange(len(batch), device=wanted.device)[:, None].expand_as(real[batch.labels])
    row = row[real[batch.labels]]
    return _columns(
        distance.new_full(wide, torch.inf).index_put((row, wanted), distance),
        cell.new_zeros(wide).index_put((row, wanted), cell),
        batch,
    )


def _all_classes(network: ProtoPNetNetwork, patches: Tensor, batch: Batch) -> Nearest:
    cell = squared_distances(patches, network.prototypes).argmin(1)
    return _columns(distances_at(patches, cell, network.prototypes), cell, batch)


def _columns(distance: Tensor, cell: Tensor, batch: Batch) -> Nearest:
    """(B, P) as (P, B)."""
    shape = distance.T.shape
    return Nearest(
        distance=distance.T, cell=cell.T, image=batch.ids.expand(shape), label=batch.labels.expand(shape)
    )


def _members(own: Tensor) -> tuple[Tensor, Tensor]:
    """The prototypes of each class, (C, M), and which of them are real: classes may have fewer than M."""
    most = int(own.sum(0).max())
    members = own.T.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    return members, own.T.gather(1, members)
