"""What would change a decision, by methods that are found by name: those of the core, and of plugins."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar

import attrs
import torch
from attrs import define, evolve, field, frozen
from torch import Tensor

from explainkit import registry
from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError, PluginError, PluginWarning, UnknownNameError
from explainkit.explainers.interface import Explainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.counterfactuals import Counterfactuals
from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.edits import ImageEdits, ScoreEdits
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
        """
        decomposition, before = self.decomposition, self.explanations.scores
        rows = torch.arange(len(before), device=before.device)
        logits = decomposition.logits_at(rows, after)
        is_reached = self.goals.are_reached(logits)
        after = torch.where(is_reached[:, None], after, before)
        weights = self.goals.weights(decomposition, decomposition.logits.argmax(1))
        return ScoreEdits(
            before=before.cpu(), after=after.cpu(), gains=(weights * (after - before)).cpu(),
            logits=logits.cpu(), feasible=is_reached.cpu(), exact=torch.zeros_like(is_reached).cpu(),
            lower_bound=torch.zeros(len(before)).long() if lower_bound is None else lower_bound.cpu(),
            verified_by="algebra" if decomposition.rescore is None else "head",
        )  # fmt: skip


@define(eq=False, kw_only=True)
class CounterfactualMethod(ABC):
    """A way to find what would change a decision: an attrs class whose fields are its settings.

    A plugin offers one by the hook ``explainkit_counterfactual_methods``.
    """

    needs_distractors: ClassVar[bool] = False
    """Whether it looks at images of other classes."""

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
            method: Any = registry.find("counterfactual_methods", name)
        except PluginError as error:
            warnings.warn(str(error), PluginWarning, stacklevel=3)
            continue
        if method.supports(explainer):
            methods[name] = method
    return methods


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
        edits = {name: _verified(item.search(question), question) for name, item in methods.items()}
    return Counterfactuals(
        explanations=question.explanations, edits=edits,
        wanted=None if decision.is_exclusive else goals.wanted,
    )  # fmt: skip


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
    names = list(supported) if method is None else [method] if isinstance(method, str) else list(method)
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


def _hint(name: str, names: Sequence[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(names) or 'none'}."


def _verified(edits: ScoreEdits | ImageEdits, question: CounterfactualQuestion) -> ScoreEdits | ImageEdits:
    """Edits of images with what the network says of them, where it was not asked yet; images in [0, 1]."""
    if isinstance(edits, ScoreEdits):
        return edits
    explainer, goals = question.explainer, question.goals
    if edits.images.shape != question.images.shape:
        raise InputError(
            f"Expected an edited image for each of {tuple(question.images.shape)}; got "
            f"{tuple(edits.images.shape)}."
        )
    changes: dict[str, Any] = {}
    if edits.success is None or edits.logits is None:
        logits = explainer.predict(edits.images, batch_size=question.batch_size)
        changes |= {"logits": logits, "success": goals.are_reached(logits)}
    if edits.sizes is None and edits.regions is None:
        differs = edits.images != question.images
        differs = differs if differs.ndim == 2 else differs.any(1)
        changes["sizes"] = differs.flatten(1).sum(1)
    to_unit = explainer.input_spec.to_unit
    changes["images"] = to_unit(edits.images)
    if edits.sources is not None:
        changes["sources"] = to_unit(edits.sources)
    return evolve(edits, **changes)
