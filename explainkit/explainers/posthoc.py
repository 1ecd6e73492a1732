"""Methods that explain a network that is trained already."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Self

import torch
from attrs import define, field
from torch import Tensor, nn

from explainkit.data.types import ImageDataset
from explainkit.errors import InputError, NotFittedError, UnsupportedNetworkError
from explainkit.explainers.card import Question
from explainkit.explainers.identity import count_classes
from explainkit.explainers.inputs import normalize_inside
from explainkit.explainers.interface import Explainer
from explainkit.explainers.isolation import isolated
from explainkit.explanations.units import Units
from explainkit.protocols import Images

_SWAP = threading.Lock()
"""Held while what was learned is replaced, and while it is read."""

Examples = ImageDataset | Mapping[str, Images]
"""A data set with labels; or images of concepts, by their names."""


@define(eq=False, kw_only=True)
class PostHocExplainer(Explainer):
    """A method that explains a network that is trained already.

    Most learn nothing. One that does, as concept activation vectors, says what from on its card, and has
    `learn`; what it learned is saved without the network, and loaded beside the same network.

    Attributes
    ----------
    learned : mapping of str to Tensor
        What `fit` learned.
    """

    hooks_network: ClassVar[bool] = True

    learned: Mapping[str, Tensor] = field(factory=dict, init=False, repr=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        card = getattr(cls, "card", None)
        if card is None:
            return
        if (card.learns_from is not None) != (cls.learn is not PostHocExplainer.learn):
            raise InputError(
                f"Expected {cls.__name__} to have learn(examples) and learns_from on its card, or neither; "
                f"its card says {card.learns_from!r}."
            )

    def disable_units(self, units: Sequence[int | str] | int | str) -> Self:
        """Refused: there are no scores that the decision is made by.

        Raises
        ------
        InputError
        """
        raise InputError(
            f"Expected an architecture that decides by its units; {self.card.title} attributes a decision "
            "after it was made: there are no units that could be switched off."
        )

    def fit(self, examples: Examples, *, seed: int = 0) -> Self:
        """Learn about the network from `examples`, and return this explainer.

        Parameters
        ----------
        examples : ImageDataset or mapping of str to images
            What the card's `learns_from` says: training images with their labels; or images of each concept,
            as `explain` takes them, by the concepts' names, where a data set has a class for each concept.
        seed : int
            Of whatever is drawn at random; the caller's random state is kept.

        Raises
        ------
        InputError
            For a method that learns nothing, and for examples of another kind.
        """
        learns_from = self.card.learns_from
        given: Any = self._images_by_concept(examples) if learns_from == "concept examples" else examples
        if learns_from == "training images" and not isinstance(examples, ImageDataset):
            raise InputError(
                f"Expected an ImageDataset that {self.card.title} learns from; got {type(examples).__name__}."
            )
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise InputError(f"Expected a seed in 0 … 2^63 - 1; got {seed!r}.")
        with torch.random.fork_rng(), isolated(self) as twin:
            torch.manual_seed(seed)
            learned, units = self._checked(twin.learn(given))
        with _SWAP:  # at once: other threads have all of what was learned before, or all of this
            self.learned, self.units, self._seed = learned, units, seed
        return self

    def snapshot(self) -> Self:
        """A copy that what `fit` learns meanwhile, in another thread, does not change."""
        if self.card.learns_from is None:
            return self
        with _SWAP:
            return copy(self)

    def learn(self, examples: Any) -> tuple[Mapping[str, Tensor], Units]:
        """What is learned of `examples`, as tensors by name, and the units that come of it; without a trace.

        Parameters
        ----------
        examples : ImageDataset, or mapping of str to Tensor (N, D, H, W)
            Training images; or images of each concept, as the network takes them.
        """
        raise InputError(f"Expected a method that learns; {self.card.title} explains a network at once.")

    def check_answers(self, question: Question) -> None:
        """As `Explainer.check_answers`; and refuse to answer before there is something learned.

        Raises
        ------
        InputError, NotFittedError
        """
        super().check_answers(question)
        if self.card.learns_from is not None and self.units is None:
            raise NotFittedError(
                f"{self.card.title} has learned nothing yet: call fit(…) with {self.card.learns_from}."
            )

    def adopt_network(self, network: nn.Module, classes: Sequence[str] | None) -> None:
        """Take any network, and normalize its images as `input_spec` says."""
        self.bound = True
        self._network = normalize_inside(network, self.input_spec)
        self.set_classes(count_classes(network, classes), classes)

    def saved_state(self) -> dict[str, Tensor]:
        """What was learned."""
        return dict(self.learned)

    def load_learned(self, state: Mapping[str, Tensor], units: Units, network_digest: str) -> None:
        """Take what was learned about this network.

        Raises
        ------
        UnsupportedNetworkError
            Where it was learned about another network.
        """
        if self.provenance().model_digest != network_digest:
            raise UnsupportedNetworkError(
                f"Expected the network that {self.card.title} learned about; this one has other parameters. "
                "Give that one, or call fit(…) again."
            )
        self.learned, self.units = dict(state), units

    def _checked(self, result: Any) -> tuple[dict[str, Tensor], Units]:
        """What `learn` returned, on the CPU, once it is found to be tensors by name, and units."""
        is_pair = isinstance(result, tuple) and len(result) == 2
        learned, units = result if is_pair else (None, None)
        if not isinstance(learned, Mapping) or not isinstance(units, Units):
            kinds = ", ".join(type(item).__name__ for item in result) if is_pair else type(result).__name__
            raise InputError(
                f"Expected learn(…) of {type(self).__name__} to return a mapping of tensors, and Units; "
                f"got {kinds}."
            )
        for name, value in learned.items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise InputError(
                    f"Expected learn(…) of {type(self).__name__} to return tensors by name; {name!r} is "
                    f"{type(value).__name__}."
                )
        return {name: value.detach().cpu() for name, value in learned.items()}, units.to("cpu")

    def _images_by_concept(self, examples: Examples) -> dict[str, Tensor]:
        """Images of each concept, as the network takes them."""
        if isinstance(examples, ImageDataset):
            labels = examples.train.labels
            examples = {
                name: examples.train.batch((labels == label).nonzero()[:, 0])
                for label, name in enumerate(examples.classes)
            }
        if not isinstance(examples, Mapping) or not examples:
            raise InputError(
                f"Expected images of concepts by their names for {self.card.title} to learn from, as "
                f"{{'striped': [files …]}}; got {type(examples).__name__}."
            )
        images: dict[str, Tensor] = {}
        for name, of_concept in examples.items():
            if str(name) in images:
                raise InputError(f"Expected concepts of different names; two are called {str(name)!r}.")
            try:
                images[str(name)] = self.read_images(of_concept)
            except InputError as error:
                raise InputError(f"Concept {name!r}: {error}") from None
        return images
