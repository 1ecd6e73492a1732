"""Which class each filter belongs to: that for which it fires most, with as many filters for every class.

Section 3 of the paper takes the class with the largest mean activation, the authors' code that with the
largest running mean of the maximum of the filter's map. So a few classes may take all filters; the balanced
assignment gives none more than its share.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from explainkit.training.steps import Step
from explainkit_interpcnn.model import InterpCNNNetwork


def observe(network: InterpCNNNetwork, maxima: Tensor, membership: Tensor, momentum: float = 0.9) -> None:
    """Take the maxima (N, K) of the maps of images into the running mean of each class that is among them.

    Parameters
    ----------
    membership : Tensor, (N, C), bool
        Which class each image has.
    momentum : float
        Share of the mean so far; the first batch with a class is taken as it is.
    """
    with torch.no_grad():
        held, mean = membership.to(maxima).T, network.class_activation  # (C, N), (C, K)
        count = held.sum(1, keepdim=True)
        of_batch = held @ maxima.detach() / count.clamp(min=1)
        moved = momentum * mean + (1 - momentum) * of_batch
        moved = torch.where(network.is_class_seen[:, None], moved, of_batch)
        network.class_activation.copy_(torch.where(count > 0, moved, mean))
        network.is_class_seen |= count[:, 0] > 0


def assign(network: InterpCNNNetwork, step: Step, freeze_after: float = 1.0, balanced: bool = True) -> None:
    """Give each filter its class anew, until the share `freeze_after` of training is over."""
    if step.progress < freeze_after:
        network.category.copy_(categories(network.class_activation, balanced))


def categories(class_activation: Tensor, balanced: bool = True) -> Tensor:
    """The class of each filter, (K,), from its mean activation in each class, (C, K).

    Parameters
    ----------
    balanced : bool
        At most ``ceil(K / C)`` filters a class, so that the shares of the filters' activation that their
        classes have are largest in sum (Kuhn, Naval Research Logistics Quarterly 2, 1955). Otherwise each
        filter's largest; of equal ones the first.
    """
    if not balanced:
        return class_activation.argmax(0)
    values = class_activation.cpu().double()
    shares = (values / values.sum(0).clamp(min=1e-12)).T  # (K, C): each filter counts the same
    quota = -(-shares.shape[0] // shares.shape[1])
    filters, slots = linear_sum_assignment(shares.repeat_interleave(quota, 1).numpy(), maximize=True)
    assigned = torch.empty(len(shares), dtype=torch.long)
    assigned[torch.from_numpy(filters)] = torch.from_numpy(slots) // quota
    return assigned.to(class_activation.device)
