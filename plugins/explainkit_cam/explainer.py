"""What CAM says: how strongly each filter responded, where, and what that is worth to the class."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, Self

from attrs import define
from torch import Tensor, nn

import explainkit as ek
from explainkit.explanations.spatial import activation_regions, bounding_boxes
from explainkit.training.phases import step_decay
from explainkit_cam.binding import BoundNetwork, bind
from explainkit_cam.losses import cross_entropy
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
    filters : int or None
        Of a further convolution before pooling.
    epochs, batch_size : int
    lr, weight_decay : float
        Learning rate, at its peak for a one-cycle schedule, and weight decay.
    lr_scheduler : {"one-cycle", "steps"}
        With AdamW; or with SGD, whose rate falls to a tenth after each quarter of the epochs.
    label_smoothing : float
        Of the labels.
    dropout : float
        Before the linear layer.
    precision : str
        Of training, as Lightning Fabric names it.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="CAM",
        citation="Zhou, Khosla, Lapedriza, Oliva, Torralba; CVPR 2016; arXiv:1512.04150",
        additivity="exact",
        unit_kind="filters",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "digits": {"backbone": "tiny", "epochs": 25, "weight_decay": 0.2},
        "tiny": {"backbone": "tiny", "epochs": 2},
        "paper": {
            "backbone": "torchvision/vgg16", "weights": "DEFAULT", "until": "features.29", "filters": 1024,
            "epochs": 16, "batch_size": 128, "lr": 1e-3, "weight_decay": 5e-4, "lr_scheduler": "steps",
            "label_smoothing": 0.0, "dropout": 0.5,
        },
    }  # fmt: skip

    backbone: str = "small"
    weights: str | None = None
    until: str | None = None
    filters: int | None = None
    epochs: int = 12
    batch_size: int = 64
    lr: float = 4e-3
    weight_decay: float = 0.05
    lr_scheduler: Literal["one-cycle", "steps"] = "one-cycle"
    label_smoothing: float = 0.05
    dropout: float = 0.0
    precision: str = "32-true"

    def build(self, task: ek.Task) -> CAMNetwork:
        """The network of model.py."""
        backbone = ek.backbone(self.backbone, weights=self.weights, until=self.until)
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
        loss = partial(cross_entropy, label_smoothing=self.label_smoothing)
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

    def describe_units(self, network: nn.Module) -> ek.Units:
        """A unit a filter; two where filters go below zero."""
        names = [f"filter {k}" for k in range(_head(network).in_features)]
        if isinstance(network, BoundNetwork) and network.signed:
            names = [f"{name} above zero" for name in names] + [f"{name} below zero" for name in names]
        return ek.Units(kind="filter", names=names, pooling="mean")

    @classmethod
    def from_network(
        cls,
        network: nn.Module,
        *,
        classes: Sequence[str] | None = None,
        features: nn.Module | None = None,
        head: nn.Linear | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | tuple[int, int] = (224, 224),
        **settings: Any,
    ) -> Self:
        """CAM of any network that ends in global average pooling and one linear layer, as torchvision's do.

        Parameters
        ----------
        network : nn.Module
            Left as it is; its parameters are shared, not copied.
        classes : sequence of str or None
            Counted off where not given.
        features, head : nn.Module, nn.Linear
            The module that gives the (N, D, h, w) before pooling, and the linear layer; found by tracing
            where not given.
        mean, std : sequence of three floats or None
            For networks trained on normalized images, ``(0.485, 0.456, 0.406)`` and ``(0.229, 0.224,
            0.225)`` for torchvision's; images then go in as [0, 1]. ``None``: images go in as they are.
        size : int or (int, int)
            That the identity is checked at, and that files are resized to.

        Raises
        ------
        UnsupportedNetworkError
            Where the logits are not the pooled features through the linear layer.
        """
        explainer = cls(**settings)
        size = (size, size) if isinstance(size, int) else size
        bound = network if isinstance(network, CAMNetwork) else bind(network, features, head, mean, std, size)
        count = _head(bound).out_features
        names = classes or [f"class {c}" for c in range(count)]
        if len(names) != count:
            raise ek.InputError(f"Expected {count} class names, one a logit; got {len(names)}.")
        explainer.bound = True
        return explainer._adopt(bound, names, size)

    def explain_batch(self, images: Tensor, targets: Tensor | None, foils: Tensor | None) -> ek.Explanations:
        """One `decompose`, and the algebra."""
        if isinstance(self._network, BoundNetwork):
            self._network.check_size(images.shape[-2:])
        return super().explain_batch(images, targets, foils)

    @property
    def _checks_range(self) -> bool:
        return not isinstance(self._network, BoundNetwork)


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
