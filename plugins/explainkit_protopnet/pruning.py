"""Pruning: prototypes that are like the background of every class are dropped (supplement, section 8)."""

from torch import Tensor

from explainkit.data.types import ImageDataset
from explainkit_protopnet.head import refit
from explainkit_protopnet.model import ProtoPNetNetwork
from explainkit_protopnet.nearest import Nearest, nearest_patches


def prune(
    network: ProtoPNetNetwork,
    dataset: ImageDataset,
    *,
    neighbors: int = 6,
    min_same_class: int = 3,
    penalty: float = 1e-3,
) -> None:
    """Keep prototypes with `min_same_class` of the `neighbors` nearest patches of their own class; refit."""
    nearest = nearest_patches(network, dataset.batches("train"), neighbors)
    network.keep_prototypes(survivors(nearest, network.owner, min_same_class).nonzero()[:, 0])
    refit(network, dataset, penalty=penalty)


def survivors(nearest: Nearest, owner: Tensor, min_same_class: int) -> Tensor:
    """Which prototypes stay, (P,), bool; of a class that would lose all, the purest stays, or the first."""
    same_class = ((nearest.label == owner[:, None]) & nearest.distance.isfinite()).sum(1)
    stays = same_class >= min_same_class
    for label in owner.unique().tolist():
        rows = (owner == label).nonzero()[:, 0]
        if not stays[rows].any():
            stays[rows[same_class[rows].argmax()]] = True
    return stays
