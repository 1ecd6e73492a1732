"""What SENN says: how much of each concept is in the image, and what that is worth to the class just here."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from attrs import define, field
from torch import Tensor, nn

import explainkit as ek
from explainkit.decomposition import Decomposition
from explainkit.errors import BindError, InputError
from explainkit_senn.concepts import ConvConceptizer, IdentityConceptizer
from explainkit_senn.grounding import ground
from explainkit_senn.model import (
    BEST,
    STRIP,
    ImageParametrizer,
    SENNNetwork,
    Standardise,
    TableParametrizer,
)
from explainkit_senn.robustness import instability
from explainkit_senn.trainer import senn_loss

FIRST = 256
"""Training images by which the first scale of concepts is set."""


@define(eq=False, kw_only=True)
class SENN(ek.InterpretableExplainer[SENNNetwork]):
    """Self-explaining neural network, for images and for tables.

    Parameters
    ----------
    backbone : str
        Of the parametrizer, by name; for tables it is layers with tanh between.
    weights : str or None
        Handed to that backbone, for those that come trained.
    flatten : bool
        Whether the parametrizer reads every cell of the backbone's grid rather than their mean.
    concepts : int
        Of images; a table's are its columns.
    channels : {3, 1}
        That the conceptizer sees: 1 for grey images.
    constant : bool
        Whether there is a constant concept, whose weight is a bias that depends on the input.
    bounded : bool
        Whether weights lie in (-1, 1).
    learn, settle : int
        Epochs without the robustness term, and with it.
    rate, settle_rate, decay : float
        Learning rates at their peaks, and weight decay.
    schedule : {"cosine", "constant", "one-cycle"}
        Of the second.
    robustness, reconstruction, sparsity : float
        Weights of the terms of the loss.
    tracked : float
        Share of a batch on which the robustness term is asked; it is a mean either way.
    literally : bool
        Ask it of all classes rather than of one probe.
    smoothing, dropout : float
        Of the labels; before the parametrizer's last layer.
    certify : bool
        Tell beside each explanation how far its weights drift around the input; that takes a backward pass.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="SENN",
        citation="Alvarez-Melis, Jaakkola; NeurIPS 2018; arXiv:1806.07538",
        claim="exact",
        speaks="concepts",
    )
    takes_tables: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "table": {
            "learn": 0, "settle": 60, "settle_rate": 5e-3, "decay": 1e-3, "batch_size": 32, "constant": True,
            "tracked": 1.0, "robustness": 1e-2, "smoothing": 0.0,
        },
        "mnist": {
            "backbone": "tiny", "channels": 1, "concepts": 10, "learn": 16, "settle": 8, "tracked": 0.5,
            "robustness": 3e-3,
        },
        "tiny": {"backbone": "tiny", "concepts": 4, "learn": 1, "settle": 1},
        "paper": {
            "backbone": "senn/lenet", "flatten": True, "channels": 1, "concepts": 5, "learn": 0,
            "settle": 5, "settle_rate": 2e-4, "decay": 0.0, "batch_size": 200, "robustness": 1e-4,
            "reconstruction": 1.0, "sparsity": 4e-3, "tracked": 1.0, "dropout": 0.5, "bounded": True,
            "smoothing": 0.0, "schedule": "constant",
        },
    }  # fmt: skip

    backbone: str = "small"
    weights: str | None = None
    flatten: bool = False
    concepts: int = 12
    channels: int = 3
    constant: bool = False
    bounded: bool = False
    learn: int = 8
    settle: int = 8
    rate: float = 4e-3
    settle_rate: float = 1e-3
    decay: float = 0.05
    schedule: Literal["constant", "cosine", "one-cycle"] = "cosine"
    batch_size: int = 64
    robustness: float = 1e-2
    reconstruction: float = 20.0
    sparsity: float = 1e-3
    tracked: float = 0.25
    literally: bool = False
    smoothing: float = 0.05
    dropout: float = 0.0
    certify: bool = True
    _features: tuple[str, ...] = field(default=(), init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        least = {"concepts": 1, "learn": 0, "settle": 0, "batch_size": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InputError(f"Expected {name} of SENN as {value} at least; got {getattr(self, name)}.")
        for name in ("robustness", "reconstruction", "sparsity", "rate", "settle_rate", "decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"Expected {name} of SENN as 0 or more; got {getattr(self, name)}.")
        for name in ("tracked", "smoothing", "dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Expected {name} of SENN in 0 … 1; got {getattr(self, name)}.")
        if self.channels not in (1, 3):
            raise InputError(f"Expected channels of SENN as 1 or 3; got {self.channels}.")

    @classmethod
    def bind(cls, network: nn.Module, *, classes: Sequence[str] | None = None, **settings: Any) -> Self:
        """An explainer of a network of this architecture, trained elsewhere.

        Raises
        ------
        BindError
            For any other network.
        """
        if not isinstance(network, SENNNetwork):
            raise BindError(
                f"Expected a SENNNetwork; got {type(network).__name__}. Train one with fit(data)."
            )
        explainer = super().bind(network, classes=classes, **settings)
        explainer.size = network.size
        return explainer

    def build(self, task: ek.Task) -> SENNNetwork:
        """The network of model.py, for images or for rows."""
        if len(task.size) == 1:
            return self._for_rows(task)
        given = {} if self.weights is None else {"weights": self.weights}
        backbone = ek.backbone(self.backbone, **given)
        conceptizer = ConvConceptizer(self.concepts, self.channels, task.size)
        cells = None
        if self.flatten:
            with torch.no_grad():
                cells = backbone.eval()(torch.zeros(1, 3, *task.size)).shape[2:].numel()
            backbone.train()
        parametrizer = ImageParametrizer(
            backbone, self.concepts + self.constant, len(task.classes), cells=cells, dropout=self.dropout,
            bounded=self.bounded,
        )  # fmt: skip
        network = SENNNetwork(
            conceptizer, parametrizer, self.concepts, len(task.classes), task.size, channels=self.channels,
            constant=self.constant, tracked=self.tracked,
        )  # fmt: skip
        if task.data is not None:
            split = task.data.train
            some = torch.arange(0, len(split), max(1, len(split) // FIRST))
            conceptizer.begin(network.seen(split.batch(some).images))
        return network

    def phases(self) -> list[ek.Phase[Any]]:
        """Learn fast, then settle: the robustness term needs a network in which images do not mix."""
        terms: dict[str, Any] = {
            "reconstruction_weight": self.reconstruction, "sparsity_weight": self.sparsity,
            "smoothing": self.smoothing,
        }  # fmt: skip
        common: dict[str, Any] = {"decay": self.decay, "batch_size": self.batch_size}
        plan: list[ek.Phase[Any]] = []
        if self.learn:
            plan.append(
                ek.Phase(
                    "learn", self.learn, partial(senn_loss, robustness_weight=0.0, **terms), {"": self.rate},
                    options={"betas": (0.9, 0.99)}, schedule="one-cycle", **common,
                )
            )  # fmt: skip
        plan.append(ek.Phase("steady", finish=_steady))
        loss = partial(
            senn_loss, robustness_weight=self.robustness, literally=self.literally, **terms
        )  # fmt: skip
        plan.append(
            ek.Phase(
                "settle", self.settle, loss, {"": self.settle_rate}, clip=5.0, finish=ground,
                schedule=self.schedule, **common,
            )
        )  # fmt: skip
        return plan

    def describe(self, network: SENNNetwork) -> ek.Units:
        """A unit a concept, with images that have most and least of it, and what is drawn; or a column."""
        grounds = network.grounds
        count = len(grounds.spread)
        if network.of_rows:
            names = self._features if len(self._features) == count else _counted("column", count)
            return ek.Units(kind="feature", names=names, pooling="none")
        exemplars = None
        if (grounds.image[:, 0] >= 0).all():
            exemplars = tuple(_pictures(network, k) for k in range(count))
        return ek.Units(kind="concept", names=_counted("concept", count), pooling="none", exemplars=exemplars)

    def notes(self, images: Tensor, parts: Decomposition, targets: Tensor) -> dict[str, Tensor]:
        """How far the weights drift around each input."""
        if not self.certify:
            return {}
        network: SENNNetwork = self.network  # type: ignore[assignment]
        with torch.enable_grad():
            inputs = network.ready(images).detach().requires_grad_()
            theta, concepts = network.weights_of(inputs), network.concepts_of(inputs)
            drift = instability(theta, concepts, inputs, targets)
        return {"instability": drift.detach()}

    def _for_rows(self, task: ek.Task) -> SENNNetwork:
        """Columns as concepts, on a scale that the training rows tell; a saved network brings its own."""
        (features,) = task.size
        mean, spread = torch.zeros(features), torch.ones(features)
        if task.data is not None:
            rows = task.data.train.batch(torch.arange(len(task.data.train))).images
            mean, spread = rows.mean(0), rows.std(0)
            spread = torch.where(spread > 1e-6 * mean.abs(), spread, 1.0)  # a column that never changes
            self._features = task.data.features
        parametrizer = TableParametrizer(
            features, features + self.constant, len(task.classes), dropout=self.dropout
        )
        return SENNNetwork(
            IdentityConceptizer(), parametrizer, features, len(task.classes), task.size,
            ready=Standardise(mean, spread), constant=self.constant, tracked=self.tracked,
        )  # fmt: skip


def _counted(kind: str, count: int) -> tuple[str, ...]:
    return tuple(f"{kind} {number}" for number in range(1, count + 1))


def _pictures(network: SENNNetwork, concept: int) -> tuple[ek.Exemplar, ...]:
    """What shows concept number `concept`: images with most of it, with least, then what is drawn of it."""
    grounds = network.grounds
    best = slice(concept * 2 * BEST, (concept + 1) * 2 * BEST)
    drawn = slice(concept * STRIP, (concept + 1) * STRIP)
    height, width = grounds.picture.shape[2:]
    whole: dict[str, Any] = {"cell": (0, 0), "box": (0, 0, width, height)}
    shown = zip(
        grounds.image[concept].tolist(), grounds.label[concept].tolist(), grounds.picture[best].cpu(),
        strict=True,
    )  # fmt: skip
    images = [
        ek.Exemplar(
            id=image, split="train" if place < BEST else "train, least of it", label=label, image=picture,
            **whole,
        )
        for place, (image, label, picture) in enumerate(shown)
        if image >= 0
    ]  # fmt: skip
    strip = [
        ek.Exemplar(id=step, split="drawn", label=-1, image=picture, **whole)
        for step, picture in enumerate(grounds.drawn[drawn].cpu())
    ]
    return (*images, *strip)


def _steady(network: SENNNetwork, _: ek.ImageData) -> None:
    network.steady()
