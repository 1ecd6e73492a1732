"""What ProtoPNet says: how similar the most similar patch is to each prototype, and what that is worth."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from attrs import define, field
from torch import Tensor
from torch.nn.functional import one_hot

import explainkit as ek
from explainkit.explainers.state import in_place
from explainkit.explanations.spatial import Keep
from explainkit.networks.random_state import kept_random_state
from explainkit.training.phases import step_decay
from explainkit_protopnet.head import refit
from explainkit_protopnet.initialization import begin_at_patches
from explainkit_protopnet.losses import clustering_loss, start_loss
from explainkit_protopnet.model import ProtoPNetNetwork
from explainkit_protopnet.projection import project
from explainkit_protopnet.pruning import prune
from explainkit_protopnet.report import ProjectionReport, report_on


@define(eq=False, kw_only=True)
class ProtoPNet(ek.InterpretableExplainer[ProtoPNetNetwork]):
    """Prototypical part network.

    Parameters
    ----------
    backbone : str
        Name of a feature extractor, as in `explainkit.backbone`.
    weights : str or None
        Handed to that extractor, for those that come trained, such as torchvision's.
    backbone_settings : mapping
        Its other settings, such as ``{"receptive_field": 27}`` for ``"local"``.
    prototypes_per_class, depth : int
        Prototypes of a class, and the length of each.
    start_epochs, warm_epochs, joint_epochs : int
        Epochs: of plain classification, which stands in for pretrained weights; of the prototypes with the
        backbone frozen; of everything.
    rounds : int
        How often the joint phase, the projection and the new last layer follow each other.
    start_lr, backbone_lr, lr : float
        Learning rates: of the start, at its peak; of the backbone, and of all else, afterwards.
    weight_decay : float
        Weight decay of convolutions.
    cluster, separation : float
        Weights of the two terms on distances.
    label_smoothing : float
        Of the labels.
    penalty : float
        Of the last layer's weights between prototypes and classes of others.
    lr_scheduler : {"one-cycle", "steps"}
        Of the joint phase; "steps" is the paper's, a tenth after so many joint epochs of all rounds.
    lr_decay_every : int
        How many; where epochs are short, as with augmentation on the way, the paper's five are too few.
    distinct : bool
        Prototypes of a class come from different images.
    prune : bool
        Drop, at last, the prototypes whose nearest patches are mostly of other classes.
    box_region : {"peak", "all", "largest"}
        Which pieces of its most activated 5 % a prototype's box encloses; the paper encloses all.
    precision : str
        Of training, as Lightning Fabric names it; "bf16-mixed" where there is bfloat16 in hardware.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="ProtoPNet",
        citation="Chen, Li, Tao, Barnett, Su, Rudin; NeurIPS 2019; arXiv:1806.10574",
        additivity="exact",
        unit_kind="prototypes",
        learns_from="training images",
    )
    supports_labels: ClassVar[bool] = False
    network_type: ClassVar[type[ProtoPNetNetwork]] = ProtoPNetNetwork
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "standard": {"backbone": "small"},
        "digits": {"backbone": "tiny", "prototypes_per_class": 3, "depth": 32},
        "tiny": {
            "backbone": "tiny",
            "prototypes_per_class": 2,
            "depth": 16,
            "start_epochs": 2,
            "joint_epochs": 1,
        },
        "paper": {
            "backbone": "torchvision/resnet34",
            "weights": "DEFAULT",
            "prototypes_per_class": 10,
            "depth": 256,
            "start_epochs": 0,
            "warm_epochs": 5,
            "joint_epochs": 5,
            "rounds": 2,
            "backbone_lr": 1e-4,
            "weight_decay": 1e-3,
            "label_smoothing": 0.0,
            "penalty": 1e-4,
            "lr_scheduler": "steps",
            "box_region": "all",
            "batch_size": 80,
        },
    }

    backbone: str = "local"
    weights: str | None = None
    backbone_settings: Mapping[str, Any] = field(factory=dict)
    prototypes_per_class: int = 5
    depth: int = 64
    start_epochs: int = 9
    warm_epochs: int = 1
    joint_epochs: int = 5
    rounds: int = 1
    start_lr: float = 4e-3
    backbone_lr: float = 1e-3
    lr: float = 3e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    cluster: float = 0.8
    separation: float = 0.08
    penalty: float = 3e-4
    lr_scheduler: Literal["one-cycle", "steps"] = "one-cycle"
    lr_decay_every: int = 5
    distinct: bool = False
    prune: bool = False
    box_region: Keep = "peak"
    batch_size: int = 64
    precision: str = "32-true"

    def build(self, task: ek.Task) -> ProtoPNetNetwork:
        """The network of model.py."""
        return ProtoPNetNetwork(
            ek.backbone(
                self.backbone, in_channels=task.channels, weights=self.weights, **self.backbone_settings
            ),
            len(task.classes),
            self.prototypes_per_class,
            self.depth,
            start=self.start_epochs > 0,
        )

    def phases(self) -> list[ek.Phase[Any]]:
        """Start, warm, then joint, project and head in turn; prune at last where `prune` is set."""
        prototypes = {"add_on": self.lr, "prototypes": self.lr}
        everything = {"backbone": self.backbone_lr, **prototypes}
        decay = {"backbone": self.weight_decay, "add_on": self.weight_decay}
        loss = partial(
            clustering_loss, cluster_weight=self.cluster, separation_weight=self.separation,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip
        projection = partial(project, distinct=self.distinct, box_region=self.box_region)
        common: dict[str, Any] = {
            "batch_size": self.batch_size, "precision": self.precision,
            "optimizer": "adam" if self.lr_scheduler == "steps" else "adamw",
        }  # fmt: skip
        plan: list[ek.Phase[Any]] = []
        if self.start_epochs:
            plan.append(
                ek.Phase(
                    "start", self.start_epochs, partial(start_loss, label_smoothing=self.label_smoothing),
                    dict.fromkeys(("backbone", "start"), self.start_lr), weight_decay=self.weight_decay,
                    optimizer_kwargs={"betas": (0.9, 0.99)},
                    lr_scheduler="one-cycle", on_end=begin_at_patches, **common,
                )
            )  # fmt: skip
        plan.append(
            ek.Phase(
                "warm",
                self.warm_epochs,
                loss,
                prototypes,
                weight_decay={"add_on": self.weight_decay},
                **common,
            )
        )
        for turn in range(self.rounds):
            plan += [
                ek.Phase(
                    "joint",
                    self.joint_epochs,
                    loss,
                    everything,
                    weight_decay=decay,
                    **self._joint_schedule(turn),
                    **common,
                ),
                ek.Phase("project", on_end=projection),
                ek.Phase("head", on_end=partial(refit, penalty=self.penalty)),
            ]
        if self.prune:
            plan.append(ek.Phase("prune", on_end=partial(prune, penalty=self.penalty)))
        return plan

    def describe_units(self, network: ProtoPNetNetwork) -> ek.Units:
        """A unit a prototype, with the patch that it is; one that is no patch yet says so."""
        owners = network.owner
        numbers = _numbers_within_class(owners.tolist())
        names = [f"prototype {number} of {self.classes[label]}" for label, number in numbers]
        field = network.backbone.field  # all that follows is 1 x 1
        affinity = one_hot(owners, len(self.classes)).float()
        if not network.projected:
            phrases = tuple(f"{name} (not projected)" for name in names)
            return ek.Units(
                kind="prototype",
                names=names,
                pooling="max",
                class_affinity=affinity,
                phrases=phrases,
                receptive_field=field,
            )
        sources = network.sources
        rows = zip(
            owners.tolist(), sources.image.tolist(), sources.cell.tolist(), sources.box.tolist(),
            sources.picture.cpu(), strict=True,
        )  # fmt: skip
        pictures = tuple(
            (ek.UnitPicture(id=image, label=label, cell=(row, column), box=tuple(box), image=picture),)
            for label, image, (row, column), box, picture in rows
        )
        return ek.Units(
            kind="prototype",
            names=names,
            pooling="max",
            class_affinity=affinity,
            pictures=pictures,
            receptive_field=field,
        )

    @property
    def report(self) -> ProjectionReport:
        """What projection changed, which prototypes are alike, which do nothing."""
        return report_on(self._fitted(), self.classes)

    def project(self, dataset: ek.ImageDataset) -> Self:
        """Project the prototypes of a network that learned elsewhere, and learn its last layer anew."""
        self.check_classes(dataset)
        with kept_random_state(), in_place(self.network), torch.no_grad():
            project(self._fitted(), dataset, distinct=self.distinct, box_region=self.box_region)
            refit(self._fitted(), dataset, penalty=self.penalty)
        return self._adopt(self.network, dataset.classes, self.input_spec)

    def explain_batch(self, images: Tensor, targets: Tensor | None, foils: Tensor | None) -> ek.Explanations:
        """One `decompose`, and the algebra; with a warning where prototypes are no patches yet."""
        if not self._fitted().projected:
            warnings.warn(
                "These prototypes are not projected: none of them is a patch of a training image, so nothing "
                "can be shown that they look like. Call project(dataset).",
                stacklevel=3,
            )
        return super().explain_batch(images, targets, foils)

    def _joint_schedule(self, turn: int) -> dict[str, Any]:
        """How the joint phase's rates fall in round number `turn`."""
        if self.lr_scheduler == "one-cycle":
            return {"lr_scheduler": "one-cycle", "optimizer_kwargs": {"betas": (0.9, 0.99)}}
        decay = partial(
            step_decay, every=self.lr_decay_every, first=turn * self.joint_epochs
        )  # supplement, section 9
        return {"lr_scheduler": decay, "lr_scheduler_interval": "epoch"}

    def _fitted(self) -> ProtoPNetNetwork:
        return self.network  # type: ignore[return-value]


def _numbers_within_class(owners: Sequence[int]) -> list[tuple[int, int]]:
    """The class of each prototype, and its number within the class, from 1."""
    counts: dict[int, int] = {}
    numbers = []
    for label in owners:
        counts[label] = counts.get(label, 0) + 1
        numbers.append((label, counts[label]))
    return numbers
