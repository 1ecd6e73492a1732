"""A plugin whose units are parts x filters and more: factored maps, and three poolings side by side."""

from typing import ClassVar

import torch
from attrs import define, frozen
from torch import Tensor, nn
from torch.nn import functional as F

import explainkit as ek
from explainkit.networks.precision import disable_autocast, full_precision

PARTS = 2


@frozen(eq=False)
class AttendedOutputs:
    logits: Tensor
    scores: Tensor
    maps: ek.FactoredMaps


class AttendedNetwork(nn.Module):
    """Filters seen through two attentions, the largest value of each, and the colors of the whole image."""

    part: Tensor
    channel: Tensor

    def __init__(self, backbone: ek.Backbone, classes: int) -> None:
        super().__init__()
        filters = backbone.channels
        self.backbone, self.filters = backbone, filters
        self.look = nn.Conv2d(filters, PARTS, 1)
        self.head = nn.Linear((PARTS + 1) * filters + 3, classes)
        parts = torch.arange(PARTS + 1).repeat_interleave(filters)
        nowhere = torch.full((3,), PARTS + 1)
        self.register_buffer("part", torch.cat([parts, nowhere]))
        self.register_buffer(
            "channel", torch.cat([torch.arange(filters).repeat(PARTS + 1), torch.zeros(3).long()])
        )

    def outputs(self, images: Tensor) -> AttendedOutputs:
        features = full_precision(self.backbone(images))
        with disable_autocast(features.device):
            looks = self.look(features).flatten(2).softmax(2).unflatten(2, features.shape[2:])
            attended = torch.einsum("nphw,ndhw->npd", looks, features).flatten(1)
            colors = full_precision(images).mean((2, 3)) - 0.5
            scores = torch.cat([attended, features.amax((2, 3)), colors], 1)
            logits = self.head(scores)
        whole = torch.ones_like(looks[:, :1])
        attention = torch.cat([looks, whole, torch.zeros_like(whole)], 1)
        maps = ek.FactoredMaps(attention=attention, features=features, part=self.part, channel=self.channel)
        return AttendedOutputs(logits, scores, maps)

    def decompose(self, images: Tensor) -> ek.Decomposition:
        outputs = self.outputs(images)
        return ek.Decomposition(
            logits=outputs.logits, bias=self.head.bias, scores=outputs.scores, weights=self.head.weight,
            maps=outputs.maps,
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs(images).logits


def attended_loss(network: AttendedNetwork, batch: ek.Batch, step: ek.Step) -> dict[str, Tensor]:
    return {"cross_entropy": F.cross_entropy(network(batch.images), batch.labels)}


@define(eq=False, kw_only=True)
class Attended(ek.InterpretableExplainer[AttendedNetwork]):
    card: ClassVar[ek.Card] = ek.Card(
        title="Attended",
        citation="a fixture",
        additivity="exact",
        unit_kind="parts",
        learns_from="training images",
    )
    network_type: ClassVar[type[AttendedNetwork]] = AttendedNetwork

    epochs: int = 8

    def build(self, task: ek.Task) -> AttendedNetwork:
        return AttendedNetwork(ek.backbone("tiny"), len(task.classes))

    def phases(self) -> list[ek.Phase[AttendedNetwork]]:
        return [
            ek.Phase("all", self.epochs, attended_loss, {"": 1e-2}, batch_size=32, lr_scheduler="one-cycle")
        ]

    def describe_units(self, network: AttendedNetwork) -> ek.Units:
        filters = network.filters
        of_parts = [f"filter {d} of part {p}" for p in range(PARTS) for d in range(filters)]
        names = [*of_parts, *(f"filter {d}" for d in range(filters)), "red", "green", "blue"]
        pooling = ("sum",) * len(of_parts) + ("max",) * filters + ("none",) * 3
        return ek.Units(kind="part", names=names, pooling=pooling)
