"""How Region-CNN learns: classification, and that regions occur as often as a prior says."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from explainkit.data.types import Batch
from explainkit.networks.precision import disable_autocast
from explainkit.training.criteria import classification_loss
from explainkit.training.steps import Step
from explainkit_regioncnn.grouping import assignment
from explainkit_regioncnn.model import RegionCNNNetwork
from explainkit_regioncnn.occurrence import occurrence, occurrence_distance
from explainkit_regioncnn.recoloring import disagreement, is_recolored, recolored


def region_loss(
    network: RegionCNNNetwork,
    batch: Batch,
    step: Step,
    *,
    prior: Sequence[float] = (1.0, 0.001),
    prior_weight: float = 0.5,
    is_log: bool | None = None,
    blur_radius: int = 2,
    recoloring_weight: float = 0.0,
    recolor_every: int = 4,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """``CE(S, y) + c L_shape``, equation 7 of the paper; and that regions stay where colors change.

    Occurrences are sorted over the images of all processes, as they were in one.

    Parameters
    ----------
    prior, is_log
        As `occurrence_distance` takes them.
    prior_weight : float
        Weight of the prior, c; 0 leaves it out.
    blur_radius : int
        Of the Gaussian that smooths assignments before their maximum is taken, in cells.
    recoloring_weight : float
        Of the disagreement of regions in an image and in the same image recolored; 0 leaves it out.
    recolor_every : int
        One image of so many is recolored, others in the next epoch.
    """
    images, count = batch.images, len(batch)
    if recoloring_weight:
        chosen = is_recolored(batch.ids, step.epoch, recolor_every).nonzero()[:, 0].to(images.device)
        images = torch.cat([images, recolored(images[chosen], batch.ids[chosen.cpu()], step.epoch)])
    cells = network.cell_features(images)  # in one pass, so that a batch norm sees both
    outputs = network.outputs_of(cells[:count])
    terms = {"cross_entropy": classification_loss(outputs.logits, batch.labels, label_smoothing)}
    if prior_weight:
        with disable_autocast(outputs.shares.device):
            occurrences = step.gather(occurrence(outputs.shares, blur_radius))
            distance = occurrence_distance(occurrences, prior, is_log=is_log)
        terms["occurrence"] = prior_weight * distance
    if recoloring_weight:
        with disable_autocast(cells.device):
            other = assignment(cells[count:], network.dictionary, network.beta)
            apart = disagreement(outputs.shares[chosen], other).sum() * (recolor_every / count)
        terms["recoloring"] = recoloring_weight * apart
    return terms
