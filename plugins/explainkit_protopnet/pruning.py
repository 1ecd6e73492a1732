"""Pruning: prototypes that are like the background of every class are dropped (supplement, section 8)."""

from torch import Tensor

from explainkit.data.images import ImageData
from explainkit_protopnet.head import refit
from explainkit_protopnet.model import ProtoPNetNetwork
from explainkit_protopnet.nearest import Nearest, nearest_patches


def prune(
    network: ProtoPNetNetwork, data: ImageData, *, neighbours: int = 6, least: int = 3, penalty: float = 1e-3
) -> None:
    """Keep the prototypes of which `least` of the `neighbours` nearest patches are of their class; refit."""
    found = nearest_patches(network, data.batches("train"), neighbours)
    network.keep(survivors(found, network.owner, least).nonzero()[:, 0])
    refit(network, data, penalty=penalty)


def survivors(found: Nearest, owner: Tensor, least: int) -> Tensor:
    """Which prototypes stay, (P,), bool; of a class that would lose all, the purest stays, or the first."""
    alike = ((found.label == owner[:, None]) & found.distance.isfinite()).sum(1)
    stays = alike >= least
    for label in owner.unique().tolist():
        mine = (owner == label).nonzero()[:, 0]
        if not stays[mine].any():
            stays[mine[alike[mine].argmax()]] = True
    return stays
