"""What Region-CNN says: how much attention each region gets, what it says of the class, and where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from attrs import define, field
from torch import Tensor

import explainkit as ek
from explainkit.explanations.decomposition import Decomposition
from explainkit_regioncnn.dictionary import cluster_centers, measure_border
from explainkit_regioncnn.losses import region_loss
from explainkit_regioncnn.model import RegionCNNNetwork

BACKGROUND = 0.5
"""From which density at the border of images on, of an even one, a region is called background."""

AWAY = " (background)"
"""What names of such regions end with."""

RECOLORINGS = 4
"""Recolored copies of an image that cells are averaged over, where centers begin apart from colors."""


@define(eq=False, kw_only=True)
class RegionCNN(ek.InterpretableExplainer[RegionCNNNetwork]):
    """Region-CNN: cells grouped into regions, and attention over these.

    Parameters
    ----------
    backbone : str
        Name of a feature extractor, as in `explainkit.backbone`.
    weights, until : str or None
        Handed to that extractor, for those that come trained or can be cut early, such as torchvision's.
    backbone_settings : mapping
        Its other settings, such as ``{"receptive_field": 27}`` for ``"local"``.
    regions : int
        How many: those of the object and one or two for the background.
    head_channels, head_blocks, attention_blocks, reduction : int
        Length of a region's descriptor; bottlenecks that make it of the region's feature, and that attention
        is made of; by what these divide their channels.
    scaled : bool
        Whether features are divided by the square root of their length before they are compared with centers.
    attention_relu : bool
        Whether what attention is the softmax of is cut off at 0 first.
    prior : (float, float)
        Alpha and beta of the Beta distribution that occurrences of regions should have. The published
        ``(1, 0.001)`` says that each region is in each image; both below 1 say that it is there or not.
    prior_weight : float
        Of the distance from that; 0 leaves it out.
    log_distance : bool or None
        Whether logarithms of occurrences are compared; ``None``: where alpha is 1 or more.
    blur_radius : int
        Of the Gaussian that smooths assignments before their maximum is taken, in cells.
    recoloring_weight : float
        Of the disagreement of regions in an image and in one of the same in other colors, which is not in the
        paper; 0 leaves it out.
    recolor_every : int
        One image of so many is recolored for that.
    warm_epochs : int
        Epochs before the prior, with the dictionary held still; after them it begins anew at clusters of what
        cells are then. 0: it begins at random and learns from the first step, as in the authors' code.
    epochs, batch_size : int
        Epochs after those; the prior is compared with the images of one batch, which should be 32 or more.
    lr, backbone_lr, smoothing_lr : float or None
        Learning rates, at their peak for a one-cycle schedule: of the network, of the backbone and of the
        smoothing factors; ``None``: `lr` for the backbone, ten times `lr` for the smoothing factors.
    weight_decay, label_smoothing : float
        Of weight matrices, and of the labels.
    optimizer : {"adamw", "sgd"}
        The latter with a momentum of 0.9.
    lr_scheduler : {"one-cycle", "cosine"}
    precision : str
        Of training, as Lightning Fabric names it.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Region-CNN",
        citation="Huang, Li; CVPR 2020; arXiv:2005.10411",
        additivity="exact",
        unit_kind="regions",
        learns_from="training images",
    )
    network_type: ClassVar[type[RegionCNNNetwork]] = RegionCNNNetwork
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "tiny": {
            "backbone": "tiny", "backbone_settings": {}, "regions": 4, "head_channels": 32, "warm_epochs": 2,
            "epochs": 6, "batch_size": 16, "lr": 4e-3,
        },
        "paper": {
            "backbone": "torchvision/resnet101", "weights": "DEFAULT", "until": "layer3",
            "backbone_settings": {}, "regions": 5, "head_channels": 2048, "head_blocks": 4, "reduction": 4,
            "scaled": False, "attention_relu": True, "blur_radius": 2, "recoloring_weight": 0.0,
            "warm_epochs": 0, "epochs": 150,
            "batch_size": 16, "lr": 1e-2, "backbone_lr": 5e-4, "smoothing_lr": 1e-2, "weight_decay": 5e-4,
            "label_smoothing": 0.0, "optimizer": "sgd", "lr_scheduler": "cosine",
        },
    }  # fmt: skip

    backbone: str = "local"
    weights: str | None = None
    until: str | None = None
    backbone_settings: Mapping[str, Any] = field(factory=lambda: {"width": 48, "receptive_field": 27})
    regions: int = 9
    head_channels: int = 128
    head_blocks: int = 2
    attention_blocks: int = 2
    reduction: int = 2
    scaled: bool = True
    attention_relu: bool = False
    prior: Sequence[float] = (1.0, 0.001)
    prior_weight: float = 0.5
    log_distance: bool | None = None
    blur_radius: int = 1
    recoloring_weight: float = 0.5
    recolor_every: int = 8
    warm_epochs: int = 3
    epochs: int = 7
    batch_size: int = 32
    lr: float = 3e-3
    backbone_lr: float | None = None
    smoothing_lr: float | None = None
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr_scheduler: Literal["one-cycle", "cosine"] = "one-cycle"
    precision: str = "32-true"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        _check_settings(self)

    def build(self, task: ek.Task) -> RegionCNNNetwork:
        """The network of model.py."""
        backbone = ek.backbone(
            self.backbone, in_channels=task.channels, weights=self.weights, until=self.until,
            **self.backbone_settings,
        )  # fmt: skip
        return RegionCNNNetwork(
            backbone, len(task.classes), self.regions, head_channels=self.head_channels,
            head_blocks=self.head_blocks, attention_blocks=self.attention_blocks, reduction=self.reduction,
            scaled=self.scaled, attention_relu=self.attention_relu,
        )  # fmt: skip

    def phases(self) -> list[ek.Phase[Any]]:
        """All but the dictionary without the prior, which then begins at clusters; then all with it."""
        loss = partial(
            region_loss, prior=tuple(self.prior), is_log=self.log_distance, blur_radius=self.blur_radius,
            recoloring_weight=self.recoloring_weight, recolor_every=self.recolor_every,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip
        kwargs = {"momentum": 0.9} if self.optimizer == "sgd" else {"betas": (0.9, 0.99)}
        common: dict[str, Any] = {
            "weight_decay": self.weight_decay, "optimizer": self.optimizer, "optimizer_kwargs": kwargs,
            "lr_scheduler": self.lr_scheduler, "batch_size": self.batch_size, "precision": self.precision,
        }  # fmt: skip
        rates = dict.fromkeys(("transform", "attend", "norm", "head"), self.lr)
        if not self.head_blocks:
            del rates["transform"]
        rates["backbone"] = self.lr if self.backbone_lr is None else self.backbone_lr
        grouping = {
            "dictionary": self.lr,
            "smoothing": 10 * self.lr if self.smoothing_lr is None else self.smoothing_lr,
        }
        plan = []
        if self.warm_epochs:
            warm = partial(loss, prior_weight=0.0, recoloring_weight=0.0)
            begin = partial(cluster_centers, recolorings=RECOLORINGS if self.recoloring_weight else 0)
            plan.append(ek.Phase("warm", self.warm_epochs, warm, rates, on_end=begin, **common))
        plan.append(
            ek.Phase(
                "group", self.epochs, partial(loss, prior_weight=self.prior_weight), rates | grouping,
                no_weight_decay=("dictionary",), on_end=measure_border, **common,
            )
        )  # fmt: skip
        return plan

    def describe_units(self, network: RegionCNNNetwork) -> ek.Units:
        """A unit a region; those that lie at the border of training images are called background."""
        is_background = background_regions(network).tolist()
        names = [f"region {k}{AWAY if away else ''}" for k, away in enumerate(is_background)]
        return ek.Units(
            kind="region", names=names, pooling="coupled", receptive_field=network.receptive_field
        )

    def diagnostics(self, images: Tensor, decomposition: Decomposition, targets: Tensor) -> dict[str, Tensor]:
        """Over how many regions attention is spread, and how much of it the background has.

        The former is the exponential of its entropy: 1 where one region has all, K where all have as much.
        """
        attention = decomposition.scores
        entropy = -(attention * attention.clamp(min=1e-30).log()).sum(1)
        away = background_regions(self.network).to(attention)  # type: ignore[arg-type]
        return {"regions attended to": entropy.exp(), "attention to the background": attention @ away}


def background_regions(network: RegionCNNNetwork) -> Tensor:
    """Which regions are as dense at the border of training images as half of an even spread: (K,), bool."""
    return network.border_density >= BACKGROUND


def is_background_name(name: str) -> bool:
    """Whether the region called so lies mostly at the border of images.

    Examples
    --------
    >>> is_background_name("region 3 (background)"), is_background_name("region 3")
    (True, False)
    """
    return name.endswith(AWAY)


def _check_settings(explainer: RegionCNN) -> None:
    """Refuse numbers that mean nothing."""
    ek.check_ranges(
        explainer,
        {
            "[2, inf)": ("regions",),
            "[1, inf)": ("head_channels", "reduction", "recolor_every", "batch_size"),
            "[0, inf)": (
                "head_blocks", "attention_blocks", "blur_radius", "warm_epochs", "epochs", "prior_weight",
                "recoloring_weight", "weight_decay",
            ),
            "[0, 1)": ("label_smoothing",),
        },
    )  # fmt: skip
    if explainer.reduction > explainer.head_channels:
        raise ek.InputError(
            f"Expected reduction of Region-CNN as head_channels={explainer.head_channels} at most, which it "
            f"divides; got {explainer.reduction}."
        )
    prior = tuple(explainer.prior)
    if len(prior) != 2 or not all(
        isinstance(value, int | float) and 0 < value < float("inf") for value in prior
    ):
        raise ek.InputError(
            f"Expected prior of Region-CNN as alpha and beta of a Beta distribution, above 0; got {prior}."
        )
