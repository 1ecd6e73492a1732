"""How InterpCNN learns: cross-entropy, and what makes each filter fire at one place of the image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.types import Batch
from explainkit.networks.precision import disable_autocast
from explainkit.training.criteria import classification_loss
from explainkit.training.steps import Step
from explainkit_interpcnn.categories import observe
from explainkit_interpcnn.model import InterpCNNNetwork
from explainkit_interpcnn.templates import templates, templates_at_peaks

Variant = Literal["mi", "target"]

SILENT = 1e-6
"""A filter whose maxima are smaller in the mean fires nowhere, and has nothing to scale by."""

LEAST_EVIDENCE = -50.0
"""Below that of the image which a template gives most; what is less counts as that, and has no gradient."""


def mutual_information(maps: Tensor, gain: float = 10.0, beta: float = 4.0) -> Tensor:
    """How much the maps (N, K, h, w) of each filter tell of the place that it fires at, in nats, (K,).

    The mutual information of maps and templates, section 3 of the paper, with ``p(x|T)`` in proportion to
    ``exp(gain <x, T>)`` over the N images. Maps are divided by the mean over images of their maxima first,
    so that the information does not depend on how strong a filter is: it is at most
    ``min(ln N, ln(h w + 1))``. The paper has neither the division nor a gain but the factor
    ``0.5 / n ** 2``, with which the information, and its gradient, are next to nothing.
    """
    flat = maps.flatten(2)
    scale = flat.amax(2).mean(0)
    relative = flat / scale.where(scale > SILENT, 1)[:, None]
    products = torch.einsum("nkp,tp->ktn", relative, templates(maps.shape[2:], beta, maps.detach()))
    return template_information(gain * products)


def template_information(evidence: Tensor) -> Tensor:
    """The mutual information of N images and T equally probable templates, (K,), from (K, T, N).

    `evidence` is the logarithm of ``p(x|T)`` up to a number for each template. The information is the entropy
    of images less their mean entropy given a template.
    """
    # images last, and no probability below 1e-22: softmax over strided numbers is many times slower, and so
    # are products of denormal ones
    evidence = (evidence - evidence.detach().amax(2, keepdim=True)).clamp(min=LEAST_EVIDENCE)
    log_given = evidence.log_softmax(2)
    given = log_given.exp()  # p(x|T)
    image = given.mean(1)  # p(x)
    return (given * log_given).sum(2).mean(1) - (image * image.log()).sum(1)


def target_surrogate(
    maps: Tensor,
    membership: Tensor,
    category: Tensor,
    class_share: Tensor,
    beta: float = 4.0,
    temperature: float = 0.5,
) -> Tensor:
    """What the authors' code does instead: it draws filters to one place in their own class, and off others.

    ``- w_p q <x, T>`` for each image of the filter's class, T being the template of the map's strongest cell,
    and ``w_n q sum(x)`` for each other image; summed over filters, a mean over images. The q are constants
    that rank the images of either kind and have the mean 1; ``w_p = 0.5 / share`` of the class, and
    ``w_n = 0.5 / (1 - share)``.

    Parameters
    ----------
    maps : Tensor, (N, K, h, w)
    membership : Tensor, (N, C), bool
    category : Tensor, (K,)
        The class of each filter.
    class_share : Tensor, (C,)
        Of the training images.
    """
    flat, pattern = maps.flatten(2), templates_at_peaks(maps, beta)
    is_own = membership[:, category]  # (N, K)
    matched = (flat * pattern).sum(2)
    with torch.no_grad():
        cells = flat.shape[2]
        elsewhere = (flat * pattern.flip(0, 1)).sum(2) / cells  # at the place of another image and filter
        drawn = rank_weights(matched / cells, elsewhere, is_own, temperature)
        silence = -flat.mean(2)
        pushed = rank_weights(silence, silence, ~is_own, temperature)
        share = class_share[category].to(maps)
        least = torch.finfo(share.dtype).eps
        own_weight, other_weight = 0.5 / share.clamp(min=least), 0.5 / (1 - share).clamp(min=least)
    terms = other_weight * pushed * flat.sum(2) - own_weight * drawn * matched
    return terms.sum(1).mean()


def rank_weights(scores: Tensor, chance: Tensor, is_member: Tensor, temperature: float = 0.5) -> Tensor:
    """The q of `target_surrogate`, (N, K): 0 for images that are no members, their mean over members is 1.

    ``exp(s / a) (s - ln Z + a)`` with ``ln Z = a ln mean exp(s' / a)`` over the members, s' being the scores
    `chance`. What would be below 0 is 0, so that no image is drawn the wrong way; where all are, all are 1.
    """
    count = is_member.sum(0).to(scores)
    log_sum = (chance / temperature).masked_fill(~is_member, -torch.inf).logsumexp(0)
    log_z = temperature * (log_sum - count.clamp(min=1).log())
    highest = scores.masked_fill(~is_member, -torch.inf).amax(0)
    factor = ((scores - highest) / temperature).masked_fill(~is_member, -torch.inf).exp()
    weights = (factor * (scores - log_z + temperature)).where(is_member, 0).clamp(min=0)
    total = weights.sum(0)
    return torch.where(total > 0, weights * (count / total.where(total > 0, 1)), is_member.to(weights))


def filter_loss(
    network: InterpCNNNetwork,
    batch: Batch,
    step: Step,
    variant: Variant = "mi",
    filter_weight: float = 0.05,
    warm_epochs: int = 1,
    anneal: bool = False,
    gain: float = 10.0,
    temperature: float = 0.5,
    category_momentum: float = 0.9,
    freeze_after: float = 1.0,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Classification, and after `warm_epochs` what makes filters fire at one place, of the raw maps.

    Images of all processes are compared, as they were in one.
    """
    outputs = network.outputs(batch.images)
    terms = {"cross_entropy": classification_loss(outputs.logits, batch.labels, label_smoothing)}
    maps = outputs.raw_maps
    membership = step.gather(F.one_hot(batch.labels, len(network.class_share)).bool())
    if step.progress < freeze_after:
        observe(network, step.gather(maps.detach().flatten(2).amax(2)), membership, category_momentum)
    if not filter_weight or step.epoch <= warm_epochs:
        return terms
    weight = filter_weight / step.epoch if anneal else filter_weight
    maps = step.gather(maps)
    with disable_autocast(maps.device):
        if variant == "mi":
            return terms | {"information": -weight * mutual_information(maps, gain, network.beta).mean()}
        surrogate = target_surrogate(
            maps, membership, network.category, network.class_share, network.beta, temperature
        )
        return terms | {"template": weight * surrogate}
