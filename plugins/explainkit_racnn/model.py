"""The network: three of a kind that share nothing, two proposals where to look next, and one head for all."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.nn import functional as F

from explainkit.backbones import Backbone
from explainkit.decomposition import Decomposition, full_precision
from explainkit_racnn.zoom import WHOLE, bounded, boxes, crop_by, within

Gradient = Literal["true", "surrogate"]
"""Of crops in their places: the true one, or that of the paper."""


@frozen(eq=False, kw_only=True)
class Looks(Decomposition):
    """A decomposition that also tells what each look saw.

    Attributes
    ----------
    by_scale : Tensor, (S, N, C)
        The logits of each scale's own head.
    features : tuple of Tensor, S of (N, D, h, w)
    proposed : tuple of Tensor, S - 1 of (N, 3)
        Where to look next, as shares of the square before.
    places : tuple of Tensor, S of (N, 3)
        The squares as shares of the image.
    """

    by_scale: Tensor = field(repr=False)
    features: tuple[Tensor, ...] = field(repr=False)
    proposed: tuple[Tensor, ...] = field(repr=False)
    places: tuple[Tensor, ...] = field(repr=False)


class Proposal(nn.Module):
    """Where to look closer, from a grid of features: the attention proposal network of section 3.1.

    Parameters
    ----------
    channels : int
        Of the features; they are narrowed first, since a linear layer on all of them would be the most of the
        network.
    cells : int
        Of the grid, h times w.
    least, most : float
        Bounds of half a square's side, as shares of the square before.
    """

    def __init__(self, channels: int, cells: int, least: float, most: float, width: int = 64) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, 32, 1)
        self.hidden = nn.Linear(32 * cells, width)
        self.out = nn.Linear(width, 3)
        nn.init.normal_(self.out.weight, std=1e-3)
        nn.init.zeros_(self.out.bias)  # so that it begins in the middle
        self.least, self.most = least, most

    def forward(self, features: Tensor) -> Tensor:
        """(N, D, h, w) to places (N, 3)."""
        hidden = self.hidden(self.narrow(features).relu().flatten(1)).tanh()
        return bounded(full_precision(self.out(hidden)), self.least, self.most)


class RACNNNetwork(nn.Module):
    """Logits from pooled features at S scales, each seen in a box that the scale before proposed.

    Parameters
    ----------
    backbone : callable to Backbone
        Makes one for each scale; their weights are not shared.
    classes : int
    side : int
        Pixels a side that each scale sees: of the whole image made smaller, then of crops.
    scales : int
    least, most : float
        Bounds of half a square's side, as shares of the square before.
    gradient : {"true", "surrogate"}
    """

    fused: Tensor

    def __init__(
        self,
        backbone: Callable[[], Backbone],
        classes: int,
        side: int,
        *,
        scales: int = 3,
        least: float = 0.15,
        most: float = 0.45,
        gradient: Gradient = "true",
    ) -> None:
        super().__init__()
        self.backbones = nn.ModuleList(backbone() for _ in range(scales))
        self.channels: int = self.backbones[0].channels  # type: ignore[assignment]
        self.heads = nn.ModuleList(nn.Linear(self.channels, classes) for _ in range(scales))
        with torch.no_grad():
            self.backbones[0].eval()
            cells = self.backbones[0](torch.zeros(1, 3, side, side)).shape[2:].numel()
            self.backbones[0].train()
        self.proposals = nn.ModuleList(Proposal(self.channels, cells, least, most) for _ in range(scales - 1))
        self.fusion = nn.Linear(scales * self.channels, classes)
        self.register_buffer("fused", torch.tensor(False))
        self.side, self.gradient, self.depth, self.most = side, gradient, scales, most

    def decompose(self, images: Tensor, depth: int | None = None) -> Looks:
        """A unit a scale and filter: its mean activation, in its scale's box.

        Parameters
        ----------
        depth : int or None
            How many scales to look at; all unless given.
        """
        place = images.new_tensor(WHOLE).expand(len(images), 3)
        features: list[Tensor] = []
        logits: list[Tensor] = []
        proposed: list[Tensor] = []
        places: list[Tensor] = []
        for scale in range(depth or self.depth):
            if scale:
                inner = self.proposals[scale - 1](features[-1].detach())
                place = within(place, inner)
                proposed.append(inner)
                largest = 0.5 * (2 * self.most) ** scale
                seen = crop_by(images, place, self.side, largest, self.gradient)
            else:
                seen = F.adaptive_avg_pool2d(images, self.side)
            found = full_precision(self.backbones[scale](seen))
            with torch.autocast(images.device.type, enabled=False):
                logits.append(self.heads[scale](found.mean((2, 3))))
            features.append(found)
            places.append(place)
        return self._together(images.shape[2:], features, logits, proposed, places)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C)."""
        return self.decompose(images).logits

    def _together(
        self,
        size: Sequence[int],
        features: Sequence[Tensor],
        logits: Sequence[Tensor],
        proposed: Sequence[Tensor],
        places: Sequence[Tensor],
    ) -> Looks:
        by_scale = torch.stack(list(logits))
        pooled = torch.stack([found.mean((2, 3)) for found in features], 1)  # (N, S, D)
        weights: Tensor
        bias: Tensor
        if self.fused:  # each scale's descriptor at length 1, one head for all
            lengths = pooled.norm(dim=2, keepdim=True).clamp(min=1e-6)
            weights, bias = self.fusion.weight[:, : pooled.shape[1] * self.channels], self.fusion.bias
        else:
            lengths = torch.ones_like(pooled[:, :, :1])
            heads = [self.heads[scale] for scale in range(len(logits))]
            weights = torch.cat([head.weight for head in heads], 1) / len(heads)  # type: ignore[misc]
            bias = torch.stack([head.bias for head in heads]).mean(0)  # type: ignore[misc]
        scores = (pooled / lengths).flatten(1)
        with torch.autocast(scores.device.type, enabled=False):
            summed = F.linear(scores, weights, bias)
        maps = torch.cat([found / lengths[:, s, :, None, None] for s, found in enumerate(features)], 1)
        return Looks(
            logits=summed, bias=bias, scores=scores, weights=weights, maps=maps,
            boxes=torch.stack([boxes(place.detach(), size) for place in places], 1),
            by_scale=by_scale, features=tuple(features), proposed=tuple(proposed), places=tuple(places),
        )  # fmt: skip
