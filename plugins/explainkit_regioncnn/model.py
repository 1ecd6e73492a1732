"""The network: a backbone, cells grouped into regions, attention over these, and one linear layer."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional as F

from explainkit.explanations.decomposition import Decomposition, PerImageWeights
from explainkit.explanations.receptive_field import ReceptiveField
from explainkit.networks.backbones import Backbone
from explainkit.networks.normalization import ChannelScale
from explainkit.networks.precision import disable_autocast, full_precision
from explainkit_regioncnn.grouping import MIN_MASS, assignment, region_features


@frozen(eq=False, kw_only=True)
class RegionOutputs:
    """What one forward pass gives: for losses, for the decomposition, and for replacements of regions.

    Attributes
    ----------
    logits : Tensor, (N, C)
    shares : Tensor, (N, K, h, w)
        The soft assignment of cells to regions.
    mass : Tensor, (N, K)
        Its sum over cells.
    features : Tensor, (N, K, D)
        Of each region, of length 1.
    descriptors : Tensor, (N, K, E)
        What the head makes of them.
    energies : Tensor, (N, K)
        What attention is the softmax of.
    attention : Tensor, (N, K)
        Summing to 1 over the regions that are there and enabled.
    """

    logits: Tensor
    shares: Tensor
    mass: Tensor
    features: Tensor
    descriptors: Tensor
    energies: Tensor
    attention: Tensor


@frozen(eq=False)
class RenormalizedAttention:
    """A `RescoreFn`: what the head says with other attention, which is brought to a sum of 1 first.

    So a region whose attention is set to 0 leaves its share to the others, as in the network's softmax
    without it. Attention below 0 counts as 0; without any, the logits are the biases.

    Attributes
    ----------
    evidence : Tensor, (N, C, K)
        What each region says of each class.
    bias : Tensor, (C,)
    """

    evidence: Tensor
    bias: Tensor

    def __call__(self, rows: Tensor, scores: Tensor) -> Tensor:
        """Logits (M, C) of images `rows` (M,) with attention `scores` (M, K)."""
        attention = scores.clamp(min=0)
        total = attention.sum(1, keepdim=True)
        attention = torch.where(total > 0, attention / total.where(total > 0, 1.0), 0.0)
        return torch.einsum("mk,mck->mc", attention, self.evidence[rows]) + self.bias


class RestingBatchNorm(nn.BatchNorm1d):
    """A batch norm of rows that goes by its running statistics where a training batch is one row.

    The last batch of an epoch may be.
    """

    def forward(self, values: Tensor) -> Tensor:
        """(N, E) to the same."""
        if self.training and values.shape[0] == 1:
            return F.batch_norm(
                values, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(values)


class RegionBlock(nn.Module):
    """Three linear layers on each region alone, with a shortcut: a bottleneck of 1 x 1 convolutions.

    As He et al., CVPR 2016, figure 5. It begins as its shortcut: the last batch norm has the weight 0.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        last = RestingBatchNorm(outputs)
        nn.init.zeros_(last.weight)
        self.residual = nn.Sequential(
            nn.Linear(inputs, hidden, bias=False), RestingBatchNorm(hidden), nn.ReLU(),
            nn.Linear(hidden, hidden, bias=False), RestingBatchNorm(hidden), nn.ReLU(),
            nn.Linear(hidden, outputs, bias=False), last,
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Linear(inputs, outputs, bias=False), RestingBatchNorm(outputs))
        self.rectify = nn.ReLU()

    def forward(self, rows: Tensor) -> Tensor:
        """(M, inputs) to (M, outputs)."""
        rectified: Tensor = self.rectify(self.residual(rows) + self.shortcut(rows))
        return rectified


class RegionCNNNetwork(nn.Module):
    """Logits from regions: cells are grouped by a learned dictionary, and attention weighs the regions.

    In eval mode everything after the regions' descriptors is affine, so that each logit is a sum over regions
    of attention times evidence, with the batch norm folded into the linear layer.

    Parameters
    ----------
    backbone : Backbone
    classes : int
    regions : int
        K, how many cells are grouped into.
    head_channels : int
        E, the length of a region's descriptor.
    head_blocks, attention_blocks : int
        Bottlenecks before the linear layer, and before the attention.
    reduction : int
        By what a bottleneck divides its channels.
    scaled : bool
        Whether features are divided by the square root of their length, so that distances do not grow with
        it: with large ones assignments are all or nothing from the first step, and centers do not learn.
    attention_relu : bool
        Whether energies below 0 count as 0 before the softmax, as in the paper: regions with such all have
        the same attention, and no gradient.
    """

    unit_mask: Tensor
    border_density: Tensor

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        regions: int = 9,
        *,
        head_channels: int = 128,
        head_blocks: int = 2,
        attention_blocks: int = 2,
        reduction: int = 2,
        scaled: bool = True,
        attention_relu: bool = False,
    ) -> None:
        super().__init__()
        channels = backbone.channels
        self.backbone = backbone
        self.scale = channels**-0.5 if scaled else 1.0
        self.attention_relu = attention_relu
        self.dictionary = nn.Parameter(torch.empty(regions, channels))
        nn.init.kaiming_normal_(self.dictionary)
        with torch.no_grad():
            self.dictionary.mul_(self.scale).clamp_(min=1e-5)  # features are never negative
        self.smoothing = nn.Parameter(torch.zeros(regions))
        widths = [channels, *[head_channels] * head_blocks]
        self.transform = nn.Sequential(
            *(RegionBlock(wide, next_, next_ // reduction) for wide, next_ in pairwise(widths))
        )
        self.attend = nn.Sequential(
            *(RegionBlock(channels, channels, channels // reduction) for _ in range(attention_blocks)),
            nn.Linear(channels, 1), RestingBatchNorm(1),
        )  # fmt: skip
        self.norm = RestingBatchNorm(widths[-1])
        self.head = nn.Linear(widths[-1], classes)
        self.register_buffer("unit_mask", torch.ones(regions, dtype=torch.bool))
        self.register_buffer("border_density", torch.full((regions,), torch.nan))

    @property
    def receptive_field(self) -> ReceptiveField | None:
        """What one cell of a region sees: a cell joins regions by its own feature alone."""
        return self.backbone.field

    @property
    def beta(self) -> Tensor:
        """Twice the squared smoothing factor of each region, in (0, 1): (K,)."""
        return self.smoothing.sigmoid()

    def cell_features(self, images: Tensor) -> Tensor:
        """Features (N, D, h, w) as they are compared with centers: scaled, in float32 at least."""
        return full_precision(self.backbone(images)) * self.scale

    def outputs(self, images: Tensor) -> RegionOutputs:
        """Regions, their descriptors, attention and logits."""
        return self.outputs_of(self.cell_features(images))

    def outputs_of(self, cells: Tensor) -> RegionOutputs:
        """The same of features (N, D, h, w), as `cell_features` gives them."""
        with disable_autocast(cells.device):
            shares = assignment(cells, self.dictionary, self.beta)
            features, mass = region_features(cells, shares, self.dictionary, self.beta)
            rows = features.flatten(0, 1)
            descriptors = self.transform(rows).unflatten(0, mass.shape)
            energies = self.attend(rows).view(mass.shape)
            attention = self.attention_of(energies, (mass > MIN_MASS) & self.unit_mask)
            logits = self.logits_of(descriptors, attention)
        return RegionOutputs(
            logits=logits, shares=shares, mass=mass, features=features, descriptors=descriptors,
            energies=energies, attention=attention,
        )  # fmt: skip

    def attention_of(self, energies: Tensor, is_there: Tensor) -> Tensor:
        """Attention (N, K) over the regions that are there, bool (N, K); 0 for all others."""
        energies = energies.relu() if self.attention_relu else energies
        lowest = torch.finfo(energies.dtype).min  # not -inf: where no region is there, nothing becomes NaN
        return torch.where(is_there, energies.masked_fill(~is_there, lowest).softmax(1), 0.0)

    def logits_of(self, descriptors: Tensor, attention: Tensor) -> Tensor:
        """Logits (N, C) of regions' descriptors (N, K, E) with attention (N, K)."""
        pooled = torch.einsum("nk,nke->ne", attention, descriptors)
        logits: Tensor = self.head(self.norm(pooled))
        return logits

    def folded_head(self) -> tuple[Tensor, Tensor]:
        """Weights (C, E) and bias (C,) of the linear layer with the batch norm before it, in eval mode."""
        norm = cast("RestingBatchNorm | ChannelScale", self.norm)
        scale: Tensor = norm.weight
        shift: Tensor = norm.bias
        if isinstance(norm, RestingBatchNorm):
            assert norm.running_mean is not None and norm.running_var is not None
            scale = scale / (norm.running_var + norm.eps).sqrt()
            shift = shift - norm.running_mean * scale
        return self.head.weight * scale, self.head.bias + self.head.weight @ shift

    def evidence_of(self, descriptors: Tensor) -> tuple[Tensor, Tensor]:
        """What each region of descriptors (N, K, E) says of each class, (N, C, K); and the biases (C,)."""
        weight, bias = self.folded_head()
        return torch.einsum("ce,nke->nck", weight, descriptors), bias

    def decompose(self, images: Tensor) -> Decomposition:
        """A unit a region: its attention, what it says of each class, and the cells that belong to it."""
        outputs = self.outputs(images)
        with disable_autocast(outputs.logits.device):
            evidence, bias = self.evidence_of(outputs.descriptors)
        return Decomposition(
            logits=outputs.logits, bias=bias, scores=outputs.attention, weights=PerImageWeights(evidence),
            maps=outputs.shares, extras={"mass": outputs.mass},
            rescore=RenormalizedAttention(evidence.detach(), bias.detach().clone()),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, D, H, W)."""
        return self.outputs(images).logits
