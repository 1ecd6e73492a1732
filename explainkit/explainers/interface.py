"""The contract: what every explainer does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import attrs
import numpy as np
import torch
from attrs import define, field, frozen
from torch import Tensor, nn

from explainkit.data.reading import read_images
from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError, NotFittedError, UnsupportedNetworkError
from explainkit.explainers.identity import name_of, versions_of
from explainkit.explainers.inputs import check_images, check_rows
from explainkit.explainers.isolation import isolated, running
from explainkit.explainers.state import state_digest
from explainkit.explanations.batch import Explanations, concatenate
from explainkit.explanations.decomposition import Additivity
from explainkit.explanations.provenance import Provenance
from explainkit.explanations.validation import class_indices
from explainkit.networks.precision import reference_tensor
from explainkit.networks.shadows import owner_of
from explainkit.protocols import Images, Targets
from explainkit.training.distributed import accelerator
from explainkit.training.evaluation import evaluate

if TYPE_CHECKING:
    from explainkit.explanations.class_level import ClassExplanations
    from explainkit.explanations.counterfactuals import Counterfactuals, Norm


BATCH_SIZE = 256
"""How many images are explained at once by default."""


@frozen(kw_only=True)
class Card:
    """What an explainer is and claims; the conformance kit holds it to this.

    Attributes
    ----------
    title, citation : str
        Its name, and authors, venue and arXiv number of its source.
    additivity : {"exact", "approximate", "none"}
        Whether contributions add up to the logit.
    unit_kind : str
        What its units are: ``"filters"``, ``"prototypes"``, ``"concepts"``, ``"parts"``, ``"pixels"`` …
    """

    title: str
    citation: str
    additivity: Additivity
    unit_kind: str


@define(eq=False, kw_only=True)
class Explainer(ABC):
    """Classifies images and says why.

    Attributes
    ----------
    classes : tuple of str
    size : (int, int), (int,) or None
        Height and width that files are resized to; ``None`` leaves them as they are. One number: how many
        columns the rows of a table have, which are explained in place of images.
    """

    card: ClassVar[Card]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": {}}
    libraries: ClassVar[tuple[str, ...]] = ()
    """Further distributions that its explanations depend on: provenance lists their versions."""
    supports_tables: ClassVar[bool] = False
    """Whether it can learn from rows of numbers too."""
    hooks_network: ClassVar[bool] = False
    """Whether `explain_batch` hooks modules, changes them or writes gradients: its network is then a copy."""
    explained_dtypes: ClassVar[tuple[torch.dtype, ...] | None] = None
    """Of the networks that it explains; ``None``: of any."""

    classes: tuple[str, ...] = field(default=(), init=False)
    size: tuple[int, ...] | None = field(default=None, init=False)
    _network: nn.Module | None = field(default=None, init=False, repr=False)
    _seed: int | None = field(default=None, init=False, repr=False)
    _augment: Mapping[str, str] = field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        for item in attrs.fields(type(self)):
            value = getattr(self, item.name)
            kind = {"int": int, "float": float, "str": str, "bool": bool}.get(str(item.type), item.type)
            if not item.init or kind not in (int, float, str, bool):
                continue
            is_right = isinstance(value, (int, float) if kind is float else kind)
            if not is_right or (kind is not bool and isinstance(value, bool)) or value != value:
                raise InputError(
                    f"Expected {item.name} of {self.card.title} as {kind.__name__}; got {value!r}."
                )

    @property
    def network(self) -> nn.Module:
        """The classifier: images (N, 3, H, W) to logits (N, C)."""
        if self._network is None:
            raise NotFittedError(
                f"{self.card.title} has no network yet: call fit(dataset), or explainkit.load(folder)."
            )
        return self._network

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return reference_tensor(self.network).device

    def check_precision(self) -> None:
        """Refuse a network in a precision that this explainer cannot explain.

        Raises
        ------
        UnsupportedNetworkError
        """
        dtype, dtypes = reference_tensor(self.network).dtype, self.explained_dtypes
        if dtypes is not None and dtype not in dtypes:
            raise UnsupportedNetworkError(
                f"Expected a network in {' or '.join(map(str, dtypes))}; got {dtype}, in which contributions "
                "do not add up. Convert a copy of it with network.float(); autocast is possible."
            )

    @property
    def converted_dtype(self) -> torch.dtype | None:
        """What the network is converted to in order to be explained; ``None``: it is explained as it is."""
        return None

    @property
    def is_tabular(self) -> bool:
        """Whether it was trained on a table, and explains rows (N, F) of it."""
        return self.size is not None and len(self.size) == 1

    @classmethod
    @abstractmethod
    def from_network(
        cls, network: nn.Module, *, classes: Sequence[str] | None = None, **settings: Any
    ) -> Self:
        """An explainer of a network that is trained already.

        Raises
        ------
        UnsupportedNetworkError
            For a network that this explainer cannot read.
        """

    @abstractmethod
    def explain_batch(self, images: Tensor, targets: Tensor | None, foils: Tensor | None) -> Explanations:
        """Explain valid `images` (N, 3, H, W) on the network's device; called in eval mode.

        Threads may call it at once: ``self`` is then a copy, and its network may be one.
        """

    def explain(
        self,
        images: Images,
        targets: Targets | None = None,
        *,
        foils: Targets | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Explanations:
        """Why each image gets the logit of its target; the network is left as it was.

        Parameters
        ----------
        images
            Tensor (N, 3, H, W) in [0, 1], a `Batch`, or files, PIL images and arrays.
        targets
            Classes by name or index, one an image or one for all; by default the predictions.
        foils
            Explain the margin over these classes instead.
        batch_size : int
            How many images are explained at once.

        Raises
        ------
        InputError
            For images or targets of the wrong shape, type or range.
        UnknownNameError
            For a class that the network does not know.
        NotFittedError
            Where there is no network yet.
        """
        if batch_size < 1:
            raise InputError(f"Expected batch_size of at least 1; got {batch_size}.")
        batches = []
        with torch.inference_mode(False):
            inputs = self.read_images(images)
            target_indices, foil_indices = (
                None if value is None else class_indices(value, self.classes, len(inputs)).to(inputs.device)
                for value in (targets, foils)
            )
            for start in range(0, len(inputs), batch_size):
                rows = slice(start, start + batch_size)
                with isolated(self) as explainer:
                    explanations = explainer.explain_batch(
                        inputs[rows],
                        None if target_indices is None else target_indices[rows],
                        None if foil_indices is None else foil_indices[rows],
                    )
                batches.append(explanations)
            return concatenate(batches)

    def explain_class(
        self,
        dataset: ImageDataset | Iterable[Batch],
        classes: Sequence[int | str] | int | str | None = None,
        *,
        batch_size: int = BATCH_SIZE,
    ) -> ClassExplanations:
        """What each class is to the network: its sums, averaged over the images that bear its label.

        One pass, in memory that does not grow with the number of images.

        Parameters
        ----------
        dataset : ImageDataset, or iterable of Batch
            Its training images; or batches with labels, as ``dataset.batches("test")``.
        classes
            By name or index; every class that has images unless given.

        Raises
        ------
        InputError
            For batches without labels, for a class without images, and for methods whose contributions are
            no logits.
        UnknownNameError
            For a class that the network does not know.
        """
        from explainkit.questions.class_statistics import explain_class

        return explain_class(self, dataset, classes, batch_size=batch_size)

    @abstractmethod
    def counterfactual(
        self,
        images: Images,
        targets: Targets | None = None,
        *,
        distractors: ImageDataset | Batch | None = None,
        norm: Norm = "l0",
        margin: float = 0.01,
        prove: bool = False,
        batch_size: int = BATCH_SIZE,
    ) -> Counterfactuals:
        """What would make each image its target; see `InterpretableExplainer.counterfactual`.

        Raises
        ------
        InputError
            For post-hoc methods, which have no scores that a decision is made by.
        """

    def predict(self, images: Images, *, batch_size: int = BATCH_SIZE) -> Tensor:
        """Logits (N, C)."""
        self.check_precision()
        logits = []
        with torch.inference_mode(False), torch.no_grad():
            for chunk in self.read_images(images).split(batch_size):
                with running(self.network) as network:
                    logits.append(network(chunk))
            return torch.cat(logits)

    def evaluate(
        self, dataset: ImageDataset, splits: Sequence[str] = ("train", "validation", "test")
    ) -> dict[str, dict[str, float]]:
        """Accuracy in [0, 1] and mean cross-entropy on each split, un-augmented."""
        self.check_classes(dataset)
        self.check_precision()
        with running(self.network) as network:
            scores = {split: evaluate(network, dataset, split, self.device) for split in splits}
        return {split: {"accuracy": accuracy, "loss": loss} for split, (accuracy, loss) in scores.items()}

    def to(self, device: torch.device | str) -> Self:
        """The same explainer, its network moved to `device`, ``"auto"`` being where the network is.

        Raises
        ------
        InputError
            For a device that this machine lacks.
        """
        if accelerator(device)[0] != "auto":
            self.network.to(device)
        return self

    def read_images(self, images: Images) -> Tensor:
        """`images` as a valid tensor on the network's device, in its precision.

        Raises
        ------
        InputError
            For what no network of ours can take; the message says what to do.
        """
        if isinstance(images, Batch):
            images = images.images
        if self.is_tabular and isinstance(images, np.ndarray):
            images = torch.as_tensor(images)
        if not isinstance(images, Tensor):
            single = isinstance(images, str | Path) or not isinstance(images, Sequence)
            images = read_images([images] if single else images, self.size)  # type: ignore[list-item, arg-type]
        if self.is_tabular:
            check_rows(images, self.size[0])  # type: ignore[index]
        else:
            check_images(images)
        like = reference_tensor(self.network)
        inputs = images.detach().to(device=like.device, dtype=like.dtype)
        return inputs.clone() if inputs.is_inference() else inputs

    def settings(self) -> dict[str, Any]:
        """What the explainer was made with, by name."""
        return {
            item.name.lstrip("_"): getattr(self, item.name)
            for item in attrs.fields(type(self))
            if item.init and not isinstance(getattr(self, item.name), nn.Module)
        }

    def provenance(self) -> Provenance:
        """Which explainer explains, with what, now."""
        network = owner_of(self.network)
        like = reference_tensor(network)
        return Provenance(
            explainer=name_of(type(self)),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions_of(type(self)),
            settings=self.settings(),
            seed=self._seed,
            augment=self._augment,
            device=str(like.device),
            dtype=str(like.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            digest=lambda: state_digest(network),
        )

    def check_classes(self, dataset: ImageDataset) -> None:
        """Refuse a data set of other classes than the network knows.

        Raises
        ------
        InputError
        """
        if self.classes and tuple(dataset.classes) != self.classes:
            raise InputError(
                f"Expected data of the {len(self.classes)} classes that the network knows "
                f"({', '.join(self.classes[:3])}, …); {dataset.name} has {len(dataset.classes)} "
                f"({', '.join(dataset.classes[:3])}, …)."
            )
