"""The contract: what every explainer does, and the two kinds there are."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import attrs
import numpy as np
import torch
from attrs import define, evolve, field, frozen
from torch import Tensor, nn

from explainkit import registry
from explainkit.data.images import Batch, ImageData
from explainkit.data.reading import Readable, read_images
from explainkit.decomposition import Decomposition
from explainkit.errors import BindError, InputError, NotFittedError
from explainkit.explanation import Claim, Explanations, Provenance, Units, class_indices, concatenate
from explainkit.inputs import check_images, check_range, check_rows
from explainkit.quantiles import Quantiles
from explainkit.training import Epoch, Phase, Repeat, Trainer
from explainkit.training.engine import evaluate
from explainkit.training.logs import Logger
from explainkit.training.processes import accelerator
from explainkit.version import __version__

if TYPE_CHECKING:
    from explainkit.questions.class_level import ClassExplanations
    from explainkit.questions.counterfactual import Counterfactuals
    from explainkit.questions.edits import Cost

MAX_BATCH = 256
"""How many images are explained at once unless told otherwise."""

LARGEST_RANGES = 2**22
"""Most pairs of a class and a unit for which plausible scores are kept."""

Images = Tensor | Batch | Readable | Sequence[Readable]
"""A tensor (N, 3, H, W) in [0, 1], a `Batch`, or files, PIL images and arrays: one, or a sequence of them."""

Targets = Tensor | Sequence[int | str] | int | str
"""Classes by name or index: one an image, or one for all."""


@frozen(kw_only=True)
class Card:
    """What an explainer is and claims; the conformance kit holds it to this.

    Attributes
    ----------
    title, citation : str
        Its name, and authors, venue and arXiv number of its source.
    claim : {"exact", "approximate", "none"}
        Whether contributions add up to the logit.
    speaks : str
        What its units are: ``"filters"``, ``"prototypes"``, ``"concepts"``, ``"parts"``, ``"pixels"`` …
    """

    title: str
    citation: str
    claim: Claim
    speaks: str


def _class_names(classes: int | Sequence[str]) -> tuple[str, ...]:
    return tuple(f"class {c}" for c in range(classes)) if isinstance(classes, int) else tuple(classes)


def _sides(size: int | Sequence[int]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)


@frozen(kw_only=True)
class Task:
    """What a network is built for.

    Attributes
    ----------
    classes : tuple of str
        Or how many.
    size : (int, int) or (int,)
        Height and width of the images, one number for both; or (F,), the columns of a table.
    data : ImageData or None
        What the network will learn from; ``None`` where a saved one is built anew.
    units : Units or None
        Those of the saved network.
    """

    classes: tuple[str, ...] = field(converter=_class_names)
    size: tuple[int, ...] = field(converter=_sides, default=64)
    data: ImageData | None = field(default=None, repr=False, eq=False)
    units: Units | None = field(default=None, repr=False, eq=False)


class InterpretableNetwork(Protocol):
    """The one thing that an architecture must provide, beside being an `nn.Module` that returns logits."""

    def decompose(self, images: Tensor) -> Decomposition:
        """How the logits (N, C) of images (N, 3, H, W) come about."""
        ...


Network = TypeVar("Network", bound=nn.Module)


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
    """Further distributions that what it says depends on: provenance tells their versions."""
    takes_tables: ClassVar[bool] = False
    """Whether it can learn from rows of numbers too."""

    classes: tuple[str, ...] = field(default=(), init=False)
    size: tuple[int, ...] | None = field(default=None, init=False)
    _network: nn.Module | None = field(default=None, init=False, repr=False)
    _seed: int | None = field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        for item in attrs.fields(type(self)):
            value = getattr(self, item.name)
            kind = {"int": int, "float": float, "str": str, "bool": bool}.get(str(item.type), item.type)
            if not item.init or kind not in (int, float, str, bool):
                continue
            right = isinstance(value, (int, float) if kind is float else kind)
            if not right or (kind is not bool and isinstance(value, bool)) or value != value:
                raise InputError(
                    f"Expected {item.name} of {self.card.title} as {kind.__name__}; got {value!r}."
                )

    @property
    def network(self) -> nn.Module:
        """The classifier: images (N, 3, H, W) to logits (N, C)."""
        if self._network is None:
            raise NotFittedError(
                f"{self.card.title} has no network yet: call fit(data), or explainkit.load(folder)."
            )
        return self._network

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return _like(self.network).device

    @property
    def explains_rows(self) -> bool:
        """Whether it was trained on a table, and explains rows (N, F) of it."""
        return self.size is not None and len(self.size) == 1

    @classmethod
    @abstractmethod
    def bind(cls, network: nn.Module, *, classes: Sequence[str] | None = None, **settings: Any) -> Self:
        """An explainer of a network that is trained already.

        Raises
        ------
        BindError
            For a network that this explainer cannot read.
        """

    @abstractmethod
    def explain_batch(self, images: Tensor, targets: Tensor | None, against: Tensor | None) -> Explanations:
        """Explain valid `images` (N, 3, H, W) on the network's device; called in eval mode."""

    def explain(
        self,
        images: Images,
        targets: Targets | None = None,
        *,
        against: Targets | None = None,
        max_batch: int = MAX_BATCH,
    ) -> Explanations:
        """Why each image gets the logit of its target; the network is left as it was.

        Parameters
        ----------
        images
            Tensor (N, 3, H, W) in [0, 1], a `Batch`, or files, PIL images and arrays.
        targets
            Classes by name or index, one an image or one for all; by default the predictions.
        against
            Explain the margin over these classes instead.
        max_batch : int
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
        network = self.network
        if max_batch < 1:
            raise InputError(f"Expected max_batch of at least 1; got {max_batch}.")
        with undisturbed(network):
            ready = self.read(images)
            wanted, rival = (
                None if given is None else class_indices(given, self.classes, len(ready)).to(ready.device)
                for given in (targets, against)
            )
            pieces = [
                self.explain_batch(
                    ready[start : start + max_batch],
                    None if wanted is None else wanted[start : start + max_batch],
                    None if rival is None else rival[start : start + max_batch],
                )
                for start in range(0, len(ready), max_batch)
            ]
        return concatenate(pieces)

    def explain_class(
        self,
        data: ImageData | Iterable[Batch],
        classes: Sequence[int | str] | int | str | None = None,
        *,
        max_batch: int = MAX_BATCH,
    ) -> ClassExplanations:
        """What each class is to the network: its sums, averaged over the images that bear its label.

        One pass, in memory that does not grow with the number of images.

        Parameters
        ----------
        data : ImageData, or iterable of Batch
            Its training images; or batches with labels, as ``data.batches("test")``.
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
        from explainkit.questions.class_level import explain_class

        return explain_class(self, data, classes, max_batch=max_batch)

    def counterfactual(
        self,
        images: Images,
        targets: Targets | None = None,
        *,
        bank: ImageData | Batch | None = None,
        cost: Cost = "count",
        margin: float = 0.01,
        max_batch: int = MAX_BATCH,
    ) -> Counterfactuals:
        """What would make each image its target: in the evidence, exactly; in the image, as the network says.

        Parameters
        ----------
        images
            As `explain` takes them.
        targets
            Classes by name or index; by default the runners-up.
        bank : ImageData, Batch or None
            Images with labels, whose regions are swapped in: the training images of an ImageData. What `fit`
            learned from unless given; after `load` it must be.
        cost : {"count", "l1", "l2"}
            What an edit of the evidence has least of: changed scores, the sum of changes, or of their
            squares.
        margin : float
            By how much the target shall be ahead by its evidence, in logits.

        Raises
        ------
        InputError
            Without a bank; for a bank of images of another size; for post-hoc methods, which change nothing.
        UnknownNameError
            For a class that the network does not know.
        """
        from explainkit.questions.counterfactual import counterfactual

        return counterfactual(self, images, targets, bank=bank, cost=cost, margin=margin, max_batch=max_batch)

    def predict(self, images: Images, *, max_batch: int = MAX_BATCH) -> Tensor:
        """Logits (N, C)."""
        with undisturbed(self.network), torch.no_grad():
            return torch.cat([self.network(chunk) for chunk in self.read(images).split(max_batch)])

    def evaluate(
        self, data: ImageData, splits: Sequence[str] = ("train", "validation", "test")
    ) -> dict[str, dict[str, float]]:
        """Accuracy in [0, 1] and mean cross-entropy on each split, un-augmented."""
        self._same_classes(data)
        with undisturbed(self.network):
            scores = {split: evaluate(self.network, data, split, self.device) for split in splits}
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

    def read(self, images: Images) -> Tensor:
        """`images` as a valid tensor on the network's device, in its precision.

        Raises
        ------
        InputError
            For what no network of ours can take; the message says what to do.
        """
        if isinstance(images, Batch):
            images = images.images
        if self.explains_rows and isinstance(images, np.ndarray):
            images = torch.as_tensor(images)
        if not isinstance(images, Tensor):
            single = isinstance(images, str | Path) or not isinstance(images, Sequence)
            images = read_images([images] if single else images, self.size)  # type: ignore[list-item, arg-type]
        if self.explains_rows:
            check_rows(images, self.size[0])  # type: ignore[index]
        else:
            check_images(images)
        like = _like(self.network)
        ready = images.detach().to(device=like.device, dtype=like.dtype)
        return ready.clone() if ready.is_inference() else ready

    def settings(self) -> dict[str, Any]:
        """What the explainer was made with, by name."""
        return {
            item.name.lstrip("_"): getattr(self, item.name)
            for item in attrs.fields(type(self))
            if item.init and not isinstance(getattr(self, item.name), nn.Module)
        }

    def provenance(self) -> Provenance:
        """Who says it, with what, now."""
        network, like = self.network, _like(self.network)
        return Provenance(
            explainer=name_of(type(self)),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=_versions(type(self)),
            settings=self.settings(),
            seed=self._seed,
            device=str(like.device),
            dtype=str(like.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            digest=lambda: state_digest(network),
        )

    def _same_classes(self, data: ImageData) -> None:
        if self.classes and tuple(data.classes) != self.classes:
            raise InputError(
                f"Expected data of the {len(self.classes)} classes that the network knows "
                f"({', '.join(self.classes[:3])}, …); {data.name} has {len(data.classes)} "
                f"({', '.join(data.classes[:3])}, …)."
            )


@define(eq=False, kw_only=True)
class InterpretableExplainer(Explainer, Generic[Network]):
    """An architecture that explains its own decisions: settings, then `fit`.

    A subclass has settings as attrs fields, a `card`, and three methods: `build` the network, the `phases`
    that train it, and `describe` its units. Its network has `decompose`; every answer is derived from that.
    """

    bound: bool = field(default=False, init=False)
    units: Units | None = field(default=None, init=False, repr=False)
    history: list[Epoch] = field(factory=list, init=False, repr=False)
    _bank: ImageData | None = field(default=None, init=False, repr=False)

    @abstractmethod
    def build(self, task: Task) -> Network:
        """A fresh network for `task`, with `decompose` and `forward`, a logit a class."""

    @abstractmethod
    def phases(self) -> Sequence[Phase[Network] | Repeat[Network]]:
        """How the network is trained, in order."""

    @abstractmethod
    def describe(self, network: Network) -> Units:
        """What the K units of a trained network are."""

    def fit(
        self,
        data: ImageData,
        *,
        seed: int = 0,
        device: str = "auto",
        loggers: Sequence[Logger] = (),
        progress: bool | None = None,
        checkpoints: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Build the network, train it on ``data.train`` and return this explainer.

        Parameters
        ----------
        seed : int
            Of the first weights, the order of images and their augmentation; the caller's random state is
            kept.
        device : str
            ``"auto"`` takes an accelerator where there is one.
        loggers : sequence of Logger
            Told of every epoch; `history` keeps them too.
        progress : bool or None
            A bar in the terminal; ``None``: where there is one.
        checkpoints : path or None
            Folder for a checkpoint after every epoch, and before and after every finish.
        resume : bool
            Go on from that checkpoint, or begin where there is none; ends as the uninterrupted run would.

        Raises
        ------
        TrainingError
            For a loss that is NaN or explodes, with phase, epoch and term.
        InputError
            For a checkpoint of another run, and for a folder that cannot be written.
        """
        if not 0 <= seed < 2**63:
            raise InputError(f"Expected a seed in 0 … 2^63 - 1; got {seed}.")
        if not len(data.train):
            raise InputError(f"Expected training images; {data.name} has none.")
        self._check_takes(data.size, data.name)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self._built(Task(classes=data.classes, size=data.size, data=data))
            trainer = Trainer(
                seed=seed,
                device=device,
                loggers=loggers,
                progress=progress,
                checkpoints=checkpoints,
                resume=resume,
            )
            self.history = trainer.run(network, data, self.phases())
        self._seed, self.bound, self._bank = seed, False, data
        self._adopt(network, data.classes, data.size)
        units = self.units
        if units is not None and len(self.classes) * len(units) <= LARGEST_RANGES:
            self.units = evolve(units, range=self.ranges(data))
        return self

    @classmethod
    def bind(cls, network: nn.Module, *, classes: Sequence[str] | None = None, **settings: Any) -> Self:
        """An explainer of a network of this architecture, trained elsewhere."""
        explainer = cls(**settings)
        if not hasattr(network, "decompose"):
            raise BindError(
                f"Expected a network with decompose(images) for {cls.card.title}; "
                f"got {type(network).__name__}. Train one with fit(data)."
            )
        explainer.bound = True
        return explainer._adopt(network, _named(network, classes), None)

    def restore(
        self,
        state: Mapping[str, Tensor],
        classes: Sequence[str],
        size: tuple[int, ...] | None,
        units: Units | None,
    ) -> Self:
        """Become what was saved: build the network and give it its `state`.

        Trained weights that the setting ``weights`` names are in the state, and are not fetched again.

        Raises
        ------
        InputError
            For whole numbers where the network has others, or the other way round, and for `units` of
            another number.
        """
        self._check_takes(size or (64, 64), "what was saved")
        with torch.random.fork_rng(), _unweighted(self):
            network = self._built(Task(classes=classes, size=size or (64, 64), units=units))
        for name, value in network.state_dict().items():
            given = state.get(name, value)
            if given.is_floating_point() != value.is_floating_point() or given.is_complex():
                raise InputError(f"Expected {name} of {value.dtype}; got {given.dtype}.")
        network.load_state_dict(dict(state))
        described = self._adopt(network, classes, size).units
        if units is not None and described is not None and len(units) != len(described):
            raise InputError(f"Expected the network's {len(described)} units; got {len(units)}.")
        self.units = units or described
        return self

    def explain_batch(self, images: Tensor, targets: Tensor | None, against: Tensor | None) -> Explanations:
        """One `decompose`, and the algebra."""
        if self._checks_range and not self.explains_rows:
            check_range(images)
        with torch.no_grad():
            parts: Decomposition = self.network.decompose(images)  # type: ignore[operator]
            if targets is None:
                targets = parts.logits.argmax(1)
            weights, base = parts.weights_for(targets), parts.bias_for(targets)
            notes = self.notes(images, parts, targets)
        units = self._units_on(images.device)
        if units.reference is not None:
            base = base + (weights * units.reference.to(weights.dtype)).sum(1)
        told = Explanations(
            logits=parts.logits, targets=targets, base=base, scores=parts.scores, weights=weights,
            maps=parts.maps,
            boxes=parts.boxes, units=units, classes=self.classes, images=images, claim=self.card.claim,
            provenance=self.provenance(), decomposition=parts.detach(), notes=notes,
        )  # fmt: skip
        return told if against is None else told.contrast(against)

    def notes(self, images: Tensor, parts: Decomposition, targets: Tensor) -> Mapping[str, Tensor]:
        """Further numbers of each image, (N,) each, to be told beside its sum; a plugin may have some."""
        return {}

    @property
    def _checks_range(self) -> bool:
        """Whether images outside [0, 1] are refused: true of networks that were trained here."""
        return True

    def _check_takes(self, size: Sequence[int], source: str) -> None:
        """Refuse a table where the architecture knows images alone."""
        if len(size) == 1 and not self.takes_tables:
            raise InputError(
                f"Expected images; {source} is a table of {size[0]} columns, and {self.card.title} explains "
                "by places in an image. Architectures of concepts, as 'senn', take tables."
            )

    def _built(self, task: Task) -> Network:
        """The network in the memory format that is fastest, for training and explaining alike."""
        return self.build(task).to(memory_format=torch.channels_last)

    def _adopt(self, network: nn.Module, classes: Sequence[str], size: tuple[int, ...] | None) -> Self:
        self._network, self.classes, self.size = network, tuple(classes), size
        self.units = self.describe(network)  # type: ignore[arg-type]
        return self

    def ranges(self, data: ImageData | Batch) -> Tensor:
        """Which scores are plausible: 5 % and 95 % quantiles on (training) images of each class, (2, C, K).

        Of a class without images anything is plausible that is of others.
        """
        batches = data.batches("train", MAX_BATCH) if isinstance(data, ImageData) else [data]
        with undisturbed(self.network), torch.no_grad():
            found = Quantiles(len(self.classes), len(self._units_on(self.device)))
            for batch in batches:
                parts: Decomposition = self.network.decompose(self.read(batch))  # type: ignore[operator]
                found.add(parts.scores, batch.labels)
            low, high = found.at((0.05, 0.95))
            unseen = low.isnan().any(1)
            low[unseen], high[unseen] = low.nan_to_num(torch.inf).amin(0), high.nan_to_num(-torch.inf).amax(0)
            return torch.stack([low, high])

    def _units_on(self, device: torch.device) -> Units:
        units = self.units or self.describe(self.network)  # type: ignore[arg-type]
        if any(value is not None and value.device != device for value in (units.reference, units.group)):
            units = units.to(device)
        self.units = units
        return units


@define(eq=False, kw_only=True)
class PostHocExplainer(Explainer):
    """A method that explains somebody else's network."""

    @classmethod
    def bind(cls, network: nn.Module, *, classes: Sequence[str] | None = None, **settings: Any) -> Self:
        """An explainer of `network`."""
        explainer = cls(**settings)
        explainer._network = network
        explainer.classes = _named(network, classes)
        return explainer


@contextmanager
def _unweighted(explainer: InterpretableExplainer[Any]) -> Iterator[None]:
    """`explainer` without the name of trained weights, where it has a setting for one."""
    weights = getattr(explainer, "weights", None)
    if weights is None:
        yield
        return
    explainer.weights = None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        explainer.weights = weights  # type: ignore[attr-defined]


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """`network` in eval mode, outside inference mode; then modes, gradients and random state as before."""
    modules = list(network.modules())  # walked once: this is a good part of what explaining adds
    modes = [module for module in modules if module.training]
    parameters = [value for module in modules for value in module._parameters.values() if value is not None]
    gradients = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    devices = {parameter.device for parameter in parameters if parameter.device.type == "cuda"}
    for module in modes:
        module.training = False
    for parameter, _ in gradients:  # not added to, but set aside
        parameter.grad = None
    try:
        with torch.inference_mode(False), torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        for module in modes:
            module.training = True
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = None
        for parameter, gradient in gradients:
            parameter.grad = gradient


def state_digest(network: nn.Module) -> str:
    """SHA-256 of a network's state."""
    return tensors_digest(network.state_dict())


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@cache
def name_of(kind: type[Explainer]) -> str:
    """The name that an explainer's class is offered under, or where it lives if nothing offers it."""
    target = f"{kind.__module__}:{kind.__qualname__}"
    offers = registry.offers("explainers")
    return next((name for name, offer in offers.items() if offer.target == target), target)


def distinct_names(explainers: Sequence[Explainer]) -> dict[str, Explainer]:
    """Explainers by the names that they are offered under, told apart by numbers where they are alike."""
    named: dict[str, Explainer] = {}
    for explainer in explainers:
        name = plain = name_of(type(explainer))
        while name in named:
            name = f"{plain} [{1 + sum(other.partition(' [')[0] == plain for other in named)}]"
        named[name] = explainer
    return named


@cache
def _versions(kind: type[Explainer]) -> dict[str, str]:
    """Of explainkit, of torch, and of the distribution that brought the class."""
    package = kind.__module__.partition(".")[0]
    others = {name: version(name) for name in (*packages_distributions().get(package, []), *kind.libraries)}
    return {"explainkit": __version__, "torch": torch.__version__, **others}


def _distinct(classes: Sequence[str]) -> tuple[str, ...]:
    """Class names, once they are found to be several names that differ."""
    named = tuple(classes)
    if isinstance(classes, str) or len(set(named)) < len(named):
        raise InputError(f"Expected class names that differ, as a list; got {classes!r}.")
    return named


def _named(network: nn.Module, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Class names, counted off where none are given and the last linear layer tells how many there are."""
    if classes is not None:
        return _distinct(classes)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError(
            "Expected classes=[…]: the network has no linear layer that tells how many there are."
        )
    return tuple(f"class {index}" for index in range(linear[-1].out_features))


def _like(network: nn.Module) -> Tensor:
    """A tensor on the network's device and in its precision."""
    return next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
