"""What concepts look like: the training images that have most of them, and what the decoder draws of them."""

import torch
from torch import Tensor

from explainkit.data.images import ImageData
from explainkit_senn.model import BEST, STRIP, SENNNetwork


def ground(network: SENNNetwork, data: ImageData, batch_size: int = 256) -> None:
    """Bring concepts to deviation 1 over the training data, and keep what shows what they are.

    The logits stay the same: a concept is divided by its deviation, its weights are multiplied by it (they
    are known but for a scale).
    """
    grounds = network.grounds
    grounds.spread.fill_(1.0)
    known = len(grounds.spread)
    found = [
        network.concepts_of(network.ready(batch.images.to(grounds.spread.device)))[:, :known]
        for batch in data.batches("train", batch_size)
    ]
    concepts = torch.cat(found)  # (N, K): a few numbers an image
    spread = concepts.std(0)
    spread = torch.where(spread > 1e-6, spread, 1.0)  # of one that never changes there is no scale
    grounds.spread.copy_(spread)
    grounds.mean.copy_(concepts.mean(0))
    levels = torch.tensor([0.05, 0.95], device=concepts.device, dtype=concepts.dtype)
    for range, values, scale in zip(grounds.range.T, concepts.T, spread, strict=True):
        range.copy_(values.quantile(levels) / scale)
    if grounds.picture.numel():
        for place, sign in ((0, 1), (BEST, -1)):
            _keep_best(network, data, sign * concepts, place)
        _draw(network)


def _keep_best(network: SENNNetwork, data: ImageData, concepts: Tensor, start: int) -> None:
    """The images with most of each concept (N, K), from place `start` on; ties go to the lowest id."""
    grounds = network.grounds
    best = concepts.argsort(dim=0, descending=True, stable=True)[:BEST].T  # (K, BEST)
    count = best.shape[1]
    ids, where = best.unique(return_inverse=True)
    batch = data.train.batch(ids.cpu())
    pictures = (batch.images * 255).round().byte().to(best.device)
    places = slice(start, start + count)
    grounds.image[:, places] = best
    grounds.label[:, places] = batch.labels.to(best.device)[where]
    grounds.picture.unflatten(0, (-1, 2 * BEST))[:, places] = pictures[where]


def _draw(network: SENNNetwork) -> None:
    """Each concept from its 5 % to its 95 % quantile, all others at their mean: section 3.3's decoder."""
    grounds = network.grounds
    known = len(grounds.spread)
    steps = torch.linspace(0, 1, STRIP, device=grounds.mean.device)
    low, high = grounds.range
    swept = low[:, None] + (high - low)[:, None] * steps  # (K, STRIP)
    concepts = (grounds.mean / grounds.spread).expand(known, STRIP, -1).clone()
    places = torch.arange(known, device=concepts.device)
    concepts[places, :, places] = swept
    drawn = network.conceptizer.decode((concepts * grounds.spread).flatten(0, 1))
    if drawn is not None:
        grounds.drawn.copy_((drawn.clamp(0, 1) * 255).round().byte().expand(-1, 3, -1, -1))
