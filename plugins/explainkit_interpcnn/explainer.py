"""What InterpCNN says: how strongly each filter fired at its one place, and what that is worth."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from attrs import define, field
from torch import Tensor
from torch.nn.functional import one_hot

import explainkit as ek
from explainkit.explanations.factored_maps import dense_maps
from explainkit.explanations.spatial import best_cells, is_localized
from explainkit_interpcnn.categories import assign
from explainkit_interpcnn.losses import Variant, filter_loss
from explainkit_interpcnn.model import InterpCNNNetwork

FILTER_WEIGHT: Mapping[Variant, float] = {"mi": 0.05, "target": 1.5e-5}
"""The weight of the filter loss on a grid of 16 x 16, where none is given."""

FREEZE_AFTER: Mapping[Variant, float] = {"mi": 1.0, "target": 0.3}
"""From which share of training on classes of filters stay, where no share is given: a loss that goes by them
needs them to stay; where they only describe the filters, the last ones describe them best."""


HEAD_SCALE = 10.0
"""What first weights and learning rate of the linear layer are multiplied by with the mask: on a grid of
16 x 16 it leaves about a sixth of a map."""


@define(eq=False, kw_only=True)
class InterpCNN(ek.InterpretableExplainer[InterpCNNNetwork]):
    """Interpretable CNN: filters that fire at one place each.

    Parameters
    ----------
    backbone : str
        Name of a feature extractor, as in `explainkit.backbone`; with a grid of 8 x 8 at least.
    weights, until : str or None
        Handed to that extractor, for those that come trained or can be cut early, such as torchvision's.
    backbone_settings : mapping
        Its other settings, such as ``{"receptive_field": 27}`` for ``"local"``.
    filters : int or None
        Of a further 3 x 3 convolution, which is the interpretable layer, as in the paper; ``None``: the last
        layer of the backbone is.
    mask : bool
        Whether all of a map but the surroundings of its strongest cell is silenced.
    beta : float
        How narrow these are: ``n / beta`` cells on a grid of side n.
    variant : {"mi", "target"}
        The filter loss: the mutual information of maps and places, which needs no labels; or what the
        authors' code does, which draws each filter to images of its class and off others.
    filter_weight : float or None
        Its weight; ``None``: 0.05 for "mi", 1.5e-5 for "target". 0 with ``mask=False`` is a plain network.
    gain : float
        Of "mi": how far from alike the probabilities of maps are.
    temperature : float
        Of "target": how strongly images are ranked.
    anneal : bool
        Divide the weight by the number of the epoch, as the authors' code does.
    warm_epochs : int
        Epochs before the filter loss begins: where filters fire at first is by chance.
    balanced : bool
        No class has more than ``ceil(K / C)`` of the K filters.
    category_momentum : float
        Of the running mean of how strongly each filter fires for each class, per step.
    freeze_after : float or None
        The share of training after which filters keep their classes; ``None``: 1 for "mi", 0.3 for "target".
    epochs, batch_size : int
        The information of a filter is at most the logarithm of `batch_size`.
    lr, weight_decay : float
        Learning rate, at its peak for a one-cycle schedule, and weight decay.
    lr_scheduler : {"one-cycle", "constant"}
        With AdamW; or with SGD.
    head_scale : float or None
        What the first weights and the learning rate of the linear layer are multiplied by, since means of
        masked maps are small; ``None``: 10 with the mask, else 1.
    label_smoothing, dropout : float
        Of the labels, and of filters before the linear layer.
    precision : str
        Of training, as Lightning Fabric names it.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="InterpCNN",
        citation="Zhang, Wu, Zhu; CVPR 2018; arXiv:1710.00935",
        additivity="exact",
        unit_kind="filters",
        learns_from="training images",
    )
    supports_labels: ClassVar[bool] = False
    network_type: ClassVar[type[InterpCNNNetwork]] = InterpCNNNetwork
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "tiny": {"backbone": "tiny", "epochs": 2},
        "paper": {
            "backbone": "torchvision/vgg16", "weights": "DEFAULT", "until": "features.29", "filters": 512,
            "variant": "target", "filter_weight": 1e-6, "anneal": True, "warm_epochs": 0, "balanced": False,
            "freeze_after": 1.0, "epochs": 50, "batch_size": 32, "lr": 1e-4,
            "lr_scheduler": "constant", "weight_decay": 5e-4, "label_smoothing": 0.0, "dropout": 0.8,
        },
    }  # fmt: skip

    backbone: str = "local"
    weights: str | None = None
    until: str | None = None
    backbone_settings: Mapping[str, Any] = field(factory=dict)
    filters: int | None = None
    mask: bool = True
    beta: float = 4.0
    variant: Variant = "mi"
    filter_weight: float | None = None
    gain: float = 10.0
    temperature: float = 0.5
    anneal: bool = False
    warm_epochs: int = 1
    balanced: bool = True
    category_momentum: float = 0.9
    freeze_after: float | None = None
    epochs: int = 12
    batch_size: int = 64
    lr: float = 4e-3
    weight_decay: float = 0.05
    lr_scheduler: Literal["one-cycle", "constant"] = "one-cycle"
    head_scale: float | None = None
    label_smoothing: float = 0.05
    dropout: float = 0.0
    precision: str = "32-true"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        _check_settings(self)

    def build(self, task: ek.Task) -> InterpCNNNetwork:
        """The network of model.py."""
        backbone = ek.backbone(
            self.backbone, in_channels=task.channels, weights=self.weights, until=self.until,
            **self.backbone_settings,
        )  # fmt: skip
        count, share = len(task.classes), None
        if task.dataset is not None:
            labels = task.dataset.train.labels
            share = torch.bincount(labels, minlength=count).double() / len(labels)
        return InterpCNNNetwork(
            backbone, count, self.filters, self.mask, self.beta, self.dropout, self._head_scale, share
        )

    def phases(self) -> list[ek.Phase[Any]]:
        """One phase, all parameters."""
        loss = partial(
            filter_loss, variant=self.variant, filter_weight=self._filter_weight,
            warm_epochs=self.warm_epochs, anneal=self.anneal, gain=self.gain, temperature=self.temperature,
            category_momentum=self.category_momentum, freeze_after=self._freeze_after,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip
        optimizer: dict[str, Any] = {"optimizer_kwargs": {"betas": (0.9, 0.99)}}
        if self.lr_scheduler == "constant":
            optimizer = {"optimizer": "sgd", "optimizer_kwargs": {"momentum": 0.9}}
        rate = self.lr * self._head_scale
        layers = ["backbone"] if self.filters is None else ["backbone", "further"]
        return [
            ek.Phase(
                "all", self.epochs, loss, dict.fromkeys(layers, self.lr) | {"head": rate},
                weight_decay=self.weight_decay, lr_scheduler=self.lr_scheduler, batch_size=self.batch_size,
                precision=self.precision,
                on_step_end=partial(assign, freeze_after=self._freeze_after, balanced=self.balanced),
                **optimizer,
            )
        ]  # fmt: skip

    def describe_units(self, network: InterpCNNNetwork) -> ek.Units:
        """A unit a filter, of one class; named by it where the filter loss went by that."""
        category = network.category
        names = [f"filter {k}" for k in range(len(category))]
        if self.variant == "target":
            labels = category.tolist()
            names = [f"{name} of {self.classes[label]}" for name, label in zip(names, labels, strict=True)]
        return ek.Units(
            kind="filter", names=names, pooling="mean",
            class_affinity=one_hot(category, len(self.classes)).float(),
            receptive_field=network.receptive_field,
        )  # fmt: skip

    @property
    def _filter_weight(self) -> float:
        return FILTER_WEIGHT[self.variant] if self.filter_weight is None else self.filter_weight

    @property
    def _freeze_after(self) -> float:
        return FREEZE_AFTER[self.variant] if self.freeze_after is None else self.freeze_after

    @property
    def _head_scale(self) -> float:
        return (HEAD_SCALE if self.mask else 1.0) if self.head_scale is None else self.head_scale


def filter_places(explanations: ek.Explanations) -> Tensor:
    """Where each filter fires, x and y in pixels: (N, K, 2).

    The middle of the strongest cell; NaN for filters that fire nowhere in the image, or are switched off, and
    so add nothing.

    Raises
    ------
    InputError
        For explanations without the maps of all units.
    """
    if explanations.maps is None or explanations.map_units is not None:
        raise ek.InputError(
            'Expected explanations with the maps of all units; call explain(images, maps="all").'
        )
    maps = dense_maps(explanations.maps)
    grid, size = maps.shape[2:], explanations.images.shape[2:]
    peaks = best_cells(maps)
    cells = torch.stack([peaks % grid[1], peaks // grid[1]], 2) + 0.5  # column, row
    pixels = cells * cells.new_tensor([size[1] / grid[1], size[0] / grid[0]])
    fires = is_localized(maps) & (explanations.scores != 0)
    return pixels.where(fires[..., None], torch.nan)


def _check_settings(explainer: InterpCNN) -> None:
    """Refuse numbers that mean nothing, and a filter loss that would never begin."""
    ek.check_ranges(
        explainer,
        {
            "(0, inf)": ("beta", "gain", "temperature", "head_scale"),
            "[0, inf)": ("filter_weight", "weight_decay", "warm_epochs", "epochs"),
            "[1, inf)": ("batch_size", "filters"),
            "[0, 1)": ("dropout", "label_smoothing", "category_momentum"),
            "(0, 1]": ("freeze_after",),
        },
    )
    if explainer._filter_weight and explainer.warm_epochs >= explainer.epochs:
        raise ek.InputError(
            f"Expected fewer warm_epochs than epochs, so that the filter loss begins; got "
            f"{explainer.warm_epochs} and {explainer.epochs}. Set warm_epochs=0, or filter_weight=0."
        )
