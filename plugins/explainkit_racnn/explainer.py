"""What RA-CNN says: how strongly each filter responded at each scale, in its box, and what that is worth."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from attrs import define, field
from torch import Tensor

import explainkit as ek
from explainkit.explanations.decomposition import Decomposition
from explainkit_racnn.callbacks import (
    begin_alike,
    fuse,
    scale_metrics,
    settled,
)
from explainkit_racnn.losses import (
    aim_loss,
    fusion_loss,
    look_loss,
    rank_loss,
    warm_loss,
)
from explainkit_racnn.model import Gradient, RACNNNetwork

SCALES = ("whole image", "closer", "closest")


@define(eq=False, kw_only=True)
class RACNN(ek.InterpretableExplainer[RACNNNetwork]):
    """Recurrent attention convolutional network.

    Parameters
    ----------
    backbone : str
        Of each scale, by name; their weights are not shared.
    weights : str or None
        Handed to each, for those that come trained.
    backbone_settings : mapping
        Its other settings, such as ``{"receptive_field": 27}`` for ``"local"``.
    crop_size : int
        Pixels a side that each scale sees.
    min_half_size, max_half_size : float
        Bounds of half a square's side, as shares of the square before. The paper's bound, a third of the half
        side before, is 1/6 of the square.
    init_half_size : float
        Half the side that proposals begin with, the same share.
    margin : float
        By how much a finer scale should be surer.
    detach_reference : bool
        Whether a coarser scale is taken as it is; the literal loss cancels part of itself.
    gradient : {"true", "surrogate"}
        Of crops in their boxes; "surrogate" is the paper's.
    warm_epochs, aim_epochs, look_epochs, rank_epochs, fusion_epochs : int
        Epochs: of the coarsest scale alone; of proposals towards the strongest response; of scales and of
        proposals in each round; of the head over all scales.
    rounds : int
        At most; fewer where neither half changes any more.
    lr, aim_lr, rank_lr, fusion_lr, weight_decay : float
        Learning rates, at their peak for the first, and weight decay.
    label_smoothing : float
        Of the labels.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="RA-CNN",
        citation="Fu, Zheng, Mei; CVPR 2017, pages 4438-4446",
        additivity="exact",
        unit_kind="filters",
        learns_from="training images",
    )
    network_type: ClassVar[type[RACNNNetwork]] = RACNNNetwork
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "standard": {"backbone": "small"},
        "tiny": {
            "backbone": "tiny",
            "crop_size": 16,
            "warm_epochs": 1,
            "aim_epochs": 1,
            "look_epochs": 1,
            "rank_epochs": 1,
            "rounds": 1,
            "fusion_epochs": 1,
        },
        "paper": {
            "backbone": "torchvision/vgg19",
            "weights": "DEFAULT",
            "crop_size": 224,
            "min_half_size": 1 / 6,
            "init_half_size": 0.25,
            "warm_epochs": 10,
            "aim_epochs": 5,
            "look_epochs": 5,
            "rank_epochs": 5,
            "rounds": 5,
            "fusion_epochs": 5,
            "lr": 1e-4,
            "label_smoothing": 0.0,
            "batch_size": 32,
            "gradient": "surrogate",
            "detach_reference": False,
        },
    }

    backbone: str = "local"
    weights: str | None = None
    backbone_settings: Mapping[str, Any] = field(factory=dict)
    crop_size: int = 48
    min_half_size: float = 0.15
    max_half_size: float = 0.45
    init_half_size: float = 0.3
    margin: float = 0.05
    detach_reference: bool = True
    gradient: Gradient = "true"
    warm_epochs: int = 6
    aim_epochs: int = 1
    look_epochs: int = 2
    rank_epochs: int = 1
    rounds: int = 2
    fusion_epochs: int = 2
    lr: float = 4e-3
    aim_lr: float = 1e-3
    rank_lr: float = 1e-3
    fusion_lr: float = 1e-2
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    batch_size: int = 64

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not 0 < self.min_half_size < self.max_half_size < 0.5:
            raise ek.InputError(
                "Expected 0 < min_half_size < max_half_size < 0.5, as shares of the square before; "
                f"got min_half_size={self.min_half_size!r}, max_half_size={self.max_half_size!r}."
            )
        if not self.min_half_size <= self.init_half_size <= self.max_half_size:
            raise ek.InputError(
                f"Expected init_half_size in {self.min_half_size!r} … {self.max_half_size!r}, within "
                f"min_half_size and max_half_size; got {self.init_half_size!r}. "
                "Proposals cannot begin with a square that they cannot propose."
            )
        ek.check_ranges(
            self,
            {"[8, inf)": ("crop_size",), "[0, inf)": ("rounds",), "[0, 1)": ("margin", "label_smoothing")},
        )

    def build(self, task: ek.Task) -> RACNNNetwork:
        """The network of model.py."""
        return RACNNNetwork(
            partial(
                ek.backbone,
                self.backbone,
                in_channels=task.channels,
                weights=self.weights,
                **self.backbone_settings,
            ),
            len(task.classes),
            self.crop_size,
            min_half_size=self.min_half_size,
            max_half_size=self.max_half_size,
            gradient=self.gradient,
        )

    def phases(self) -> list[ek.Phase[Any] | ek.Repeat[Any]]:
        """The paper's order: the coarsest scale, proposals towards its response, then turns; fusion last."""
        common: dict[str, Any] = {"batch_size": self.batch_size, "optimizer_kwargs": {"betas": (0.9, 0.99)}}
        one_cycle = {**common, "weight_decay": self.weight_decay, "lr_scheduler": "one-cycle"}
        measured = {**common, "val_metrics": scale_metrics}
        warm, look, fusion = (
            partial(loss, label_smoothing=self.label_smoothing)
            for loss in (warm_loss, look_loss, fusion_loss)
        )
        aim = partial(aim_loss, half_size=self.init_half_size)
        rank = partial(rank_loss, margin=self.margin, detach_reference=self.detach_reference)
        coarsest = {"backbones.0": self.lr, "heads.0": self.lr}
        all_scales = {"backbones": self.lr / 2, "heads": self.lr / 2}
        turns = [
            ek.Phase("look", self.look_epochs, look, all_scales, val_metrics=scale_metrics, **one_cycle),
            ek.Phase("rank", self.rank_epochs, rank, {"proposals": self.rank_lr}, **measured),
        ]
        return [
            ek.Phase("warm", self.warm_epochs, warm, coarsest, on_end=begin_alike, **one_cycle),
            ek.Phase("aim", self.aim_epochs, aim, {"proposals": self.aim_lr}, **measured),
            ek.Repeat(turns, self.rounds, stop_when=settled),
            ek.Phase("fuse", on_end=fuse),
            ek.Phase(
                "fusion",
                self.fusion_epochs,
                fusion,
                {"fusion": self.fusion_lr},
                lr_scheduler="cosine",
                **measured,
            ),
        ]

    def describe_units(self, network: RACNNNetwork) -> ek.Units:
        """A unit a scale and filter; its parent is the scale, its group the box of that."""
        scales = tuple(scale_names(network.scales))
        names = [f"filter {k} ({scale})" for scale in scales for k in range(network.channels)]
        group = torch.arange(network.scales).repeat_interleave(network.channels)
        return ek.Units(kind="filter", names=names, pooling="mean", group=group, parent=group, parents=scales)

    def diagnostics(self, images: Tensor, decomposition: Decomposition, targets: Tensor) -> dict[str, Tensor]:
        """How sure each scale alone is of the target: whether a closer look helped."""
        by_scale = decomposition.extras["logits_by_scale"]  # (N, S, C)
        columns = targets[:, None, None].expand(-1, by_scale.shape[1], 1)
        confidences = self.decision.probabilities(by_scale).gather(2, columns)[..., 0].T  # (S, N)
        names = scale_names(len(confidences))
        return {f"p by {name}": confidence for name, confidence in zip(names, confidences, strict=True)}


def scale_names(count: int) -> Sequence[str]:
    """What each of `count` scales is called."""
    return SCALES if count == len(SCALES) else [f"scale {s + 1}" for s in range(count)]
