"""What concepts look like: the training images that have most of them, and what the decoder draws of them."""

import torch
from torch import Tensor

from explainkit.data.types import ImageDataset
from explainkit.explanations.colors import as_rgb
from explainkit_senn.model import BEST, STRIP, SENNNetwork


def ground(network: SENNNetwork, dataset: ImageDataset, batch_size: int = 256) -> None:
    """Bring concepts to deviation 1 over the training data, and keep what shows what they are.

    The logits stay the same: a concept is divided by its deviation, its weights are multiplied by it (they
    are known but for a scale).
    """
    grounds = network.grounds
    grounds.std.fill_(1.0)
    count = len(grounds.std)
    batches = [
        network.concepts_of(network.preprocess(batch.images.to(grounds.std)))[:, :count]
        for batch in dataset.batches("train", batch_size)
    ]
    concepts = torch.cat(batches)  # (N, K): a few numbers an image
    std = concepts.std(0)
    std = torch.where(std > 1e-6, std, 1.0)  # of one that never changes there is no scale
    grounds.std.copy_(std)
    grounds.mean.copy_(concepts.mean(0))
    levels = torch.tensor([0.05, 0.95], device=concepts.device, dtype=concepts.dtype)
    for range, values, scale in zip(grounds.range.T, concepts.T, std, strict=True):
        range.copy_(values.quantile(levels) / scale)
    if grounds.picture.numel():
        for start, sign in ((0, 1), (BEST, -1)):
            _keep_best_images(network, dataset, sign * concepts, start)
        _draw_concepts(network)


def _keep_best_images(network: SENNNetwork, dataset: ImageDataset, concepts: Tensor, start: int) -> None:
    """The images with most of each concept (N, K), from column `start` on; ties go to the lowest id."""
    grounds = network.grounds
    best = concepts.argsort(dim=0, descending=True, stable=True)[:BEST].T  # (K, BEST)
    count = best.shape[1]
    ids, index = best.unique(return_inverse=True)
    batch = dataset.train.batch(ids.cpu())
    pictures = (as_rgb(batch.images) * 255).round().byte().to(best.device)
    columns = slice(start, start + count)
    grounds.image[:, columns] = best
    if batch.labels.ndim == 1:  # of several there is none to name
        grounds.label[:, columns] = batch.labels.to(best.device)[index]
    grounds.picture.unflatten(0, (-1, 2 * BEST))[:, columns] = pictures[index]


def _draw_concepts(network: SENNNetwork) -> None:
    """Each concept from its 5 % to its 95 % quantile, all others at their mean: section 3.3's decoder."""
    grounds = network.grounds
    count = len(grounds.std)
    steps = torch.linspace(0, 1, STRIP, device=grounds.mean.device)
    low, high = grounds.range
    sweep = low[:, None] + (high - low)[:, None] * steps  # (K, STRIP)
    concepts = (grounds.mean / grounds.std).expand(count, STRIP, -1).clone()
    units = torch.arange(count, device=concepts.device)
    concepts[units, :, units] = sweep
    drawn = network.conceptizer.decode((concepts * grounds.std).flatten(0, 1))
    if drawn is not None:
        grounds.drawn.copy_(as_rgb((drawn.clamp(0, 1) * 255).round().byte()))
