"""A report on a trained network: which classes its prototypes are of, and which are alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import field, frozen
from torch import Tensor

from explainkit_prototypednn.geometry import quadratic_form
from explainkit_prototypednn.model import PrototypeDNNNetwork, squared_distances

ALIKE = 0.01
"""Share of the median distance between prototypes below which two count as the same."""


@frozen(kw_only=True)
class PrototypeReport:
    """The state of a network's prototypes.

    Attributes
    ----------
    owners : tuple of str, K
        The class of each prototype: where it has its least weight.
    uncovered : tuple of str
        Classes without a prototype.
    duplicates : int
        Prototypes that are as good as the same as one of lower number.
    nearest_distance : float
        R1 over all training images: the mean squared distance of a prototype to the nearest one.
    """

    owners: tuple[str, ...]
    uncovered: tuple[str, ...]
    duplicates: int
    nearest_distance: float

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{len(self.owners)} prototypes, {self.duplicates} duplicates",
                f"classes without a prototype: {', '.join(self.uncovered) or 'none'}",
                f"mean squared distance to the nearest training image {self.nearest_distance:.3g}",
            ]
        )


@frozen(eq=False, kw_only=True)
class ClassPoints:
    """Where in the latent space each of C classes is most, or least, likely, and what is drawn there.

    Attributes
    ----------
    classes : tuple of str, C
    latent : Tensor, (C, q)
        The center of each logit's quadratic form; NaN where it is linear.
    is_ideal : Tensor, (C,), bool
        Whether the logit is largest there; else it is smallest there.
    pictures : Tensor, (C, D, H, W), in [0, 1]
        Decoded, of the point within what the encoder can reach.
    """

    classes: tuple[str, ...]
    latent: Tensor = field(repr=False)
    is_ideal: Tensor
    pictures: Tensor = field(repr=False)


def owner_of_prototypes(network: PrototypeDNNNetwork) -> Tensor:
    """The class of each prototype, (K,): near it, that one's logit falls least."""
    return network.head.weight.detach().argmin(0)


def report_on(network: PrototypeDNNNetwork, classes: Sequence[str]) -> PrototypeReport:
    """The report on `network`."""
    owners = owner_of_prototypes(network).tolist()
    prototypes = network.prototypes.detach().double()
    distances = squared_distances(prototypes, prototypes)
    pairs = distances[torch.ones_like(distances).triu(1) > 0]
    usual = pairs.median() if len(pairs) else distances.new_zeros(())
    is_same = (distances <= ALIKE * usual).tril(-1).any(1)
    return PrototypeReport(
        owners=tuple(classes[label] for label in owners),
        uncovered=tuple(name for label, name in enumerate(classes) if label not in owners),
        duplicates=int(is_same.sum()),
        nearest_distance=network.sources.distance[:, 0].mean().item(),
    )


@torch.no_grad()
def class_points(network: PrototypeDNNNetwork, classes: Sequence[str]) -> ClassPoints:
    """The centers of all logits of `network`, decoded."""
    form = quadratic_form(network)
    centers = form.centers.to(network.prototypes.dtype)
    pictures = network.pictures(centers.nan_to_num(0.0).clamp(0, network.upper)).clamp(0, 1)
    return ClassPoints(classes=tuple(classes), latent=centers, is_ideal=form.a < 0, pictures=pictures)
