"""Whether an explanation says what the network does; the truth is what it does when parts are truly removed.

The choice of these measures, and why they are taken where importance varies within a class, follow Hesse,
Schaub-Meyer, Roth: FunnyBirds, ICCV 2023, arXiv:2308.06248, with exact Shapley values in place of single
removals, and maps reduced in one way for every explainer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from explainkit.errors import InputError
from explainkit.metrics.context import ExplainerOutput
from explainkit.metrics.results import metric

SHUFFLES = 16
"""Orders over which parts of equal score are averaged."""

STEPS = 16
"""Equal shares of the pixels, taken one after another."""

_CHUNK = 16
"""Images whose curves are worked out at a time."""


@metric(better="lower", unit="share of |logit|")
def residual(output: ExplainerOutput) -> Tensor:
    """How much of the logit the sum leaves out: |residual| / |logit|.

    Completeness: Sundararajan, Taly, Yan, ICML 2017, arXiv:1703.01365, proposition 1.
    """
    explanations = output.explanations
    if explanations.residual is None:
        raise InputError("It claims no sum.")
    return explanations.residual.abs() / explanations.explained_output.abs().clamp(min=1e-6)


@metric(better="higher", unit="rank correlation", note="0 where a ranking is flat")
def shapley_correlation(output: ExplainerOutput) -> Tensor:
    """Spearman's rank correlation between part scores and exact Shapley values, in each image.

    Ties have their average rank. Shapley values: Lundberg, Lee, NeurIPS 2017, arXiv:1705.07874, theorem
    1, without sampling.
    """
    return spearman(output.part_scores, output.context.truth.shapley).nan_to_num(0)


@metric(better="higher", unit="correlation", note="beyond the mean of each part in each class")
def within_class_correlation(output: ExplainerOutput) -> Tensor:
    """What the scores know of an image beyond its class: correlation less each (class, part) mean.

    Pearson's correlation over images, in each part, then the mean over parts. It belongs to all images
    together: an image's value is the correlation plus the image's influence on it (Devlin, Gnanadesikan,
    Kettenring, Biometrika 62, 1975), so that mean and interval are those of the correlation. A part whose
    scores never differ within a class counts as 0.
    """
    targets = output.context.targets
    a, b = (
        _standardized(_beyond_class(scores.double(), targets))
        for scores in (output.part_scores, output.context.truth.shapley)
    )
    correlation = (a * b).mean(0)  # (P,)
    influence = a * b - correlation * (a.square() + b.square()) / 2
    return (correlation + influence).mean(1)


@metric(better="higher", unit="share of images")
def top_part(output: ExplainerOutput) -> Tensor:
    """Whether the part with the highest score is the one worth most; of equal scores, the share that are.

    Hesse et al., ICCV 2023, in spirit of their single deletion protocol.
    """
    is_top, is_true_top = (_is_highest(s) for s in (output.part_scores, output.context.truth.shapley))
    return (is_top & is_true_top).sum(1) / is_top.sum(1)


@metric(better="lower", unit="probability")
def part_deletion(output: ExplainerOutput) -> Tensor:
    """Area under the target's probability as parts are removed from the scene, the highest score first.

    Petsiuk, Das, Saenko, BMVC 2018, arXiv:1806.07421, with parts drawn away in place of pixels grayed out.
    """
    return _part_curve(output, deleting=True)


@metric(better="higher", unit="probability")
def part_insertion(output: ExplainerOutput) -> Tensor:
    """Area under the target's probability as parts are added to a bare bird, the highest score first.

    Petsiuk, Das, Saenko, BMVC 2018, arXiv:1806.07421, with parts drawn in place of pixels unveiled.
    """
    return _part_curve(output, deleting=False)


def ranks(values: Tensor) -> Tensor:
    """The rank of each of `values` (N, P) in its row, from 1 on; equal values share their average rank."""
    other, own = values[:, None, :], values[:, :, None]
    below, equal = (other < own).sum(2), (other == own).sum(2)
    return below + (equal + 1) / 2.0


def spearman(one: Tensor, other: Tensor) -> Tensor:
    """Rank correlation of each row (N, P) with its like, (N,); NaN where a row is flat."""
    a, b = (ranks(values) - (values.shape[1] + 1) / 2 for values in (one, other))
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()


def area_under(curves: Tensor, steps: Tensor) -> Tensor:
    """Area (…,) under curves (…, T + 1) by trapezoids over their first `steps` (…,) of T, scaled to width 1.

    A curve stays at its last value after those steps.
    """
    trapezoids = (curves[..., 1:] + curves[..., :-1]) / 2
    beyond = curves.shape[-1] - 1 - steps
    return (trapezoids.sum(-1) - beyond * curves[..., -1]) / steps.clamp(min=1)


def _part_curve(output: ExplainerOutput, deleting: bool) -> Tensor:
    """(N,): parts that are not there come last, where they change nothing, and do not count as steps."""
    truth, scores = output.context.truth, output.part_scores
    parts = scores.shape[1]
    generator = torch.Generator().manual_seed(output.context.seed)
    shuffles = torch.rand(SHUFFLES, parts, generator=generator).argsort(1).to(scores.device)  # (R, P)
    shuffled = scores.where(truth.present, -torch.inf)[:, shuffles]  # (N, R, P)
    order = shuffles.expand_as(shuffled).gather(2, shuffled.argsort(dim=2, descending=True, stable=True))
    taken = (1 << order).cumsum(2)
    subsets = torch.cat([torch.zeros_like(taken[..., :1]), taken], 2)
    if deleting:
        subsets = (1 << parts) - 1 - subsets
    curves = truth.probabilities.gather(1, subsets.flatten(1)).view(subsets.shape)
    return area_under(curves, truth.present.sum(1, keepdim=True)).mean(1)


def _beyond_class(scores: Tensor, targets: Tensor) -> Tensor:
    """Scores (N, P) less the mean over the images of the same target."""
    same_class = (targets[:, None] == targets).to(scores)
    return scores - same_class @ scores / same_class.sum(1, keepdim=True)


def _standardized(scores: Tensor) -> Tensor:
    """Columns of deviations (N, P) over their spread; 0 where that is no more than rounding."""
    spread = scores.square().mean(0).sqrt()
    is_real = spread > 1e-6 * spread.amax()
    return torch.where(is_real, scores / spread.where(is_real, 1), 0)


def _is_highest(scores: Tensor) -> Tensor:
    return scores == scores.amax(1, keepdim=True)


@metric(better="lower", unit="probability", note="out of distribution")
def pixel_deletion(output: ExplainerOutput) -> Tensor:
    """Area under the target's probability as pixels turn to their image's mean color, the strongest first.

    Petsiuk, Das, Saenko: RISE, BMVC 2018, arXiv:1806.07421. Pixels that tie go in one random
    order, the same for every row.
    """
    return _pixel_curve(output, lambda images: (images, images.mean((2, 3), keepdim=True).expand_as(images)))


@metric(better="higher", unit="probability", note="out of distribution")
def pixel_insertion(output: ExplainerOutput) -> Tensor:
    """Area under the target's probability as pixels of the blurred image become sharp, the strongest first.

    Petsiuk, Das, Saenko: RISE, BMVC 2018, arXiv:1806.07421; the blur is theirs, 11 pixels wide
    with a deviation of 5.
    """
    return _pixel_curve(output, lambda images: (gaussian_blur(images, [11, 11], [5.0, 5.0]), images))


def _pixel_curve(output: ExplainerOutput, ends: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """(N,), going from the first of `ends` to the second."""
    context, saliency = output.context, output.saliency
    if min(saliency.shape[1:]) < 6:
        raise InputError(f"Expected images of at least 6 pixels a side; got {tuple(saliency.shape[1:])}.")
    starts, stops = ends(context.images)
    pixels = saliency[0].numel()
    generator = torch.Generator().manual_seed(context.seed)
    shuffle = torch.randperm(pixels, generator=generator).to(saliency.device)
    order = shuffle[saliency.flatten(1)[:, shuffle].argsort(dim=1, descending=True, stable=True)]
    rank = order.argsort(1).view_as(saliency)  # when each pixel goes
    ends_of_steps = torch.arange(STEPS + 1, device=saliency.device) * pixels / STEPS
    areas = []
    for index in torch.arange(len(saliency), device=saliency.device).split(_CHUNK):
        is_gone = rank[index, None, None] < ends_of_steps[:, None, None, None]  # (n, STEPS + 1, 1, H, W)
        mixed = torch.where(is_gone, stops[index, None], starts[index, None]).flatten(0, 1)
        targets = context.targets[index].repeat_interleave(STEPS + 1)
        curves = context.probabilities(mixed, targets).view(len(index), STEPS + 1).double()
        areas.append(area_under(curves, torch.full_like(index, STEPS)))
    return torch.cat(areas)
