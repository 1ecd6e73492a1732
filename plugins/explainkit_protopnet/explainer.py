"""What ProtoPNet says: how similar the most similar patch is to each prototype, and what that is worth."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from attrs import define
from torch import Tensor, nn

import explainkit as ek
from explainkit.errors import BindError
from explainkit.interfaces import undisturbed
from explainkit.regions import Keep
from explainkit.training.phases import step_decay
from explainkit_protopnet.head import refit
from explainkit_protopnet.model import ProtoPNetNetwork
from explainkit_protopnet.projection import project
from explainkit_protopnet.pruning import prune
from explainkit_protopnet.report import ProjectionReport, report_on
from explainkit_protopnet.trainer import begin_at_patches, clustering_loss, start_loss


@define(eq=False, kw_only=True)
class ProtoPNet(ek.InterpretableExplainer[ProtoPNetNetwork]):
    """Prototypical part network.

    Parameters
    ----------
    backbone : str
        Name of a feature extractor, as in `explainkit.backbone`.
    weights : str or None
        Handed to that extractor, for those that come trained, such as torchvision's.
    per_class, depth : int
        Prototypes of a class, and the length of each.
    start, warm, joint : int
        Epochs: of plain classification, which stands in for pretrained weights; of the prototypes with the
        backbone frozen; of everything.
    rounds : int
        How often the joint phase, the projection and the new last layer follow each other.
    start_rate, backbone_rate, rate : float
        Learning rates: of the start, at its peak; of the backbone, and of all else, afterwards.
    decay : float
        Weight decay of convolutions.
    cluster, separation : float
        Weights of the two terms on distances.
    smoothing : float
        Of the labels.
    penalty : float
        Of the last layer's weights between prototypes and classes of others.
    schedule : {"one-cycle", "steps"}
        Of the joint phase; "steps" is the paper's, a tenth after so many joint epochs of all rounds.
    decay_every : int
        How many; where epochs are short, as with augmentation on the way, the paper's five are too few.
    distinct : bool
        Prototypes of a class come from different images.
    prune : bool
        Drop, at last, the prototypes whose nearest patches are mostly of other classes.
    keep : {"peak", "all", "largest"}
        Which pieces of its most activated 5 % a prototype's box encloses; the paper encloses all.
    precision : str
        Of training, as Lightning Fabric names it; "32-true" is faster on processors without bfloat16.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="ProtoPNet",
        citation="Chen, Li, Tao, Barnett, Su, Rudin; NeurIPS 2019; arXiv:1806.10574",
        claim="exact",
        speaks="prototypes",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "digits": {"backbone": "tiny", "per_class": 3, "depth": 32, "precision": "32-true"},
        "tiny": {
            "backbone": "tiny", "per_class": 2, "depth": 16, "start": 2, "joint": 1, "precision": "32-true",
        },
        "paper": {
            "backbone": "torchvision/resnet34", "weights": "DEFAULT", "per_class": 10, "depth": 256,
            "start": 0, "warm": 5, "joint": 5, "rounds": 2, "backbone_rate": 1e-4, "decay": 1e-3,
            "smoothing": 0.0, "penalty": 1e-4, "schedule": "steps", "keep": "all", "batch_size": 80,
            "precision": "32-true",
        },
    }  # fmt: skip

    backbone: str = "small"
    weights: str | None = None
    per_class: int = 5
    depth: int = 64
    start: int = 9
    warm: int = 1
    joint: int = 5
    rounds: int = 1
    start_rate: float = 4e-3
    backbone_rate: float = 1e-3
    rate: float = 3e-3
    decay: float = 0.05
    smoothing: float = 0.05
    cluster: float = 0.8
    separation: float = 0.08
    penalty: float = 3e-4
    schedule: Literal["one-cycle", "steps"] = "one-cycle"
    decay_every: int = 5
    distinct: bool = False
    prune: bool = False
    keep: Keep = "peak"
    batch_size: int = 64
    precision: str = "bf16-mixed"

    def build(self, task: ek.Task) -> ProtoPNetNetwork:
        """The network of model.py."""
        given = {} if self.weights is None else {"weights": self.weights}
        return ProtoPNetNetwork(
            ek.backbone(self.backbone, **given),
            len(task.classes),
            self.per_class,
            self.depth,
            start=self.start > 0,
        )

    def phases(self) -> list[ek.Phase[Any]]:
        """Start, warm, then joint, project and head in turn; prune at last where that is wanted."""
        prototypes = {"add_on": self.rate, "prototypes": self.rate}
        everything = {"backbone": self.backbone_rate, **prototypes}
        decay = {"backbone": self.decay, "add_on": self.decay}
        loss = partial(
            clustering_loss, cluster_weight=self.cluster, separation_weight=self.separation,
            smoothing=self.smoothing,
        )  # fmt: skip
        project_ = partial(project, distinct=self.distinct, keep=self.keep)
        common: dict[str, Any] = {
            "batch_size": self.batch_size, "precision": self.precision,
            "optimiser": "adam" if self.schedule == "steps" else "adamw",
        }  # fmt: skip
        plan: list[ek.Phase[Any]] = []
        if self.start:
            plan.append(
                ek.Phase(
                    "start", self.start, partial(start_loss, smoothing=self.smoothing),
                    dict.fromkeys(("backbone", "start"), self.start_rate), decay=self.decay,
                    options={"betas": (0.9, 0.99)},
                    schedule="one-cycle", finish=begin_at_patches, **common,
                )
            )  # fmt: skip
        plan.append(ek.Phase("warm", self.warm, loss, prototypes, decay={"add_on": self.decay}, **common))
        for turn in range(self.rounds):
            plan += [
                ek.Phase("joint", self.joint, loss, everything, decay=decay, **self._falling(turn), **common),
                ek.Phase("project", finish=project_),
                ek.Phase("head", finish=partial(refit, penalty=self.penalty)),
            ]
        if self.prune:
            plan.append(ek.Phase("prune", finish=partial(prune, penalty=self.penalty)))
        return plan

    def describe(self, network: ProtoPNetNetwork) -> ek.Units:
        """A unit a prototype, with the patch that it is; one that is no patch yet says so."""
        place = _places(network.owner.tolist())
        names = [f"prototype {number} of {self.classes[label]}" for label, number in place]
        if not network.projected:
            phrases = [f"{name} (not projected)" for name in names]
            return ek.Units(kind="prototype", names=names, pooling="max", phrases=tuple(phrases))
        sources = network.sources
        rows = zip(
            network.owner.tolist(), sources.image.tolist(), sources.cell.tolist(), sources.box.tolist(),
            sources.picture.cpu(), strict=True,
        )  # fmt: skip
        exemplars = tuple(
            (
                ek.Exemplar(
                    id=image, split="train", label=label, cell=(row, column), box=tuple(box), image=picture
                ),
            )
            for label, image, (row, column), box, picture in rows
        )
        return ek.Units(kind="prototype", names=names, pooling="max", exemplars=exemplars)

    @classmethod
    def bind(cls, network: nn.Module, *, classes: Sequence[str] | None = None, **settings: Any) -> Self:
        """An explainer of a `ProtoPNetNetwork` trained elsewhere.

        Raises
        ------
        BindError
            For a network of another form: prototypes cannot be read into it, they must be learned.
        """
        if not isinstance(network, ProtoPNetNetwork):
            raise BindError(
                f"Expected a ProtoPNetNetwork; got {type(network).__name__}, which has no prototypes. "
                "Train one with fit(data)."
            )
        explainer = super().bind(network, classes=classes, **settings)
        if network.projected:
            height, width = network.sources.picture.shape[2:]
            explainer.size = (height, width)
        return explainer

    @property
    def report(self) -> ProjectionReport:
        """What projection changed, which prototypes are alike, which do nothing."""
        return report_on(self._fitted(), self.classes)

    def project(self, data: ek.ImageData) -> Self:
        """Project the prototypes of a network that learned elsewhere, and learn its last layer anew."""
        self._same_classes(data)
        with undisturbed(self.network), torch.no_grad():
            project(self._fitted(), data, distinct=self.distinct, keep=self.keep)
            refit(self._fitted(), data, penalty=self.penalty)
        return self._adopt(self.network, data.classes, data.size)

    def explain_batch(
        self, images: Tensor, targets: Tensor | None, against: Tensor | None
    ) -> ek.Explanations:
        """One `decompose`, and the algebra; with a warning where prototypes are no patches yet."""
        if not self._fitted().projected:
            warnings.warn(
                "These prototypes are not projected: none of them is a patch of a training image, so nothing "
                "can be shown that they look like. Call project(data).",
                stacklevel=3,
            )
        return super().explain_batch(images, targets, against)

    def _falling(self, turn: int) -> dict[str, Any]:
        """How the joint phase's rates fall in round number `turn`."""
        if self.schedule == "one-cycle":
            return {"schedule": "one-cycle", "options": {"betas": (0.9, 0.99)}}
        decay = partial(step_decay, every=self.decay_every, first=turn * self.joint)  # supplement, section 9
        return {"schedule": decay, "per": "epoch"}

    def _fitted(self) -> ProtoPNetNetwork:
        return self.network  # type: ignore[return-value]


def _places(owners: Sequence[int]) -> list[tuple[int, int]]:
    """The class of each prototype, and its number within the class, from 1."""
    seen: dict[int, int] = {}
    places = []
    for label in owners:
        seen[label] = seen.get(label, 0) + 1
        places.append((label, seen[label]))
    return places
