"""Images in other colors, to which regions should be indifferent; not in the paper.

Where every object shows the same few colors, each on another part, regions that are colors occur in every
image too, and tell classes apart as well as parts do: neither term of the paper's loss prefers parts. SCOPS
(Hung, Jampani, Liu, Molchanov, Yang, Kautz: SCOPS, CVPR 2019, arXiv:1905.01298, section 3.3) holds parts to
be the same in an image whose colors are disturbed; so does this term here.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from explainkit.data.random_keys import random_keys, uniform


def recolored(images: Tensor, ids: Tensor, epoch: int) -> Tensor:
    """Images (N, D, H, W) in [0, 1], their channels in another order, each of them inverted or not.

    One of the ``2 ** D D!`` ways for each image, by its id and the epoch alone; all but the one that changes
    nothing are as probable.
    """
    channels = images.shape[1]
    orders = torch.tensor(list(permutations(range(channels))), device=images.device)
    count = len(orders) * 2**channels
    drawn = torch.from_numpy(uniform(random_keys(epoch, ids.cpu().numpy()), 1)[:, 0]).to(images.device)
    ways = 1 + (drawn * (count - 1)).long()  # 0 is the order as it is, nothing inverted
    order = orders[ways % len(orders)]  # (N, D)
    signs = ways // len(orders)
    is_inverted = (signs[:, None] >> torch.arange(channels, device=images.device) & 1).bool()
    moved = images.gather(1, order[:, :, None, None].expand_as(images))
    return torch.where(is_inverted[:, :, None, None], 1 - moved, moved)


def is_recolored(ids: Tensor, epoch: int, every: int) -> Tensor:
    """Which of the images `ids` (N,) are recolored in an epoch: one of `every`, another in the next epoch."""
    return (ids + epoch) % every == 0


def disagreement(shares: Tensor, other: Tensor) -> Tensor:
    """How improbable it is that each cell is of one region in both: ``-log sum_k Q_k Q'_k``, mean over cells.

    Parameters
    ----------
    shares, other : Tensor, (N, K, h, w)

    Returns
    -------
    Tensor, (N,)
        0 where both have the same region with certainty.
    """
    agreement = (shares * other).sum(1)
    return -agreement.clamp(min=1e-6).log().mean((1, 2))
