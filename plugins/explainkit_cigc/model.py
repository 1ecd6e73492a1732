"""The network: a backbone, the mean or the largest cell of each filter, a head; and its Grad-CAM."""

from typing import Literal

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional as F

from explainkit.explanations.decomposition import Decomposition
from explainkit.networks.backbones import Backbone
from explainkit.networks.precision import disable_autocast, full_precision

Pooling = Literal["mean", "max"]
"""How a filter's map becomes its score."""

EPSILON = 1e-8
"""Keeps the mass of a map that is zero everywhere out of the denominator; it is added nowhere else."""


@frozen(eq=False, kw_only=True)
class CIGCOutputs:
    """What one forward pass gives: for losses, and for the decomposition.

    Attributes
    ----------
    logits : Tensor, (N, C)
    scores : Tensor, (N, K)
    maps : Tensor, (N, K, h, w)
    """

    logits: Tensor
    scores: Tensor
    maps: Tensor


@frozen(eq=False)
class HiddenWeights:
    """A `WeightFn`: the gradient of a logit by the scores, through a layer of rectified hidden units.

    Attributes
    ----------
    is_active : Tensor, (N, H)
        1 where a hidden unit is above zero, else 0.
    inner, outer : Tensor, (H, K) and (C, H)
        Weights before and after the hidden units.
    """

    is_active: Tensor
    inner: Tensor
    outer: Tensor

    def __call__(self, rows: Tensor, targets: Tensor) -> Tensor:
        """Weights (M, K)."""
        with disable_autocast(self.inner.device):
            return (self.outer[targets] * self.is_active[rows]) @ self.inner


@frozen(eq=False)
class HiddenLogits:
    """A `RescoreFn`: what a hidden layer makes of other scores.

    Attributes
    ----------
    inner, outer : Tensor, (H, K) and (C, H)
    inner_bias, outer_bias : Tensor, (H,) and (C,)
    """

    inner: Tensor
    inner_bias: Tensor
    outer: Tensor
    outer_bias: Tensor

    def __call__(self, rows: Tensor, scores: Tensor) -> Tensor:
        """Logits (M, C)."""
        hidden = F.linear(scores, self.inner, self.inner_bias).relu()
        return F.linear(hidden, self.outer, self.outer_bias)


class CIGCNetwork(nn.Module):
    """Logits from how strongly each filter responds, on average or where it does most.

    Parameters
    ----------
    backbone : Backbone
    classes : int
    pooling : {"mean", "max"}
    hidden_width : int or None
        Of a layer of rectified units between scores and logits; ``None``: the head is linear.

    Attributes
    ----------
    draw_seed : Tensor, int64
        Of the composites that it learns from: drawn with the first weights and kept with them, so that a run
        that is resumed draws on.
    """

    unit_mask: Tensor
    draw_seed: Tensor

    def __init__(
        self, backbone: Backbone, classes: int, pooling: Pooling = "mean", hidden_width: int | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.pooling = backbone, pooling
        self.hidden = None if hidden_width is None else nn.Linear(backbone.channels, hidden_width)
        self.head = nn.Linear(hidden_width or backbone.channels, classes)
        self.register_buffer("unit_mask", torch.ones(backbone.channels, dtype=torch.bool))
        self.register_buffer("draw_seed", torch.randint(2**31, ()))

    def outputs(self, images: Tensor) -> CIGCOutputs:
        """The filters' maps, their scores, and the logits."""
        maps = full_precision(self.backbone(images))
        with disable_autocast(maps.device):
            scores, logits = self.read_out(maps)
        return CIGCOutputs(logits=logits, scores=scores, maps=maps)

    def read_out(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N, K) and logits (N, C) of maps (N, K, h, w), without the units that are off."""
        flat = maps.flatten(2)
        scores = flat.mean(2) if self.pooling == "mean" else flat.gather(2, _best_cells(flat))[:, :, 0]
        scores = torch.where(self.unit_mask, scores, 0.0)
        return scores, self.head(scores if self.hidden is None else self.hidden(scores).relu())

    def decompose(self, images: Tensor) -> Decomposition:
        """The filters' maps, their scores, and what each is worth.

        With a hidden layer weights are the gradient in the image itself. A logit is linear in the scores as
        long as no hidden unit begins or ceases to respond, so that the sum is exact with the bias of that
        linear piece, which differs by image. Other scores are given to the layer itself.
        """
        outputs = self.outputs(images)
        logits, scores, maps = outputs.logits, outputs.scores, outputs.maps
        if self.hidden is None:
            return Decomposition(
                logits=logits, bias=self.head.bias, scores=scores, weights=self.head.weight, maps=maps
            )
        layers = (self.hidden.weight, self.hidden.bias, self.head.weight, self.head.bias)
        inner, inner_bias, outer, outer_bias = (value.detach().clone() for value in layers)
        with disable_autocast(maps.device):
            is_active = (self.hidden(scores) > 0).to(scores.dtype)
            bias = F.linear(is_active * inner_bias, outer, outer_bias)  # (N, C)
        return Decomposition(
            logits=logits, bias=bias, scores=scores, weights=HiddenWeights(is_active, inner, outer),
            maps=maps, rescore=HiddenLogits(inner, inner_bias, outer, outer_bias),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, W)."""
        return self.outputs(images).logits


def grad_cam(network: CIGCNetwork, maps: Tensor, targets: Tensor) -> Tensor:
    """Element-wise Grad-CAM of classes `targets` (N,), ``relu(sum_k dS/dA_k A_k)``: (N, h, w).

    The gradient is not averaged over cells, so that it keeps its place. Of a linear head it is known:
    differentiable without a second backward pass. Of a hidden layer it is taken by autograd, and twice where
    this is differentiated.
    """
    with disable_autocast(maps.device):
        if network.hidden is not None:
            return _grad_cam_by_autograd(network, maps, targets)
        weights = network.head.weight[targets] * network.unit_mask  # (N, K)
        if network.pooling == "mean":
            return torch.einsum("nk,nkhw->nhw", weights, maps).div(maps[0, 0].numel()).relu()
        flat = maps.flatten(2)
        best = _best_cells(flat)[:, :, 0]  # (N, K)
        peaks = flat.gather(2, best[:, :, None])[:, :, 0]
        cells = torch.zeros_like(flat[:, 0]).scatter_add(1, best, weights * peaks)
        return cells.relu().view(len(maps), *maps.shape[2:])


def normalized(map: Tensor) -> Tensor:
    """Maps (N, h, w), never negative, as shares that sum to 1; zero where the map is."""
    return map / (map.sum((1, 2), keepdim=True) + EPSILON)


def is_dead(map: Tensor) -> Tensor:
    """Which maps (N, h, w) are zero everywhere, since nothing speaks for the class: (N,), bool."""
    return map.flatten(1).amax(1) <= 0


def _grad_cam_by_autograd(network: CIGCNetwork, maps: Tensor, targets: Tensor) -> Tensor:
    is_learned = torch.is_grad_enabled() and maps.requires_grad
    with torch.enable_grad():
        features = maps if is_learned else maps.detach().requires_grad_()
        _, logits = network.read_out(features)
        chosen = logits.gather(1, targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, features, create_graph=is_learned)
        return (gradient * features).sum(1).relu() if is_learned else (gradient * maps).sum(1).relu().detach()


def _best_cells(flat: Tensor) -> Tensor:
    """The largest cell of each map (N, K, h w), of equal ones the first: (N, K, 1)."""
    return flat.argmax(2, keepdim=True)
