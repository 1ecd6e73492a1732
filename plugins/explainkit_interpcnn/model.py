"""The network: a backbone, a mask around the strongest cell of each filter, its mean, one linear layer."""

import torch
from attrs import frozen
from torch import Tensor, nn

from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.receptive_field import ReceptiveField
from explainkit.networks.backbones import Backbone
from explainkit.networks.precision import disable_autocast, full_precision
from explainkit_interpcnn.templates import masked_maps


@frozen(eq=False, kw_only=True)
class InterpCNNOutputs:
    """What one forward pass gives: for losses, and for the decomposition.

    Attributes
    ----------
    logits : Tensor, (N, C)
    scores : Tensor, (N, K)
        Means of the masked maps.
    maps : Tensor, (N, K, h, w)
        Masked.
    raw_maps : Tensor, (N, K, h, w)
        As they were before: what the filter loss is about.
    """

    logits: Tensor
    scores: Tensor
    maps: Tensor
    raw_maps: Tensor


class InterpCNNNetwork(nn.Module):
    """Logits as sums of what each filter found around its strongest cell.

    The paper's head is a stack of fully connected layers on the masked maps, which is no sum over filters;
    here each masked map is averaged, and one linear layer follows.

    Parameters
    ----------
    backbone : Backbone
    classes : int
    filters : int or None
        Of a further 3 x 3 convolution with a ReLU, the paper's interpretable layer; ``None``: the backbone's
        own filters are taken, after its last ReLU.
    mask : bool
        Whether all of a map but the surroundings of its strongest cell is silenced.
    beta : float
        How narrow those are: they reach ``n / beta`` cells on a grid of side n.
    dropout : float
        Share of filters silenced in training, between pooling and the linear layer.
    head_scale : float
        What the first weights of the linear layer are multiplied by: means of masked maps are small.
    class_share : Tensor or None, (C,)
        Which share of the training images each class has; alike unless given.
    """

    unit_mask: Tensor
    category: Tensor
    class_activation: Tensor
    is_class_seen: Tensor
    class_share: Tensor

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        filters: int | None = None,
        mask: bool = True,
        beta: float = 4.0,
        dropout: float = 0.0,
        head_scale: float = 1.0,
        class_share: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.mask, self.beta = mask, beta
        self.backbone = backbone
        self.further = (
            nn.Identity()
            if filters is None
            else nn.Sequential(nn.Conv2d(backbone.channels, filters, 3, 1, 1), nn.ReLU())
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(filters or backbone.channels, classes)
        with torch.no_grad():
            self.head.weight.mul_(head_scale)
        units = self.head.in_features
        self.register_buffer("unit_mask", torch.ones(units, dtype=torch.bool))
        self.register_buffer("category", torch.arange(units) % classes)
        self.register_buffer("class_activation", torch.zeros(classes, units))
        self.register_buffer("is_class_seen", torch.zeros(classes, dtype=torch.bool))
        share = torch.full((classes,), 1 / classes) if class_share is None else class_share.float()
        self.register_buffer("class_share", share)

    @property
    def receptive_field(self) -> ReceptiveField | None:
        """What one cell of a map sees; ``None`` with a mask, which goes by the strongest cell of all."""
        field = None if self.mask else self.backbone.field
        return field if field is None or isinstance(self.further, nn.Identity) else field.after(kernel=3)

    def raw_maps(self, images: Tensor) -> Tensor:
        """The filters' maps (N, K, h, w) before the mask."""
        return full_precision(self.further(self.backbone(images)))

    def outputs(self, images: Tensor) -> InterpCNNOutputs:
        """The maps, masked and not, their means, and the logits."""
        raw = self.raw_maps(images)
        with disable_autocast(raw.device):
            maps = masked_maps(raw, self.beta) if self.mask else raw
            scores = torch.where(self.unit_mask, maps.mean((2, 3)), 0.0)
            logits = self.head(self.dropout(scores))
        return InterpCNNOutputs(logits=logits, scores=scores, maps=maps, raw_maps=raw)

    def decompose(self, images: Tensor) -> Decomposition:
        """The masked maps, their means, and what each is worth."""
        outputs = self.outputs(images)
        return Decomposition(
            logits=outputs.logits, bias=self.head.bias, scores=outputs.scores, weights=self.head.weight,
            maps=outputs.maps,
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, D, H, W)."""
        return self.outputs(images).logits
