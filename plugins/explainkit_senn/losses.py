"""How SENN learns: one function a term of section 3.4, all of them optimized, each a mean over the batch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.types import Batch
from explainkit_senn.model import Reading, SENNNetwork
from explainkit_senn.robustness import estimated_jacobian_penalty, jacobian_penalty


def reconstruction(network: SENNNetwork, decomposition: Reading, inputs: Tensor) -> Tensor:
    """Mean squared error over all elements of what is drawn from the concepts, ``L_h`` of the paper."""
    if decomposition.reconstruction is None:
        return decomposition.logits.new_zeros(())
    return F.mse_loss(decomposition.reconstruction, network.conceptizer_inputs(inputs))


def sparsity(decomposition: Reading) -> Tensor:
    """The mean over the batch of ``sum_k |h_k|``."""
    return decomposition.scores.abs().sum(1).mean()


def robustness(decomposition: Reading, exact_jacobian: bool = False) -> Tensor:
    """The mean over tracked inputs of ``sum_c |R_c|^2``: the paper's ``L_theta``, on logits.

    Parameters
    ----------
    exact_jacobian : bool
        All classes, rather than one probe of random signs, which is right in the mean.
    """
    inputs = decomposition.tracked_inputs
    if inputs is None:
        return decomposition.logits.new_zeros(())
    theta, concepts = decomposition.theta[: len(inputs)], decomposition.concepts[: len(inputs)]
    if exact_jacobian:
        return jacobian_penalty(theta, concepts, inputs).mean()
    signs = torch.randint(0, 2, (len(inputs), theta.shape[2]), device=theta.device).to(theta) * 2 - 1
    return estimated_jacobian_penalty(theta, concepts, inputs, signs).mean()


def senn_loss(
    network: SENNNetwork,
    batch: Batch,
    robustness_weight: float = 1e-3,
    reconstruction_weight: float = 1.0,
    sparsity_weight: float = 1e-4,
    label_smoothing: float = 0.0,
    exact_jacobian: bool = False,
) -> dict[str, Tensor]:
    """Cross-entropy of the logits, both terms of the conceptizer, and the one that keeps weights stable."""
    decomposition = network.decompose(batch.images)
    terms = {
        "cross_entropy": F.cross_entropy(decomposition.logits, batch.labels, label_smoothing=label_smoothing),
        "sparsity": sparsity_weight * sparsity(decomposition),
    }
    if decomposition.reconstruction is not None:
        terms["reconstruction"] = reconstruction_weight * reconstruction(network, decomposition, batch.images)
    if robustness_weight:
        terms["robustness"] = robustness_weight * robustness(decomposition, exact_jacobian)
    return terms
