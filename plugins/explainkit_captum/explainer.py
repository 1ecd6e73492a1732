"""What all methods share: a network of anybody's, one attribution map an image, two units."""

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import reduce
from typing import Any, ClassVar, Self

import attrs
import torch
from attrs import define, field
from torch import Tensor, nn

import explainkit as ek
from explainkit.errors import BindError, InputError
from explainkit.interfaces import MAX_BATCH, Images, Targets, undisturbed
from explainkit_captum.logits import acceptable, checked, classifier, own

UNITS = ek.Units(
    kind="pixels",
    names=("pixels for", "pixels against"),
    phrases=("the pixels that speak for it", "the pixels that speak against it"),
    pooling="sum",
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
    max_batch : int
        How many images the network sees at once, steps and occlusions of a method counted.
    """

    card: ClassVar[ek.Card]
    libraries: ClassVar[tuple[str, ...]] = ("captum",)
    one_pass: ClassVar[bool] = False
    """Whether Captum sends each image once through the network, unchanged: that pass gives the logits."""
    rewires: ClassVar[bool] = False
    """Whether Captum goes into the network's modules: what stops it there is then told as a `BindError`."""

    max_batch: int = field(default=MAX_BATCH, validator=positive)
    _met: bool = field(default=False, init=False, repr=False)

    @classmethod
    def bind(
        cls,
        network: nn.Module,
        *,
        classes: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        **settings: Any,
    ) -> Self:
        """The method, on any classifier.

        Parameters
        ----------
        network : nn.Module
            Left as it is. Returns logits (N, C), or a tuple that has them first, a mapping with ``"logits"``
            or some (N, C), or an object with ``.logits``.
        classes : sequence of str or None
            Counted off its logits where not given.
        size : (int, int) or None
            That files are resized to, and that the network is tried at. ``None``: files keep theirs, and
            where the network takes none of the usual sizes, the first images tell.

        Raises
        ------
        BindError
            Where the network returns no logits, or more or fewer than there are `classes`.
        """
        explainer = cls(**settings)
        image = acceptable(network, size)
        explainer._network, explainer.size = classifier(network, image), size
        explainer.classes = tuple(classes or ())
        if image is not None:
            with undisturbed(network):
                explainer._name_classes(image)
        return explainer

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

    def base_of(self, images: Tensor, targets: Tensor, against: Tensor | None) -> Tensor:
        """What the attributions start from, (N,): 0 where no sum is claimed."""
        return images.new_zeros(len(images))

    def explain(
        self,
        images: Images,
        targets: Targets | None = None,
        *,
        against: Targets | None = None,
        max_batch: int = MAX_BATCH,
    ) -> ek.Explanations:
        """As for any explainer; `max_batch`, the smaller of call and setting, bounds inner batches too.

        Raises
        ------
        BindError
            Where Captum cannot read the network, saying what stops it.
        """
        if not self._met:
            with undisturbed(self.network):
                images = self.read(images)
                self._meet(images[:1])
            self._met = True
        bounded = copy(self)
        bounded.max_batch = min(self.max_batch, max_batch)
        return super(CaptumExplainer, bounded).explain(
            images, targets, against=against, max_batch=bounded.max_batch
        )

    def explain_batch(
        self, images: Tensor, targets: Tensor | None, against: Tensor | None
    ) -> ek.Explanations:
        """The logits, one call of Captum's, and its sum over channels by sign."""
        if self.one_pass:
            asked = Asked(self.network, targets, against)
            attribution = self.attributed(asked, images, {})
            logits, targets = asked.logits, asked.targets
        else:
            with torch.no_grad():
                logits = finite(checked(self.network(images), len(images)))
            targets = logits.argmax(1) if targets is None else targets
            attribution = (
                self.attributed(self.network, images, {"target": targets})
                if against is None
                else self.attributed(
                    Margin(self.network), images, {"additional_forward_args": (targets, against)}
                )
            )
        maps = by_sign(attribution, logits.dtype)
        amounts = maps.sum((2, 3))
        scores = torch.stack([amounts[:, 0], 0 - amounts[:, 1]], 1)  # never minus zero
        return ek.Explanations(
            logits=logits, targets=targets, base=self.base_of(images, targets, against), scores=scores,
            weights=torch.ones_like(scores), maps=maps, units=UNITS, classes=self.classes, images=images,
            claim=self.card.claim, provenance=self.provenance(), against=against,
        )  # fmt: skip

    def attributed(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """`attribute`, cut from the graph; nothing of Captum's stays on the network, failures are told."""
        guard = rewired(own(self.network), self.card.title) if self.rewires else nullcontext()
        with guard:
            return self.attribute(network, images.detach().requires_grad_(), question).detach()

    def mean_logits(self, baselines: Tensor, targets: Tensor, against: Tensor | None) -> Tensor:
        """The mean of `baselines` (B, 3, H, W) in the targets' logits, or their margins: (N,)."""
        with torch.no_grad():
            logits = torch.cat([self.network(some) for some in baselines.split(self.max_batch)]).mean(0)
        return logits_for(logits.expand(len(targets), -1), targets, against)

    def _meet(self, image: Tensor) -> None:
        """Find out from the first image (1, 3, H, W) what could not be known without one."""
        self._name_classes(image)

    def _name_classes(self, image: Tensor) -> None:
        """Count classes off the logits, or hold the names to their number."""
        with torch.no_grad():
            count = checked(self.network(image), 1).shape[1]
        if self.classes and len(self.classes) != count:
            raise BindError(f"Expected {count} class names, one a logit; got {len(self.classes)}.")
        self.classes = self.classes or tuple(f"class {index}" for index in range(count))


class Asked(nn.Module):
    """One question: the logits of `targets`, or their margins over `against`, in the only pass there will be.

    Attributes
    ----------
    logits : Tensor, (N, C)
        Of the images that passed through.
    targets : Tensor, (N,)
        The predictions, where none were asked for.
    """

    logits: Tensor
    targets: Tensor

    def __init__(self, network: nn.Module, targets: Tensor | None, against: Tensor | None) -> None:
        super().__init__()
        self.network, self._targets, self._against = network, targets, against

    def forward(self, images: Tensor) -> Tensor:
        """(N,)."""
        logits = checked(self.network(images), len(images))
        self.logits = logits.detach()
        self.targets = self.logits.argmax(1) if self._targets is None else self._targets
        return logits_for(logits, self.targets, self._against)


class Margin(nn.Module):
    """The logit of one class, or less that of another, (N,): what a contrast is attributed to."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Tensor, against: Tensor | None = None) -> Tensor:
        """The logits of `targets` (N,), or how far they are ahead of `against` (N,)."""
        return logits_for(self.network(images), targets, against)


def finite(logits: Tensor) -> Tensor:
    """`logits`, once they are found to be numbers, which fitting and sampling take for granted.

    Raises
    ------
    InputError
    """
    if not logits.isfinite().all():
        raise InputError("Expected finite logits from the network; got some that are not.")
    return logits


def logits_for(logits: Tensor, targets: Tensor, against: Tensor | None) -> Tensor:
    """The targets' logits, or their margins over `against`: (N,)."""
    chosen = logits.gather(1, targets[:, None])[:, 0]
    return chosen if against is None else chosen - logits.gather(1, against[:, None])[:, 0]


def by_sign(attribution: Tensor, dtype: torch.dtype) -> Tensor:
    """Attributions (N, D, h, w), summed over channels, as what is for and what is against: (N, 2, h, w)."""
    total = reduce(torch.add, attribution.unbind(1))  # sum(1) is slow where channels lie last
    total = total.to(torch.promote_types(total.dtype, dtype))
    maps = total.new_empty(len(total), 2, *total.shape[1:])
    torch.clamp(total, min=0, out=maps[:, 0])
    torch.sub(maps[:, 0], total, out=maps[:, 1])
    return maps


def question_of(question: Question, rows: Tensor) -> dict[str, Any]:
    """The question about the images of `rows` (n,), in that order."""
    return {
        name: tuple(part[rows] for part in value) if isinstance(value, tuple) else value[rows]
        for name, value in question.items()
    }


def pieces(images: Tensor, question: Question, count: int) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """`images` at most `count` at a time, and the question about them."""
    for rows in torch.arange(len(images), device=images.device).split(max(1, count)):
        yield images[rows], question_of(question, rows)


@contextmanager
def rewired(network: nn.Module, title: str) -> Iterator[None]:
    """Captum goes into the modules of `network`: what it leaves there is taken off, what stops it is told.

    Raises
    ------
    BindError
    """
    before = {module: set(vars(module)) for module in network.modules()}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting (forward, )?backward hooks")  # said at every call
            yield
    except torch.OutOfMemoryError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        if isinstance(error, ek.ExplainKitError):
            raise
        told = " ".join(str(error).split())
        raise BindError(
            f"{title} cannot go through {type(network).__name__}: {told[:300]}. Methods that need gradients "
            "or logits alone, as 'captum/integrated-gradients' and 'captum/occlusion', can."
        ) from error
    finally:
        for module, names in before.items():
            for name in set(vars(module)) - names:
                delattr(module, name)
