"""What SENN says: how much of each concept is in the image, and what that is worth to the class just here."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from attrs import define, field
from torch import Tensor

import explainkit as ek
from explainkit.errors import InputError
from explainkit.explanations.decomposition import Decomposition
from explainkit.networks.backbones import grid_size
from explainkit_senn.concepts import ConvConceptizer, IdentityConceptizer
from explainkit_senn.grounding import ground
from explainkit_senn.losses import senn_loss
from explainkit_senn.model import (
    BEST,
    STRIP,
    ImageParametrizer,
    SENNNetwork,
    Standardize,
    TableParametrizer,
)
from explainkit_senn.robustness import instability

INIT_IMAGES = 256
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
        That the conceptizer sees: 1 for gray ones; 3 for all that the images have.
    constant : bool
        Whether there is a constant concept, whose weight is a bias that depends on the input.
    bounded : bool
        Whether weights lie in (-1, 1).
    learn_epochs, settle_epochs : int
        Epochs without the robustness term, and with it.
    lr, settle_lr, weight_decay : float
        Learning rates at their peaks, and weight decay.
    lr_scheduler : {"cosine", "constant", "one-cycle"}
        Of the second.
    robustness, reconstruction, sparsity : float
        Weights of the terms of the loss.
    robustness_fraction : float
        Share of a batch on which the robustness term is computed; it is a mean either way.
    exact_jacobian : bool
        Compute it of all classes rather than by one random probe.
    label_smoothing, dropout : float
        Of the labels; before the parametrizer's last layer.
    with_instability : bool
        Report beside each explanation how far its weights drift around the input, which takes another forward
        pass and a backward pass. It can be set on a trained explainer.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="SENN",
        citation="Alvarez-Melis, Jaakkola; NeurIPS 2018; arXiv:1806.07538",
        additivity="exact",
        unit_kind="concepts",
        learns_from="training images",
    )
    network_type: ClassVar[type[SENNNetwork]] = SENNNetwork
    supports_tables: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "table": {
            "learn_epochs": 0,
            "settle_epochs": 60,
            "settle_lr": 5e-3,
            "weight_decay": 1e-3,
            "batch_size": 32,
            "constant": True,
            "robustness_fraction": 1.0,
            "robustness": 1e-2,
            "label_smoothing": 0.0,
        },
        "mnist": {
            "backbone": "tiny",
            "channels": 1,
            "concepts": 10,
            "learn_epochs": 16,
            "settle_epochs": 8,
            "robustness_fraction": 0.5,
            "robustness": 3e-3,
        },
        "tiny": {"backbone": "tiny", "concepts": 4, "learn_epochs": 1, "settle_epochs": 1},
        "paper": {
            "backbone": "senn/lenet",
            "flatten": True,
            "channels": 1,
            "concepts": 5,
            "learn_epochs": 0,
            "settle_epochs": 5,
            "settle_lr": 2e-4,
            "weight_decay": 0.0,
            "batch_size": 200,
            "robustness": 1e-4,
            "reconstruction": 1.0,
            "sparsity": 4e-3,
            "robustness_fraction": 1.0,
            "dropout": 0.5,
            "bounded": True,
            "label_smoothing": 0.0,
            "lr_scheduler": "constant",
        },
    }

    backbone: str = "small"
    weights: str | None = None
    flatten: bool = False
    concepts: int = 12
    channels: int = 3
    constant: bool = False
    bounded: bool = False
    learn_epochs: int = 8
    settle_epochs: int = 8
    lr: float = 4e-3
    settle_lr: float = 1e-3
    weight_decay: float = 0.05
    lr_scheduler: Literal["constant", "cosine", "one-cycle"] = "cosine"
    batch_size: int = 64
    robustness: float = 1e-2
    reconstruction: float = 20.0
    sparsity: float = 1e-3
    robustness_fraction: float = 0.25
    exact_jacobian: bool = False
    label_smoothing: float = 0.05
    dropout: float = 0.0
    with_instability: bool = False
    _features: tuple[str, ...] = field(default=(), init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        ek.check_ranges(
            self,
            {
                "[1, inf)": ("concepts", "batch_size"),
                "[0, inf)": (
                    "learn_epochs", "settle_epochs", "robustness", "reconstruction", "sparsity", "lr",
                    "settle_lr", "weight_decay",
                ),
                "[0, 1]": ("robustness_fraction", "label_smoothing", "dropout"),
            },
        )  # fmt: skip
        if self.channels not in (1, 3):
            raise InputError(f"Expected channels of SENN as 1 or 3; got {self.channels}.")

    def build(self, task: ek.Task) -> SENNNetwork:
        """The network of model.py, for images or for rows."""
        if len(task.size) == 1:
            return self._table_network(task)
        backbone = ek.backbone(self.backbone, in_channels=task.channels, weights=self.weights)
        channels = 1 if self.channels == 1 else task.channels
        conceptizer = ConvConceptizer(self.concepts, channels, task.size)
        cells = None
        if self.flatten:
            height, width = grid_size(backbone, task.size)
            cells = height * width
        parametrizer = ImageParametrizer(
            backbone, self.concepts + self.constant, len(task.classes), cells=cells, dropout=self.dropout,
            bounded=self.bounded,
        )  # fmt: skip
        network = SENNNetwork(
            conceptizer, parametrizer, self.concepts, len(task.classes), task.size, channels=channels,
            constant=self.constant, robustness_fraction=self.robustness_fraction,
        )  # fmt: skip
        if task.dataset is not None:
            split = task.dataset.train
            ids = torch.arange(0, len(split), max(1, len(split) // INIT_IMAGES))
            conceptizer.init_scale(network.conceptizer_inputs(split.batch(ids).images))
        return network

    def phases(self) -> list[ek.Phase[Any]]:
        """Learn fast, then settle: the robustness term needs a network in which images do not mix."""
        terms: dict[str, Any] = {
            "reconstruction_weight": self.reconstruction, "sparsity_weight": self.sparsity,
            "label_smoothing": self.label_smoothing,
        }  # fmt: skip
        common: dict[str, Any] = {"weight_decay": self.weight_decay, "batch_size": self.batch_size}
        plan: list[ek.Phase[Any]] = []
        if self.learn_epochs:
            plan.append(
                ek.Phase(
                    "learn",
                    self.learn_epochs,
                    partial(senn_loss, robustness_weight=0.0, **terms),
                    {"": self.lr},
                    optimizer_kwargs={"betas": (0.9, 0.99)},
                    lr_scheduler="one-cycle",
                    **common,
                )
            )
        plan.append(ek.Phase("steady", on_end=_fold_batch_norms))
        loss = partial(
            senn_loss, robustness_weight=self.robustness, exact_jacobian=self.exact_jacobian, **terms
        )  # fmt: skip
        plan.append(
            ek.Phase(
                "settle", self.settle_epochs, loss, {"": self.settle_lr}, grad_clip_norm=5.0, on_end=ground,
                lr_scheduler=self.lr_scheduler, **common,
            )
        )  # fmt: skip
        return plan

    def describe_units(self, network: SENNNetwork) -> ek.Units:
        """A unit a concept, with images that have most and least of it, and what is drawn; or a column."""
        grounds = network.grounds
        count = len(grounds.std)
        if network.is_tabular:
            names = self._features if len(self._features) == count else _numbered("column", count)
            return ek.Units(kind="feature", names=names, pooling="none")
        pictures = None
        if (grounds.image[:, 0] >= 0).all():
            pictures = tuple(_concept_pictures(network, k) for k in range(count))
        return ek.Units(kind="concept", names=_numbered("concept", count), pooling="none", pictures=pictures)

    def diagnostics(self, images: Tensor, decomposition: Decomposition, targets: Tensor) -> dict[str, Tensor]:
        """How far the weights drift around each input."""
        if not self.with_instability:
            return {}
        network: SENNNetwork = self.network  # type: ignore[assignment]
        with torch.enable_grad():
            inputs = network.preprocess(images).detach().requires_grad_()
            theta, concepts = network.weights_of(inputs), network.concepts_of(inputs)
            drift = instability(theta, concepts, inputs, targets)
        return {"instability": drift.detach()}

    def _table_network(self, task: ek.Task) -> SENNNetwork:
        """Columns as concepts, on the scale of the training rows; a saved network brings its own."""
        (features,) = task.size
        mean, std = torch.zeros(features), torch.ones(features)
        if task.dataset is not None:
            rows = task.dataset.train.batch(torch.arange(len(task.dataset.train))).images
            mean, std = rows.mean(0), rows.std(0)
            std = torch.where(std > 1e-6 * mean.abs(), std, 1.0)  # a column that never changes
            self._features = task.dataset.features
        parametrizer = TableParametrizer(
            features, features + self.constant, len(task.classes), dropout=self.dropout
        )
        return SENNNetwork(
            IdentityConceptizer(), parametrizer, features, len(task.classes), task.size,
            preprocess=Standardize(mean, std), constant=self.constant,
            robustness_fraction=self.robustness_fraction,
        )  # fmt: skip


def _numbered(kind: str, count: int) -> tuple[str, ...]:
    return tuple(f"{kind} {number}" for number in range(1, count + 1))


def _concept_pictures(network: SENNNetwork, concept: int) -> tuple[ek.UnitPicture, ...]:
    """Images with most and with least of concept number `concept`; decoded ones, from little to much."""
    grounds = network.grounds
    best = slice(concept * 2 * BEST, (concept + 1) * 2 * BEST)
    drawn = slice(concept * STRIP, (concept + 1) * STRIP)
    height, width = grounds.picture.shape[2:]
    box = (0, 0, width, height)
    shown = zip(
        grounds.image[concept].tolist(), grounds.label[concept].tolist(), grounds.picture[best].cpu(),
        strict=True,
    )  # fmt: skip
    images = [
        ek.UnitPicture(
            kind="training" if rank < BEST else "least",
            id=image,
            image=picture,
            box=box,
            label=label if label >= 0 else None,  # of several labels there is none
        )
        for rank, (image, label, picture) in enumerate(shown)
        if image >= 0
    ]
    strip = [ek.UnitPicture(kind="decoded", image=picture, box=box) for picture in grounds.drawn[drawn].cpu()]
    return (*images, *strip)


def _fold_batch_norms(network: SENNNetwork, _: ek.ImageDataset) -> None:
    network.fold_batch_norms()
