"""What MA-CNN says: which parts it looked at, and what each filter adds at each of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from attrs import define
from torch import Tensor

import explainkit as ek
from explainkit.explanations.decomposition import Decomposition
from explainkit_macnn.attention import Norm
from explainkit_macnn.callbacks import (
    begin_attending,
    group_filters,
    measure_parts,
    part_metrics,
    settled,
)
from explainkit_macnn.grouping import QUANTILE
from explainkit_macnn.losses import (
    PartLoss,
    grouping_loss,
    membership_loss,
    part_classification_loss,
)
from explainkit_macnn.model import PART_LOGITS, UNMEASURED, MACNNNetwork

LOCAL_WIDTH = 64
"""Filters of the backbone "local" where no settings of it are given."""

RELEASED_MARGIN = 0.02 * 28 * 28
"""The published margin, 0.02 on a grid of 28 x 28, in multiples of the uniform map."""


@define(eq=False, kw_only=True)
class MACNN(ek.InterpretableExplainer[MACNNNetwork]):
    """Multi-attention convolutional network.

    Parameters
    ----------
    backbone : str
        Name of a feature extractor, as in `explainkit.backbone`. Parts are only as local as its cells.
    weights, until : str or None
        Handed to that extractor, for those that come trained or can be cut early, such as torchvision's.
    backbone_settings : mapping or None
        Its other settings, such as ``{"receptive_field": 27}`` for ``"local"``; ``None``: 64 filters of
        ``"local"``, and nothing for others.
    parts : int
        How many parts filters are grouped into.
    grouping_width : int or None
        Of the hidden layer that says which filter belongs to which part; ``None``: a fourth of the filters.
    norm : {"softmax", "sigmoid", "powered"}
        How responses become an attention map: whatever their scale; as in the paper; as in the released
        network.
    sharpness : float
        Of ``"softmax"``: what standardized responses are multiplied by.
    part_loss : {"joint", "each"}
        Whether parts shall be right together, by the sum of what each adds, or each by itself, as in the
        paper; then logits are the mean over parts. Parts that are made to be right by themselves merge where
        no single one tells the class.
    group_images : int
        Training images whose peaks filters are grouped by.
    quantile : float
        In which share of these images a filter's peak does not count, since its response is low for it.
    diversity_weight : float
        Of maps that overlap, beside those that are spread out.
    margin : float
        From which value on another map's cell costs, in multiples of the uniform map.
    grouping_weight : float
        Of both of these while features learn; 0 as in the paper.
    trunk_epochs : int
        Epochs before there are parts: a linear layer on mean features.
    membership_epochs, heads_epochs : int
        Epochs in which grouping layers learn what clustering says; and linear layers their parts.
    grouping_epochs, classify_epochs : int
        Epochs of grouping layers, and of features and linear layers, in each round.
    rounds : int
        At most; fewer where parts stay where they are.
    lr, membership_lr, heads_lr, grouping_lr, classify_lr : float
        Learning rates of the phases of those names; in "classify" `heads_lr` is that of linear layers.
    weight_decay : float
        Of features and linear layers, biases apart.
    label_smoothing : float
        Of the labels.
    batch_size : int
    precision : str
        Of training, as Lightning Fabric names it.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="MA-CNN",
        citation="Zheng, Fu, Mei, Luo; ICCV 2017, pages 5209-5217",
        additivity="exact",
        unit_kind="filters at parts",
        learns_from="training images",
    )
    network_type: ClassVar[type[MACNNNetwork]] = MACNNNetwork
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "tiny": {
            "backbone": "tiny", "parts": 2, "trunk_epochs": 2, "membership_epochs": 10, "membership_lr": 0.1,
            "rounds": 1, "classify_epochs": 1, "batch_size": 32,
        },
        "paper": {
            "backbone": "torchvision/vgg19", "weights": "DEFAULT", "until": "features.35",
            "grouping_width": 512, "norm": "powered", "part_loss": "each", "margin": RELEASED_MARGIN,
            "grouping_weight": 0.0, "trunk_epochs": 10, "membership_epochs": 5, "grouping_epochs": 5,
            "classify_epochs": 5, "rounds": 5, "lr": 1e-4, "membership_lr": 1e-4, "heads_lr": 1e-4,
            "grouping_lr": 1e-4, "classify_lr": 1e-5, "label_smoothing": 0.0, "weight_decay": 5e-4,
            "batch_size": 32,
        },
    }  # fmt: skip

    backbone: str = "local"
    weights: str | None = None
    until: str | None = None
    backbone_settings: Mapping[str, Any] | None = None
    parts: int = 4
    grouping_width: int | None = None
    norm: Norm = "softmax"
    sharpness: float = 1.5
    part_loss: PartLoss = "joint"
    group_images: int = 1000
    quantile: float = QUANTILE
    diversity_weight: float = 2.0
    margin: float = 16.0
    grouping_weight: float = 0.5
    trunk_epochs: int = 7
    membership_epochs: int = 1
    heads_epochs: int = 1
    grouping_epochs: int = 1
    classify_epochs: int = 4
    rounds: int = 2
    lr: float = 4e-3
    membership_lr: float = 3e-2
    heads_lr: float = 4e-3
    grouping_lr: float = 5e-3
    classify_lr: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    batch_size: int = 64
    precision: str = "32-true"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        ek.check_ranges(
            self,
            {
                "[1, inf)": ("parts", "grouping_width", "membership_epochs", "batch_size"),
                "[2, inf)": ("group_images",),
                "[0, inf)": (
                    "trunk_epochs", "heads_epochs", "grouping_epochs", "classify_epochs", "rounds",
                    "diversity_weight", "margin", "grouping_weight", "weight_decay",
                ),
                "(0, inf)": ("sharpness",),
                "[0, 1)": ("label_smoothing", "quantile"),
            },
        )  # fmt: skip

    def build(self, task: ek.Task) -> MACNNNetwork:
        """The network of model.py."""
        backbone = ek.backbone(
            self.backbone, in_channels=task.channels, weights=self.weights, until=self.until,
            **self._backbone_settings,
        )  # fmt: skip
        channels = backbone.channels
        if self.parts > channels:
            raise ek.InputError(
                f"Expected at most {channels} parts, as many as {self.backbone!r} has filters; got "
                f"{self.parts}."
            )
        return MACNNNetwork(
            backbone, len(task.classes), self.parts, self.grouping_width or max(4, channels // 4),
            norm=self.norm, sharpness=self.sharpness,
            scale=1.0 if self.part_loss == "joint" else 1 / self.parts,
        )  # fmt: skip

    def phases(self) -> list[ek.Phase[Any] | ek.Repeat[Any]]:
        """Features, then groups of filters, then both in turns (section 3.2 of the paper)."""
        common: dict[str, Any] = {"batch_size": self.batch_size, "precision": self.precision}
        learning: dict[str, Any] = {
            **common, "weight_decay": self.weight_decay, "no_weight_decay": ("heads.bias",),
            "optimizer_kwargs": {"betas": (0.9, 0.99)},
        }  # fmt: skip
        measured: dict[str, Any] = {"val_metrics": partial(part_metrics, margin=self.margin)}
        alone = partial(
            part_classification_loss, part_loss=self.part_loss, label_smoothing=self.label_smoothing
        )
        apart: dict[str, Any] = {"diversity_weight": self.diversity_weight, "margin": self.margin}
        beside = partial(alone, grouping_weight=self.grouping_weight, **apart)
        group = partial(group_filters, images=self.group_images, quantile=self.quantile)
        attend = partial(begin_attending, images=self.group_images)
        turns = [
            ek.Phase(
                "group", self.grouping_epochs, partial(grouping_loss, **apart),
                {"grouping": self.grouping_lr}, **common, **measured,
            ),
            ek.Phase(
                "classify", self.classify_epochs, beside,
                {"backbone": self.classify_lr, "heads": self.heads_lr}, lr_scheduler="cosine", **learning,
                **measured,
            ),
        ]  # fmt: skip
        return [
            ek.Phase(
                "trunk", self.trunk_epochs, alone, {"backbone": self.lr, "heads": self.lr}, on_end=group,
                lr_scheduler="one-cycle", **learning,
            ),
            ek.Phase(
                "membership", self.membership_epochs, membership_loss, {"grouping": self.membership_lr},
                on_end=attend, lr_scheduler="cosine", **common,
            ),
            ek.Phase(
                "heads", self.heads_epochs, alone, {"heads": self.heads_lr}, lr_scheduler="cosine",
                **learning, **measured,
            ),
            ek.Repeat(turns, self.rounds, stop_when=settled),
            ek.Phase("measure", on_end=measure_parts),
        ]  # fmt: skip

    def describe_units(self, network: MACNNNetwork) -> ek.Units:
        """A unit a part and filter; its parent is the part."""
        parts = part_names(network.parts)
        names = [f"filter {j} of {part}" for part in parts for j in range(network.channels)]
        return ek.Units(
            kind="filter", names=names, pooling="sum", parent=network.part.cpu().clone(), parents=tuple(parts)
        )

    def diagnostics(self, images: Tensor, decomposition: Decomposition, targets: Tensor) -> dict[str, Tensor]:
        """How sure each part alone is of the target, and how often it alone is right of validation images."""
        network: Any = self.network
        by_part = decomposition.extras[PART_LOGITS] / network.scale  # (N, P, C)
        columns = targets[:, None, None].expand(-1, by_part.shape[1], 1)
        sure = self.decision.probabilities(by_part).gather(2, columns)[..., 0].T
        names = part_names(network.parts)
        numbers = {f"p by {name}": values for name, values in zip(names, sure, strict=True)}
        for name, accuracy in zip(names, network.part_accuracy.tolist(), strict=True):
            if accuracy != UNMEASURED:
                numbers[f"accuracy of {name}"] = sure.new_full((len(targets),), accuracy)
        return numbers

    @property
    def _backbone_settings(self) -> Mapping[str, Any]:
        if self.backbone_settings is not None:
            return self.backbone_settings
        return {"width": LOCAL_WIDTH} if self.backbone == "local" else {}


def part_names(count: int) -> list[str]:
    """What `count` parts are called.

    Examples
    --------
    >>> part_names(2)
    ['part 1', 'part 2']
    """
    return [f"part {number + 1}" for number in range(count)]
