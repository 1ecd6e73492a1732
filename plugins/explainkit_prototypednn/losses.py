"""How PrototypeDNN learns: right, with a decoder that draws, and prototypes that are near to images."""

from __future__ import annotations

from torch import Tensor

from explainkit.data.types import Batch
from explainkit.training.criteria import classification_loss
from explainkit.training.steps import Step
from explainkit_prototypednn.model import PrototypeDNNNetwork


def reconstruction_error(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Sum of squared differences over all pixels and channels, of (N, c, H, W): (N,)."""
    return (reconstruction - images).square().flatten(1).sum(1)


def prototype_distance(distances: Tensor) -> Tensor:
    """R1 of the paper: the mean over prototypes of the distance to the nearest image, of (N, K).

    In a batch it is an upper bound of that over all training images, which `PrototypeReport` has.
    """
    return distances.amin(0).mean()


def image_distance(distances: Tensor) -> Tensor:
    """R2 of the paper: the mean over images of the distance to the nearest prototype, of (N, K)."""
    return distances.amin(1).mean()


def prototype_loss(
    network: PrototypeDNNNetwork,
    batch: Batch,
    step: Step,
    reconstruction_weight: float = 0.05,
    prototype_weight: float = 0.05,
    image_weight: float = 0.05,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Equation 7 of the paper: cross-entropy, what the decoder misses, and R1 and R2.

    The images are those that the network saw, distorted ones too. One matrix of distances serves logits, R1
    and R2; for R1 the images of all processes are compared. The published code has 20 times the
    cross-entropy and weights of 1: the same minimum.
    """
    outputs = network.outputs(batch.images, reconstruct=True)
    assert outputs.reconstruction is not None
    missed = reconstruction_error(outputs.reconstruction, network.encoder_inputs(batch.images))
    return {
        "cross_entropy": classification_loss(outputs.logits, batch.labels, label_smoothing),
        "reconstruction": reconstruction_weight * missed.mean(),
        "prototypes": prototype_weight * prototype_distance(step.gather(outputs.distances)),
        "images": image_weight * image_distance(outputs.distances),
    }


def head_loss(
    network: PrototypeDNNNetwork, batch: Batch, step: Step, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Cross-entropy alone, for the last layer after a projection."""
    logits = network.outputs(batch.images).logits
    return {"cross_entropy": classification_loss(logits, batch.labels, label_smoothing)}
