"""How SENN learns: one function a term of section 3.4, all of them optimized, each a mean over the batch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.types import Batch
from explainkit.networks.precision import disable_autocast
from explainkit.training.criteria import classification_loss
from explainkit.training.steps import Step
from explainkit_senn.model import SENNNetwork, SENNOutputs
from explainkit_senn.robustness import estimated_jacobian_penalty, jacobian_penalty


def reconstruction(network: SENNNetwork, outputs: SENNOutputs, inputs: Tensor) -> Tensor:
    """Mean squared error over all elements of what is drawn from the concepts, ``L_h`` of the paper."""
    if outputs.reconstruction is None:
        return outputs.logits.new_zeros(())
    return F.mse_loss(outputs.reconstruction, network.conceptizer_inputs(inputs))


def sparsity(outputs: SENNOutputs) -> Tensor:
    """The mean over the batch of ``sum_k |h_k|``."""
    return outputs.scores.abs().sum(1).mean()


def robustness(outputs: SENNOutputs, signs: Tensor | None = None) -> Tensor:
    """The mean over tracked inputs of ``sum_c |R_c|^2``: the paper's ``L_theta``, on logits.

    Parameters
    ----------
    signs : Tensor or None, (n, C)
        +1 or -1 at random: one probe instead of all classes, which is right in the mean. ``None``: all.
    """
    inputs = outputs.tracked_inputs
    if inputs is None:
        return outputs.logits.new_zeros(())
    theta, concepts = outputs.theta[: len(inputs)], outputs.concepts[: len(inputs)]
    with disable_autocast(theta.device):
        if signs is None:
            return jacobian_penalty(theta, concepts, inputs).mean()
        return estimated_jacobian_penalty(theta, concepts, inputs, signs).mean()


def random_signs(outputs: SENNOutputs, step: Step) -> Tensor | None:
    """A probe for the tracked inputs: drawn for those of all processes alike, so that each has its own."""
    if outputs.tracked_inputs is None:
        return None
    shape = len(outputs.tracked_inputs) * step.processes, outputs.theta.shape[2]
    signs = torch.randint(0, 2, shape, device=outputs.theta.device).to(outputs.theta) * 2 - 1
    return step.local(signs)


def senn_loss(
    network: SENNNetwork,
    batch: Batch,
    step: Step,
    robustness_weight: float = 1e-3,
    reconstruction_weight: float = 1.0,
    sparsity_weight: float = 1e-4,
    label_smoothing: float = 0.0,
    exact_jacobian: bool = False,
) -> dict[str, Tensor]:
    """Cross-entropy of the logits, both terms of the conceptizer, and the one that keeps weights stable."""
    outputs = network.outputs(batch.images)
    terms = {
        "cross_entropy": classification_loss(outputs.logits, batch.labels, label_smoothing),
        "sparsity": sparsity_weight * sparsity(outputs),
    }
    if outputs.reconstruction is not None:
        terms["reconstruction"] = reconstruction_weight * reconstruction(network, outputs, batch.images)
    if robustness_weight:
        signs = None if exact_jacobian else random_signs(outputs, step)
        terms["robustness"] = robustness_weight * robustness(outputs, signs)
    return terms
