"""How good a network is on a split, and what a phase measures beside."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from explainkit.data.types import ImageDataset
from explainkit.networks.modes import eval_mode
from explainkit.networks.precision import reference_tensor
from explainkit.training.phases import Phase


def evaluate(
    network: nn.Module, dataset: ImageDataset, split: str, device: torch.device, size: int = 256
) -> tuple[float, float]:
    """Accuracy and mean cross-entropy of `network` on a split, in eval mode, mode put back."""
    dtype = reference_tensor(network).dtype
    correct, loss, count = 0, 0.0, 0
    with eval_mode(network), torch.no_grad():
        for batch in dataset.batches(split, size):
            logits = network(batch.images.to(device, dtype)).float()
            labels = batch.labels.to(device)
            correct += int((logits.argmax(1) == labels).sum())
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            count += len(labels)
    return correct / max(count, 1), loss / max(count, 1)


def val_metrics(phase: Phase[Any], network: nn.Module, dataset: ImageDataset) -> Mapping[str, float]:
    """The metrics of `phase`; random numbers go on as if they had not been taken."""
    if phase.val_metrics is None:
        return {}
    with eval_mode(network), torch.no_grad(), torch.random.fork_rng():
        return {name: float(value) for name, value in phase.val_metrics(network, dataset).items()}
