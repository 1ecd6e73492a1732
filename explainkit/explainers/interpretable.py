"""Architectures that explain their own decisions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from attrs import define, evolve, field
from torch import Tensor, nn

from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError, UnsupportedNetworkError
from explainkit.explainers.identity import count_classes
from explainkit.explainers.inputs import InputSpec, normalize_inside, spec_of_dataset
from explainkit.explainers.interface import BATCH_SIZE, Explainer
from explainkit.explainers.isolation import isolated
from explainkit.explainers.settings import without_weights_setting
from explainkit.explainers.task import Task
from explainkit.explanations.batch import Explanations
from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.interventions import UnitScore, unit_index
from explainkit.explanations.units import Units
from explainkit.networks.memory import build_for
from explainkit.networks.unit_mask import disabled_units_of, switch_units
from explainkit.protocols import Images, Logger, Targets
from explainkit.questions.quantiles import Quantiles
from explainkit.training import Epoch, Phase, Repeat, Trainer
from explainkit.training.fingerprint import augmentations

LARGEST_RANGES = 2**24
"""Most pairs of a class and a unit, 128 MiB, whose plausible scores `fit` keeps with the units; beyond,
`counterfactual` computes them anew each time."""

RANGE_BUDGET = 3 * 2**25
"""Bytes of the histograms that plausible scores are read off."""

RANGE_CHUNK = 2**20
"""Most scores that are counted at once."""


Network = TypeVar("Network", bound=nn.Module)


@define(eq=False, kw_only=True)
class InterpretableExplainer(Explainer, Generic[Network]):
    """An architecture that explains its own decisions: settings, then `fit`.

    A subclass has settings as attrs fields, a `card`, and three methods: `build` the network, the `phases`
    that train it, and `describe_units`. Its network has `decompose`; every answer is derived from that.

    Attributes
    ----------
    history : list of Epoch
    """

    explained_dtypes: ClassVar[tuple[torch.dtype, ...] | None] = (torch.float32, torch.float64)
    network_type: ClassVar[type[nn.Module]] = nn.Module
    """What `from_network` takes: a class of networks that has `decompose`."""

    supports_labels: ClassVar[bool] = True
    """Whether an image may have several labels, or none, in training."""

    supports_score_edits: ClassVar[bool] = True
    """Whether one score can change while others stay; not where all are distances of one point. Methods of
    counterfactuals that edit scores are not offered then."""

    history: list[Epoch] = field(factory=list, init=False, repr=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        card = getattr(cls, "card", None)
        if card is not None and card.learns_from != "training images":
            raise InputError(
                f"Expected learns_from='training images' on the card of {cls.__name__}, which builds and "
                f"trains its network; got {card.learns_from!r}."
            )

    @abstractmethod
    def build(self, task: Task) -> Network:
        """A fresh network for `task`, with `decompose` and `forward`, a logit a class."""

    @abstractmethod
    def phases(self) -> Sequence[Phase[Network] | Repeat[Network]]:
        """How the network is trained, in order."""

    @abstractmethod
    def describe_units(self, network: Network) -> Units:
        """What the K units of a trained network are."""

    def fit(
        self,
        dataset: ImageDataset,
        *,
        seed: int = 0,
        device: str = "auto",
        loggers: Sequence[Logger] = (),
        progress: bool | None = None,
        checkpoints: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Build the network, train it on ``dataset.train`` and return this explainer.

        Parameters
        ----------
        seed : int
            Of the first weights, the order of images and their augmentation; the caller's random state is
            kept.
        device : str
            ``"auto"`` takes an accelerator where there is one.
        loggers : sequence of Logger
            Called after every epoch; `history` keeps the epochs too.
        progress : bool or None
            A bar in the terminal; ``None``: where there is one.
        checkpoints : path or None
            Folder for a checkpoint after every epoch, and before and after every `Phase.on_end`.
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
        if not len(dataset.train):
            raise InputError(f"Expected training images; {dataset.name} has none.")
        self._check_input_kind(dataset.size, dataset.name)
        if not dataset.decision.is_exclusive and not self.supports_labels:
            raise InputError(
                f"Expected one class an image for {self.card.title}, whose losses need one; the labels of "
                f"{dataset.name} hold or not, each for itself. Others, such as 'cam', learn such labels."
            )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            task = Task(
                classes=dataset.output_names, size=dataset.size, channels=dataset.channels, dataset=dataset
            )
            network = self._build_network(task)
            trainer = Trainer(
                seed=seed,
                device=device,
                loggers=loggers,
                progress=progress,
                checkpoints=checkpoints,
                resume=resume,
                settings=self.settings(),
            )
            plan = self.phases()
            self.history = trainer.run(network, dataset, plan)
        self._seed, self.bound, self._training_dataset = seed, False, dataset
        self._augment = augmentations(plan, dataset)
        self.decision = dataset.decision
        self._adopt(network, dataset.output_names, spec_of_dataset(dataset))
        units = self.units
        if units is not None and len(self.classes) * len(units) <= LARGEST_RANGES:
            self.units = evolve(units, score_range=self.score_ranges(dataset))
        return self

    def adopt_network(self, network: nn.Module, classes: Sequence[str] | None) -> None:
        """Take a network of this architecture, trained elsewhere.

        It may have an `input_size`, that which files are resized to.

        Raises
        ------
        UnsupportedNetworkError
            For a network that is no `network_type`, or has no `decompose`.
        """
        if not isinstance(network, self.network_type) or not hasattr(network, "decompose"):
            kind = self.network_type
            expected = "network with decompose(images)" if kind is nn.Module else kind.__name__
            raise UnsupportedNetworkError(
                f"Expected a {expected} for {self.card.title}; got {type(network).__name__}. "
                "Train one with fit(dataset)."
            )
        self.bound = True
        self.set_classes(count_classes(network, classes), classes)
        network = normalize_inside(network, self.input_spec)
        self._adopt(network, self.classes, self.input_spec)

    def intervene(
        self,
        images: Images,
        scores: Mapping[int | str, UnitScore],
        targets: Targets | None = None,
        *,
        foils: Targets | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Explanations:
        """Why each image would get the logit of its target with `scores` set by hand: its `logits` are those.

        Parameters
        ----------
        images, targets, foils, batch_size
            As `explain` takes them; by default the classes that the network says of the images as they are.
        scores : mapping of int or str to float, Tensor (N,) or "off"
            As `Explanations.intervene` takes them.

        Raises
        ------
        InputError, UnknownNameError
            As `explain` and `Explanations.intervene`; for the score of a unit that is disabled in the
            network, which stays off.
        """
        self._check_enabled(scores)
        return self.explain(images, targets, foils=foils, batch_size=batch_size).intervene(scores)

    @property
    def disabled_units(self) -> tuple[str, ...]:
        """The names of the units that are switched off in the network."""
        names = self._units_on(self.device).names
        is_disabled = disabled_units_of(self.network, len(names))
        return tuple(names[unit] for unit in is_disabled.nonzero()[:, 0].tolist())

    def disable_units(self, units: Sequence[int | str] | int | str) -> Self:
        """Switch units off in the network, besides those that are, until `enable_units`; saved with it.

        Each has its reference for a score, so that all logits are those of `intervene` with ``"off"``.

        Parameters
        ----------
        units
            By number, name or phrase: one, or several.

        Raises
        ------
        UnsupportedNetworkError
            For networks without a ``unit_mask``, as those of others.
        UnknownNameError, InputError
            For a unit that there is not; then none is switched.
        """
        switch_units(self.network, self._units_on(self.device), units, is_enabled=False)
        return self

    def enable_units(self, units: Sequence[int | str] | int | str | None = None) -> Self:
        """Switch units on again, all of them unless given; see `disable_units`."""
        known = self._units_on(self.device)
        switch_units(self.network, known, range(len(known)) if units is None else units, is_enabled=True)
        return self

    def load_state(
        self,
        state: Mapping[str, Tensor],
        classes: Sequence[str],
        spec: InputSpec,
        units: Units | None,
    ) -> Self:
        """Become what was saved: build the network, which takes `spec`, and give it its `state`.

        Trained weights that the setting ``weights`` names are in the state, and are not fetched again.

        Raises
        ------
        InputError
            For whole numbers where the network has others, or the other way round, and for `units` of
            another number.
        """
        size = spec.shape or (64, 64)
        self._check_input_kind(size, "what was saved")
        task = Task(classes=classes, size=size, channels=spec.channels, units=units)
        with torch.random.fork_rng(), without_weights_setting(self):
            network = build_for(lambda: self._build_network(task), state)
        for name, value in network.state_dict().items():
            saved = state.get(name, value)
            if saved.is_floating_point() != value.is_floating_point() or saved.is_complex():
                raise InputError(f"Expected {name} of {value.dtype}; got {saved.dtype}.")
        network.load_state_dict(dict(state))
        network_units = self._adopt(network, classes, spec).units
        if units is not None and network_units is not None and len(units) != len(network_units):
            raise InputError(f"Expected the network's {len(network_units)} units; got {len(units)}.")
        if units is not None and network_units is not None:  # what a cell sees is the network's to say
            units = evolve(units, receptive_field=network_units.receptive_field)
        self.units = units or network_units
        return self

    def saved_state(self) -> dict[str, Tensor]:
        """The network's state."""
        return dict(self.network.state_dict())

    def explain_batch(self, images: Tensor, targets: Tensor | None, foils: Tensor | None) -> Explanations:
        """One `decompose`, and the algebra."""
        with torch.no_grad():
            decomposition: Decomposition = self.network.decompose(images)  # type: ignore[operator]
            if targets is None:
                targets = decomposition.logits.argmax(1)
            weights, base = decomposition.weights_for(targets), decomposition.bias_for(targets)
            diagnostics = self.diagnostics(images, decomposition, targets)
        units = self._units_on(images.device)
        if units.reference is not None:
            base = base + (weights * units.reference.to(weights.dtype)).sum(1)
        explanations = Explanations(
            logits=decomposition.logits,
            targets=targets,
            base=base,
            scores=decomposition.scores,
            weights=weights,
            maps=decomposition.maps,
            boxes=decomposition.boxes,
            units=units,
            classes=self.classes,
            images=images,
            additivity=self.card.additivity,
            decision=self.decision,
            provenance=self.provenance(),
            decomposition=decomposition.detach(),
            diagnostics=diagnostics,
        )
        return explanations if foils is None else explanations.contrast(foils)

    def diagnostics(
        self, images: Tensor, decomposition: Decomposition, targets: Tensor
    ) -> Mapping[str, Tensor]:
        """Further numbers of each image, (N,) each, to be reported beside its sum; a plugin may have some."""
        return {}

    def _check_input_kind(self, size: Sequence[int], source: str) -> None:
        """Refuse a table where the architecture knows images alone."""
        if len(size) == 1 and not self.supports_tables:
            raise InputError(
                f"Expected images; {source} is a table of {size[0]} columns, and {self.card.title} explains "
                "by places in an image. Architectures of concepts, as 'senn', take tables."
            )

    def _check_enabled(self, scores: Mapping[int | str, UnitScore]) -> None:
        """Refuse to set the score of a unit that is disabled in the network, unless to "off"."""
        units = self._units_on(self.device)
        is_disabled = disabled_units_of(self.network, len(units))
        if not is_disabled.any() or not isinstance(scores, Mapping):
            return
        for unit, value in scores.items():
            column = unit_index(units, unit)
            if is_disabled[column] and not (isinstance(value, str) and value == "off"):
                raise InputError(
                    f"Expected units that are enabled; {units.names[column]} is disabled in the network; "
                    f"enable_units({units.names[column]!r}) first."
                )

    def _build_network(self, task: Task) -> Network:
        """The network in the memory format that is fastest, for training and explaining alike."""
        return self.build(task).to(memory_format=torch.channels_last)

    def _adopt(self, network: nn.Module, classes: Sequence[str], spec: InputSpec) -> Self:
        self._network, self.classes, self.input_spec = network, tuple(classes), spec
        if not self.bound:  # so that other explainers of the network learn them
            network.input_spec, network.output_decision = spec, self.decision  # type: ignore[assignment]
        self.units = self.describe_units(network)  # type: ignore[arg-type]
        return self

    def score_ranges(self, dataset: ImageDataset | Batch) -> Tensor:
        """Which scores are plausible: 5 % and 95 % quantiles on (training) images of each class, (2, C, K).

        Of labels, those of images without and with each, (2, 2 C, K). Of a class without images anything is
        plausible that is of others. As exact as `Quantiles` of 96 MiB: 256 bins for up to 196,608 pairs of a
        class and a unit, 24 for 1,000 classes and 2,048 units.
        """
        batches = dataset.batches("train", BATCH_SIZE) if isinstance(dataset, ImageDataset) else [dataset]
        with isolated(self) as explainer, torch.no_grad():
            num_kinds = len(self.classes) * (1 if self.decision.is_exclusive else 2)
            num_units = len(self._units_on(self.device))
            quantiles = Quantiles(num_kinds, num_units, budget=RANGE_BUDGET)
            for batch in batches:
                images = self.read_images(batch)
                decomposition: Decomposition = explainer.network.decompose(images)  # type: ignore[operator]
                truth = self.decision.truth(batch.labels, len(self.classes))
                scores = decomposition.scores.cpu()
                pairs = self.decision.kinds(truth).nonzero().cpu()  # of labels, one for each image and label
                for part in pairs.split(max(1, RANGE_CHUNK // num_units)):
                    quantiles.add(scores[part[:, 0]], part[:, 1])
            low, high = ranges = quantiles.at((0.05, 0.95))
            unseen = low.isnan().any(1)
            low[unseen], high[unseen] = low.nan_to_num(torch.inf).amin(0), high.nan_to_num(-torch.inf).amax(0)
            return ranges

    def _units_on(self, device: torch.device) -> Units:
        units = self.units or self.describe_units(self.network)  # type: ignore[arg-type]
        if any(value is not None and value.device != device for value in (units.reference, units.group)):
            units = units.to(device)
        self.units = units
        return units
