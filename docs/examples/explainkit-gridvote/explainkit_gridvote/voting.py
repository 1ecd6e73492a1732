"""The network, how it learns, and what its units are."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import define
from torch import Tensor, nn
from torch.nn import functional as F

import explainkit as ek
from explainkit.networks.precision import full_precision


class GridVoteNetwork(nn.Module):
    """Each of `grid` x `grid` cells votes for every class; a logit is the mean of the votes, and a bias."""

    places: Tensor

    def __init__(self, backbone: ek.Backbone, classes: int, grid: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.cells = nn.AdaptiveAvgPool2d(grid)  # so that images of any size have the same units
        self.ballot = nn.Conv2d(backbone.channels, classes, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_buffer("places", torch.eye(grid**2).view(1, grid**2, grid, grid), persistent=False)

    def decompose(self, images: Tensor) -> ek.Decomposition:
        """A unit a cell: its score is 1, its map is itself, its weight is its vote in this image."""
        votes = full_precision(self.ballot(self.cells(self.backbone(images)))).flatten(2)  # (N, C, K)
        votes = votes / votes.shape[2]
        return ek.Decomposition(
            logits=votes.sum(2) + self.bias,
            bias=self.bias,
            scores=votes.new_ones(votes.shape[0], votes.shape[2]),
            weights=ek.PerImageWeights(votes),
            maps=self.places.expand(votes.shape[0], -1, -1, -1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, W)."""
        return self.decompose(images).logits


def cross_entropy(network: GridVoteNetwork, batch: ek.Batch, step: ek.Step) -> dict[str, Tensor]:
    """The one term of the loss."""
    return {"cross_entropy": F.cross_entropy(network(batch.images), batch.labels)}


@define(eq=False, kw_only=True)
class GridVote(ek.InterpretableExplainer[GridVoteNetwork]):
    """A network whose cells vote; the settings are those of its training."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Grid vote",
        citation="after BagNet: Brendel & Bethge; ICLR 2019; arXiv:1904.00760",
        additivity="exact",
        unit_kind="cells",
        learns_from="training images",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": {}, "digits": {"backbone": "tiny"}}

    backbone: str = "small"
    grid: int = 8
    epochs: int = 10
    lr: float = 4e-3

    def build(self, task: ek.Task) -> GridVoteNetwork:
        """Any backbone will do, a third-party one too."""
        backbone = ek.backbone(self.backbone, in_channels=task.channels)
        return GridVoteNetwork(backbone, len(task.classes), self.grid)

    def phases(self) -> list[ek.Phase[GridVoteNetwork]]:
        """One phase, in which all parameters learn."""
        return [ek.Phase("all", self.epochs, cross_entropy, {"": self.lr}, lr_scheduler="one-cycle")]

    def describe_units(self, network: GridVoteNetwork) -> ek.Units:
        """The cells, row by row."""
        rows = columns = range(1, network.places.shape[-1] + 1)
        names = [f"row {row} column {column}" for row in rows for column in columns]
        return ek.Units(kind="cell", names=names, pooling="sum")
