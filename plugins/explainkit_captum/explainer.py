"""What all methods share: a network of anybody's, one attribution map an image, two units."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from functools import reduce
from typing import Any, ClassVar

import attrs
import torch
from attrs import define, field
from torch import Tensor, nn

import explainkit as ek
from explainkit.errors import InputError, UnsupportedNetworkError
from explainkit.explainers.decisions import last_operation
from explainkit.explainers.explaining import Maps
from explainkit.explainers.identity import check_class_names
from explainkit.explainers.inputs import normalize_inside
from explainkit.explainers.interface import BATCH_SIZE
from explainkit.explainers.isolation import running
from explainkit.networks.precision import (
    disable_autocast,
    full_precision,
    is_low_precision,
    reference_tensor,
)
from explainkit.protocols import Images, Targets
from explainkit_captum.logits import check_logits, classifier, probe_image, unwrap
from explainkit_captum.requirements import check_gradients, check_hooks
from explainkit_captum.rewiring import rewired

UNITS = ek.Units(
    kind="pixels",
    names=("pixels for", "pixels against"),
    phrases=("the pixels that speak for it", "the pixels that speak against it"),
    pooling="sum",
    phrasing=ek.Phrasing(absent_scores=None),
)

Question = Mapping[str, Any]
"""Captum's ``target`` (N,), or ``additional_forward_args`` of tensors (N,) where the network returns a number
an image; empty where it knows its targets."""


def positive(_: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    """Refuse a setting that is not a whole number above zero."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"Expected {attribute.name} of at least 1; got {value!r}.")


@define(eq=False, kw_only=True)
class CaptumExplainer(ek.PostHocExplainer):
    """A method of Captum's: what it attributes to each place, for the target and against it.

    A subclass has a `card`, its settings, and `attribute`; `base_of` too where its sums are complete.

    Parameters
    ----------
    batch_size : int
        How many images the network sees at once, steps and occlusions of a method counted.
    """

    card: ClassVar[ek.Card]
    libraries: ClassVar[tuple[str, ...]] = ("captum",)
    one_pass: ClassVar[bool] = False
    """Whether Captum sends each image once through the network, unchanged: that pass gives the logits."""
    hooks_network: ClassVar[bool] = False
    """Whether Captum goes into the network's modules.

    What stops it there is then raised as an `UnsupportedNetworkError`.
    """
    needs_gradients: ClassVar[bool] = True
    """Whether it asks for gradients at the pixels."""
    needs_full_precision: ClassVar[bool] = False
    """Whether the network's own precision is used under autocast too.

    Perturbation methods subtract logits of nearly equal images, which agree in all digits that bfloat16 has:
    the difference would be rounding. Relevance is divided by sums that may nearly cancel.
    """

    batch_size: int = field(default=BATCH_SIZE, validator=positive)
    _is_prepared: bool = field(default=False, init=False, repr=False)
    _names: tuple[str, ...] = field(default=(), init=False, repr=False)

    def adopt_network(self, network: nn.Module, classes: Sequence[str] | None) -> None:
        """Take any classifier.

        It returns logits (N, C), or a tuple that has them first, a mapping with ``"logits"`` or some (N, C),
        or an object with ``.logits``. It is tried at the size of `input_spec`; where that has none and it
        takes none of the usual sizes, the first images tell.

        Raises
        ------
        UnsupportedNetworkError
            Where the network returns no logits, or more or fewer than there are `classes`.
        """
        if self.input_spec.is_vector:
            raise UnsupportedNetworkError(
                f"Expected a network of images for {self.card.title}; {type(network).__name__} takes rows of "
                f"{self.input_spec.columns} columns."
            )
        network = normalize_inside(network, self.input_spec)
        image = probe_image(network, self.input_spec)
        self._network = classifier(network, image)
        self._names = tuple(check_class_names(classes)) if classes else ()
        if image is not None:
            with running(self._network, isolate=True) as twin:
                self._name_classes(twin, image)
                self._check_network(twin, image)

    @abstractmethod
    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """Captum's attribution to each place, (N, D, h, w), to be summed over channels.

        Parameters
        ----------
        network : nn.Module
        images : Tensor, (N, 3, H, W)
            Wanting gradients.
        question : Question
            Of these images, one each.
        """

    def base_of(self, images: Tensor, targets: Tensor, foils: Tensor | None) -> Tensor:
        """What the attributions start from, (N,): 0 where no sum is claimed."""
        return images.new_zeros(len(images))

    def explain(
        self,
        images: Images,
        targets: Targets | None = None,
        *,
        foils: Targets | None = None,
        maps: Maps = "all",
        batch_size: int = BATCH_SIZE,
    ) -> ek.Explanations:
        """As for any explainer; `batch_size`, the smaller of call and setting, bounds inner batches too.

        Raises
        ------
        UnsupportedNetworkError
            Where Captum cannot read the network, saying what stops it.
        """
        if not self._is_prepared:
            with running(self.network, isolate=True, dtype=self.converted_dtype) as twin:
                first = self.read_images(images)[:1]
                self._prepare(twin, first.to(reference_tensor(twin).dtype))
            self._is_prepared = True
        bounded = copy(self)
        bounded.batch_size = min(self.batch_size, batch_size)
        return super(CaptumExplainer, bounded).explain(
            images, targets, foils=foils, maps=maps, batch_size=bounded.batch_size
        )

    @property
    def converted_dtype(self) -> torch.dtype | None:
        """float32 for a network in half precision: the same weights, with sums that hold."""
        return torch.float32 if is_low_precision(reference_tensor(self.network).dtype) else None

    def explain_batch(self, images: Tensor, targets: Tensor | None, foils: Tensor | None) -> ek.Explanations:
        """The logits, one call of Captum's, and its sum over channels by sign."""
        images = images.to(reference_tensor(self.network).dtype)
        with self._precision(images.device):
            return self._explain_batch(images, targets, foils)

    def _explain_batch(self, images: Tensor, targets: Tensor | None, foils: Tensor | None) -> ek.Explanations:
        if self.one_pass:
            recorder = LogitRecorder(self.network, targets, foils)
            attribution = self.attributed(recorder, images, {})
            logits, targets = recorder.logits, recorder.targets
        else:
            with torch.no_grad():
                logits = check_finite(check_logits(self.network(images), len(images)))
            targets = logits.argmax(1) if targets is None else targets
            attribution = (
                self.attributed(self.network, images, {"target": targets})
                if foils is None
                else self.attributed(
                    Margin(self.network), images, {"additional_forward_args": (targets, foils)}
                )
            )
        logits = full_precision(logits)
        maps = by_sign(full_precision(attribution), logits.dtype)
        amounts = maps.sum((2, 3))
        scores = torch.stack([amounts[:, 0], 0 - amounts[:, 1]], 1)  # never minus zero
        return ek.Explanations(
            logits=logits.to(maps.dtype), targets=targets,
            base=self.base_of(images, targets, foils).to(maps.dtype), scores=scores,
            weights=torch.ones_like(scores), maps=maps, units=UNITS, classes=self.classes, images=images,
            additivity=self.card.additivity, decision=self.decision, foils=foils,
            provenance=self.provenance(),
        )  # fmt: skip

    def attributed(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """`attribute`, cut from the graph.

        Nothing of Captum's stays on the network, failures are errors of ours.
        """
        guard = rewired(unwrap(self.network), self.card.title) if self.hooks_network else nullcontext()
        with guard, self._precision(images.device):
            return self.attribute(network, images.detach().requires_grad_(), question).detach()

    def mean_logits(self, baselines: Tensor, targets: Tensor, foils: Tensor | None) -> Tensor:
        """The mean of `baselines` (B, 3, H, W) in the targets' logits, or their margins: (N,)."""
        with torch.no_grad():
            logits = torch.cat([self.network(batch) for batch in baselines.split(self.batch_size)])
            logits = full_precision(logits).mean(0)
        return logits_for(logits.expand(len(targets), -1), targets, foils)

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        """Without autocast where its rounding would be all that is left."""
        return disable_autocast(device) if self.needs_full_precision else nullcontext()

    def _prepare(self, network: nn.Module, image: Tensor) -> None:
        """Check a copy of the network on one image (1, D, H, W), and read off it what needs an image."""
        self._name_classes(network, image)
        self._check_network(network, image)

    def _check_network(self, network: nn.Module, image: Tensor) -> None:
        """Refuse a network without the hooks or the gradients that the method needs."""
        if self.hooks_network:
            check_hooks(network, self.card.title)
        if self.needs_gradients:
            check_gradients(network, image, self.card.title)

    def _name_classes(self, network: nn.Module, image: Tensor) -> None:
        """Count classes off the logits, or hold the names to their number; see how the network ends."""
        if self.classes:
            return
        with torch.no_grad():
            count = check_logits(network(image), 1).shape[1]
        self.set_classes(count, self._names or None, last_operation(network, image))


class LogitRecorder(nn.Module):
    """The logits of `targets`, or their margins over `foils`, in the only pass there will be; it keeps both.

    Attributes
    ----------
    logits : Tensor, (N, C)
        Of the images that passed through.
    targets : Tensor, (N,)
        The predictions, where none were given.
    """

    logits: Tensor
    targets: Tensor

    def __init__(self, network: nn.Module, targets: Tensor | None, foils: Tensor | None) -> None:
        super().__init__()
        self.network, self._targets, self._foils = network, targets, foils

    def forward(self, images: Tensor) -> Tensor:
        """(N,)."""
        logits = check_logits(self.network(images), len(images))
        self.logits = logits.detach()
        self.targets = self.logits.argmax(1) if self._targets is None else self._targets
        return logits_for(logits, self.targets, self._foils)


class Margin(nn.Module):
    """The logit of one class, or less that of another, (N,): what a contrast is attributed to."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Tensor, foils: Tensor | None = None) -> Tensor:
        """The logits of `targets` (N,), or how far they are ahead of `foils` (N,)."""
        return logits_for(self.network(images), targets, foils)


def check_finite(logits: Tensor) -> Tensor:
    """`logits`, checked to be finite, which fitting and sampling take for granted.

    Raises
    ------
    InputError
    """
    if not logits.isfinite().all():
        raise InputError("Expected finite logits from the network; got some that are not.")
    return logits


def logits_for(logits: Tensor, targets: Tensor, foils: Tensor | None) -> Tensor:
    """The targets' logits, or their margins over `foils`: (N,)."""
    chosen = logits.gather(1, targets[:, None])[:, 0]
    return chosen if foils is None else chosen - logits.gather(1, foils[:, None])[:, 0]


def by_sign(attribution: Tensor, dtype: torch.dtype) -> Tensor:
    """Attributions (N, D, h, w), summed over channels, as what is for and what is against: (N, 2, h, w)."""
    total = reduce(torch.add, attribution.unbind(1))  # sum(1) is slow where channels lie last
    total = total.to(torch.promote_types(total.dtype, dtype))
    maps = total.new_empty(len(total), 2, *total.shape[1:])
    torch.clamp(total, min=0, out=maps[:, 0])
    torch.sub(maps[:, 0], total, out=maps[:, 1])
    return maps


def select_question(question: Question, rows: Tensor) -> dict[str, Any]:
    """The question about the images of `rows` (n,), in that order."""
    return {
        name: tuple(part[rows] for part in value) if isinstance(value, tuple) else value[rows]
        for name, value in question.items()
    }


def question_batches(
    images: Tensor, question: Question, count: int
) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """`images` at most `count` at a time, and the question about them."""
    for rows in torch.arange(len(images), device=images.device).split(max(1, count)):
        yield images[rows], select_question(question, rows)
