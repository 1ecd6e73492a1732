"""Composites: an image and three of other classes, each in one quadrant of an image twice as large.

Quadrants are counted along rows: 0 and 1 are above, 2 and 3 below.
"""

import numpy as np
import torch
from attrs import frozen
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from explainkit.data.random_keys import Keys, random_keys
from explainkit.errors import InputError

OTHERS = 3
"""Images beside the one that is looked at."""

_ANCHOR, _TARGET, _OTHER, _QUADRANT = range(4)
"""What a key is for."""

_LAST = np.uint64(2**64 - 1)


@frozen(eq=False, kw_only=True)
class Grids:
    """Which images make M composites, by their rows in a batch.

    Attributes
    ----------
    anchors : Tensor, (M,), int64
        Each one's image that is looked at.
    targets : Tensor, (M,), int64
        The class of it that is looked for.
    others : Tensor, (M, 3), int64
        Images without that class.
    quadrants : Tensor, (M,), int64
        Where the image that is looked at is.
    """

    anchors: Tensor
    targets: Tensor
    others: Tensor
    quadrants: Tensor

    def __len__(self) -> int:
        return len(self.anchors)

    def __getitem__(self, index: Tensor) -> "Grids":
        return Grids(
            anchors=self.anchors[index], targets=self.targets[index], others=self.others[index],
            quadrants=self.quadrants[index],
        )  # fmt: skip

    @property
    def rows(self) -> Tensor:
        """The image of each quadrant, (M, 4)."""
        return arranged(self.anchors[:, None], self.others, self.quadrants)


def draw_grids(truth: Tensor, ids: Tensor, fraction: float, seed: int, index: int) -> Grids:
    """Composites of a batch, drawn by (seed, index, ids) alone: in any order and in any number of processes.

    Parameters
    ----------
    truth : Tensor, (N, C), bool
        Which classes each image has. Of several one is drawn; an image without any is never looked at.
    ids : Tensor, (N,)
    fraction : float
        Share of the images that are looked at; fewer where there are no images without their class.
    seed, index : int
        Of all draws, and the number of the step.
    """
    holds, names = truth.cpu().numpy(), ids.cpu().numpy().astype(np.int64)
    wishes = random_keys(seed, index, _TARGET, names[:, None], np.arange(holds.shape[1]))
    targets = np.where(holds, wishes, _LAST).argmin(1)
    is_possible = holds.any(1) & ~holds[:, targets].all(0)
    count = max(1, round(fraction * len(holds)))
    order = np.where(is_possible, random_keys(seed, index, _ANCHOR, names), _LAST).argsort(kind="stable")
    anchors = order[: min(count, int(is_possible.sum()))]
    others = draw_others(
        random_keys(seed, index, _OTHER, names[anchors]), names, ~holds[:, targets[anchors]].T
    )
    quadrants = random_keys(seed, index, _QUADRANT, names[anchors]) % np.uint64(4)
    parts = (anchors, targets[anchors], others, quadrants.astype(np.int64))
    rows, classes, beside, where = (torch.from_numpy(np.asarray(part)).to(truth.device) for part in parts)
    return Grids(anchors=rows, targets=classes, others=beside, quadrants=where)


def draw_others(keys: Keys, ids: ArrayLike, is_allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Three rows of `is_allowed` (M, L) for each of M `keys`, all different where so many are: (M, 3).

    Which are drawn depends on the keys and on the `ids` (L,), not on the order of those. There is at least
    one.
    """
    ranks = np.where(is_allowed, random_keys(keys[:, None].astype(np.int64), np.asarray(ids)), _LAST)
    first = ranks.argsort(1, kind="stable")[:, :OTHERS]
    counts = is_allowed.sum(1, keepdims=True)
    return np.take_along_axis(first, np.arange(OTHERS)[None] % np.minimum(counts, OTHERS), 1)


def draw_ids(length: int, count: int, seed: int) -> Tensor:
    """`count` positions of a split of `length`, or all of a shorter one, in an order drawn by `seed`: (n,).

    A split that is sorted by class has all classes among them so.
    """
    order = random_keys(seed, np.arange(length)).argsort(kind="stable")
    return torch.from_numpy(order[:count])


def arranged(anchor: Tensor, others: Tensor, quadrants: Tensor) -> Tensor:
    """Values (M, 1, ...) at their quadrants (M,), three others (M, 3, ...) around them: (M, 4, ...)."""
    places = torch.arange(4, device=quadrants.device)
    source = places - (places > quadrants[:, None]).long() + 1  # of the others, counted from 1
    source = source.masked_fill(places == quadrants[:, None], 0)  # (M, 4)
    return torch.cat([anchor, others], 1)[torch.arange(len(source), device=source.device)[:, None], source]


def tile(tiles: Tensor) -> Tensor:
    """Four images (M, 4, ..., S, T) as one of twice the height and width: (M, ..., 2 S, 2 T)."""
    grid = tiles.unflatten(1, (2, 2)).movedim((1, 2), (-4, -2))  # (M, ..., 2, S, 2, T)
    return grid.flatten(-2).flatten(-3, -2)


def untile(images: Tensor) -> Tensor:
    """The four quadrants (M, 4, ..., S, T) of images (M, ..., 2 S, 2 T): what `tile` made one of."""
    height, width = (side // 2 for side in images.shape[-2:])
    grid = images.unflatten(-1, (2, width)).unflatten(-3, (2, height))  # (M, ..., 2, S, 2, T)
    return grid.movedim((-4, -2), (1, 2)).flatten(1, 2)


def placed(maps: Tensor, quadrants: Tensor) -> Tensor:
    """Maps (M, h, w), each in its quadrant of one of zeros: (M, 2 h, 2 w)."""
    return tile(arranged(maps[:, None], maps.new_zeros(len(maps), OTHERS, *maps.shape[1:]), quadrants))


def check_doubled(single: Tensor, composite: Tensor) -> None:
    """Refuse maps (..., h, w) of images and (..., h', w') of composites that are not twice as large.

    Raises
    ------
    InputError
    """
    (height, width), grid = single.shape[-2:], tuple(composite.shape[-2:])
    if grid != (2 * height, 2 * width):
        raise InputError(
            f"Expected composites of 2 x 2 images on twice their grid, {(2 * height, 2 * width)}; got {grid} "
            f"for images on {(height, width)}. Choose sizes of images that the backbone's stride divides."
        )
