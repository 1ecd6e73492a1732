"""What keeps the weights of a self-explaining network stable: the paper's regulariser, without Jacobians.

The paper holds the gradient of every logit f_c to that of a linear model with weights theta:

    R_c = grad f_c - sum_k theta_kc grad h_k

By the product rule that is ``sum_k h_k grad theta_kc``: the gradient of theta alone, with h as a cotangent.
It is about logits; of log-probabilities, as the authors' code takes them, it would punish weights that are
perfectly stable.
"""

import torch
from torch import Tensor


def exact(theta: Tensor, concepts: Tensor, inputs: Tensor) -> Tensor:
    """``sum_c |R_c|^2`` of each input, (N,): one backward pass a class, all in one.

    Parameters
    ----------
    theta : Tensor, (N, K, C)
        Depends on `inputs`, with a graph.
    concepts : Tensor, (N, K)
        Of inputs that are cut from `inputs`, so that only their parameters are in its graph.
    inputs : Tensor, (N, ...)
    """
    classes = theta.shape[2]
    asked = (
        torch.eye(classes, device=theta.device, dtype=theta.dtype)[:, None, None] * concepts[None, :, :, None]
    )
    (slopes,) = torch.autograd.grad(theta, inputs, asked, is_grads_batched=True, create_graph=True)
    return slopes.flatten(2).square().sum(2).sum(0)  # slopes: (C, N, ...)


def probed(theta: Tensor, concepts: Tensor, inputs: Tensor, signs: Tensor) -> Tensor:
    """`exact` in expectation over `signs` (N, C) of +1 and -1, by one backward pass: (N,).

    Hutchinson's estimate, Communications in Statistics 19 (2), 1990, of the squared Frobenius norm; for one
    class it is exact.
    """
    (slope,) = torch.autograd.grad(theta, inputs, concepts[:, :, None] * signs[:, None], create_graph=True)
    return slope.flatten(1).square().sum(1)


def instability(theta: Tensor, concepts: Tensor, inputs: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """``|R_c| / |grad f_c|`` for the target of each input, (N,): 0 where the weights stand still around it.

    `theta`, `concepts` and `logits` all depend on `inputs`.
    """
    rows = torch.arange(len(targets), device=targets.device)
    asked = torch.zeros_like(theta)
    asked[rows, :, targets] = concepts.detach()
    (drift,) = torch.autograd.grad(theta, inputs, asked, retain_graph=True)
    (slope,) = torch.autograd.grad(logits[rows, targets].sum(), inputs)
    return drift.flatten(1).norm(dim=1) / slope.flatten(1).norm(dim=1).clamp(min=1e-12)
