"""Whether an explanation says what the network does; the truth is what it does when parts are truly removed.

The choice of these measures, and why they are taken where importance varies within a class, follow Hesse,
Schaub-Meyer, Roth: FunnyBirds, ICCV 2023, arXiv:2308.06248, with exact Shapley values in place of single
removals, and maps reduced in one way for every explainer.
"""

import torch
from torch import Tensor

from explainkit.errors import InputError
from explainkit.metrics.exam import Answer
from explainkit.metrics.score import metric

SHUFFLES = 16
"""Orders over which parts of equal score are averaged."""


@metric(better="lower", unit="share of |logit|")
def residual(answer: Answer) -> Tensor:
    """How much of the logit the sum leaves out: |residual| / |logit|.

    Completeness: Sundararajan, Taly, Yan, ICML 2017, arXiv:1703.01365, proposition 1.
    """
    told = answer.explanations
    if told.residual is None:
        raise InputError("It claims no sum.")
    return told.residual.abs() / told.totals.abs().clamp(min=1e-6)


@metric(better="higher", unit="rank correlation", note="0 where a ranking is flat")
def rho_phi(answer: Answer) -> Tensor:
    """Spearman's rank correlation between part scores and exact Shapley values, in each image.

    Ties have their average rank. Shapley values: Lundberg, Lee, NeurIPS 2017, arXiv:1705.07874, theorem
    1, without sampling.
    """
    return spearman(answer.part_scores, answer.exam.truth.shapley).nan_to_num(0)


@metric(better="higher", unit="correlation", note="beyond the mean of each part in each class")
def residual_r(answer: Answer) -> Tensor:
    """What the scores know of an image beyond its class: correlation less each (class, part) mean.

    Pearson's correlation over images, in each part, then the mean over parts. It belongs to all images
    together: an image's value is the correlation plus the image's influence on it (Devlin, Gnanadesikan,
    Kettenring, Biometrika 62, 1975), so that mean and interval are those of the correlation. A part whose
    scores never differ within a class counts as 0.
    """
    targets = answer.exam.targets
    told, true = (
        _beyond_class(scores.double(), targets) for scores in (answer.part_scores, answer.exam.truth.shapley)
    )
    a, b = _standardised(told), _standardised(true)
    correlation = (a * b).mean(0)  # (P,)
    influence = a * b - correlation * (a.square() + b.square()) / 2
    return (correlation + influence).mean(1)


@metric(better="higher", unit="share of images")
def top_part(answer: Answer) -> Tensor:
    """Whether the part with the highest score is the one worth most; of equal scores, the share that are.

    Hesse et al., ICCV 2023, in spirit of their single deletion protocol.
    """
    told, true = (_first(scores) for scores in (answer.part_scores, answer.exam.truth.shapley))
    return (told & true).sum(1) / told.sum(1)


@metric(better="lower", unit="probability")
def part_deletion(answer: Answer) -> Tensor:
    """Area under the target's probability as parts are removed from the scene, the highest score first.

    Petsiuk, Das, Saenko, BMVC 2018, arXiv:1806.07421, with parts drawn away in place of pixels greyed out.
    """
    return _part_curve(answer, deleting=True)


@metric(better="higher", unit="probability")
def part_insertion(answer: Answer) -> Tensor:
    """Area under the target's probability as parts are added to a bare bird, the highest score first.

    Petsiuk, Das, Saenko, BMVC 2018, arXiv:1806.07421, with parts drawn in place of pixels unveiled.
    """
    return _part_curve(answer, deleting=False)


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


def _part_curve(answer: Answer, deleting: bool) -> Tensor:
    """(N,): parts that are not there come last, where they change nothing, and do not count as steps."""
    truth, scores = answer.exam.truth, answer.part_scores
    parts = scores.shape[1]
    generator = torch.Generator().manual_seed(answer.exam.seed)
    shuffles = torch.rand(SHUFFLES, parts, generator=generator).argsort(1).to(scores.device)  # (R, P)
    known = scores.where(truth.present, -torch.inf)[:, shuffles]  # (N, R, P)
    order = shuffles.expand_as(known).gather(2, known.argsort(dim=2, descending=True, stable=True))
    taken = (1 << order).cumsum(2)
    subsets = torch.cat([torch.zeros_like(taken[..., :1]), taken], 2)
    if deleting:
        subsets = (1 << parts) - 1 - subsets
    curves = truth.probabilities.gather(1, subsets.flatten(1)).view(subsets.shape)
    return area_under(curves, truth.present.sum(1, keepdim=True)).mean(1)


def _beyond_class(scores: Tensor, targets: Tensor) -> Tensor:
    """Scores (N, P) less the mean over the images of the same target."""
    together = (targets[:, None] == targets).to(scores)
    return scores - together @ scores / together.sum(1, keepdim=True)


def _standardised(scores: Tensor) -> Tensor:
    """Columns of deviations (N, P) over their spread; 0 where that is no more than rounding."""
    spread = scores.square().mean(0).sqrt()
    real = spread > 1e-6 * spread.amax()
    return torch.where(real, scores / spread.where(real, 1), 0)


def _first(scores: Tensor) -> Tensor:
    return scores == scores.amax(1, keepdim=True)
