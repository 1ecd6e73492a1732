"""A report on a trained network: what projection changed, which prototypes are alike or idle."""

from collections.abc import Sequence

import torch
from attrs import frozen

from explainkit_protopnet.model import ProtoPNetNetwork


@frozen(kw_only=True)
class ProjectionReport:
    """The state of a network's prototypes.

    Attributes
    ----------
    projected : bool
    prototypes : int
    duplicates : int
        Prototypes that are the same patch as another of lower number.
    images : int
        Different images that prototypes were taken from.
    moved : float
        Mean squared distance that projection moved a prototype by.
    uncovered : tuple of str
        Classes none of whose own prototypes supports them.
    accuracy_before, accuracy_after, accuracy : float or None
        On the validation split: before projection, after it, and with the last layer learned anew.
    zeros : float
        Share of exact zeros among the weights between prototypes and classes of others.
    """

    projected: bool
    prototypes: int
    duplicates: int
    images: int
    moved: float
    uncovered: tuple[str, ...]
    accuracy_before: float | None
    accuracy_after: float | None
    accuracy: float | None
    zeros: float

    def __str__(self) -> str:
        if not self.projected:
            return f"{self.prototypes} prototypes, not projected: none is a patch of a training image yet."
        lines = [
            f"{self.prototypes} prototypes from {self.images} training images, {self.duplicates} duplicates",
            f"projection moved them by {self.moved:.3g} (mean squared distance)",
            f"{self.zeros:.1%} of the weights to other classes are exactly zero",
            f"classes without a live prototype: {', '.join(self.uncovered) or 'none'}",
        ]
        if self.accuracy is not None:
            lines.insert(
                2,
                f"validation accuracy {self.accuracy_before:.1%} before projection, "
                f"{self.accuracy_after:.1%} after it, {self.accuracy:.1%} with the new last layer",
            )
        return "\n".join(lines)


def report_on(network: ProtoPNetNetwork, classes: Sequence[str]) -> ProjectionReport:
    """The report on `network`."""
    sources, own, weight = network.sources, network.own, network.head.weight.detach()
    patches = torch.cat([sources.image[:, None], sources.cell], 1)
    is_alive = ((weight > 0) & own.T).any(1)
    accuracies = [None if value < 0 else value for value in network.accuracies.tolist()]
    projected = bool(network.projected)
    return ProjectionReport(
        projected=projected,
        prototypes=len(patches),
        duplicates=len(patches) - len(patches.unique(dim=0)) if projected else 0,
        images=len(sources.image.unique()) if projected else 0,
        moved=sources.moved.mean().item(),
        uncovered=tuple(name for name, lives in zip(classes, is_alive.tolist(), strict=True) if not lives),
        accuracy_before=accuracies[0],
        accuracy_after=accuracies[1],
        accuracy=accuracies[2],
        zeros=(weight[~own.T] == 0).float().mean().item(),
    )
