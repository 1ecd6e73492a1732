"""Where an explanation points: not faithfulness, for a mask of the bird explains nothing and is perfect."""

import torch
from torch import Tensor

from explainkit.metrics.context import ExplainerOutput
from explainkit.metrics.results import metric

TOLERANCE = 15 / 448
"""Distance that the stochastic pointing game forgives, as a share of the image's longer side."""


@metric(better="higher", unit="share of images")
def pointing(output: ExplainerOutput) -> Tensor:
    """Whether the strongest pixel lies on a part, to the pixel; of equal pixels, the share that do.

    Zhang, Lin, Brandt, Shen, Sclaroff, ECCV 2016, arXiv:1608.00507, section 4.1, without its tolerance of 15
    pixels. Chance is the share of the image that parts cover; a constant map scores just that.
    """
    return pointing_game(output.saliency, output.context.masks.any(1))


@metric(better="higher", unit="share of evidence", note="localization, not faithfulness")
def content_heatmap(output: ExplainerOutput) -> Tensor:
    """How much of the evidence for the target lies in the object's box; nothing is said of maps without any.

    Pillai and Pirsiavash: Explainable Models with Consistent Interpretations, AAAI 2021, whose code adds a
    constant to its maps, and so scores those of zeros as constant ones. `object_mass` is the same on the
    exact mask, with 0 for them.
    """
    boxes = box_masks(output.context.boxes, output.saliency)
    return _where_defined(output.saliency, boxes, boxes)


@metric(better="higher", unit="chance of a hit", note="localization, not faithfulness")
def stochastic_pointing(output: ExplainerOutput) -> Tensor:
    """How often a pixel that is drawn in proportion to the evidence for the target hits the object's box.

    Pillai and Pirsiavash, AAAI 2021: the stochastic pointing game. They draw 100 pixels of images of 448,
    and forgive 15 pixels of distance; here is what is expected of any number of draws, and `TOLERANCE` of the
    image's longer side. Nothing is said of maps without evidence.
    """
    boxes = box_masks(output.context.boxes, output.saliency)
    radius = TOLERANCE * max(output.saliency.shape[-2:])
    return _where_defined(output.saliency, boxes, near_boxes(output.context.boxes, radius, output.saliency))


@metric(better="higher", unit="share of evidence", note="localization, not faithfulness")
def object_mass(output: ExplainerOutput) -> Tensor:
    """How much of the evidence for the target lies on the bird; 0 where there is none.

    The energy-based pointing game of Wang et al.: Score-CAM, CVPR Workshops 2020, arXiv:1910.01279, with
    an exact mask in place of a box.
    """
    return mass_within(output.saliency, output.context.object_mask)


def box_masks(boxes: Tensor, like: Tensor) -> Tensor:
    """Which pixels of maps (N, H, W) have their center in `boxes` (N, 4), x0, y0, x1, y1: (N, H, W), bool."""
    rows, columns = (torch.arange(side, device=like.device) + 0.5 for side in like.shape[-2:])
    x0, y0, x1, y1 = boxes.to(like.device)[:, :, None].unbind(1)  # (N, 1) each
    return ((rows >= y0) & (rows < y1))[:, :, None] & ((columns >= x0) & (columns < x1))[:, None]


def near_boxes(boxes: Tensor, radius: float, like: Tensor) -> Tensor:
    """Which pixels of maps (N, H, W) lie within `radius` pixels of one in `boxes` (N, 4): (N, H, W), bool.

    From center to center, as a box is dilated by a disk: the nearest pixel of a box is found along each axis
    on its own.

    Examples
    --------
    >>> near_boxes(torch.tensor([[2.0, 0.0, 3.0, 1.0]]), 1, torch.zeros(1, 1, 3)).tolist()
    [[[False, True, True]]]
    """
    height, width = like.shape[-2:]
    x0, y0, x1, y1 = (boxes.to(like.device) - 0.5).ceil()[:, :, None].unbind(1)  # (N, 1) each
    above, is_high = _steps_to(y0, y1, height)
    beside, is_wide = _steps_to(x0, x1, width)
    is_near = above.square()[:, :, None] + beside.square()[:, None] <= radius**2
    return is_near & (is_high & is_wide)[:, :, None]


def _steps_to(first: Tensor, end: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """How far pixels of a row are from those in `first` … `end` - 1, (N, side); whether there are any."""
    pixels = torch.arange(side, device=first.device)
    first, last = first.clamp(min=0), end.clamp(max=side) - 1  # (N, 1) each
    return torch.maximum(first - pixels, pixels - last).clamp(min=0), first <= last


def pointing_game(saliency: Tensor, mask: Tensor) -> Tensor:
    """Which share of the highest pixels of maps (N, H, W) lies inside `mask` (N, H, W): (N,)."""
    flat = saliency.flatten(1)
    highest = flat == flat.amax(1, keepdim=True)
    return (highest & mask.flatten(1)).sum(1) / highest.sum(1)


def mass_within(saliency: Tensor, mask: Tensor) -> Tensor:
    """Which share of the positive part of maps (N, H, W) lies inside `mask` (N, H, W): (N,)."""
    evidence = saliency.double().clamp(min=0)
    total = evidence.sum((1, 2))
    return torch.where(total > 0, (evidence * mask).sum((1, 2)) / total.where(total > 0, 1), 0)


def _where_defined(saliency: Tensor, boxes: Tensor, hits: Tensor) -> Tensor:
    """Mass within `hits` (N, H, W), bool; NaN for maps without a positive pixel, and where no object is."""
    is_defined = (saliency.flatten(1).amax(1) > 0) & boxes.flatten(1).any(1)
    return torch.where(is_defined, mass_within(saliency, hits), torch.nan)
