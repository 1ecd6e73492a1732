"""What would change a decision, by methods that are found by name: those of the core, and of plugins."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from difflib import get_close_matches
from inspect import isabstract
from typing import Any, ClassVar

import attrs
import torch
from attrs import define, evolve, field, frozen
from torch import Tensor

from explainkit import registry
from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError, PluginError, PluginWarning, UnknownNameError
from explainkit.explainers.interface import Explainer
from explainkit.explainers.state import undisturbed
from explainkit.explanations.batch import Explanations
from explainkit.explanations.counterfactual_json import check_edits
from explainkit.explanations.counterfactuals import Counterfactuals
from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.edits import ImageEdits, ScoreEdits
from explainkit.networks.random_state import kept_random_state
from explainkit.protocols import Images, Targets
from explainkit.questions.goals import Goals, default_goals, goals_for

FIRST = ("score-edit", "region-swap")
"""The core's own methods, which come before those of plugins."""


@frozen(eq=False, kw_only=True)
class CounterfactualQuestion:
    """What a method is asked.

    Attributes
    ----------
    explainer : Explainer
        Its network is in eval mode, and may be a copy.
    images : Tensor, (N, D, H, W), or rows (N, F)
        As the network takes them.
    goals : Goals
        What the network shall say of each.
    explanations : Explanations
        Of the images as they are, for the goals' targets.
    distractors : ImageDataset, Batch or None
        Images with labels, to take something from.
    batch_size : int
    """

    explainer: Explainer
    images: Tensor = field(repr=False)
    goals: Goals
    explanations: Explanations
    distractors: ImageDataset | Batch | None = field(repr=False)
    batch_size: int

    @property
    def decomposition(self) -> Decomposition:
        """Of all classes.

        Raises
        ------
        InputError
            For a method whose network does not decide by units.
        """
        decomposition = self.explanations.decomposition
        if decomposition is None:
            raise InputError(
                f"Expected an architecture that decides by its units; {self.explainer.card.title} has none."
            )
        return decomposition

    def score_edits(self, after: Tensor, lower_bound: Tensor | None = None) -> ScoreEdits:
        """Edits that bring the scores to `after` (N, K), and what the network's head says of those.

        Parameters
        ----------
        lower_bound : Tensor or None, (N,), int64
            How many scores must change at least, where that is known.

        Raises
        ------
        InputError
            For scores of another shape, or that are not finite.
        """
        decomposition, before = self.decomposition, self.explanations.scores
        after = _checked_scores(after, before)
        if lower_bound is not None and (
            not isinstance(lower_bound, Tensor) or lower_bound.shape != (len(before),)
        ):
            raise InputError(f"Expected lower_bound as a tensor ({len(before)},); got {lower_bound!r}.")
        rows = torch.arange(len(before), device=before.device)
        with torch.no_grad():
            logits = decomposition.logits_at(rows, after)
        is_reached = self.goals.are_reached(logits)
        after = torch.where(is_reached[:, None], after, before)
        weights = self.goals.weights(decomposition, decomposition.logits.argmax(1)).detach()
        return ScoreEdits(
            before=before.cpu(), after=after.cpu(), gains=(weights * (after - before)).cpu(),
            logits=logits.cpu(), feasible=is_reached.cpu(), exact=torch.zeros_like(is_reached).cpu(),
            lower_bound=None if lower_bound is None else lower_bound.long().cpu(),
            verified_by="algebra" if decomposition.rescore is None else "head",
        )  # fmt: skip


@define(eq=False, kw_only=True)
class CounterfactualMethod(ABC):
    """A way to find what would change a decision: an attrs class whose fields are its settings.

    A plugin offers one by the hook ``explainkit_counterfactual_methods``.
    """

    needs_distractors: ClassVar[bool] = False
    """Whether it looks at images of other classes."""

    runs_by_default: ClassVar[bool] = True
    """Whether it is used where no method is named; an experiment rather than a least change need not be."""

    @classmethod
    def supports(cls, explainer: Explainer) -> bool:
        """Whether it can be used for `explainer`: one whose network decides by units, unless it says more."""
        return hasattr(explainer.network, "decompose")

    @abstractmethod
    def search(self, question: CounterfactualQuestion) -> ScoreEdits | ImageEdits:
        """The edits that were found: of the scores, or of the images, of which the network is then asked."""


def supported_methods(explainer: Explainer) -> dict[str, type[CounterfactualMethod]]:
    """The methods that can be used for `explainer`, by name; a broken one warns, and is left out."""
    offered = registry.offers("counterfactual_methods")
    methods = {}
    for name in [*FIRST, *(name for name in offered if name not in FIRST)]:
        try:
            method = _method_class(name)
            if method.supports(explainer):
                methods[name] = method
        except Exception as error:  # foreign code, from import to supports
            message = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            warnings.warn(
                f"Counterfactual method {name!r} is left out: {message}", PluginWarning, stacklevel=3
            )
    return methods


def _method_class(name: str) -> type[CounterfactualMethod]:
    """The class that is offered as the counterfactual method `name`.

    Raises
    ------
    PluginError
        For what is no class of methods, or cannot be made.
    """
    method: Any = registry.find("counterfactual_methods", name)
    if not isinstance(method, type) or not issubclass(method, CounterfactualMethod):
        raise PluginError(f"expected a subclass of CounterfactualMethod; got {method!r}")
    is_whole = attrs.has(method) and not isabstract(method)
    if not is_whole:
        raise PluginError(f"expected {method.__name__} as an attrs class with search(question)")
    return method


def search_counterfactuals(
    explainer: Explainer,
    images: Images,
    targets: Targets | None,
    method: str | Sequence[str] | None,
    *,
    distractors: ImageDataset | Batch | None,
    batch_size: int,
    settings: Mapping[str, Any],
) -> Counterfactuals:
    """`Explainer.counterfactual`."""
    if batch_size < 1:
        raise InputError(f"Expected batch_size of at least 1; got {batch_size}.")
    decision = explainer.decision
    if decision.rule == "identity":
        raise InputError(
            "Expected a network that decides something; with decision 'identity' its outputs are numbers, "
            "and none can be flipped."
        )
    methods = _chosen_methods(explainer, method, settings)
    if distractors is None and any(item.needs_distractors for item in methods.values()):
        raise InputError(
            "Expected training images to swap regions with: a model keeps none after load or from_network. "
            "Give them, counterfactual(images, targets, distractors=dataset), or method='score-edit'."
        )
    if not isinstance(distractors, ImageDataset | Batch | None):
        raise InputError(f"Expected distractors as a data set or a Batch; got {type(distractors).__name__}.")
    if isinstance(distractors, ImageDataset):
        explainer.check_classes(distractors)
    with torch.inference_mode(False):
        inputs = explainer.read_images(images)
        if targets is None:
            goals = default_goals(decision, explainer.predict(inputs, batch_size=batch_size))
        else:
            goals = goals_for(decision, targets, explainer.classes, len(inputs)).to(inputs.device)
        question = CounterfactualQuestion(
            explainer=explainer, images=inputs, goals=goals, distractors=distractors, batch_size=batch_size,
            explanations=explainer.explain(inputs, goals.targets, batch_size=batch_size),
        )  # fmt: skip
        edits = {
            name: item.search(question) if name in FIRST else _search_apart(item, question)
            for name, item in methods.items()
        }
        edits = {name: _verified(name, item, question) for name, item in edits.items()}
    return Counterfactuals(
        explanations=question.explanations, edits=edits,
        wanted=None if decision.is_exclusive else goals.wanted,
    )  # fmt: skip


def _search_apart(method: CounterfactualMethod, question: CounterfactualQuestion) -> Any:
    """What a foreign method finds, on copies: whatever it writes or draws leaves no trace."""
    explainer = copy(question.explainer)
    images, explanations = question.images.clone(), question.explanations
    explanations = evolve(explanations, images=explanations.images.clone())
    with kept_random_state(), undisturbed(explainer.network, isolate=True) as network:
        explainer._network = network
        return method.search(evolve(question, explainer=explainer, images=images, explanations=explanations))


def _chosen_methods(
    explainer: Explainer, method: str | Sequence[str] | None, settings: Mapping[str, Any]
) -> dict[str, CounterfactualMethod]:
    """The methods that were asked for, with their settings.

    Raises
    ------
    InputError
        For an explainer that has none.
    UnknownNameError
        For a method that it does not have, and for a setting that no method has that was asked for.
    """
    supported = supported_methods(explainer)
    if not supported:
        raise InputError(
            f"Expected a method that finds counterfactuals for {explainer.card.title}; it has none."
        )
    if not isinstance(method, str | list | tuple | None) or (not method and method is not None):
        raise InputError(
            f"Expected method as a name, or several; got {method!r}. There are: {', '.join(supported)}."
        )
    default = [name for name, item in supported.items() if item.runs_by_default] or list(supported)
    names = default if method is None else [method] if isinstance(method, str) else list(method)
    for name in names:
        if name not in supported:
            raise UnknownNameError(
                f"{explainer.card.title} has no counterfactual method {name!r}.{_hint(name, list(supported))}"
            )
    fields = {name: [item.name for item in attrs.fields(supported[name])] for name in names}
    known = sorted({name for of_method in fields.values() for name in of_method})
    for setting in settings:
        if setting not in known:
            raise UnknownNameError(
                f"Counterfactuals by {', '.join(names)} have no setting {setting!r}.{_hint(setting, known)}"
            )
    return {
        name: supported[name](**{key: value for key, value in settings.items() if key in fields[name]})
        for name in names
    }


def _hint(name: Any, names: Sequence[str]) -> str:
    close = get_close_matches(str(name), names, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(names) or 'none'}."


def _checked_scores(after: Any, before: Tensor) -> Tensor:
    """Scores (N, K) that a method gives, as `before` are; refused where they are none."""
    if not isinstance(after, Tensor) or after.shape != before.shape:
        found = tuple(after.shape) if isinstance(after, Tensor) else type(after).__name__
        raise InputError(f"Expected edited scores as a tensor {tuple(before.shape)}; got {found}.")
    after = after.detach().to(before)
    if not after.isfinite().all():
        raise InputError("Expected edited scores that are finite; got some that are not.")
    return after


def _verified(method: str, edits: Any, question: CounterfactualQuestion) -> ScoreEdits | ImageEdits:
    """Edits once they are found to be whole, those of images with what the network says of them, in [0, 1].

    Raises
    ------
    InputError
        For edits that are none, or disagree with the images, naming the method.
    """
    explanations = question.explanations
    if isinstance(edits, ScoreEdits):
        check_edits(method, edits, explanations)
        return edits
    if not isinstance(edits, ImageEdits):
        kind = type(edits).__name__
        raise InputError(f"Expected method {method!r} to return ImageEdits or ScoreEdits; got {kind}.")
    to_unit = question.explainer.input_spec.to_unit
    changes = {} if method in FIRST else _asked(method, edits, question)
    images = changes.get("images", edits.images)
    changes["images"] = to_unit(images)
    if edits.sources is not None:
        changes["sources"] = to_unit(edits.sources)
    verified = evolve(edits, **changes)
    check_edits(method, verified, explanations)
    return verified


def _asked(method: str, edits: ImageEdits, question: CounterfactualQuestion) -> dict[str, Any]:
    """What the network says of a foreign method's images, whatever the method says of them."""
    images, expected = edits.images, question.images
    if not isinstance(images, Tensor) or images.shape != expected.shape or images.is_meta:
        found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(
            f"Expected images by {method!r} as a tensor {tuple(expected.shape)}, as question.images is; "
            f"got {found}."
        )
    images = images.detach().to(expected)
    try:
        logits = question.explainer.predict(images, batch_size=question.batch_size)
    except InputError as error:
        raise InputError(f"Images by {method!r}: {error}") from None
    changes: dict[str, Any] = {
        "images": images, "logits": logits, "success": question.goals.are_reached(logits),
    }  # fmt: skip
    if edits.sizes is None and edits.regions is None:
        differs = images != expected
        changes["sizes"] = (differs if differs.ndim == 2 else differs.any(1)).flatten(1).sum(1)
        if differs.ndim == 2 and edits.unit == "pixel":
            changes["unit"] = "column"
    return changes
