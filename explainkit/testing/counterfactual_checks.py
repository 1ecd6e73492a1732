"""Checks of counterfactuals, by each method that an explainer has."""

from __future__ import annotations

import pickle

import torch
from torch import Tensor

from explainkit.errors import ConformanceError
from explainkit.explainers.interface import Explainer
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explanations.counterfactuals import Counterfactuals
from explainkit.explanations.edits import ImageEdits, ScoreEdits
from explainkit.questions.goals import Goals
from explainkit.testing.assertions import check, check_refused, unchanged
from explainkit.testing.question_checks import labeled


def check_counterfactuals(explainer: Explainer, images: Tensor) -> None:
    """Edits that are said to succeed do: scores by the sum or the head, images by the network itself."""
    if "counterfactual" not in explainer.card.answers:
        check_refused("to change scores where there are none", lambda: explainer.counterfactual(images))
        return
    network, logits, decision = explainer.network, explainer.predict(images), explainer.decision
    distractors = labeled(explainer, images, decision.holds(logits))
    with unchanged(network, images, "making counterfactuals"):
        methods = explainer.counterfactual_methods()
        counterfactuals = explainer.counterfactual(images, method=methods, distractors=distractors)
    check(tuple(counterfactuals.edits) == methods, "edits by every method")
    wanted = counterfactuals.wanted
    targets = counterfactuals.targets.cpu()
    goals = Goals(
        decision=decision, targets=targets,
        wanted=torch.ones_like(targets, dtype=torch.bool) if wanted is None else wanted.cpu(),
    )  # fmt: skip
    for method, edits in counterfactuals.edits.items():
        if isinstance(edits, ScoreEdits):
            _check_score_edits(counterfactuals, edits, goals)
            if method == "score-edit" and isinstance(explainer, InterpretableExplainer):
                ranges = counterfactuals.explanations.units.score_range
                _check_ranges(edits, goals, explainer.score_ranges(distractors) if ranges is None else ranges)
        else:
            _check_image_edits(explainer, edits, goals, images)
    _check_travels(counterfactuals)
    for item in counterfactuals:
        check(item.target_name in item.sentence(), "the target named in the sentence")
        for method, edit in item.edits.items():
            check(bool(edit.sentence) and edit.size >= 0, f"a size and a sentence of the edit by {method}")
    check(
        "<article" in counterfactuals[0]._repr_html_() and bool(counterfactuals[0].figure().axes),
        "a change that can be drawn",
    )


def _check_travels(counterfactuals: Counterfactuals) -> None:
    """Counterfactuals come back from JSON and from a pickle with equal numbers and equal sentences."""
    sentences = [item.sentence() for item in counterfactuals]
    for what, again in {
        "JSON": Counterfactuals.from_json(counterfactuals.to_json()),
        "JSON with images": Counterfactuals.from_json(counterfactuals.to_json(images=True)),
        "a pickle": pickle.loads(pickle.dumps(counterfactuals)),
    }.items():
        check([item.sentence() for item in again] == sentences, f"the same sentences from {what}")
        check(torch.equal(again.success, counterfactuals.success.cpu()), f"the same success from {what}")
        for method, edits in counterfactuals.edits.items():
            size = again.edits[method].size
            check(torch.equal(size, edits.size.cpu()), f"the same size of edits by {method} from {what}")


def _check_score_edits(counterfactuals: Counterfactuals, edits: ScoreEdits, goals: Goals) -> None:
    """Edits that make the target win, by the sum, or by the head where scores are coupled."""
    decomposition = counterfactuals.explanations.decomposition
    if decomposition is None:
        raise ConformanceError("Expected explanations of all classes of an architecture.")
    logits = counterfactuals.explanations.logits
    rows = torch.arange(len(logits), device=logits.device)
    if decomposition.rescore is None:
        after = logits.double().cpu()
        for label in range(logits.shape[1]):
            weights = decomposition.weights_at(rows, torch.full_like(rows, label)).double().cpu()
            after[:, label] += (weights * (edits.after.double() - edits.before.double())).sum(1)
    else:
        after = decomposition.rescore(rows, edits.after.to(decomposition.scores)).double().cpu()
    check(
        bool(goals.are_reached(after)[edits.feasible].all()),
        "edits that make the target win, where they are called feasible",
    )
    if edits.lower_bound is not None:
        is_enough = (edits.size >= edits.lower_bound)[edits.feasible]
        check(bool(is_enough.all()), "no fewer changes than their bound")


def _check_ranges(edits: ScoreEdits, goals: Goals, score_range: Tensor) -> None:
    low, high = score_range.cpu()
    lowest = torch.minimum(low[goals.kind].to(edits.before), edits.before) - 1e-5
    highest = torch.maximum(high[goals.kind].to(edits.before), edits.before) + 1e-5
    check(bool(((edits.after >= lowest) & (edits.after <= highest)).all()), "scores within what is plausible")


def _check_image_edits(explainer: Explainer, edits: ImageEdits, goals: Goals, images: Tensor) -> None:
    """Success as the network says of the edited images; images as they were where nothing was edited."""
    outputs = explainer.predict(explainer.input_spec.from_unit(edits.images)).cpu()
    check(
        edits.success is not None and torch.equal(goals.are_reached(outputs), edits.success.cpu()),
        "success as the network says of the images",
    )
    is_changed = (edits.images != images.to(edits.images)).any(1)
    is_untouched = edits.size == 0
    check(not is_changed[is_untouched].any(), "images as they were where nothing is edited")
    if edits.lower_bound is not None:
        check(bool((edits.size >= edits.lower_bound).all()), "no smaller edits than their bound")
