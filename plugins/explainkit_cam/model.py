"""The network: a backbone, the mean of each filter, one linear layer."""

import torch
from torch import Tensor, nn

from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.receptive_field import ReceptiveField
from explainkit.networks.backbones import Backbone
from explainkit.networks.precision import disable_autocast, full_precision


class CAMNetwork(nn.Module):
    """Logits from how strongly each filter responds on average (section 2 of the paper).

    The paper pools by the sum and leaves the bias out; real networks take the mean and have one, and so does
    this.

    Parameters
    ----------
    backbone : Backbone
    classes : int
    dropout : float
        Share of filters silenced in training, between pooling and the linear layer.
    filters : int or None
        Of a further 3 x 3 convolution between backbone and pooling, as the paper adds one; ``None``: the
        backbone's own are pooled.
    """

    unit_mask: Tensor

    def __init__(
        self, backbone: Backbone, classes: int, dropout: float = 0.0, filters: int | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.further = (
            nn.Identity()
            if filters is None
            else nn.Sequential(nn.Conv2d(backbone.channels, filters, 3, 1, 1), nn.ReLU())
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(filters or backbone.channels, classes)
        self.register_buffer("unit_mask", torch.ones(self.head.in_features, dtype=torch.bool))

    def decompose(self, images: Tensor) -> Decomposition:
        """The filters' maps (N, K, h, w), their means, and what each is worth."""
        maps = full_precision(self.further(self.backbone(images)))
        return pooled(maps, self.head, self.dropout, self.unit_mask)

    @property
    def receptive_field(self) -> ReceptiveField | None:
        """What one cell of a map sees."""
        field = self.backbone.field
        return field if field is None or isinstance(self.further, nn.Identity) else field.after(kernel=3)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, W)."""
        return self.decompose(images).logits


def pooled(
    maps: Tensor, head: nn.Linear, dropout: nn.Module | None = None, unit_mask: Tensor | None = None
) -> Decomposition:
    """What global average pooling and `head` make of maps (N, K, h, w), without the units that are off."""
    with disable_autocast(maps.device):
        scores = maps.mean((2, 3))
        if unit_mask is not None:
            scores = torch.where(unit_mask, scores, 0.0)
        logits = head(scores if dropout is None else dropout(scores))
    bias = head.bias if head.bias is not None else logits.new_zeros(logits.shape[1])
    return Decomposition(logits=logits, bias=bias, scores=scores, weights=head.weight, maps=maps)
