"""How CCNN learns: one function a loss of section 3, with the reductions that make its weights comparable."""

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.images import Batch
from explainkit_ccnn.model import CCNNNetwork


def uniqueness(scores: Tensor, said: Tensor, gain: float = 1.0, balanced: bool = False) -> Tensor:
    """Whether each filter tells the images of its phrase from others, ``L_u``: a mean over both.

    Binary cross-entropy of ``sigmoid(gain (score - mean of the image's scores))``.

    Parameters
    ----------
    scores : Tensor, (N, K)
    said : Tensor, (N, K), bool
        Which phrases were said of which image.
    gain : float
        The paper has 1, at which scores of order 1 cannot come near certainty.
    balanced : bool
        Weigh what was said and what was not alike in sum, since few phrases are said of an image.
    """
    centred = gain * (scores - scores.mean(1, keepdim=True))
    if not balanced:
        return F.binary_cross_entropy_with_logits(centred, said.to(centred))
    share = said.float().mean().clamp(1e-6, 1 - 1e-6)
    weight = torch.where(said, 0.5 / share, 0.5 / (1 - share))
    return F.binary_cross_entropy_with_logits(centred, said.to(centred), weight)


def semantic(network: CCNNNetwork, maps: Tensor, said: Tensor, margin: float = 1.0) -> Tensor:
    """Whether the map of a phrase that was said is nearer to that phrase than to others, ``L_s``.

    Hinges ``max(0, margin + cos(map_k, k') - cos(map_k, k))`` summed over k' other than k, over the phrases
    that were said; a mean over all filters and images. Only maps of phrases that were said are looked at.
    """
    image, phrase = said.nonzero(as_tuple=True)
    alike = network.seen(maps[image, phrase].flatten(1)) @ network.said().T  # (M, K)
    own = alike.gather(1, phrase[:, None])
    hinges = (margin + alike - own).clamp(min=0).scatter(1, phrase[:, None], 0.0)
    return hinges.sum() / said.numel()


def counter(network: CCNNNetwork, maps: Tensor, said: Tensor, order: Tensor, margin: float = 0.5) -> Tensor:
    """Whether a phrase's map is nearer to it than in a counter image where it was not said, ``L_c``.

    Hinges ``max(0, margin + cos in the counter image - cos here)``; a mean over all filters and images.

    Parameters
    ----------
    order : Tensor, (N,)
        Which image is each one's counter image.
    """
    image, phrase = (said & ~said[order]).nonzero(as_tuple=True)
    words = network.said()[phrase]
    here = (network.seen(maps[image, phrase].flatten(1)) * words).sum(1)
    there = (network.seen(maps[order[image], phrase].flatten(1)) * words).sum(1)
    return (margin + there - here).clamp(min=0).sum() / said.numel()


def stray_l1(network: CCNNNetwork) -> Tensor:
    """The mean size of the weights between classes and phrases that were not chosen for them (stage 3)."""
    return network.head.weight.masked_fill(network.of_classes.T, 0).abs().mean()


def guided_loss(
    network: CCNNNetwork,
    batch: Batch,
    said: Tensor,
    concept_weight: float = 0.4,
    gain: float = 1.0,
    balanced: bool = False,
    margin: float = 1.0,
    counter_margin: float = 0.5,
    smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Classification, and `concept_weight` times what ties filters to phrases: stages 1 and 2.

    Parameters
    ----------
    said : Tensor, (N of the training split, K), bool
        Which phrases of its class were said of which training image.
    """
    parts = network.decompose(batch.images)
    terms = {"cross_entropy": F.cross_entropy(parts.logits, batch.labels, label_smoothing=smoothing)}
    if not concept_weight:
        return terms
    here = said.to(batch.images.device)[batch.ids]
    maps = parts.activations
    order = torch.randperm(len(here), device=here.device)
    return terms | {
        "uniqueness": concept_weight * uniqueness(maps.mean((2, 3)), here, gain, balanced),
        "semantic": concept_weight * semantic(network, maps, here, margin),
        "counter": concept_weight * counter(network, maps, here, order, counter_margin),
    }


def head_loss(network: CCNNNetwork, batch: Batch, smoothing: float = 0.0) -> dict[str, Tensor]:
    """Classification, and a small price on weights that no phrase asked for: stage 3."""
    parts = network.decompose(batch.images)
    return {
        "cross_entropy": F.cross_entropy(parts.logits, batch.labels, label_smoothing=smoothing),
        "stray": stray_l1(network),
    }
