"""What CAM says: how strongly each filter responded, where, and what that is worth to the class."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from attrs import define, evolve, field
from torch import Tensor, nn

import explainkit as ek
from explainkit.explainers.settings import PART
from explainkit.explanations.spatial import activation_regions, bounding_boxes
from explainkit.training.phases import step_decay
from explainkit_cam.binding import DEFAULT_SIZE, BoundNetwork, bind
from explainkit_cam.losses import evidence_loss
from explainkit_cam.model import CAMNetwork


@define(eq=False, kw_only=True)
class CAM(ek.InterpretableExplainer[nn.Module]):
    """Class activation mapping.

    Parameters
    ----------
    backbone : str
        Name of a feature extractor, as in `explainkit.backbone`.
    weights, until : str or None
        Handed to that extractor, for those that come trained or can be cut early, such as torchvision's.
    backbone_settings : mapping
        Its other settings, such as ``{"receptive_field": 27}`` for ``"local"``.
    filters : int or None
        Of a further convolution before pooling.
    epochs, batch_size : int
    lr, weight_decay : float
        Learning rate, at its peak for a one-cycle schedule, and weight decay.
    lr_scheduler : {"one-cycle", "steps"}
        With AdamW; or with SGD, whose rate falls to a tenth after each quarter of the epochs.
    label_smoothing : float
        Of the labels.
    evidence_l1, evidence_l2 : float
        Weights of an elastic net on the class evidence maps, which makes CAM a SoftCAM (Djoumessi and Berens,
        MIDL 2026, arXiv:2505.17748): of the mean of their size, and of their square.
    dropout : float
        Before the linear layer.
    precision : str
        Of training, as Lightning Fabric names it.
    features, head : nn.Module, nn.Linear or None
        Of a network trained elsewhere: the module that gives the (N, D, h, w) before pooling, and the linear
        layer; found by tracing where not given.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="CAM",
        citation="Zhou, Khosla, Lapedriza, Oliva, Torralba; CVPR 2016; arXiv:1512.04150",
        additivity="exact",
        unit_kind="filters",
        learns_from="training images",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "standard": {"backbone": "small"},
        "digits": {"backbone": "tiny", "epochs": 25, "weight_decay": 0.2},
        "tiny": {"backbone": "tiny", "epochs": 2},
        "paper": {
            "backbone": "torchvision/vgg16", "weights": "DEFAULT", "until": "features.29", "filters": 1024,
            "epochs": 16, "batch_size": 128, "lr": 1e-3, "weight_decay": 5e-4, "lr_scheduler": "steps",
            "label_smoothing": 0.0, "dropout": 0.5,
        },
    }  # fmt: skip

    backbone: str = "local"
    weights: str | None = None
    until: str | None = None
    backbone_settings: Mapping[str, Any] = field(factory=dict)
    filters: int | None = None
    epochs: int = 12
    batch_size: int = 64
    lr: float = 4e-3
    weight_decay: float = 0.05
    lr_scheduler: Literal["one-cycle", "steps"] = "one-cycle"
    label_smoothing: float = 0.05
    evidence_l1: float = 0.0
    evidence_l2: float = 0.0
    dropout: float = 0.0
    precision: str = "32-true"
    features: nn.Module | None = field(default=None, metadata=PART)
    head: nn.Linear | None = field(default=None, metadata=PART)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        ek.check_ranges(self, {"[0, inf)": ("evidence_l1", "evidence_l2")})

    def build(self, task: ek.Task) -> CAMNetwork:
        """The network of model.py."""
        backbone = ek.backbone(
            self.backbone, in_channels=task.channels, weights=self.weights, until=self.until,
            **self.backbone_settings,
        )  # fmt: skip
        return CAMNetwork(backbone, len(task.classes), self.dropout, self.filters)

    def phases(self) -> list[ek.Phase[Any]]:
        """One phase, all parameters."""
        schedule: dict[str, Any] = {"optimizer_kwargs": {"betas": (0.9, 0.99)}, "lr_scheduler": "one-cycle"}
        if self.lr_scheduler == "steps":
            quarters = partial(step_decay, every=max(1, self.epochs // 4))
            schedule = {
                "optimizer": "sgd",
                "optimizer_kwargs": {"momentum": 0.9},
                "lr_scheduler": quarters,
                "lr_scheduler_interval": "epoch",
            }
        loss = partial(
            evidence_loss, label_smoothing=self.label_smoothing, evidence_l1=self.evidence_l1,
            evidence_l2=self.evidence_l2,
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
                **schedule,
            )
        ]

    def describe_units(self, network: CAMNetwork | BoundNetwork) -> ek.Units:  # type: ignore[override]
        """A unit a filter; two where filters go below zero."""
        names = [f"filter {k}" for k in range(_head(network).in_features)]
        if isinstance(network, BoundNetwork) and network.signed:
            names = [f"{name} above zero" for name in names] + [f"{name} below zero" for name in names]
        return ek.Units(kind="filter", names=names, pooling="mean", receptive_field=network.receptive_field)

    def adopt_network(self, network: nn.Module, classes: Sequence[str] | None) -> None:
        """Take any network that ends in global average pooling and one linear layer, as torchvision's do.

        Its parameters are shared, not copied.

        Raises
        ------
        UnsupportedNetworkError
            Where the logits are not the pooled features through the linear layer.
        """
        if self.input_spec.size is None:
            self.input_spec = evolve(self.input_spec, size=DEFAULT_SIZE)
        is_ours = isinstance(network, CAMNetwork | BoundNetwork)
        bound = network if is_ours else bind(network, self.features, self.head, self.input_spec)
        count = _head(bound).out_features
        self.set_classes(count, classes)
        if isinstance(bound, BoundNetwork):
            bound.output_decision = self.decision
        self.bound = True
        self._adopt(bound, self.classes, self.input_spec)

    def explain_batch(self, images: Tensor, targets: Tensor | None, foils: Tensor | None) -> ek.Explanations:
        """One `decompose`, and the algebra."""
        if isinstance(self._network, BoundNetwork):
            self._network.check_size(images.shape[-2:])
        return super().explain_batch(images, targets, foils)


def boxes(explanations: ek.Explanations, threshold: float = 0.2) -> Tensor:
    """Where the object is, by the paper's rule (section 3.2): (N, 4) as x0, y0, x1, y1 in pixels, half-open.

    The class activation map at the image's size, cut at `threshold` of its maximum; the box of the largest
    piece.
    """
    size = explanations.images.shape[-2:]
    if explanations.maps is None:
        raise ek.InputError("Expected explanations with maps; these have none.")
    saliency = explanations.saliency(explanations.maps.shape[-2:])
    return bounding_boxes(activation_regions(saliency, size, threshold, keep="largest"))


def _head(network: nn.Module) -> nn.Linear:
    return network._parts[1] if isinstance(network, BoundNetwork) else network.head  # type: ignore[return-value]
