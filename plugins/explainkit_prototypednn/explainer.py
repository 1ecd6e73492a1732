"""What PrototypeDNN says: how far the image is from each prototype, and what that is worth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

from attrs import define, evolve
from torch import Tensor
from torch.nn.functional import one_hot

import explainkit as ek
from explainkit.explainers.interface import BATCH_SIZE
from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.interventions import UnitScore
from explainkit.protocols import Images, Targets
from explainkit.questions.goals import default_goals, goals_for
from explainkit_prototypednn.autoencoder import Activation, DecoderKind
from explainkit_prototypednn.elastic import ElasticDistortion
from explainkit_prototypednn.geometry import are_realizable
from explainkit_prototypednn.latent_moves import ATTEMPTS, MARGIN, LatentMoves, find_moves
from explainkit_prototypednn.losses import head_loss, prototype_loss, reconstruction_error
from explainkit_prototypednn.model import LATENT, NEAREST, Init, PrototypeDNNNetwork, own_network
from explainkit_prototypednn.prototypes import begin_at_images, keep_references, project
from explainkit_prototypednn.report import (
    ClassPoints,
    PrototypeReport,
    class_points,
    owner_of_prototypes,
    report_on,
)

Augment = Literal["dataset", "elastic"]
"""As the data set says; or by elastic distortion, as in the published code."""


@define(eq=False, kw_only=True)
class PrototypeDNN(ek.InterpretableExplainer[PrototypeDNNNetwork]):
    """Prototypes in the latent space of an autoencoder.

    Parameters
    ----------
    prototypes : int
        How many; they belong to no class by construction.
    width, latent_channels, layers : int
        Channels of the encoder's layers and of its last one, and how many layers halve the image. The latent
        point is the last map, flattened: 40 numbers for images of 28 pixels, 160 for 64.
    channels : {3, 1}
        That the autoencoder sees: 1 for gray ones; 3 for all that the images have.
    activation : {"relu", "sigmoid"}
        Of all layers, the latent one too: the published code's, which learns far faster, or the paper's.
    init : {"default", "reference"}
        First weights: torch's, or the published code's, which are small and positive in the last layer.
    decoder : {"deconv", "upconv"}
        Transposed convolutions, or enlarging and a convolution, without a checkerboard.
    start_epochs : int
        Epochs before and after which prototypes begin at means of what is alike in each class; 0: they begin
        at random, as in the paper.
    epochs : int
        Epochs of all terms, after those.
    project : bool
        Whether each prototype becomes a training image's latent point at last, and the last layer learns on.
        Not in the paper.
    head_epochs : int
        Epochs of the last layer after that.
    reconstruction, prototype_weight, image_weight : float
        Weights of what the decoder misses, a sum over pixels; of R1, and of R2. The paper's are 0.05, for
        images of 784 numbers.
    augment : {"dataset", "elastic"}
    lr, weight_decay : float
    lr_scheduler : {"constant", "one-cycle", "cosine"}
    label_smoothing : float
    batch_size : int
    with_reconstruction : bool
        Report beside each explanation how much the decoder misses, which takes a pass through it. It can be
        set on a trained explainer.
    precision : str
        Of training, as Lightning Fabric names it.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="PrototypeDNN",
        citation="Li, Liu, Chen, Rudin; AAAI 2018; arXiv:1710.04806",
        additivity="exact",
        unit_kind="prototypes",
        learns_from="training images",
    )
    network_type: ClassVar[type[PrototypeDNNNetwork]] = PrototypeDNNNetwork
    supports_score_edits: ClassVar[bool] = False
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "mnist": {
            "prototypes": 20, "channels": 1, "width": 32, "start_epochs": 3, "epochs": 60,
            "reconstruction": 0.05, "prototype_weight": 0.05, "image_weight": 0.05, "augment": "elastic",
            "lr": 2e-3,
        },
        "tiny": {
            "prototypes": 6, "width": 16, "start_epochs": 2, "epochs": 4, "batch_size": 16, "lr": 5e-3,
        },
        "paper": {
            "prototypes": 15, "channels": 1, "width": 32, "start_epochs": 0, "epochs": 1500, "lr": 1e-4,
            "activation": "sigmoid", "init": "reference", "lr_scheduler": "constant", "batch_size": 250,
            "reconstruction": 0.05, "prototype_weight": 0.05, "image_weight": 0.05, "augment": "elastic",
            "label_smoothing": 0.0,
        },
    }  # fmt: skip

    prototypes: int = 40
    width: int = 32
    latent_channels: int = 10
    layers: int = 4
    channels: int = 3
    activation: Activation = "relu"
    init: Init = "default"
    decoder: DecoderKind = "deconv"
    start_epochs: int = 2
    epochs: int = 16
    project: bool = False
    head_epochs: int = 4
    reconstruction: float = 3e-3
    prototype_weight: float = 5e-3
    image_weight: float = 5e-3
    augment: Augment = "dataset"
    lr: float = 4e-3
    weight_decay: float = 0.0
    lr_scheduler: Literal["constant", "one-cycle", "cosine"] = "one-cycle"
    label_smoothing: float = 0.0
    batch_size: int = 64
    with_reconstruction: bool = False
    precision: str = "32-true"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        ek.check_ranges(
            self,
            {
                "[1, inf)": ("prototypes", "width", "latent_channels", "layers", "batch_size"),
                "[0, inf)": (
                    "start_epochs", "epochs", "head_epochs", "reconstruction", "prototype_weight",
                    "image_weight", "lr", "weight_decay",
                ),
                "[0, 1)": ("label_smoothing",),
            },
        )  # fmt: skip
        if self.channels not in (1, 3):
            raise ek.InputError(f"Expected channels of PrototypeDNN as 1 or 3; got {self.channels}.")

    def build(self, task: ek.Task) -> PrototypeDNNNetwork:
        """The network of model.py, for images of the task's size."""
        return PrototypeDNNNetwork(
            len(task.classes), self.prototypes, task.size, image_channels=task.channels,
            channels=1 if self.channels == 1 else None, width=self.width,
            latent_channels=self.latent_channels, layers=self.layers, activation=self.activation,
            decoder=self.decoder, init=self.init,
        )  # fmt: skip

    def phases(self) -> list[ek.Phase[Any]]:
        """All terms at once; before, a start; after, a projection and the last layer, where they are set."""
        loss = partial(
            prototype_loss, reconstruction_weight=self.reconstruction,
            prototype_weight=self.prototype_weight, image_weight=self.image_weight,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip
        common: dict[str, Any] = {
            "optimizer": "adam", "weight_decay": self.weight_decay, "batch_size": self.batch_size,
            "precision": self.precision,
            "augment": ElasticDistortion() if self.augment == "elastic" else "dataset",
        }  # fmt: skip
        plan: list[ek.Phase[Any]] = []
        if self.start_epochs:
            plan += [
                ek.Phase("begin", on_end=begin_at_images),
                ek.Phase("start", self.start_epochs, loss, {"": self.lr}, on_end=begin_at_images, **common),
            ]
        plan.append(
            ek.Phase("learn", self.epochs, loss, {"": self.lr}, lr_scheduler=self.lr_scheduler, **common)
        )
        if self.project:
            last = partial(head_loss, label_smoothing=self.label_smoothing)
            plan += [
                ek.Phase("project", on_end=project),
                ek.Phase("head", self.head_epochs, last, {"head": self.lr}, **common),
            ]
        return [*plan, ek.Phase("reference", on_end=keep_references)]

    def describe_units(self, network: PrototypeDNNNetwork) -> ek.Units:
        """A unit a prototype: as the decoder draws it, and the training images nearest to it."""
        network = own_network(network)
        count = len(network.prototypes)
        if self.decision.is_exclusive:
            owners = owner_of_prototypes(network)
            affinity = one_hot(owners, len(self.classes)).float()
            names = [f"prototype {k + 1} of {self.classes[label]}" for k, label in enumerate(owners.tolist())]
        else:  # of labels it may be of several, or of none
            affinity = (network.head.weight.detach() < 0).float().T
            names = [f"prototype {k + 1}" for k in range(count)]
        return ek.Units(
            kind="prototype", names=names, pooling="none",
            reference=network.reference.detach().cpu().clone(), class_affinity=affinity.cpu(),
            phrases=tuple(f"likeness to {name}" for name in names),
            phrasing=ek.Phrasing(absent_scores="high"),
            pictures=_pictures(network),
        )  # fmt: skip

    def diagnostics(self, images: Tensor, decomposition: Decomposition, targets: Tensor) -> dict[str, Tensor]:
        """How much the decoder misses of each image, where that is asked for."""
        if not self.with_reconstruction:
            return {}
        network = self.prototype_network
        drawn = network.pictures(decomposition.extras[LATENT])
        shown = network.encoder_inputs(self.input_spec.to_unit(images)).expand_as(drawn)
        return {"reconstruction error": (reconstruction_error(drawn, shown) / drawn[0].numel()).sqrt()}

    def intervene(
        self,
        images: Images,
        scores: Mapping[int | str, UnitScore],
        targets: Targets | None = None,
        *,
        foils: Targets | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> ek.Explanations:
        """What the head would say of distances that are set by hand: a hypothesis, see `intervene` elsewhere.

        Distances are all of one point: set one by one they are seldom those of any. Of each image the
        diagnostic "realizable" says whether some latent point has them, 1 or 0; what the encoder reaches is
        less. What moves the point itself is the counterfactual method ``"prototype-dnn/latent"``.
        """
        explanations = super().intervene(images, scores, targets, foils=foils, batch_size=batch_size)
        prototypes = self.prototype_network.prototypes.detach()
        is_realizable = are_realizable(prototypes, explanations.scores)
        return evolve(explanations, diagnostics={"realizable": is_realizable.to(explanations.scores)})

    def latent_moves(
        self,
        images: Images,
        targets: Targets | None = None,
        *,
        margin: float = MARGIN,
        attempts: int = ATTEMPTS,
        batch_size: int = BATCH_SIZE,
    ) -> LatentMoves:
        """What ``counterfactual(images, targets, "prototype-dnn/latent")`` finds, with all its numbers.

        Parameters
        ----------
        targets
            By default the runners-up.
        margin, attempts
            As of `latent_edits.LatentEdit`.
        """
        inputs = self.read_images(images)
        if targets is None:
            goals = default_goals(self.decision, self.predict(inputs, batch_size=batch_size))
        else:
            goals = goals_for(self.decision, targets, self.classes, len(inputs)).to(inputs.device)
        explanations = self.explain(inputs, goals.targets, batch_size=batch_size)
        assert explanations.decomposition is not None
        latent = explanations.decomposition.extras[LATENT]
        return find_moves(self, inputs, latent, goals, margin, attempts, batch_size)

    @property
    def prototype_network(self) -> PrototypeDNNNetwork:
        """The network itself, below what normalizes its images."""
        return own_network(self.network)

    @property
    def report(self) -> PrototypeReport:
        """Which classes prototypes are of, which are alike, how near they are to training images."""
        return report_on(self.prototype_network, self.classes)

    def class_points(self) -> ClassPoints:
        """Where each class is most, or least, likely, as latent points and decoded; see `ClassPoints`."""
        return class_points(self.prototype_network, self.classes)


def _pictures(network: PrototypeDNNNetwork) -> tuple[tuple[ek.UnitPicture, ...], ...]:
    """Of each prototype what is decoded, and the nearest training images where they are known."""
    height, width = network.input_size
    box = (0, 0, width, height)
    sources = network.sources
    shown = sources.picture.cpu().unflatten(0, (-1, NEAREST))
    rows = zip(
        network.prototype_pictures().cpu(), sources.image.tolist(), sources.label.tolist(), shown,
        strict=True,
    )  # fmt: skip
    return tuple(
        (
            ek.UnitPicture(kind="decoded", image=drawn, box=box),
            *(
                ek.UnitPicture(id=image, label=label if label >= 0 else None, image=picture, box=box)
                for image, label, picture in zip(images, labels, pictures, strict=True)
                if image >= 0
            ),
        )
        for drawn, images, labels, pictures in rows
    )
