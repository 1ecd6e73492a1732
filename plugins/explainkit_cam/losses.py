"""How CAM learns: cross-entropy alone, no localization term."""

from torch import Tensor

from explainkit.data.types import Batch
from explainkit.training.criteria import classification_loss
from explainkit.training.steps import Step
from explainkit_cam.model import CAMNetwork


def cross_entropy(
    network: CAMNetwork, batch: Batch, step: Step, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Mean cross-entropy over the batch, with label smoothing (Szegedy et al., CVPR 2016, section 7)."""
    return {"cross_entropy": classification_loss(network(batch.images), batch.labels, label_smoothing)}
