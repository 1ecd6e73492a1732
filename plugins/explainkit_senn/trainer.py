"""How SENN learns: one function a term of section 3.4, all of them optimised, each a mean over the batch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.images import Batch
from explainkit_senn.model import Reading, SENNNetwork
from explainkit_senn.robustness import exact, probed


def reconstruction(network: SENNNetwork, parts: Reading, inputs: Tensor) -> Tensor:
    """Mean squared error over all elements of what is drawn from the concepts, ``L_h`` of the paper."""
    if parts.reconstruction is None:
        return parts.logits.new_zeros(())
    return F.mse_loss(parts.reconstruction, network.seen(inputs))


def sparsity(parts: Reading) -> Tensor:
    """The mean over the batch of ``sum_k |h_k|``."""
    return parts.scores.abs().sum(1).mean()


def robustness(parts: Reading, literally: bool = False) -> Tensor:
    """The mean over tracked inputs of ``sum_c |R_c|^2``: the paper's ``L_theta``, on logits.

    Parameters
    ----------
    literally : bool
        All classes, rather than one probe of random signs, which is right in the mean.
    """
    inputs = parts.tracked
    if inputs is None:
        return parts.logits.new_zeros(())
    theta, concepts = parts.theta[: len(inputs)], parts.concepts[: len(inputs)]
    if literally:
        return exact(theta, concepts, inputs).mean()
    signs = torch.randint(0, 2, (len(inputs), theta.shape[2]), device=theta.device).to(theta) * 2 - 1
    return probed(theta, concepts, inputs, signs).mean()


def senn_loss(
    network: SENNNetwork,
    batch: Batch,
    robustness_weight: float = 1e-3,
    reconstruction_weight: float = 1.0,
    sparsity_weight: float = 1e-4,
    smoothing: float = 0.0,
    literally: bool = False,
) -> dict[str, Tensor]:
    """Cross-entropy of the logits, both terms of the conceptizer, and the one that keeps weights stable."""
    parts = network.decompose(batch.images)
    terms = {
        "cross_entropy": F.cross_entropy(parts.logits, batch.labels, label_smoothing=smoothing),
        "sparsity": sparsity_weight * sparsity(parts),
    }
    if parts.reconstruction is not None:
        terms["reconstruction"] = reconstruction_weight * reconstruction(network, parts, batch.images)
    if robustness_weight:
        terms["robustness"] = robustness_weight * robustness(parts, literally)
    return terms
