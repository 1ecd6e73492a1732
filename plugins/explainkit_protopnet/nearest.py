"""The nearest training patches of each prototype: an exact search, the same however it is cut into pieces."""

from collections.abc import Iterable, Sequence

import torch
from attrs import frozen
from torch import Tensor

from explainkit.data.images import Batch
from explainkit.training.processes import gathered, shared
from explainkit_protopnet.model import ProtoPNetNetwork, squared_distances


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

    Several processes share the batches, and all find the same: cut alike, the distances are equal to the bit.

    Parameters
    ----------
    own : bool
        Whether a prototype looks at images of its own class alone, as projection does.
    """
    search = _own_class if own else _all_classes
    none = network.owner.new_zeros(len(network.owner), 0)
    found = Nearest(distance=network.prototypes.new_zeros(none.shape), image=none, cell=none, label=none)
    for batch in shared(batches):
        on_device = batch.to(network.owner.device)
        patches = network.latent(on_device.images).flatten(2).mT  # (B, h w, D)
        found = merge([found, search(network, patches, on_device, count)], count)
    return merge(gathered(found), count)


def _own_class(network: ProtoPNetNetwork, patches: Tensor, batch: Batch, _: int) -> Nearest:
    """Each image against the M prototypes of its class alone: a C-th of the distances."""
    members, real = _members(network.own)
    wanted, there = members[batch.labels], real[batch.labels]  # (B, M)
    gaps = patches[:, :, None] - network.prototypes[wanted][:, None]  # (B, h w, M, D)
    distance, cell = gaps.square().sum(3).min(1)  # (B, M)
    wide, places = (len(batch), len(network.owner)), (there.nonzero()[:, 0], wanted[there])
    shape = (len(network.owner), len(batch))
    return Nearest(
        distance=distance.new_full(wide, torch.inf).index_put(places, distance[there]).T,
        cell=cell.new_zeros(wide).index_put(places, cell[there]).T,
        image=batch.ids.expand(shape),
        label=batch.labels.expand(shape),
    )


def _all_classes(network: ProtoPNetNetwork, patches: Tensor, batch: Batch, count: int) -> Nearest:
    """The nearest by the rough distances, a few more than wanted; of these alone the exact ones."""
    rough, cell = squared_distances(patches, network.prototypes).min(2)  # (B, P)
    row = rough.T.topk(min(count + 2, len(batch)), dim=1, largest=False).indices  # (P, n)
    cell = cell.T.gather(1, row)
    distance = (patches[row, cell] - network.prototypes[:, None]).square().sum(2)
    return Nearest(distance=distance, cell=cell, image=batch.ids[row], label=batch.labels[row])


def _members(own: Tensor) -> tuple[Tensor, Tensor]:
    """The prototypes of each class, (C, M), and which of them are real: classes may have fewer than M."""
    most = int(own.sum(0).max())
    members = own.T.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    return members, own.T.gather(1, members)
