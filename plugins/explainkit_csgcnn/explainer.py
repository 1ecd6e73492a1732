"""What CSG-CNN says: how strongly each filter responded, what that is worth, and whose filter it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, ClassVar, Literal

from attrs import define, field
from torch import Tensor

import explainkit as ek
from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.sentences import listed
from explainkit_csgcnn.evidence import purity_of
from explainkit_csgcnn.losses import gate_budget, gated_loss, project_gate, standard_loss
from explainkit_csgcnn.model import LEAKAGE, MEMBER, SPECIFIC, CSGCNNNetwork, check_budget

Training = Literal["joint", "alternating"]

Optimizer = Literal["adamw", "adam"]

MILESTONES = (0.4, 0.6, 0.8)
"""Shares of all epochs after which each path's rate falls to a tenth, counted in that path's own epochs."""

NAMED = 2
"""Classes that a filter's name has at most; of more it says how many."""


@define(eq=False, kw_only=True)
class CSGCNN(ek.InterpretableExplainer[CSGCNNNetwork]):
    """CNN with a class-specific gate.

    Parameters
    ----------
    backbone : str
        Name of a feature extractor, as in `explainkit.backbone`.
    weights, until : str or None
        Handed to that extractor, for those that come trained or can be cut early, such as torchvision's.
    backbone_settings : mapping
        Its other settings, such as ``{"receptive_field": 27}`` for ``"local"``.
    training : {"joint", "alternating"}
        Whether both paths are in one loss, or take turns, whole epochs each with an optimizer of its own.
    warm_epochs : int
        Epochs of the standard path alone, before the gate. They should be enough to learn features: a gate
        that becomes sparse before gives filters to classes that they say nothing of.
    epochs : int
        Epochs of joint training after those.
    rounds, standard_epochs, gated_epochs : int
        Of alternating training: how often so many epochs of the standard and of the gated path follow each
        other.
    lr, gate_lr : float
        Learning rates of network and gate, at their peak in joint training. The gate needs a large one: at
        the network's it never becomes sparse.
    gated_lr : float or None
        Of the network in the gated path of alternating training; ``None``: `lr`.
    standard_layers, gated_layers : sequence of str
        What of the backbone learns by each path of alternating training, by names of its parameters' modules;
        in joint training all of it.
    gated_weight, sparsity_weight : float
        Weights of the gated path, and of the part of the gate's sum that is above its budget.
    classes_per_filter : float
        That budget: the sum of a row of the gate, in the mean over filters; at least 1.
    gate_density : float or None
        The budget as a share of all entries of the gate instead, as the authors have it; at least one over
        the number of classes.
    starvation_weight, min_filter_share : float
        Weight of the filters that a class lacks, and from which share on of an even number for each class it
        lacks some.
    weight_decay : float
        Of the weights of backbone and linear layer: of parameters of two or more axes, never of the gate.
    label_smoothing : float
        Of the labels, on both paths.
    optimizer : {"adamw", "adam"}
    batch_size : int
    precision : str
        Of training, as Lightning Fabric names it.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="CSG-CNN",
        citation="Liang, Ouyang, Zeng, Su, He, Xia, Zhu, Zhang; ECCV 2020; arXiv:2007.08194",
        additivity="exact",
        unit_kind="filters",
        learns_from="training images",
    )
    supports_labels: ClassVar[bool] = False
    network_type: ClassVar[type[CSGCNNNetwork]] = CSGCNNNetwork
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "tiny": {"backbone": "tiny", "warm_epochs": 1, "epochs": 2},
        "paper": {
            "backbone": "torchvision/resnet152", "weights": "DEFAULT", "training": "alternating",
            "warm_epochs": 9, "rounds": 47, "lr": 1e-5, "gated_lr": 1e-3, "gate_lr": 1e-3,
            "standard_layers": ("features.layer3", "features.layer4"), "gated_layers": ("features.layer4",),
            "sparsity_weight": 1e-3, "gate_density": 0.2, "starvation_weight": 0.0, "weight_decay": 0.0,
            "label_smoothing": 0.0, "optimizer": "adam", "batch_size": 32,
        },
    }  # fmt: skip

    backbone: str = "local"
    weights: str | None = None
    until: str | None = None
    backbone_settings: Mapping[str, Any] = field(factory=dict)
    training: Training = "joint"
    warm_epochs: int = 4
    epochs: int = 8
    rounds: int = 4
    standard_epochs: int = 2
    gated_epochs: int = 1
    lr: float = 4e-3
    gate_lr: float = 5e-2
    gated_lr: float | None = None
    standard_layers: Sequence[str] = ("",)
    gated_layers: Sequence[str] = ("",)
    gated_weight: float = 1.0
    sparsity_weight: float = 1e-2
    classes_per_filter: float = 1.25
    gate_density: float | None = None
    starvation_weight: float = 1e-2
    min_filter_share: float = 0.5
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    optimizer: Optimizer = "adamw"
    batch_size: int = 64
    precision: str = "32-true"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not 1 <= self.classes_per_filter < float("inf"):
            raise ek.InputError(
                "Expected classes_per_filter of at least 1: each row of the gate has a 1; got "
                f"{self.classes_per_filter!r}."
            )
        ek.check_ranges(
            self,
            {
                "(0, 1]": ("gate_density",),
                "[0, inf)": ("gated_weight", "sparsity_weight", "starvation_weight", "weight_decay"),
                "[0, 1)": ("min_filter_share", "label_smoothing"),
            },
        )
        gated = ("rounds", "gated_epochs") if self.training == "alternating" else ("epochs",)
        for name in ("warm_epochs", "epochs", "rounds", "standard_epochs", "gated_epochs"):
            least = int(name in gated)
            if getattr(self, name) < least:
                why = f" with training {self.training!r}, or the gate never learns" if least else ""
                raise ek.InputError(f"Expected {name} of {least} or more{why}; got {getattr(self, name)!r}.")

    def build(self, task: ek.Task) -> CSGCNNNetwork:
        """The network of model.py.

        Raises
        ------
        InputError
            For a budget of the gate that no gate can keep to with so many classes.
        """
        backbone = ek.backbone(
            self.backbone, in_channels=task.channels, weights=self.weights, until=self.until,
            **self.backbone_settings,
        )  # fmt: skip
        filters, classes = backbone.channels, len(task.classes)
        budget = gate_budget(filters, classes, self.classes_per_filter, self.gate_density)
        check_budget(budget, filters, classes)
        return CSGCNNNetwork(backbone, classes)

    def phases(self) -> list[ek.Phase[Any] | ek.Repeat[Any]]:
        """A start without the gate, then both paths at once, or in turns."""
        if self.training == "joint":
            return [self._standard_phase("warm", self.warm_epochs, self.lr), self._joint_phase()]
        warm = self._standard_phase("warm", self.warm_epochs, self.lr, self.standard_layers)
        stages = groupby(range(self.rounds), self._tenths_of_round)
        return [warm, *(self._turns(*tenths, len(list(rounds))) for tenths, rounds in stages)]

    def describe_units(self, network: CSGCNNNetwork) -> ek.Units:
        """A unit a filter, which belongs to classes as much as the gate says."""
        gate = network.gate.detach().cpu().clone()
        return ek.Units(
            kind="filter", names=filter_names(gate, self.classes), pooling="mean", class_affinity=gate,
            receptive_field=network.receptive_field,
        )  # fmt: skip

    def diagnostics(self, images: Tensor, decomposition: Decomposition, targets: Tensor) -> dict[str, Tensor]:
        """How much of the target's logit comes from its own filters, and from those of other classes."""
        specific, leakage = (
            decomposition.extras[name].gather(1, targets[:, None])[:, 0] for name in (SPECIFIC, LEAKAGE)
        )
        return {
            "from its own filters": specific, "leakage": leakage, "purity": purity_of(specific, leakage)
        }  # fmt: skip

    def _standard_phase(
        self, name: str, epochs: int, lr: float, layers: Sequence[str] = ("",)
    ) -> ek.Phase[Any]:
        loss = partial(standard_loss, label_smoothing=self.label_smoothing)
        rates = dict.fromkeys((*_of_backbone(layers), "head"), lr)
        return ek.Phase(name, epochs, loss, rates, **self._optimizer())

    def _gated_phase(self, epochs: int, lr: float, gate_lr: float) -> ek.Phase[Any]:
        rates = dict.fromkeys((*_of_backbone(self.gated_layers), "head"), lr) | {"gate": gate_lr}
        return ek.Phase(
            "gated", epochs, self._gated_loss(is_joint=False), rates, on_step_end=project_gate,
            **self._optimizer(),
        )  # fmt: skip

    def _joint_phase(self) -> ek.Phase[Any]:
        rates = {"backbone": self.lr, "head": self.lr, "gate": self.gate_lr}
        return ek.Phase(
            "joint", self.epochs, self._gated_loss(is_joint=True), rates, lr_scheduler="one-cycle",
            on_step_end=project_gate, **self._optimizer(),
        )  # fmt: skip

    def _turns(self, standard_tenths: int, gated_tenths: int, rounds: int) -> ek.Repeat[Any]:
        """`rounds` turns of both paths, whose optimizers go on from turn to turn."""
        standard_lr = self.lr * 0.1**standard_tenths
        gated_lr = self.lr if self.gated_lr is None else self.gated_lr
        fall = 0.1**gated_tenths
        turns = [
            self._standard_phase("standard", self.standard_epochs, standard_lr, self.standard_layers),
            self._gated_phase(self.gated_epochs, gated_lr * fall, self.gate_lr * fall),
        ]
        return ek.Repeat(turns, rounds, keep_optimizers=True)

    def _tenths_of_round(self, index: int) -> tuple[int, int]:
        """How often the rates of both paths have fallen to a tenth before round number `index`.

        Each path counts its own epochs, against milestones in all of them, as in the authors' code.
        """
        total = self.warm_epochs + self.rounds * (self.standard_epochs + self.gated_epochs)
        milestones = [share * total for share in MILESTONES]
        standard, gated = self.warm_epochs + index * self.standard_epochs, index * self.gated_epochs
        standard_tenths, gated_tenths = (
            sum(epochs >= milestone for milestone in milestones) for epochs in (standard, gated)
        )
        return standard_tenths, gated_tenths

    def _gated_loss(self, is_joint: bool) -> Any:
        return partial(
            gated_loss, is_joint=is_joint, gated_weight=self.gated_weight,
            sparsity_weight=self.sparsity_weight, classes_per_filter=self.classes_per_filter,
            gate_density=self.gate_density, starvation_weight=self.starvation_weight,
            min_filter_share=self.min_filter_share, label_smoothing=self.label_smoothing,
        )  # fmt: skip

    def _optimizer(self) -> dict[str, Any]:
        """What all phases share; the gate has two axes, and no weight decay."""
        return {
            "weight_decay": self.weight_decay, "no_weight_decay": ("gate",), "optimizer": self.optimizer,
            "optimizer_kwargs": {"betas": (0.9, 0.999 if self.optimizer == "adam" else 0.99)},
            "batch_size": self.batch_size, "precision": self.precision,
        }  # fmt: skip


def filter_names(gate: Tensor, classes: Sequence[str]) -> list[str]:
    """What filters are called by their gates (K, C): ``"filter 3 of crow"``, ``"filter 4 of 5 classes"``.

    Examples
    --------
    >>> import torch
    >>> filter_names(torch.tensor([[1.0, 0.2], [0.9, 1.0]]), ["crow", "wren"])
    ['filter 0 of crow', 'filter 1 of crow and wren']
    """
    names = []
    for number, members in enumerate((gate > MEMBER).tolist()):
        of = [name for name, is_member in zip(classes, members, strict=True) if is_member]
        owners = listed(of) if 0 < len(of) <= NAMED else f"{len(of)} classes"
        names.append(f"filter {number} of {owners}")
    return names


def _of_backbone(layers: Sequence[str]) -> list[str]:
    """Names of the backbone's layers as they are called in the network."""
    return [f"backbone.{layer}" if layer else "backbone" for layer in layers]
