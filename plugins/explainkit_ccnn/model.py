"""The network: a filter a phrase, its mean, one linear layer without bias; two projections for training."""

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional as F

from explainkit.explanations.decomposition import Decomposition
from explainkit.networks.backbones import Backbone
from explainkit.networks.precision import disable_autocast, full_precision


@frozen(eq=False, kw_only=True)
class CCNNOutputs:
    """What one forward pass gives: for losses, and for the decomposition.

    Attributes
    ----------
    logits : Tensor, (N, C)
    scores : Tensor, (N, K)
        Of the maps, some of them silenced at random in training.
    maps : Tensor, (N, K, h, w)
        None of them silenced.
    """

    logits: Tensor
    scores: Tensor
    maps: Tensor


class CCNNNetwork(nn.Module):
    """Logits as sums of what each phrase's filter found.

    Parameters
    ----------
    backbone : Backbone
    of_classes : Tensor, (K, C), bool
        Which phrases were chosen for which class.
    vectors : Tensor, (K, E)
        The phrases as vectors.
    cells : int
        Of the grid, h times w: the visual projection has a row for each.
    embedding_dim : int
        Length of the vectors that maps and phrases are compared by.
    init_head_weight : float
        First weight between a class and its phrases; to others it is 0. The paper has 0.1 for a network
        without batch norm.
    dropout : float
        Share of filters silenced in training.
    alike : Tensor or None, (K,), int64
        Which phrase each may be mistaken for, by number; -1 for none.
    """

    of_classes: Tensor
    vectors: Tensor
    alike: Tensor
    unit_mask: Tensor

    def __init__(
        self,
        backbone: Backbone,
        of_classes: Tensor,
        vectors: Tensor,
        cells: int,
        embedding_dim: int = 12,
        init_head_weight: float = 1.0,
        dropout: float = 0.0,
        alike: Tensor | None = None,
    ) -> None:
        super().__init__()
        phrases, classes = of_classes.shape
        self.backbone = backbone
        self.concepts = nn.Conv2d(backbone.channels, phrases, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Linear(phrases, classes, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(init_head_weight * of_classes.T)
        self.visual = nn.Parameter(0.1 * torch.randn(cells, embedding_dim))
        self.textual = nn.Parameter(0.1 * torch.randn(vectors.shape[1], embedding_dim))
        self.register_buffer("unit_mask", torch.ones(phrases, dtype=torch.bool))
        self.register_buffer("of_classes", of_classes.clone())
        self.register_buffer("vectors", vectors.clone())
        self.register_buffer("alike", torch.full((phrases,), -1) if alike is None else alike.clone())

    def outputs(self, images: Tensor) -> CCNNOutputs:
        """The map of each phrase, its mean, and the logits."""
        maps = full_precision(self.concepts(self.backbone(images)).relu())
        with disable_autocast(maps.device):
            scores = torch.where(self.unit_mask, self.dropout(maps).mean((2, 3)), 0.0)
            logits = self.head(scores)
        return CCNNOutputs(logits=logits, scores=scores, maps=maps)

    def decompose(self, images: Tensor) -> Decomposition:
        """The map of each phrase, its mean, and what it is worth."""
        outputs = self.outputs(images)
        return Decomposition(
            logits=outputs.logits, bias=outputs.logits.new_zeros(outputs.logits.shape[1]),
            scores=outputs.scores, weights=self.head.weight, maps=outputs.maps,
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C)."""
        return self.outputs(images).logits

    def embed_maps(self, maps: Tensor) -> Tensor:
        """Where maps (..., h w) lie, as unit vectors (..., J); zero for a map of zeros."""
        return F.normalize(maps @ self.visual, dim=-1, eps=1e-8)

    def embed_phrases(self) -> Tensor:
        """The phrases as unit vectors (K, J)."""
        return F.normalize(self.vectors @ self.textual, dim=1, eps=1e-8)
