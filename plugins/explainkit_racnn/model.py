"""The network: three of a kind that share nothing, two proposals where to look next, and one head for all."""

from collections.abc import Callable
from typing import Literal

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional as F

from explainkit.explanations.decomposition import Decomposition
from explainkit.networks.backbones import Backbone, grid_size
from explainkit.networks.precision import disable_autocast, full_precision
from explainkit_racnn.zoom import WHOLE, bounded, crop_by, pixel_boxes, within

Gradient = Literal["true", "surrogate"]
"""Of crops in their squares: the true one, or that of the paper."""


@frozen(eq=False, kw_only=True)
class RACNNOutputs:
    """What one forward pass sees at S scales: for losses, and for the decomposition.

    Attributes
    ----------
    by_scale : Tensor, (S, N, C)
        The logits of each scale's own head.
    features : tuple of Tensor, S of (N, D, h, w)
    proposed : tuple of Tensor, S - 1 of (N, 3)
        Where to look next, as shares of the square before.
    squares : tuple of Tensor, S of (N, 3)
        The squares as shares of the image.
    size : (int, int)
        Height and width of the images.
    """

    by_scale: Tensor
    features: tuple[Tensor, ...]
    proposed: tuple[Tensor, ...]
    squares: tuple[Tensor, ...]
    size: tuple[int, int]


class Proposal(nn.Module):
    """Where to look closer, from a grid of features: the attention proposal network of section 3.1.

    Parameters
    ----------
    channels : int
        Of the features; they are narrowed first, since a linear layer on all of them would be the most of the
        network.
    cells : int
        Of the grid, h times w.
    min_half_size, max_half_size : float
        Bounds of half a square's side, as shares of the square before.
    """

    def __init__(
        self, channels: int, cells: int, min_half_size: float, max_half_size: float, width: int = 64
    ) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, 32, 1)
        self.hidden = nn.Linear(32 * cells, width)
        self.out = nn.Linear(width, 3)
        nn.init.normal_(self.out.weight, std=1e-3)
        nn.init.zeros_(self.out.bias)  # so that it begins in the middle
        self.min_half_size, self.max_half_size = min_half_size, max_half_size

    def forward(self, features: Tensor) -> Tensor:
        """(N, D, h, w) to squares (N, 3)."""
        hidden = self.hidden(self.narrow(features).relu().flatten(1)).tanh()
        return bounded(full_precision(self.out(hidden)), self.min_half_size, self.max_half_size)


class RACNNNetwork(nn.Module):
    """Logits from pooled features at S scales, each seen in a box that the scale before proposed.

    Parameters
    ----------
    backbone : callable to Backbone
        Makes one for each scale; their weights are not shared.
    classes : int
    crop_size : int
        Pixels a side that each scale sees: of the whole image made smaller, then of crops.
    scales : int
    min_half_size, max_half_size : float
        Bounds of half a square's side, as shares of the square before.
    gradient : {"true", "surrogate"}
    """

    fused: Tensor
    unit_mask: Tensor

    def __init__(
        self,
        backbone: Callable[[], Backbone],
        classes: int,
        crop_size: int,
        *,
        scales: int = 3,
        min_half_size: float = 0.15,
        max_half_size: float = 0.45,
        gradient: Gradient = "true",
    ) -> None:
        super().__init__()
        self.backbones = nn.ModuleList(backbone() for _ in range(scales))
        self.channels: int = self.backbones[0].channels  # type: ignore[assignment]
        self.heads = nn.ModuleList(nn.Linear(self.channels, classes) for _ in range(scales))
        height, width = grid_size(self.backbones[0], (crop_size, crop_size))
        self.proposals = nn.ModuleList(
            Proposal(self.channels, height * width, min_half_size, max_half_size) for _ in range(scales - 1)
        )
        self.fusion = nn.Linear(scales * self.channels, classes)
        self.register_buffer("fused", torch.tensor(False))
        self.register_buffer("unit_mask", torch.ones(scales * self.channels, dtype=torch.bool))
        self.crop_size, self.gradient, self.scales = crop_size, gradient, scales
        self.max_half_size = max_half_size

    def outputs(self, images: Tensor, scales: int | None = None) -> RACNNOutputs:
        """Features and logits at each scale, in its square.

        Parameters
        ----------
        scales : int or None
            How many scales to look at; ``None``: all.
        """
        square = images.new_tensor(WHOLE).expand(images.shape[0], 3)
        features: list[Tensor] = []
        logits: list[Tensor] = []
        proposed: list[Tensor] = []
        squares: list[Tensor] = []
        for scale in range(scales or self.scales):
            if scale:
                inner = self.proposals[scale - 1](features[-1].detach())
                square = within(square, inner)
                proposed.append(inner)
                max_half_size = 0.5 * (2 * self.max_half_size) ** scale
                crops = crop_by(images, square, self.crop_size, max_half_size, self.gradient)
            else:
                crops = F.adaptive_avg_pool2d(images, self.crop_size)
            features.append(full_precision(self.backbones[scale](crops)))
            with disable_autocast(images.device):
                logits.append(self.heads[scale](self._enabled(features[-1].mean((2, 3)), scale)))
            squares.append(square)
        return RACNNOutputs(
            by_scale=torch.stack(logits), features=tuple(features), proposed=tuple(proposed),
            squares=tuple(squares), size=(images.shape[2], images.shape[3]),
        )  # fmt: skip

    def decompose(self, images: Tensor, scales: int | None = None) -> Decomposition:
        """A unit a scale and filter: its mean activation, in its scale's box; `scales` as in `outputs`."""
        outputs = self.outputs(images, scales)
        scores, lengths = self._scores(outputs)
        weights, bias = self._fused_head(len(outputs.features))
        with disable_autocast(scores.device):
            logits = F.linear(scores, weights, bias)
        grids = [grid / lengths[:, s, :, None, None] for s, grid in enumerate(outputs.features)]
        boxes = [pixel_boxes(square.detach(), outputs.size) for square in outputs.squares]
        return Decomposition(
            logits=logits, bias=bias, scores=scores, weights=weights, maps=torch.cat(grids, 1),
            boxes=torch.stack(boxes, 1), extras={"logits_by_scale": outputs.by_scale.transpose(0, 1)},
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C)."""
        return self.logits_of(self.outputs(images))

    def logits_of(self, outputs: RACNNOutputs) -> Tensor:
        """Logits (N, C): by the head over all scales once fused, before that the mean of the scales."""
        scores, _ = self._scores(outputs)
        with disable_autocast(scores.device):
            return F.linear(scores, *self._fused_head(len(outputs.features)))

    def _scores(self, outputs: RACNNOutputs) -> tuple[Tensor, Tensor]:
        """Pooled features (N, S D) over their divisors (N, S, 1): their lengths once fused, else 1."""
        pooled = torch.stack([grid.mean((2, 3)) for grid in outputs.features], 1)  # (N, S, D)
        lengths = pooled.norm(dim=2, keepdim=True).clamp(min=1e-6)
        lengths = torch.where(self.fused, lengths, torch.ones_like(lengths))
        return self._enabled(pooled / lengths, slice(len(outputs.features))).flatten(1), lengths

    def _enabled(self, values: Tensor, scales: int | slice) -> Tensor:
        """Values (N, D) of one of the `scales`, or (N, S, D) of several, 0 for units that are off."""
        return torch.where(self.unit_mask.unflatten(0, (self.scales, -1))[scales], values, 0.0)

    def _fused_head(self, scales: int) -> tuple[Tensor, Tensor]:
        """Weights (C, S D) and bias (C,) of `scales` scales: one head for all once fused, else the mean."""
        heads = [self.heads[scale] for scale in range(scales)]
        weights = torch.cat([head.weight for head in heads], 1) / scales  # type: ignore[misc]
        bias = torch.stack([head.bias for head in heads]).mean(0)  # type: ignore[misc]
        fusion = self.fusion.weight[:, : scales * self.channels]
        return torch.where(self.fused, fusion, weights), torch.where(self.fused, self.fusion.bias, bias)
