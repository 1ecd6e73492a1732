"""The last layer, learned as the convex problem that it is: on scores found once, with exact zeros."""

import torch
from attrs import frozen
from torch import Tensor

from explainkit.data.types import ImageDataset
from explainkit.networks.precision import reference_tensor
from explainkit.training.evaluation import evaluate
from explainkit_protopnet.losses import off_class_l1
from explainkit_protopnet.model import ProtoPNetNetwork


@frozen(eq=False, kw_only=True)
class Fit:
    """A last layer, and how near it is to the best one.

    Attributes
    ----------
    weight : Tensor, (C, P)
    objective : float
        Mean cross-entropy and penalty.
    violation : float
        The largest violation of the conditions of optimality (Karush, Kuhn, Tucker).
    steps : int
    """

    weight: Tensor
    objective: float
    violation: float
    steps: int


def refit(
    network: ProtoPNetNetwork,
    dataset: ImageDataset,
    *,
    penalty: float = 1e-3,
    tolerance: float = 1e-4,
    steps: int = 2000,
) -> None:
    """Learn the last layer alone: section 2.2, stage 3."""
    scores, labels = all_scores(network, dataset)
    fit = fit_head(scores, labels, network.own, network.head.weight, penalty, tolerance, steps)
    network.head.weight.copy_(fit.weight)
    network.accuracies[2] = evaluate(network, dataset, "validation", network.owner.device).accuracy


def all_scores(
    network: ProtoPNetNetwork, dataset: ImageDataset, batch_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Similarities (N, P) of the training images, un-augmented, and their labels."""
    batches = [
        (network.decompose(batch.images.to(reference_tensor(network))).scores, batch.labels)
        for batch in dataset.batches("train", batch_size)
    ]
    scores, labels = (torch.cat(values) for values in zip(*batches, strict=True))
    return scores, labels.to(network.owner.device)


def fit_head(
    scores: Tensor,
    labels: Tensor,
    own: Tensor,
    start: Tensor,
    penalty: float,
    tolerance: float = 1e-4,
    steps: int = 2000,
) -> Fit:
    """The weights (C, P) of least mean cross-entropy + penalty x sum of |weights of others' prototypes|.

    FISTA (Beck and Teboulle, SIAM J. Imaging Sciences 2009), started over where its momentum points uphill
    (O'Donoghue and Candès, Found. Comput. Math. 2015); soft thresholding leaves exact zeros. Where own
    prototypes alone separate the images there is no least value, since their weights may grow for ever:
    then `tolerance` decides where it ends.

    Parameters
    ----------
    scores : Tensor, (N, P)
    own : Tensor, (P, C), bool
        These weights are not penalized.
    start : Tensor, (C, P)
    tolerance : float
        Stop when no condition of optimality is violated by more.
    """
    step = len(scores) / (0.5 * torch.linalg.matrix_norm(scores, 2) ** 2)  # 1 / Lipschitz constant
    free, truth = own.T, torch.nn.functional.one_hot(labels, len(start)).to(scores)
    threshold = (penalty * step).where(~free, 0)
    weight = ahead = start.to(scores).clone()
    momentum, steps_taken = 1.0, 0
    for steps_taken in range(1, steps + 1):
        moved = ahead - step * gradient(ahead, scores, truth)
        moved = moved.sign() * (moved.abs() - threshold).clamp(min=0)
        if ((ahead - moved) * (moved - weight)).sum() > 0:
            momentum, ahead = 1.0, moved
        else:
            next_momentum = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead = moved + (momentum - 1) / next_momentum * (moved - weight)
            momentum = next_momentum
        weight = moved
        if steps_taken % 25 == 0 and violation(weight, scores, truth, free, penalty) <= tolerance:
            break
    return Fit(
        weight=weight,
        objective=objective(weight, scores, labels, free, penalty),
        violation=violation(weight, scores, truth, free, penalty),
        steps=steps_taken,
    )


def objective(weight: Tensor, scores: Tensor, labels: Tensor, free: Tensor, penalty: float) -> float:
    """What `fit_head` minimizes."""
    loss = torch.nn.functional.cross_entropy(scores @ weight.T, labels)
    return (loss + penalty * off_class_l1(weight, free.T)).item()


def gradient(weight: Tensor, scores: Tensor, truth: Tensor) -> Tensor:
    """Of the mean cross-entropy, (C, P)."""
    return ((scores @ weight.T).softmax(1) - truth).T @ scores / len(scores)


def violation(weight: Tensor, scores: Tensor, truth: Tensor, free: Tensor, penalty: float) -> float:
    """How far the conditions of optimality are from being met: 0 at the optimum alone."""
    slope = gradient(weight, scores, truth)
    at_zero = (slope.abs() - penalty).clamp(min=0)
    elsewhere = (slope + penalty * weight.sign()).abs()
    gap = torch.where(free, slope.abs(), torch.where(weight == 0, at_zero, elsewhere))
    return gap.max().item()
