"""How CI-GC learns: cross-entropy of images, and how far Grad-CAM moves when others are put beside them."""

import torch
from torch import Tensor

from explainkit.data.types import Batch, ImageDataset
from explainkit.explanations.decisions import Decision
from explainkit.networks.precision import reference_tensor
from explainkit.training.criteria import classification_loss
from explainkit.training.steps import Step
from explainkit_cigc.grids import Grids, check_doubled, draw_grids, draw_ids, placed, tile, untile
from explainkit_cigc.model import CIGCNetwork, grad_cam, is_dead, normalized

VALIDATION = 64
"""Validation images of which composites are made after every epoch."""


def grid_distance(single: Tensor, composite: Tensor, quadrants: Tensor) -> Tensor:
    """How far apart the map of a composite and that of the image in it are, in [0, 2]: (M,).

    ``sum_p |g'(p) - T(p)|``, where T is the image's map in its quadrant and 0 elsewhere. The mean over the
    4 h w cells, which the published code takes, is this over 4 h w: there a weight stands for another
    strength at each size of images.

    Parameters
    ----------
    single, composite : Tensor, (M, h, w) and (M, 2 h, 2 w)
        As shares. The gradient goes through both.
    """
    return (composite - placed(single, quadrants)).abs().sum((1, 2))


def inside_mass(composite: Tensor, quadrants: Tensor) -> Tensor:
    """Which share of maps (M, 2 h, 2 w) is in the quadrant of the image that is looked at: (M,)."""
    rows = torch.arange(len(quadrants), device=quadrants.device)
    return untile(composite)[rows, quadrants].sum((1, 2))


def consistency_loss(
    network: CIGCNetwork,
    batch: Batch,
    step: Step,
    consistency: float = 0.5,
    composite_fraction: float = 0.25,
    warm_epochs: int = 0,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Mean cross-entropy over the batch; and after `warm_epochs`, `consistency` times the mean distance.

    Equations 2 and 3 of the paper. Composites are never classified. They are made of images of the batch, of
    all processes, and pass through the network in training mode after the images themselves: batch norms
    normalize them by their own statistics, and both move the running ones.

    Parameters
    ----------
    consistency : float
        Of a distance in [0, 2].
    composite_fraction : float
        Share of the images that are looked at in a composite.
    """
    outputs = network.outputs(batch.images)
    terms = {"cross_entropy": classification_loss(outputs.logits, batch.labels, label_smoothing)}
    if not consistency or step.epoch <= warm_epochs:
        return terms
    images, labels, ids = (step.gather(values) for values in (batch.images, batch.labels, batch.ids))
    truth = truth_of(labels, outputs.logits.shape[1])
    grids = draw_grids(truth, ids, composite_fraction, int(network.draw_seed), step.index)
    here = grids[grids.anchors % step.processes == step.rank]
    if not len(here):
        return terms | {"consistency": outputs.logits.sum() * 0}
    maps = outputs.maps[here.anchors // step.processes]
    distances = _distances(network, maps, images, here)
    # the trainer takes the mean over images, of which each process may have another number of composites
    share = step.batch_size / (len(batch) * len(grids))
    return terms | {"consistency": consistency * share * distances.sum()}


def consistency_metrics(network: CIGCNetwork, dataset: ImageDataset) -> dict[str, float]:
    """How consistent maps of 64 validation images are, each in one composite of the others.

    The same are drawn after every epoch, from the whole split: it may be sorted by class.

    ``map_overlap`` is the mean of ``1 - distance / 2``, ``inside_mass`` the share of the composite's map that
    is on the image; ``dead_maps`` the share of images of whose class no cell says anything, which are left
    out of both. Nothing where no two images differ in class.
    """
    split = dataset.validation
    batch = split.batch(draw_ids(len(split), VALIDATION, 0)).to(reference_tensor(network).device)
    if not len(batch):
        return {}
    images = batch.images.to(reference_tensor(network).dtype)
    maps = network.outputs(images).maps
    truth = truth_of(batch.labels, network.head.out_features)
    grids = draw_grids(truth, batch.ids, 1.0, 0, 0)
    if not len(grids):
        return {}
    composites = network.outputs(tile(images[grids.rows])).maps
    check_doubled(maps, composites)
    single = grad_cam(network, maps[grids.anchors], grids.targets)
    composite = normalized(grad_cam(network, composites, grids.targets))
    is_alive = ~is_dead(single)
    facts = {"dead_maps": 1 - is_alive.double().mean().item()}
    if is_alive.any():
        distance = grid_distance(normalized(single), composite, grids.quadrants)[is_alive]
        inside = inside_mass(composite, grids.quadrants)[is_alive]
        facts |= {"map_overlap": 1 - distance.mean().item() / 2, "inside_mass": inside.mean().item()}
    return facts


def truth_of(labels: Tensor, classes: int) -> Tensor:
    """Which of `classes` each image has, (N, C), bool, by labels (N,) or multi-hot ones (N, C)."""
    is_exclusive = labels.ndim == 1 and classes > 1
    return Decision(rule="softmax" if is_exclusive else "sigmoid").truth(labels, classes)


def _distances(network: CIGCNetwork, maps: Tensor, images: Tensor, grids: Grids) -> Tensor:
    """`grid_distance` of each of `grids` of `images`, whose looked-at ones have these maps: (M,)."""
    composites = network.outputs(tile(images[grids.rows])).maps
    check_doubled(maps, composites)
    single = normalized(grad_cam(network, maps, grids.targets))
    composite = normalized(grad_cam(network, composites, grids.targets))
    return grid_distance(single, composite, grids.quadrants)
