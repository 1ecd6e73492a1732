"""A plugin that needs what the eleven do not all need: installed by its test as a third party would.

A loss over pairs of the batch, a gate that is projected after every step, a head for training alone, and
scores that depend on each other.
"""

from typing import ClassVar

import torch
from attrs import define, frozen
from torch import Tensor, nn
from torch.nn import functional as F

import explainkit as ek
from explainkit.networks.precision import disable_autocast, full_precision


@frozen(eq=False)
class CoupledOutputs:
    logits: Tensor
    scores: Tensor
    maps: Tensor
    auxiliary: Tensor


@frozen(eq=False)
class OnSphere:
    """Logits of scores that are brought back to length 1 first."""

    weight: Tensor
    bias: Tensor

    def __call__(self, rows: Tensor, scores: Tensor) -> Tensor:
        return F.linear(F.normalize(scores, dim=1), self.weight, self.bias)


class CoupledNetwork(nn.Module):
    """Gated filters, whose means are brought to length 1, and a linear layer."""

    def __init__(self, backbone: ek.Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.gate = nn.Parameter(torch.full((backbone.channels,), 0.9))
        self.head = nn.Linear(backbone.channels, classes)
        self.training_head = nn.Linear(backbone.channels, classes)
        self.register_buffer("unit_mask", torch.ones(backbone.channels, dtype=torch.bool))

    def outputs(self, images: Tensor) -> CoupledOutputs:
        maps = full_precision(self.backbone(images)) * self.gate[:, None, None]
        pooled = torch.where(self.unit_mask, maps.mean((2, 3)), 0.0)
        length = pooled.norm(dim=1, keepdim=True).clamp(min=1e-6)
        scores = pooled / length
        with disable_autocast(scores.device):
            logits, auxiliary = self.head(scores), self.training_head(pooled)
        return CoupledOutputs(logits, scores, maps / length[:, :, None, None], auxiliary)

    def decompose(self, images: Tensor) -> ek.Decomposition:
        outputs = self.outputs(images)
        return ek.Decomposition(
            logits=outputs.logits,
            bias=self.head.bias,
            scores=outputs.scores,
            weights=self.head.weight,
            maps=outputs.maps,
            extras={"gated": outputs.scores * self.gate},
            rescore=OnSphere(self.head.weight.detach().clone(), self.head.bias.detach().clone()),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs(images).logits


def coupled_loss(network: CoupledNetwork, batch: ek.Batch, step: ek.Step) -> dict[str, Tensor]:
    outputs = network.outputs(batch.images)
    scores, labels = step.gather(outputs.scores), step.gather(batch.labels)
    same = (labels[:, None] == labels).to(scores)
    return {
        "cross_entropy": F.cross_entropy(outputs.logits, batch.labels),
        "auxiliary": (1 - step.progress) * F.cross_entropy(outputs.auxiliary, batch.labels),
        "pairs": 0.1 * (scores @ scores.T - same).square().mean(),
    }


def close_gates(network: CoupledNetwork, step: ek.Step) -> None:
    network.gate.clamp_(0, 1)


@define(eq=False, kw_only=True)
class Coupled(ek.InterpretableExplainer[CoupledNetwork]):
    card: ClassVar[ek.Card] = ek.Card(
        title="Coupled",
        citation="a fixture",
        additivity="exact",
        unit_kind="filters",
        learns_from="training images",
    )
    network_type: ClassVar[type[CoupledNetwork]] = CoupledNetwork

    epochs: int = 8

    def build(self, task: ek.Task) -> CoupledNetwork:
        return CoupledNetwork(ek.backbone("tiny"), len(task.classes))

    def phases(self) -> list[ek.Phase[CoupledNetwork]]:
        return [
            ek.Phase(
                "all", self.epochs, coupled_loss, {"": 1e-2}, batch_size=32, on_step_end=close_gates,
                lr_scheduler="one-cycle",
            )
        ]  # fmt: skip

    def describe_units(self, network: CoupledNetwork) -> ek.Units:
        names = [f"filter {index}" for index in range(len(network.gate))]
        return ek.Units(kind="filter", names=names, pooling="mean")
