"""How a unit's map becomes a region of the image: decided here, once.

A map (h, w) is enlarged to the image by bilinear interpolation (pixel centres, ``align_corners=False``), and
the
region is where it reaches `threshold` times its own maximum. Of the connected pieces (eight neighbours), the
one with the peak is kept; CAM's paper keeps the largest. The box is the tightest one around the region,
half-open,
x0, y0, x1, y1 in pixels. A map without a peak (zero or constant) has the whole image as its region.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

Keep = Literal["peak", "largest", "all"]


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (..., h, w) at image `size` (H, W), values kept rather than sums: for looking, not for adding."""
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    grown = F.interpolate(flat, size=tuple(size), mode="bilinear", align_corners=False)
    return grown.view(*maps.shape[:-2], *size)


def regions(
    maps: Tensor, size: Sequence[int], threshold: float | Tensor = 0.5, keep: Keep = "peak"
) -> Tensor:
    """Where each map (..., h, w) is at least `threshold` of its maximum: (..., H, W), bool.

    Parameters
    ----------
    maps : Tensor
        Only the positive part of signed maps can belong to a region.
    threshold : float or Tensor (...), in (0, 1]
        One for all maps or one a map. The paper of CAM takes 0.2 (Zhou et al., CVPR 2016, 3.2); coarse
        grids want more.
    keep : {"peak", "largest", "all"}
        Which connected pieces to keep.
    """
    grown = enlarge(maps.detach().float().cpu(), size).reshape(-1, *size)
    peak = grown.flatten(1).amax(1)
    flat = (peak <= 0) | (grown.flatten(1).amin(1) == peak)
    least = torch.as_tensor(threshold, dtype=peak.dtype, device=peak.device).flatten() * peak
    mask = (grown >= least[:, None, None]) | flat[:, None, None]
    if keep != "all" and len(mask):
        mask = _one_piece(mask, grown, keep)
    return mask.view(*maps.shape[:-2], *size).to(maps.device)


def boxes(masks: Tensor) -> Tensor:
    """The tightest box around each region (..., H, W): (..., 4) as x0, y0, x1, y1, half-open; int64.

    An empty region has the whole image as its box.
    """
    rows, columns = masks.any(-1), masks.any(-2)
    empty = ~rows.any(-1)
    rows, columns = rows | empty[..., None], columns | empty[..., None]

    def ends(line: Tensor) -> tuple[Tensor, Tensor]:
        return line.int().argmax(-1), line.shape[-1] - line.flip(-1).int().argmax(-1)

    (x0, x1), (y0, y1) = ends(columns), ends(rows)
    return torch.stack([x0, y0, x1, y1], -1)


def _one_piece(masks: Tensor, grown: Tensor, keep: Keep) -> Tensor:
    """The piece of each mask (M, H, W) with the peak of `grown`, or the largest; all in one labelling."""
    within_a_map = np.zeros((3, 3, 3), dtype=int)
    within_a_map[1] = 1
    labels = torch.from_numpy(ndimage.label(masks.numpy(), structure=within_a_map)[0]).long()  # (M, H, W)
    flat = labels.flatten(1)
    if keep == "peak":
        chosen = flat.gather(1, grown.flatten(1).argmax(1, keepdim=True))
    else:
        areas = torch.bincount(flat.flatten())
        areas[0] = 0
        chosen = flat.gather(1, areas[flat].argmax(1, keepdim=True))
    return labels == chosen[:, :, None]
