"""The network: features, filters grouped into parts, and for each part a map and a linear layer."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor, nn

from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.factored_maps import FactoredMaps
from explainkit.networks.backbones import Backbone
from explainkit.networks.precision import disable_autocast, full_precision
from explainkit_macnn.attention import Norm, attention_maps

PART_LOGITS = "part_logits"
"""The extra of a decomposition: what each part adds to the logits, (N, P, C)."""

UNMEASURED = -1.0
"""The accuracy of a part that was not measured."""


@frozen(eq=False, kw_only=True)
class MACNNOutputs:
    """What one forward pass gives for N images, P parts, D filters, C classes and a grid (h, w).

    Attributes
    ----------
    features : Tensor, (N, D, h, w)
        Never negative.
    membership_logits : Tensor, (N, P, D)
        How much each filter belongs to each part, before the sigmoid.
    attention : Tensor, (N, P, h, w)
        Sums to 1; the same everywhere until filters are grouped.
    scores : Tensor, (N, P, D)
        Features seen through each part's attention; 0 for units that are off.
    part_logits : Tensor, (N, P, C)
        What each part adds to the logits.
    logits : Tensor, (N, C)
        Their sum.
    """

    features: Tensor
    membership_logits: Tensor
    attention: Tensor
    scores: Tensor
    part_logits: Tensor
    logits: Tensor


class ChannelGrouping(nn.Module):
    """How much each filter belongs to each part, from the mean of all: two layers for each of P parts.

    ``d_i = sigmoid(W2_i tanh(W1_i u + b1_i) + b2_i)``, section 3.1 of the paper; all parts at once.

    Parameters
    ----------
    parts, channels, width : int
        P, D, and the length of the hidden layer.
    """

    def __init__(self, parts: int, channels: int, width: int) -> None:
        super().__init__()
        self.first_weight = nn.Parameter(0.005 * torch.randn(parts, width, channels))
        self.first_bias = nn.Parameter(torch.zeros(parts, width))
        self.second_weight = nn.Parameter(0.005 * torch.randn(parts, channels, width))
        self.second_bias = nn.Parameter(torch.zeros(parts, channels))

    def forward(self, pooled: Tensor) -> Tensor:
        """Mean features (N, D) to logits of membership (N, P, D)."""
        hidden = torch.einsum("nd,pwd->npw", pooled, self.first_weight) + self.first_bias
        return torch.einsum("npw,pdw->npd", hidden.tanh(), self.second_weight) + self.second_bias


class PartHeads(nn.Module):
    """A linear layer for each part.

    Parameters
    ----------
    parts, channels, classes : int
    """

    def __init__(self, parts: int, channels: int, classes: int) -> None:
        super().__init__()
        bound = channels**-0.5
        self.weight = nn.Parameter(torch.empty(parts, classes, channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(parts, classes).uniform_(-bound, bound))

    def forward(self, scores: Tensor) -> Tensor:
        """Part features (N, P, D) to logits by part (N, P, C)."""
        return torch.einsum("npd,pcd->npc", scores, self.weight) + self.bias


class MACNNNetwork(nn.Module):
    """Logits as sums over parts, and of each part over filters.

    Parameters
    ----------
    backbone : Backbone
    classes : int
    parts : int
    width : int
        Of the hidden layer of the grouping.
    norm, sharpness
        As `attention_maps` takes them.
    scale : float
        What logits by part are multiplied by: 1 / P makes the sum a mean, for parts each of which is trained
        to be right by itself.
    """

    unit_mask: Tensor
    groups: Tensor
    is_grouped: Tensor
    part_accuracy: Tensor
    part: Tensor
    channel: Tensor

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        parts: int = 4,
        width: int = 16,
        *,
        norm: Norm = "softmax",
        sharpness: float = 2.5,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        channels = backbone.channels
        self.backbone = backbone
        self.grouping = ChannelGrouping(parts, channels, width)
        self.heads = PartHeads(parts, channels, classes)
        self.parts, self.channels = parts, channels
        self.norm: Norm = norm
        self.sharpness, self.scale = sharpness, scale
        self.register_buffer("groups", torch.full((channels,), -1))
        self.register_buffer("is_grouped", torch.tensor(False))
        self.register_buffer("part_accuracy", torch.full((parts,), UNMEASURED))
        self.register_buffer("unit_mask", torch.ones(parts * channels, dtype=torch.bool))
        pairs = torch.cartesian_prod(torch.arange(parts), torch.arange(channels))
        self.register_buffer("part", pairs[:, 0].clone())
        self.register_buffer("channel", pairs[:, 1].clone())

    def features(self, images: Tensor) -> Tensor:
        """The filters' maps (N, D, h, w) of images (N, 3, H, W)."""
        return full_precision(self.backbone(images))

    def outputs(self, images: Tensor) -> MACNNOutputs:
        """All that one forward pass gives."""
        return self.attend(self.features(images))

    def attend(self, features: Tensor) -> MACNNOutputs:
        """The same from features (N, D, h, w)."""
        with disable_autocast(features.device):
            membership_logits = self.grouping(features.mean((2, 3)))
            attention = self.attention(features, membership_logits.sigmoid())
            uniform = 1 / (features.shape[2] * features.shape[3])
            attention = torch.where(self.is_grouped, attention, uniform)
            scores = self.enabled(torch.einsum("nphw,ndhw->npd", attention, features))
            part_logits = self.scale * self.heads(scores)
        return MACNNOutputs(
            features=features, membership_logits=membership_logits, attention=attention, scores=scores,
            part_logits=part_logits, logits=part_logits.sum(1),
        )  # fmt: skip

    def attention(self, features: Tensor, membership: Tensor) -> Tensor:
        """Maps (N, P, h, w) of parts to which filters belong by `membership` (N, P, D)."""
        responses = torch.einsum("npd,ndhw->nphw", membership, features)
        return attention_maps(responses, self.norm, self.sharpness, features.shape[1])

    def enabled(self, scores: Tensor) -> Tensor:
        """Scores (..., P, D) without those of units that are off."""
        return torch.where(self.unit_mask.unflatten(0, (self.parts, self.channels)), scores, 0.0)

    def decompose(self, images: Tensor) -> Decomposition:
        """A unit a part and filter: the features that the part sees of it, and what these are worth.

        Units are counted filter by filter, part after part. The scores are set after attention, so that the
        sum is exact, and stays so where scores are set by hand: the attention is then what it was.
        """
        outputs = self.outputs(images)
        maps = FactoredMaps(
            attention=outputs.attention, features=outputs.features, part=self.part, channel=self.channel
        )
        return Decomposition(
            logits=outputs.logits, bias=self.scale * self.heads.bias.sum(0), scores=outputs.scores.flatten(1),
            weights=self.scale * self.heads.weight.transpose(0, 1).flatten(1), maps=maps,
            extras={PART_LOGITS: outputs.part_logits},
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, W)."""
        return self.outputs(images).logits
