"""How CCNN learns: one function a loss of section 3, with the reductions that make its weights comparable."""

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.types import Batch
from explainkit.networks.precision import disable_autocast
from explainkit.training.criteria import classification_loss
from explainkit.training.steps import Step
from explainkit_ccnn.model import CCNNNetwork


def uniqueness(
    scores: Tensor,
    mentioned: Tensor,
    gain: float = 1.0,
    balanced: bool = False,
    share: Tensor | None = None,
) -> Tensor:
    """Whether each filter tells the images of its phrase from others, ``L_u``: a mean over both.

    Binary cross-entropy of ``sigmoid(gain (score - mean of the image's scores))``.

    Parameters
    ----------
    scores : Tensor, (N, K)
    mentioned : Tensor, (N, K), bool
        Which phrases were mentioned of which image.
    gain : float
        The paper has 1, at which scores of order 1 cannot come near certainty.
    balanced : bool
        Weigh phrases that were mentioned and those that were not alike in sum, since few are mentioned of an
        image.
    share : Tensor or None
        Of phrases that were mentioned in the whole batch; ``None``: in these images.
    """
    centered = gain * (scores - scores.mean(1, keepdim=True))
    if not balanced:
        return F.binary_cross_entropy_with_logits(centered, mentioned.to(centered))
    share = (mentioned.float().mean() if share is None else share).clamp(1e-6, 1 - 1e-6)
    weight = torch.where(mentioned, 0.5 / share, 0.5 / (1 - share))
    return F.binary_cross_entropy_with_logits(centered, mentioned.to(centered), weight)


def semantic(network: CCNNNetwork, maps: Tensor, mentioned: Tensor, margin: float = 1.0) -> Tensor:
    """Whether the map of a phrase that was mentioned is nearer to that phrase than to others, ``L_s``.

    Hinges ``max(0, margin + cos(map_k, k') - cos(map_k, k))`` summed over k' other than k, over the phrases
    that were mentioned; a mean over all filters and images. Other maps are not looked at.
    """
    image, phrase = mentioned.nonzero(as_tuple=True)
    cosines = network.embed_maps(maps[image, phrase].flatten(1)) @ network.embed_phrases().T  # (M, K)
    own = cosines.gather(1, phrase[:, None])
    hinges = (margin + cosines - own).clamp(min=0).scatter(1, phrase[:, None], 0.0)
    return hinges.sum() / mentioned.numel()


def counter(
    network: CCNNNetwork,
    maps: Tensor,
    mentioned: Tensor,
    order: Tensor,
    margin: float = 0.5,
    whole: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Whether a phrase's map is nearer to it than in a counter image where it was not mentioned, ``L_c``.

    Hinges ``max(0, margin + cos in the counter image - cos in the image)``; a mean over all filters and
    images.

    Parameters
    ----------
    order : Tensor, (N,)
        Which image of the whole batch is each one's counter image.
    whole : (Tensor, Tensor) or None
        Maps and mentions of the whole batch; ``None``: these are all.
    """
    whole_maps, whole_mentioned = whole or (maps, mentioned)
    image, phrase = (mentioned & ~whole_mentioned[order]).nonzero(as_tuple=True)
    phrase_vectors = network.embed_phrases()[phrase]
    cosines = (network.embed_maps(maps[image, phrase].flatten(1)) * phrase_vectors).sum(1)
    counter_cosines = (network.embed_maps(whole_maps[order[image], phrase].flatten(1)) * phrase_vectors).sum(
        1
    )
    return (margin + counter_cosines - cosines).clamp(min=0).sum() / mentioned.numel()


def stray_l1(network: CCNNNetwork) -> Tensor:
    """The mean size of the weights between classes and phrases that were not chosen for them (stage 3)."""
    return network.head.weight.masked_fill(network.of_classes.T, 0).abs().mean()


def guided_loss(
    network: CCNNNetwork,
    batch: Batch,
    step: Step,
    mentioned: Tensor,
    concept_weight: float = 0.4,
    gain: float = 1.0,
    balanced: bool = False,
    margin: float = 1.0,
    counter_margin: float = 0.5,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Classification, and `concept_weight` times what ties filters to phrases: stages 1 and 2.

    Parameters
    ----------
    mentioned : Tensor, (N of the training split, K), bool
        Which phrases of its class were mentioned of which training image.
    """
    outputs = network.outputs(batch.images)
    classification = classification_loss(outputs.logits, batch.labels, label_smoothing)
    terms = {"cross_entropy": classification}
    if not concept_weight:
        return terms
    mentioned = mentioned.to(batch.images.device)[batch.ids]
    maps, whole = outputs.maps, (step.gather(outputs.maps), step.gather(mentioned))
    order = step.local(torch.randperm(step.batch_size, device=mentioned.device))
    share = whole[1].float().mean()
    with disable_autocast(maps.device):
        return terms | {
            "uniqueness": concept_weight * uniqueness(maps.mean((2, 3)), mentioned, gain, balanced, share),
            "semantic": concept_weight * semantic(network, maps, mentioned, margin),
            "counter": concept_weight * counter(network, maps, mentioned, order, counter_margin, whole),
        }


def head_loss(
    network: CCNNNetwork, batch: Batch, step: Step, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Classification, and a small price on weights that no phrase asked for: stage 3."""
    logits = network(batch.images)
    return {
        "cross_entropy": classification_loss(logits, batch.labels, label_smoothing),
        "stray": stray_l1(network),
    }
