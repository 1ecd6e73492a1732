"""What keeps the weights of a self-explaining network stable: the paper's regularizer, without Jacobians.

The paper holds the gradient of every logit f_c to that of a linear model with weights theta:

    R_c = grad f_c - sum_k theta_kc grad h_k

By the product rule that is ``sum_k h_k grad theta_kc``: the gradient of theta alone, with h as a cotangent.
It is about logits; of log-probabilities, as the authors' code takes them, it would punish weights that are
perfectly stable.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def jacobian_penalty(theta: Tensor, concepts: Tensor, inputs: Tensor) -> Tensor:
    """``sum_c |R_c|^2`` of each input, (N,): one backward pass a class.

    Parameters
    ----------
    theta : Tensor, (N, K, C)
        Depends on `inputs`, with a graph.
    concepts : Tensor, (N, K)
        Of inputs that are cut from `inputs`, so that only their parameters are in its graph.
    inputs : Tensor, (N, ...)
    """
    slopes = [
        torch.autograd.grad(weights, inputs, concepts, create_graph=True)[0].flatten(1)
        for weights in theta.unbind(2)
    ]
    return torch.stack([slope.square().sum(1) for slope in slopes]).sum(0)


def estimated_jacobian_penalty(theta: Tensor, concepts: Tensor, inputs: Tensor, signs: Tensor) -> Tensor:
    """`jacobian_penalty` in expectation over `signs` (N, C) of +1 and -1, by one backward pass: (N,).

    Hutchinson's estimate, Communications in Statistics 19 (2), 1990, of the squared Frobenius norm; for one
    class it is exact.
    """
    (slope,) = torch.autograd.grad(theta, inputs, concepts[:, :, None] * signs[:, None], create_graph=True)
    return slope.flatten(1).square().sum(1)


def instability(theta: Tensor, concepts: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    """``|R_c| / |grad f_c|`` for the target of each input, (N,): 0 where the weights stand still around it.

    Both `theta` and `concepts` depend on `inputs`.
    """
    rows = torch.arange(len(targets), device=targets.device)
    cotangent = torch.zeros_like(theta)
    cotangent[rows, :, targets] = concepts.detach()
    (drift,) = torch.autograd.grad(theta, inputs, cotangent, retain_graph=True)
    (linear,) = torch.autograd.grad(concepts, inputs, theta[rows, :, targets].detach())
    slope = drift + linear  # the product rule: theta's network is gone back through but once
    return drift.flatten(1).norm(dim=1) / slope.flatten(1).norm(dim=1).clamp(min=1e-12)


def local_lipschitz(
    theta: Callable[[Tensor], Tensor],
    concepts: Callable[[Tensor], Tensor],
    inputs: Tensor,
    *,
    radius: float = 0.01,
    steps: int = 20,
    starts: int = 2,
    seed: int = 0,
) -> Tensor:
    """How far weights change with concepts near each input, the paper's measure of stability: (N,).

    The largest ``|theta(x) - theta(x')| / |h(x) - h(x')|`` found for x' no further than `radius`
    from x in any element, by steps along the sign of its gradient for all inputs at once: a lower bound.

    Parameters
    ----------
    theta, concepts : callable
        Inputs (N, ...) to (N, K), without batch statistics.
    starts : int
        Random beginnings.
    """
    generator = torch.Generator(inputs.device).manual_seed(seed)
    inputs = inputs.detach()
    with torch.no_grad():
        weights, values = theta(inputs), concepts(inputs)
    worst = torch.zeros(len(inputs), device=inputs.device, dtype=inputs.dtype)
    for _ in range(starts):
        noise = torch.rand(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
        moved = (2 * noise - 1) * radius
        for step in range(steps + 1):
            with torch.enable_grad():
                near = (inputs + moved).requires_grad_()
                apart = (concepts(near) - values).norm(dim=1).clamp(min=1e-12)
                ratio = (theta(near) - weights).norm(dim=1) / apart
                worst = torch.maximum(worst, ratio.detach().to(worst.dtype))
                if step < steps:
                    (slope,) = torch.autograd.grad(ratio.sum(), near)
            if step < steps:
                moved = (moved + radius / 4 * slope.sign()).clamp(-radius, radius)
    return worst
