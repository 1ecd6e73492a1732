"""The contract: what every explainer does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from attrs import define, field
from torch import Tensor, nn

from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError, NotFittedError, UnsupportedNetworkError
from explainkit.explainers.card import NO_ANSWER, Card, Question, check_card
from explainkit.explainers.decisions import decide, stated_decision
from explainkit.explainers.explaining import Maps, explain_batches, explain_images
from explainkit.explainers.identity import name_of, versions_of
from explainkit.explainers.inputs import InputSpec, spec_for_network
from explainkit.explainers.isolation import isolated, running
from explainkit.explainers.settings import check_settings, settings_of
from explainkit.explainers.state import NetworkDigest
from explainkit.explanations.batch import Explanations
from explainkit.explanations.decisions import Decision, Rule
from explainkit.explanations.provenance import Provenance
from explainkit.explanations.units import Units
from explainkit.networks.precision import reference_tensor
from explainkit.networks.shadows import owner_of
from explainkit.protocols import Images, Targets
from explainkit.training.distributed import accelerator
from explainkit.training.evaluation import evaluate

if TYPE_CHECKING:
    from explainkit.explanations.class_level import ClassExplanations
    from explainkit.explanations.counterfactuals import Counterfactuals


BATCH_SIZE = 256
"""How many images are explained at once by default."""


@define(eq=False, kw_only=True)
class Explainer(ABC):
    """Classifies images and says why.

    A class of explainers has a `card`, which is checked where the class is defined.

    Attributes
    ----------
    classes : tuple of str
    units : Units or None
        Its vocabulary; ``None`` before it is known, and where every image has units of its own, as pixels.
    bound : bool
        Whether the network was trained elsewhere and came by `from_network`.
    input_spec : InputSpec
        What its network takes.
    decision : Decision
        How the network's outputs become an answer.
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
    input_spec: InputSpec = field(factory=InputSpec, init=False)
    decision: Decision = field(factory=Decision, init=False)
    units: Units | None = field(default=None, init=False, repr=False)
    bound: bool = field(default=False, init=False)
    _given_decision: Decision | str | None = field(default=None, init=False, repr=False)
    _network: nn.Module | None = field(default=None, init=False, repr=False)
    _seed: int | None = field(default=None, init=False, repr=False)
    _augment: Mapping[str, str] = field(factory=dict, init=False, repr=False)
    _training_dataset: ImageDataset | None = field(default=None, init=False, repr=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_card(cls)

    def __attrs_post_init__(self) -> None:
        check_settings(self)

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

    def check_answers(self, question: Question) -> None:
        """Refuse a question that this explainer does not answer; see `Card.answers`.

        Raises
        ------
        InputError
        """
        if question not in self.card.answers:
            raise InputError(NO_ANSWER[question].format(title=self.card.title))

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
    def size(self) -> tuple[int, ...] | None:
        """Height and width that files are resized to; or how many columns a row has."""
        return self.input_spec.shape

    @classmethod
    def from_network(
        cls,
        network: nn.Module,
        *,
        classes: Sequence[str] | None = None,
        size: int | Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        value_range: Sequence[float] | Literal["unit"] | None = "unit",
        decision: Decision | Rule | None = None,
        **settings: Any,
    ) -> Self:
        """An explainer of a network that is trained already; the network is left as it is.

        Parameters
        ----------
        network : nn.Module
        classes : sequence of str or None
            Counted off where not given. Of a network of one logit one name, or two: below 0, and above.
        size : int, (int, int) or None
            That files are resized to; ``None`` leaves them as they are.
        mean, std : sequence of float or None
            One a channel, that images are normalized by before the network sees them: ``(0.485, 0.456,
            0.406)`` and ``(0.229, 0.224, 0.225)`` for torchvision's. ``None``: it gets them as they are.
        value_range : (float, float) or None
            Lowest and highest value of the images, before that; [0, 1] unless given, ``None`` for any.
        decision : {"softmax", "sigmoid", "identity"} or None
            One class of several; each label for itself; a number. ``None``: as the network ends, sigmoid for
            one output and softmax for more.
        **settings
            The explainer's own.

        Raises
        ------
        UnsupportedNetworkError
            For a network that this explainer cannot read.
        InputError
            Where the network normalizes images itself, and `mean` and `std` are given too.
        """
        explainer = cls(**settings)
        explainer.input_spec = spec_for_network(network, size, mean, std, value_range)
        explainer._given_decision = stated_decision(network) if decision is None else decision
        explainer.adopt_network(network, classes)
        return explainer

    def set_classes(self, count: int, classes: Sequence[str] | None, last: Decision | None = None) -> None:
        """Name the network's `count` outputs, and settle how they become an answer.

        Parameters
        ----------
        last : Decision or None
            What the network's last operation shows of its outputs.

        Raises
        ------
        UnsupportedNetworkError
            For another number of names than outputs.
        InputError
            For names that do not differ, and for softmax over one output.
        """
        self.classes, self.decision = decide(count, classes, self._given_decision, last)

    @abstractmethod
    def adopt_network(self, network: nn.Module, classes: Sequence[str] | None) -> None:
        """Take `network`, trained elsewhere, for images of `input_spec`: what `from_network` ends with.

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
        maps: Maps = "all",
        batch_size: int = BATCH_SIZE,
    ) -> Explanations:
        """Why each image gets the logit of its target; the network is left as it was.

        Parameters
        ----------
        images
            Tensor (N, 3, H, W) in [0, 1], a `Batch`, or files, PIL images and arrays.
        targets
            Classes by name or index: one an image, one for all, or a list or a row of a bool tensor (N, C)
            of several for each. By default the predictions: the class that wins, or each label that holds.
        foils
            Explain the margin over these classes instead.
        maps : {"all"}, int or None
            Which maps are kept: those of so many of the strongest units of each image, the others as one
            distributed sum; or none. What is not kept is dropped batch by batch.
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
        self.check_answers("image")
        return explain_images(self.snapshot(), images, targets, foils, maps, batch_size)

    def explain_stream(
        self,
        source: ImageDataset | Iterable[Images],
        targets: int | str | None = None,
        *,
        foils: int | str | None = None,
        maps: Maps = "all",
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[Explanations]:
        """Explanations of one batch after the other, in memory that does not grow with their number.

        Parameters
        ----------
        source : ImageDataset, or iterable of images
            Its test images; or batches, as ``dataset.batches("train")``, or lists of files.
        targets, foils, maps, batch_size
            As for `explain`, the same for all images.

        Raises
        ------
        InputError
            For what is no data set and no batches; when it is first asked for.
        """
        return explain_batches(self.snapshot(), source, targets, foils, maps, batch_size)

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

    def counterfactual_methods(self) -> tuple[str, ...]:
        """Names of the methods that `counterfactual` can use for this explainer, third-party ones too."""
        from explainkit.questions.counterfactual_methods import supported_methods

        return tuple(supported_methods(self))

    def counterfactual(
        self,
        images: Images,
        targets: Targets | None = None,
        method: str | Sequence[str] | None = None,
        *,
        distractors: ImageDataset | Batch | None = None,
        batch_size: int = BATCH_SIZE,
        **settings: Any,
    ) -> Counterfactuals:
        """What would make each image its target: in the evidence, exactly; in the image, as the network says.

        Parameters
        ----------
        images
            As `explain` takes them.
        targets
            Classes by name or index; by default the runners-up.
        method : str, sequence of str or None
            One of `counterfactual_methods`, or several; unless given all that run by default, as the core's.
        distractors : ImageDataset, Batch or None
            Images with labels, for methods that look at some: the training images of an ImageDataset. What
            `fit` learned from unless given; after `load` it must be.
        batch_size : int
            How many images are explained at once.
        **settings
            The methods' own: of ``"score-edit"`` `norm`, `margin` and `prove`, see
            `explainkit.questions.score_edit_method.ScoreEdit`.

        Raises
        ------
        InputError
            For an explainer that has no such method; without distractors, where a method needs them; for
            distractors of images of another size; for a setting out of range.
        UnknownNameError
            For a class, a method or a setting that there is not.
        """
        from explainkit.questions.counterfactual_methods import search_counterfactuals

        self.check_answers("counterfactual")
        source = self._training_dataset if distractors is None else distractors
        with isolated(self.snapshot()) as explainer:
            return search_counterfactuals(
                explainer, images, targets, method, distractors=source, batch_size=batch_size,
                settings=settings,
            )  # fmt: skip

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
        """Accuracy in [0, 1] and mean loss on each split, un-augmented; mean average precision for labels."""
        self.check_classes(dataset)
        self.check_precision()
        scale = self.input_spec.from_unit
        with running(self.network) as network:
            return {
                split: evaluate(network, dataset, split, self.device, scale, self.decision).facts()
                for split in splits
            }

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
        """`images` as `input_spec` wants them, on the network's device and in its precision.

        Raises
        ------
        InputError
            For images of another shape, kind or range; the message says what to do.
        """
        like = reference_tensor(self.network)
        inputs = self.input_spec.read(images).detach().to(device=like.device, dtype=like.dtype)
        return inputs.clone() if inputs.is_inference() else inputs

    def snapshot(self) -> Self:
        """What answers one question from first batch to last: itself, or a copy where it may learn."""
        return self

    def saved_state(self) -> dict[str, Tensor]:
        """What `save` keeps of what was learned, by name."""
        return {}

    def settings(self) -> dict[str, Any]:
        """What the explainer was made with, by name."""
        return settings_of(self)

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
            digest=NetworkDigest(network),
        )

    def check_classes(self, dataset: ImageDataset) -> None:
        """Refuse a data set of other classes than the network knows.

        Raises
        ------
        InputError
        """
        own = self.decision.class_names(self.classes)
        if self.classes and dataset.output_names != self.classes and tuple(dataset.classes) != own:
            raise InputError(
                f"Expected data of the {len(own)} classes that the network knows "
                f"({', '.join(own[:3])}, …); {dataset.name} has {len(dataset.classes)} "
                f"({', '.join(dataset.classes[:3])}, …)."
            )
