"""What RA-CNN says: how strongly each filter responded at each scale, in its box, and what that is worth."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self, get_args

import torch
from attrs import define
from torch import Tensor, nn

import explainkit as ek
from explainkit.decomposition import Decomposition
from explainkit.errors import BindError
from explainkit_racnn.model import Gradient, Looks, RACNNNetwork
from explainkit_racnn.trainer import (
    aim_loss,
    begin_alike,
    fuse,
    fusion_loss,
    look_loss,
    looks,
    rank_loss,
    settled,
    warm_loss,
)

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
    side : int
        Pixels a side that each scale sees.
    least, most : float
        Bounds of half a square's side, as shares of the square before. The paper's bound, a third of the half
        side before, is 1/6 of the square.
    aim : float
        Half the side that proposals begin with, the same share.
    margin : float
        By how much a finer scale should be surer.
    detach_reference : bool
        Whether a coarser scale is taken as it is; the literal loss cancels part of itself.
    gradient : {"true", "surrogate"}
        Of crops in their boxes; "surrogate" is the paper's.
    warm, aiming, look, rank, fusion : int
        Epochs: of the coarsest scale alone; of proposals towards the strongest response; of scales and of
        proposals in each round; of the head over all scales.
    rounds : int
        At most; fewer where neither half changes any more.
    rate, aim_rate, rank_rate, fusion_rate, decay : float
        Learning rates, at their peak for the first, and weight decay.
    smoothing : float
        Of the labels.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="RA-CNN",
        citation="Fu, Zheng, Mei; CVPR 2017, pages 4438-4446",
        claim="exact",
        speaks="filters",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "tiny": {
            "backbone": "tiny", "side": 16, "warm": 1, "aiming": 1, "look": 1, "rank": 1, "rounds": 1,
            "fusion": 1,
        },
        "paper": {
            "backbone": "torchvision/vgg19", "weights": "DEFAULT", "side": 224, "least": 1 / 6, "aim": 0.25,
            "warm": 10, "aiming": 5, "look": 5, "rank": 5, "rounds": 5, "fusion": 5, "rate": 1e-4,
            "smoothing": 0.0, "batch_size": 32, "gradient": "surrogate", "detach_reference": False,
        },
    }  # fmt: skip

    backbone: str = "small"
    weights: str | None = None
    side: int = 48
    least: float = 0.15
    most: float = 0.45
    aim: float = 0.3
    margin: float = 0.05
    detach_reference: bool = True
    gradient: Gradient = "true"
    warm: int = 6
    aiming: int = 1
    look: int = 2
    rank: int = 1
    rounds: int = 2
    fusion: int = 2
    rate: float = 4e-3
    aim_rate: float = 1e-3
    rank_rate: float = 1e-3
    fusion_rate: float = 1e-2
    decay: float = 0.05
    smoothing: float = 0.05
    batch_size: int = 64

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not 0 < self.least < self.most < 0.5:
            raise ek.InputError(
                "Expected half sides 0 < least < most < 0.5, as shares of the square before; "
                f"got least={self.least!r}, most={self.most!r}."
            )
        if not self.least <= self.aim <= self.most:
            raise ek.InputError(
                f"Expected aim within least and most, {self.least!r} … {self.most!r}; got {self.aim!r}. "
                "Proposals cannot begin with a square that they cannot propose."
            )
        if self.gradient not in get_args(Gradient):
            raise ek.InputError(f"Expected gradient 'true' or 'surrogate'; got {self.gradient!r}.")
        for name, low in (("side", 8), ("rounds", 0)):
            if getattr(self, name) < low:
                raise ek.InputError(f"Expected {name} of at least {low}; got {getattr(self, name)}.")
        for name in ("margin", "smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ek.InputError(f"Expected {name} in [0, 1); got {getattr(self, name)!r}.")

    def build(self, task: ek.Task) -> RACNNNetwork:
        """The network of model.py."""
        given = {} if self.weights is None else {"weights": self.weights}
        return RACNNNetwork(
            partial(ek.backbone, self.backbone, **given), len(task.classes), self.side, least=self.least,
            most=self.most, gradient=self.gradient,
        )  # fmt: skip

    def phases(self) -> list[ek.Phase[Any] | ek.Repeat[Any]]:
        """The paper's order: the coarsest scale, proposals towards its response, then turns; fusion last."""
        common: dict[str, Any] = {"batch_size": self.batch_size, "options": {"betas": (0.9, 0.99)}}
        learning = {**common, "decay": self.decay, "schedule": "one-cycle"}
        whole = partial(warm_loss, smoothing=self.smoothing)
        all_scales = {"backbones": self.rate / 2, "heads": self.rate / 2}
        ranking = partial(rank_loss, margin=self.margin, detach_reference=self.detach_reference)
        return [
            ek.Phase(
                "warm", self.warm, whole, {"backbones.0": self.rate, "heads.0": self.rate},
                finish=begin_alike, **learning,
            ),
            ek.Phase(
                "aim", self.aiming, partial(aim_loss, half=self.aim), {"proposals": self.aim_rate},
                measure=looks, **common,
            ),
            ek.Repeat(
                [
                    ek.Phase(
                        "look", self.look, partial(look_loss, smoothing=self.smoothing), all_scales,
                        measure=looks, **learning,
                    ),
                    ek.Phase(
                        "rank", self.rank, ranking, {"proposals": self.rank_rate}, measure=looks, **common
                    ),
                ],
                self.rounds, until=settled,
            ),
            ek.Phase("fuse", finish=fuse),
            ek.Phase(
                "fusion", self.fusion, partial(fusion_loss, smoothing=self.smoothing),
                {"fusion": self.fusion_rate}, measure=looks, schedule="cosine", **common,
            ),
        ]  # fmt: skip

    def describe(self, network: RACNNNetwork) -> ek.Units:
        """A unit a scale and filter; its group is the scale, and with it the box."""
        names = [f"filter {k} ({s})" for s in scale_names(network.depth) for k in range(network.channels)]
        group = torch.arange(network.depth).repeat_interleave(network.channels)
        return ek.Units(kind="filter", names=names, pooling="mean", group=group)

    @classmethod
    def bind(cls, network: nn.Module, *, classes: Sequence[str] | None = None, **settings: Any) -> Self:
        """An explainer of a `RACNNNetwork` trained elsewhere.

        Raises
        ------
        BindError
            For a network of another form, which has no scales.
        """
        if not isinstance(network, RACNNNetwork):
            raise BindError(
                f"Expected a RACNNNetwork; got {type(network).__name__}, which looks once. Train one with "
                "fit(data)."
            )
        return super().bind(network, classes=classes, **settings)

    def notes(self, images: Tensor, parts: Decomposition, targets: Tensor) -> dict[str, Tensor]:
        """How sure each scale alone is of the target: whether a closer look helped."""
        by_scale = parts.by_scale if isinstance(parts, Looks) else parts.logits[None]
        sure = by_scale.softmax(2).gather(2, targets[None, :, None].expand(len(by_scale), -1, 1))[..., 0]
        return {f"p by {name}": value for name, value in zip(scale_names(len(sure)), sure, strict=True)}


def scale_names(count: int) -> Sequence[str]:
    """What each of `count` scales is called."""
    return SCALES if count == len(SCALES) else [f"scale {s + 1}" for s in range(count)]


def shares(told: ek.Explanations) -> Tensor:
    """What each scale adds, (N, S): the contributions summed by scale."""
    group = told.units.group
    if group is None:
        raise ek.InputError("Expected explanations by scale; these have no groups.")
    member = torch.nn.functional.one_hot(group, int(group.max()) + 1).to(told.contributions)
    return told.contributions @ member
