"""Deletion and insertion of pixels: out of distribution, and here because others report them.

A network has never seen a picture with holes, so that a curve mixes what the pixels meant with what the holes
do. `faithfulness.part_deletion` asks the same of pictures that could have been drawn.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from explainkit.errors import InputError
from explainkit.metrics.exam import Answer
from explainkit.metrics.faithfulness import area_under
from explainkit.metrics.score import metric

STEPS = 16
"""Equal shares of the pixels, taken one after another."""

_CHUNK = 16
"""Images whose curves are worked out at a time."""


@metric(better="lower", unit="probability", note="out of distribution")
def pixel_deletion(answer: Answer) -> Tensor:
    """Area under the target's probability as pixels turn to their image's mean colour, the strongest first.

    Petsiuk, Das, Saenko: RISE, BMVC 2018, arXiv:1806.07421. Pixels that tie go in one random
    order, the same for every row.
    """
    return _curve(answer, lambda images: (images, images.mean((2, 3), keepdim=True).expand_as(images)))


@metric(better="higher", unit="probability", note="out of distribution")
def pixel_insertion(answer: Answer) -> Tensor:
    """Area under the target's probability as pixels of the blurred image become sharp, the strongest first.

    Petsiuk, Das, Saenko: RISE, BMVC 2018, arXiv:1806.07421; the blur is theirs, 11 pixels wide
    with a deviation of 5.
    """
    return _curve(answer, lambda images: (gaussian_blur(images, [11, 11], [5.0, 5.0]), images))


def _curve(answer: Answer, ends: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """(N,), going from the first of `ends` to the second."""
    exam, saliency = answer.exam, answer.saliency
    if min(saliency.shape[1:]) < 6:
        raise InputError(f"Expected images of at least 6 pixels a side; got {tuple(saliency.shape[1:])}.")
    starts, stops = ends(exam.images)
    pixels = saliency[0].numel()
    generator = torch.Generator().manual_seed(exam.seed)
    shuffle = torch.randperm(pixels, generator=generator).to(saliency.device)
    order = shuffle[saliency.flatten(1)[:, shuffle].argsort(dim=1, descending=True, stable=True)]
    turn = order.argsort(1).view_as(saliency)  # when each pixel goes
    ends_of_steps = torch.arange(STEPS + 1, device=saliency.device) * pixels / STEPS
    areas = []
    for some in torch.arange(len(saliency), device=saliency.device).split(_CHUNK):
        gone = turn[some, None, None] < ends_of_steps[:, None, None, None]  # (n, STEPS + 1, 1, H, W)
        mixed = torch.where(gone, stops[some, None], starts[some, None]).flatten(0, 1)
        targets = exam.targets[some].repeat_interleave(STEPS + 1)
        curves = exam.probabilities(mixed, targets).view(len(some), STEPS + 1).double()
        areas.append(area_under(curves, torch.full_like(some, STEPS)))
    return torch.cat(areas)
