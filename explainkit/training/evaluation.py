"""How good a network is on a split, and what a phase measures beside."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from explainkit.data.types import ImageDataset
from explainkit.explanations.decisions import Decision
from explainkit.networks.modes import eval_mode
from explainkit.networks.precision import reference_tensor
from explainkit.training.criteria import classification_loss, mean_average_precision
from explainkit.training.phases import Phase


@frozen(kw_only=True)
class Evaluation:
    """How good a network is on a split.

    Attributes
    ----------
    accuracy : float
        Share of images whose class is right; of pairs of image and label, where an image has several.
    loss : float
        Mean cross-entropy.
    mean_average_precision : float or None
        Where an image has several labels.
    """

    accuracy: float
    loss: float
    mean_average_precision: float | None = None

    @property
    def selection(self) -> float:
        """What the best epoch has most of."""
        return self.accuracy if self.mean_average_precision is None else self.mean_average_precision

    def facts(self) -> dict[str, float]:
        """By name."""
        facts = {"accuracy": self.accuracy, "loss": self.loss}
        if self.mean_average_precision is not None:
            facts["mean_average_precision"] = self.mean_average_precision
        return facts


def evaluate(
    network: nn.Module,
    dataset: ImageDataset,
    split: str,
    device: torch.device,
    scale: Callable[[Tensor], Tensor] | None = None,
    decision: Decision | None = None,
    *,
    batch_size: int = 256,
) -> Evaluation:
    """`network` on a split, in eval mode, mode put back.

    Parameters
    ----------
    scale : callable or None
        Brings images in [0, 1] to the range that the network takes.
    decision : Decision or None
        How its outputs become an answer; ``None``: as the labels of the data set say.
    """
    dtype, decision = reference_tensor(network).dtype, decision or dataset.decision
    right, loss, count = 0.0, 0.0, 0
    all_logits, all_truth = [], []
    with eval_mode(network), torch.no_grad():
        for batch in dataset.batches(split, batch_size):
            images = batch.images.to(device, dtype)
            logits = network(images if scale is None else scale(images)).float()
            labels = batch.labels.to(device)
            truth = decision.truth(labels, logits.shape[1])
            holds = decision.holds(logits)
            if truth.shape[1] > 1 and not decision.is_exclusive:
                labels = truth
                right += (holds == truth).double().mean(1).sum().item()
                all_logits.append(logits.cpu())
                all_truth.append(truth.cpu())
            else:
                right += int((holds == truth).all(1).sum())
            loss += classification_loss(logits, labels, reduction="sum").item()
            count += len(labels)
    precision = mean_average_precision(torch.cat(all_logits), torch.cat(all_truth)) if all_logits else None
    return Evaluation(
        accuracy=right / max(count, 1), loss=loss / max(count, 1), mean_average_precision=precision
    )


def val_metrics(phase: Phase[Any], network: nn.Module, dataset: ImageDataset) -> Mapping[str, float]:
    """The metrics of `phase`; random numbers go on as if they had not been taken."""
    if phase.val_metrics is None:
        return {}
    with eval_mode(network), torch.no_grad(), torch.random.fork_rng():
        return {name: float(value) for name, value in phase.val_metrics(network, dataset).items()}
