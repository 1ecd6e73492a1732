"""Checks of classes, counterfactuals and names."""

from __future__ import annotations

import torch
from torch import Tensor

from explainkit.data.types import (
    ArraySplit,
    Batch,
    Caption,
    ImageDataset,
)
from explainkit.errors import ConformanceError
from explainkit.explainers.interface import Explainer
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.questions.goals import Goals
from explainkit.testing.assertions import check, check_refused, is_close, unchanged


def check_class_explanations(explainer: Explainer, images: Tensor) -> None:
    """Class explanations sum to the mean logit; methods without additivity refuse them in words."""
    logits = explainer.predict(images)
    holds = explainer.decision.holds(logits)
    batch = labeled(explainer, images, holds)
    if explainer.card.additivity == "none":
        check_refused("to average what is no sum", lambda: explainer.explain_class([batch]))
        return
    class_explanations = explainer.explain_class([batch, batch])
    if explainer.card.additivity == "exact":
        class_explanations.check_additivity()
    check(int(class_explanations.counts.sum()) == 2 * int(holds.sum()), "every image counted in its class")
    for item in class_explanations:
        mean = logits[holds[:, item.target]].mean(0)[item.target]
        check(is_close(torch.tensor(item.explained_output), mean.cpu()), f"the mean logit of {item.name}")
        sums = torch.tensor(item.base + item.contributions.sum().item() + item.residual)
        check(
            is_close(sums, torch.tensor(item.explained_output)),
            "base and mean contributions that make the mean logit",
        )
        check(item.name.lower() in item.sentence().lower(), "the class named in its sentence")
        check("<article" in item._repr_html_() and bool(item.figure().axes), "a class that can be drawn")
    for name in ("sign_agreement", "decisive_rate"):
        shares = getattr(class_explanations, name)
        if shares is not None:
            check(bool(((shares >= 0) & (shares <= 1)).all()), f"shares of images, in 0 … 1, as {name}")
    if (
        isinstance(explainer, InterpretableExplainer)
        and class_explanations.all_class_contributions is not None
    ):
        first = next(iter(class_explanations)).contrast()
        check(
            abs(first.residual) <= 1e-3 * max(1.0, abs(first.explained_output)),
            "a contrast that sums to the margin",
        )


def labeled(explainer: Explainer, images: Tensor, holds: Tensor) -> Batch:
    """`images` with labels of the form that the explainer's network learns, by what `holds` (N, C)."""
    labels = holds.cpu()
    if explainer.decision.is_exclusive:
        labels = labels.int().argmax(1)
    elif labels.shape[1] == 1:
        labels = labels[:, 0].long()
    return Batch(images=images, labels=labels, ids=torch.arange(len(images)))


def check_counterfactuals(explainer: Explainer, images: Tensor) -> None:
    """Edits that are called feasible flip, within what is plausible; swaps are what the network says."""
    if not isinstance(explainer, InterpretableExplainer):
        check_refused("to change scores where there are none", lambda: explainer.counterfactual(images))
        return
    network, logits, decision = explainer.network, explainer.predict(images), explainer.decision
    distractors = labeled(explainer, images, decision.holds(logits))
    with unchanged(network, images, "making counterfactuals"):
        counterfactuals = explainer.counterfactual(images, distractors=distractors)
    edit, swaps = counterfactuals.edits["score-edit"], counterfactuals.edits["region-swap"]
    feasible, wanted = edit.feasible, counterfactuals.wanted
    goals = Goals(
        decision=decision, targets=counterfactuals.targets.cpu(),
        wanted=torch.ones_like(feasible) if wanted is None else wanted.cpu(),
    )  # fmt: skip
    decomposition = counterfactuals.explanations.decomposition
    if decomposition is None:
        raise ConformanceError("Expected explanations of all classes of an architecture.")
    rows = torch.arange(len(images), device=logits.device)
    if decomposition.rescore is None:
        after = logits.double().cpu()
        for label in range(logits.shape[1]):
            weights = decomposition.weights_at(rows, torch.full_like(rows, label)).double().cpu()
            after[:, label] += (weights * (edit.after.double() - edit.before.double())).sum(1)
    else:
        after = decomposition.rescore(rows, edit.after.to(decomposition.scores)).double().cpu()
    check(
        bool(goals.are_reached(after)[feasible].all()),
        "edits that make the target win, where they are called feasible",
    )
    ranges = counterfactuals.explanations.units.score_range
    low, high = explainer.score_ranges(distractors).cpu() if ranges is None else ranges.cpu()
    lowest = torch.minimum(low[goals.kind].to(edit.before), edit.before) - 1e-5
    highest = torch.maximum(high[goals.kind].to(edit.before), edit.before) + 1e-5
    check(bool(((edit.after >= lowest) & (edit.after <= highest)).all()), "scores within what is plausible")
    check(bool((edit.size >= edit.lower_bound)[feasible].all()), "no fewer changes than their lower bound")
    outputs = explainer.predict(swaps.images).cpu()
    check(
        torch.equal(goals.are_reached(outputs), swaps.success.cpu()),
        "success as the network says of the images",
    )
    is_changed = (swaps.images != images.to(swaps.images)).any(1)
    is_untouched = ~swaps.regions.flatten(1).any(1)
    check(not is_changed[is_untouched].any(), "images as they were where nothing is swapped")
    for item in counterfactuals:
        check(item.target_name in item.sentence(), "the target named in the sentence")
    check(
        "<article" in counterfactuals[0]._repr_html_() and bool(counterfactuals[0].figure().axes),
        "a change that can be drawn",
    )


def check_interventions(explainer: Explainer, images: Tensor) -> None:
    """A score set to itself changes nothing; a unit that is off moves the logit by what it added."""
    explanations = explainer.explain(images)
    if not isinstance(explainer, InterpretableExplainer) or explanations.decomposition is None:
        check_refused("to set scores where there are none", lambda: explanations.intervene({0: "off"}))
        return
    count = explanations.scores.shape[1]
    same = explanations.intervene({unit: explanations.scores[:, unit] for unit in range(count)})
    check(torch.equal(same.logits, explanations.logits), "the same logits where every score is set to itself")
    check(torch.equal(same.contributions, explanations.contributions), "the same contributions then")
    strongest = int(explanations.contributions.abs().sum(0).argmax())
    off = explanations.intervene({explanations.units.names[strongest]: "off"})
    check(not off.contributions[:, strongest].any(), "no contribution of a unit that is off")
    if explanations.decomposition.rescore is None:
        moved = explanations.explained_output - off.explained_output
        check(
            is_close(moved, explanations.contributions[:, strongest]),
            "a logit that falls by what the unit added",
        )
        others = torch.arange(count, device=off.scores.device) != strongest
        check(
            torch.equal(off.contributions[:, others], explanations.contributions[:, others]),
            "all other contributions as they were",
        )


def check_unit_names(explainer: Explainer, images: Tensor) -> None:
    """Naming raises for no kind of unit: each gets a phrase with its score, or none."""
    from explainkit.questions.naming import name_units

    labels = labeled(explainer, images, explainer.decision.holds(explainer.predict(images))).labels
    words = ("red square", "blue circle")
    captions = tuple(Caption(text=f"A picture of a {words[index % 2]}.") for index in range(len(images)))
    levels = (images.detach().cpu().float().clamp(0, 1) * 255).round().byte()
    split = ArraySplit(images=levels, labels=labels, captions=captions)
    dataset = ImageDataset(
        name="named", classes=explainer.decision.class_names(explainer.classes),
        size=tuple(images.shape[-2:]), channels=images.shape[1], decision=explainer.decision,
        splits=dict.fromkeys(("train", "validation", "test"), split),
    )  # fmt: skip
    before = explainer.units if isinstance(explainer, InterpretableExplainer) else None
    try:
        names = name_units(explainer, dataset)
        explanations = explainer.explain(images)
    finally:
        if isinstance(explainer, InterpretableExplainer):
            explainer.units = before
    check(
        bool(names.reason) or len(names) == len(explanations.units),
        "a name a unit, or a reason why there is none",
    )
    scores = torch.tensor([[name.score, name.std_error] for name in names])
    check(bool(scores.isfinite().all()), "finite scores of names")
