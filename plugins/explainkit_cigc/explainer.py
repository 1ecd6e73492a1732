"""What CI-GC says: how strongly each filter responded, where, and how far that place can be trusted."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

from attrs import define, field
from torch import Tensor

import explainkit as ek
from explainkit.networks.backbones import grid_size
from explainkit.protocols import Images, Targets
from explainkit.training.phases import step_decay
from explainkit_cigc.certificate import Consistency, attention_confusion, measure_consistency
from explainkit_cigc.losses import consistency_loss, consistency_metrics
from explainkit_cigc.model import CIGCNetwork, Pooling


@define(eq=False, kw_only=True)
class CIGC(ek.InterpretableExplainer[CIGCNetwork]):
    """Consistent interpretations by Grad-CAM.

    Parameters
    ----------
    backbone : str
        Name of a feature extractor, as in `explainkit.backbone`.
    weights, until : str or None
        Handed to that extractor, for those that come trained or can be cut early, such as torchvision's.
    backbone_settings : mapping
        Its other settings, such as ``{"receptive_field": 27}`` for ``"local"``.
    pooling : {"mean", "max"}
        How a filter's map becomes its score.
    head : {"linear", "mlp"}
        Between scores and logits. ``"mlp"`` has a hidden layer: what a filter is worth then differs by image,
        and training differentiates Grad-CAM twice.
    hidden_width : int
        Of that layer.
    epochs, warm_epochs, batch_size : int
        Epochs in all, and how many of them are without composites first: maps of an untrained network are
        noise.
    consistency : float
        Weight of the distance between a composite's map and the image's, which is in [0, 2]; 0: a CAM. The
        published weight of 25 is 0.128 here.
    composite_fraction : float
        Share of a batch that is looked at in a composite, which costs four images.
    lr, weight_decay : float
        Learning rate, at its peak for a one-cycle schedule, and weight decay.
    lr_scheduler : {"one-cycle", "steps"}
        With AdamW; or with SGD, whose rate falls to a tenth after each third of the epochs.
    label_smoothing : float
        Of the labels.
    precision : str
        Of training, as Lightning Fabric names it.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="CI-GC",
        citation="Pillai, Pirsiavash; AAAI 2021, pages 2431-2439",
        additivity="exact",
        unit_kind="filters",
        learns_from="training images",
    )
    network_type: ClassVar[type[CIGCNetwork]] = CIGCNetwork
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "tiny": {"backbone": "tiny", "epochs": 2, "warm_epochs": 1},
        "paper": {
            "backbone": "torchvision/resnet18", "epochs": 90, "warm_epochs": 0, "batch_size": 256, "lr": 0.1,
            "weight_decay": 1e-4, "lr_scheduler": "steps", "label_smoothing": 0.0, "consistency": 25 / 196,
            "composite_fraction": 1.0,
        },
    }  # fmt: skip

    backbone: str = "local"
    weights: str | None = None
    until: str | None = None
    backbone_settings: Mapping[str, Any] = field(factory=dict)
    pooling: Pooling = "mean"
    head: Literal["linear", "mlp"] = "linear"
    hidden_width: int = 64
    epochs: int = 12
    warm_epochs: int = 4
    batch_size: int = 64
    consistency: float = 0.5
    composite_fraction: float = 0.25
    lr: float = 4e-3
    weight_decay: float = 0.05
    lr_scheduler: Literal["one-cycle", "steps"] = "one-cycle"
    label_smoothing: float = 0.05
    precision: str = "32-true"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        ek.check_ranges(
            self,
            {
                "[0, inf)": ("epochs", "warm_epochs", "consistency", "weight_decay"),
                "[1, inf)": ("batch_size", "hidden_width"),
                "[0, 1)": ("label_smoothing",),
            },
        )
        if self.consistency and self.warm_epochs >= self.epochs:
            raise ek.InputError(
                f"Expected fewer warm_epochs than epochs of CI-GC; got {self.warm_epochs} of {self.epochs}: "
                "no composite would be looked at. Without them it is a CAM: consistency=0."
            )
        if not 0 < self.composite_fraction <= 1:
            raise ek.InputError(
                f"Expected composite_fraction of CI-GC above 0 and up to 1; got {self.composite_fraction}. "
                "Without composites it is a CAM: consistency=0."
            )

    def build(self, task: ek.Task) -> CIGCNetwork:
        """The network of model.py.

        Raises
        ------
        InputError
            For images whose composites would not be on twice their grid.
        """
        backbone = ek.backbone(
            self.backbone, in_channels=task.channels, weights=self.weights, until=self.until,
            **self.backbone_settings,
        )  # fmt: skip
        if task.dataset is not None and self.consistency:
            _check_size(backbone, task.size)
        hidden_width = self.hidden_width if self.head == "mlp" else None
        return CIGCNetwork(backbone, len(task.classes), self.pooling, hidden_width)

    def phases(self) -> list[ek.Phase[Any]]:
        """One phase, all parameters; composites come in after `warm_epochs`."""
        schedule: dict[str, Any] = {"optimizer_kwargs": {"betas": (0.9, 0.99)}, "lr_scheduler": "one-cycle"}
        if self.lr_scheduler == "steps":
            schedule = {
                "optimizer": "sgd",
                "optimizer_kwargs": {"momentum": 0.9},
                "lr_scheduler": partial(step_decay, every=max(1, self.epochs // 3)),
                "lr_scheduler_interval": "epoch",
            }
        loss = partial(
            consistency_loss, consistency=self.consistency, composite_fraction=self.composite_fraction,
            warm_epochs=self.warm_epochs, label_smoothing=self.label_smoothing,
        )  # fmt: skip
        return [
            ek.Phase(
                "all",
                self.epochs,
                loss,
                {"": self.lr},
                weight_decay=self.weight_decay,
                batch_size=self.batch_size,
                precision=self.precision,
                val_metrics=consistency_metrics if self.consistency else None,
                **schedule,
            )
        ]

    def describe_units(self, network: CIGCNetwork) -> ek.Units:
        """A unit a filter."""
        names = [f"filter {k}" for k in range(network.backbone.channels)]
        return ek.Units(
            kind="filter", names=names, pooling=network.pooling, receptive_field=network.backbone.field
        )

    def measure_consistency(
        self,
        images: Images,
        others: ek.Batch | ek.ImageDataset,
        targets: Targets | None = None,
        *,
        grids: int = 8,
        seed: int = 0,
        batch_size: int = 64,
    ) -> Consistency:
        """How far each image's map stays as it is among others; see `certificate.measure_consistency`."""
        return measure_consistency(
            self, images, others, targets, grids=grids, seed=seed, batch_size=batch_size
        )

    def attention_confusion(
        self,
        images: ek.Batch,
        others: ek.Batch | ek.ImageDataset,
        *,
        grids: int = 4,
        seed: int = 0,
        batch_size: int = 64,
    ) -> Tensor:
        """Which class draws attention from which, (C, C); see `certificate.attention_confusion`."""
        return attention_confusion(self, images, others, grids=grids, seed=seed, batch_size=batch_size)


def _check_size(backbone: ek.Backbone, size: tuple[int, ...]) -> None:
    """Refuse images of `size` whose composites are not on twice their grid."""
    height, width = grid_size(backbone, size)
    grid = grid_size(backbone, [2 * side for side in size])
    if grid != (2 * height, 2 * width):
        raise ek.InputError(
            f"Expected images whose composites of 2 x 2 are on twice their grid, {(2 * height, 2 * width)}; "
            f"got {grid} for images of {size}. Choose sizes that the backbone's stride of {backbone.stride} "
            "divides."
        )
