"""The network: a backbone, the mean of each filter, one linear layer, and a gate that training alone uses."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from explainkit.errors import InputError
from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.receptive_field import ReceptiveField
from explainkit.networks.backbones import Backbone
from explainkit.networks.precision import disable_autocast, full_precision

SPECIFIC, LEAKAGE = "specific", "leakage"
"""The extras of a decomposition, (N, C) each: the two parts of every logit, see `CSGCNNNetwork.decompose`."""

MEMBER = 0.5
"""The gate above which a filter is one of a class's own: ``S_c = {k : G_kc > 0.5}``."""


@frozen(eq=False, kw_only=True)
class GatedOutputs:
    """What the losses need of N images.

    Attributes
    ----------
    logits : Tensor, (N, C)
        Of the standard path.
    gated_logits : Tensor, (N, C)
        Of the filters that the gate leaves for the true class.
    """

    logits: Tensor
    gated_logits: Tensor


class CSGCNNNetwork(nn.Module):
    """Logits from how strongly each filter responds on average, with a class-specific gate beside it.

    The gate `gate` (K, C) is a parameter; `project_gate` keeps it in
    ``{G in [0, 1]^(K x C) : max_c G_kc = 1}``. `forward` never uses it: the logits are those of the standard
    path (section 3.1 of the paper). It begins at 1 everywhere, where both paths are the same.

    Parameters
    ----------
    backbone : Backbone
    classes : int
    """

    unit_mask: Tensor

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.channels, classes)
        self.gate = nn.Parameter(torch.ones(backbone.channels, classes))
        self.register_buffer("unit_mask", torch.ones(backbone.channels, dtype=torch.bool))

    def decompose(self, images: Tensor) -> Decomposition:
        """The filters' maps (N, K, h, w), their means, and what each is worth; both parts of every logit.

        ``logit_c = b_c + specific_c + leakage_c`` with ``specific_c = sum_k G_kc W_ck a_k`` and
        ``leakage_c = sum_k (1 - G_kc) W_ck a_k``.
        """
        maps, scores = self._pooled(images)
        weight = self.head.weight
        with disable_autocast(scores.device):
            logits = self.head(scores)
            specific = scores @ (self.gate * weight.T)
            leakage = scores @ ((1 - self.gate) * weight.T)
        return Decomposition(
            logits=logits, bias=self.head.bias, scores=scores, weights=weight, maps=maps,
            extras={SPECIFIC: specific, LEAKAGE: leakage},
        )  # fmt: skip

    def gated(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Scores (N, K) through the gates of `labels` (N,): ``a_k G_ky``.

        Pooling is linear, so that this is what pooling makes of gated maps.
        """
        return scores * self.gate[:, labels].T

    def outputs(self, images: Tensor, labels: Tensor) -> GatedOutputs:
        """Logits of both paths, from one pass through the backbone."""
        _, scores = self._pooled(images)
        with disable_autocast(scores.device):
            gated_logits = self.head(self.gated(scores, labels))
            return GatedOutputs(logits=self.head(scores), gated_logits=gated_logits)

    @property
    def receptive_field(self) -> ReceptiveField | None:
        """What one cell of a map sees."""
        return self.backbone.field

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, W)."""
        _, scores = self._pooled(images)
        with disable_autocast(scores.device):
            logits: Tensor = self.head(scores)
        return logits

    def _pooled(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (N, K, h, w) and their means (N, K), without the units that are off."""
        maps = full_precision(self.backbone(images))
        return maps, torch.where(self.unit_mask, maps.mean((2, 3)), 0.0)


def projected(gate: Tensor) -> Tensor:
    """`gate` (K, C) brought to values in [0, 1] with a maximum of exactly 1 in each row.

    What is below 0 becomes 0 first, then each row is divided by its maximum: divided first, a row without a
    value above 0 would turn its signs round. Such a row is 1 for all classes, a filter that is not gated.

    Examples
    --------
    >>> projected(torch.tensor([[0.5, -0.2, 0.25], [-1.0, 0.0, -0.5]]))
    tensor([[1.0000, 0.0000, 0.5000],
            [1.0000, 1.0000, 1.0000]])
    """
    clamped = gate.clamp(min=0)
    largest = clamped.amax(1, keepdim=True)
    has_class = largest >= torch.finfo(gate.dtype).tiny
    return torch.where(has_class, clamped / largest.where(has_class, 1.0), 1.0)


def check_budget(budget: float, filters: int, classes: int) -> None:
    """Refuse a sum of the gate that no gate can have.

    Raises
    ------
    InputError
        Below `filters`: each row has a 1.
    """
    if budget < filters:
        raise InputError(
            f"Expected the gate's sum to be allowed at least {filters}, one class for each filter; got "
            f"{budget:.4g} for {filters} filters and {classes} classes. Set gate_density to at least 1 / "
            f"{classes}, or to None and classes_per_filter to at least 1."
        )


def check_threshold(name: str, value: Any) -> float:
    """`value` as a float, once it is found to be an affinity above which a unit is a class's own.

    Raises
    ------
    InputError
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise InputError(f"Expected {name} as a number in [0, 1); got {value!r}.")
    return float(value)
