"""What all methods share: a network of anybody's, one attribution map an image, two units."""

from abc import abstractmethod
from collections.abc import Sequence
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
from explainkit_captum.logits import acceptable, checked, classifier

UNITS = ek.Units(
    kind="pixels",
    names=("pixels for", "pixels against"),
    phrases=("the pixels that speak for it", "the pixels that speak against it"),
    pooling="sum",
)


def positive(_: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    """Refuse a setting that is not a whole number above zero."""
    if not isinstance(value, int) or value < 1:
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
    def attribute(self, network: nn.Module, images: Tensor, question: dict[str, Any]) -> Tensor:
        """Captum's attribution to each place, (N, D, h, w), to be summed over channels.

        Parameters
        ----------
        network : nn.Module
        images : Tensor, (N, 3, H, W)
            Wanting gradients.
        question : dict
            Captum's ``target``, or ``additional_forward_args`` where `network` returns a margin; empty where
            it knows its targets.
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
        """As for any explainer; `max_batch`, the smaller of call and setting, bounds inner batches too."""
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
        wanting = images.detach().requires_grad_()
        if self.one_pass:
            asked = Asked(self.network, targets, against)
            attribution = self.attribute(asked, wanting, {})
            logits, targets = asked.logits, asked.targets
        else:
            with torch.no_grad():
                logits = checked(self.network(images), len(images))
            targets = logits.argmax(1) if targets is None else targets
            attribution = (
                self.attribute(self.network, wanting, {"target": targets})
                if against is None
                else self.attribute(
                    Margin(self.network), wanting, {"additional_forward_args": (targets, against)}
                )
            )
        maps = by_sign(attribution.detach(), logits.dtype)
        amounts = maps.sum((2, 3))
        scores = torch.stack([amounts[:, 0], 0 - amounts[:, 1]], 1)  # never minus zero
        return ek.Explanations(
            logits=logits, targets=targets, base=self.base_of(images, targets, against), scores=scores,
            weights=torch.ones_like(scores), maps=maps, units=UNITS, classes=self.classes, images=images,
            claim=self.card.claim, provenance=self.provenance(), against=against,
        )  # fmt: skip

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
    """The logit of one class less that of another, (N,): what a contrast is attributed to."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Tensor, against: Tensor) -> Tensor:
        """How far `targets` (N,) are ahead of `against` (N,)."""
        return logits_for(self.network(images), targets, against)


def by_sign(attribution: Tensor, dtype: torch.dtype) -> Tensor:
    """Attributions (N, D, h, w), summed over channels, as what is for and what is against: (N, 2, h, w)."""
    total = reduce(torch.add, attribution.unbind(1))  # sum(1) is slow where channels lie last
    total = total.to(torch.promote_types(total.dtype, dtype))
    maps = total.new_empty(len(total), 2, *total.shape[1:])
    torch.clamp(total, min=0, out=maps[:, 0])
    torch.sub(maps[:, 0], total, out=maps[:, 1])
    return maps


def logits_for(logits: Tensor, targets: Tensor, against: Tensor | None) -> Tensor:
    """The targets' logits, or their margins over `against`: (N,)."""
    chosen = logits.gather(1, targets[:, None])[:, 0]
    return chosen if against is None else chosen - logits.gather(1, against[:, None])[:, 0]
