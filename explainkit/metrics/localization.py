"""Where an explanation points: not faithfulness, for a mask of the bird explains nothing and is perfect."""

import torch
from torch import Tensor

from explainkit.metrics.context import ExplainerOutput
from explainkit.metrics.results import metric


@metric(better="higher", unit="share of images")
def pointing(output: ExplainerOutput) -> Tensor:
    """Whether the strongest pixel lies on a part, to the pixel; of equal pixels, the share that do.

    Zhang, Lin, Brandt, Shen, Sclaroff, ECCV 2016, arXiv:1608.00507, section 4.1, without its tolerance of 15
    pixels. Chance is the share of the image that parts cover; a constant map scores just that.
    """
    return pointing_game(output.saliency, output.context.masks.any(1))


@metric(better="higher", unit="share of evidence", note="localization, not faithfulness")
def object_mass(output: ExplainerOutput) -> Tensor:
    """How much of the evidence for the target lies on the bird; 0 where there is none.

    The energy-based pointing game of Wang et al.: Score-CAM, CVPR Workshops 2020, arXiv:1910.01279, with
    an exact mask in place of a box.
    """
    return mass_within(output.saliency, output.context.object_mask)


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
