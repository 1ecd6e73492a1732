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
from explainkit.testing.assertions import check, check_refused, is_close, unchanged


def check_class_explanations(explainer: Explainer, images: Tensor) -> None:
    """Class explanations sum to the mean logit; methods without additivity refuse them in words."""
    predicted = explainer.predict(images).argmax(1)
    batch = Batch(images=images, labels=predicted.cpu(), ids=torch.arange(len(images)))
    if explainer.card.additivity == "none":
        check_refused("to average what is no sum", lambda: explainer.explain_class([batch]))
        return
    class_explanations = explainer.explain_class([batch, batch])
    if explainer.card.additivity == "exact":
        class_explanations.check_additivity()
    check(int(class_explanations.counts.sum()) == 2 * len(images), "every image counted in its class")
    logits = explainer.predict(images)
    for item in class_explanations:
        mean = logits[predicted == item.target].mean(0)[item.target]
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


def check_counterfactuals(explainer: Explainer, images: Tensor) -> None:
    """Edits that are called feasible flip, within what is plausible; swaps are what the network says."""
    if not isinstance(explainer, InterpretableExplainer):
        check_refused("to change scores where there are none", lambda: explainer.counterfactual(images))
        return
    network, logits = explainer.network, explainer.predict(images)
    labels = logits.argmax(1).cpu()
    distractors = Batch(images=images, labels=labels, ids=torch.arange(len(images)))
    with unchanged(network, images, "making counterfactuals"):
        counterfactuals = explainer.counterfactual(images, distractors=distractors)
    edit, swaps = counterfactuals.edits["score-edit"], counterfactuals.edits["region-swap"]
    targets, feasible = counterfactuals.targets.cpu(), edit.feasible
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
        torch.equal(after.argmax(1)[feasible], targets[feasible]),
        "edits that make the target win, where they are called feasible",
    )
    ranges = counterfactuals.explanations.units.score_range
    low, high = explainer.score_ranges(distractors).cpu() if ranges is None else ranges.cpu()
    lowest = torch.minimum(low[targets].to(edit.before), edit.before) - 1e-5
    highest = torch.maximum(high[targets].to(edit.before), edit.before) + 1e-5
    check(bool(((edit.after >= lowest) & (edit.after <= highest)).all()), "scores within what is plausible")
    check(bool((edit.size >= edit.lower_bound)[feasible].all()), "no fewer changes than their lower bound")
    predictions = explainer.predict(swaps.images).argmax(1)
    check(
        torch.equal(predictions == counterfactuals.targets, swaps.success),
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


def check_unit_names(explainer: Explainer, images: Tensor) -> None:
    """Naming raises for no kind of unit: each gets a phrase with its score, or none."""
    from explainkit.questions.naming import name_units

    labels = explainer.predict(images).argmax(1).cpu()
    words = ("red square", "blue circle")
    captions = tuple(Caption(text=f"A picture of a {words[index % 2]}.") for index in range(len(images)))
    levels = (images.detach().cpu().float().clamp(0, 1) * 255).round().byte()
    split = ArraySplit(images=levels, labels=labels, captions=captions)
    dataset = ImageDataset(
        name="named", classes=explainer.classes, size=tuple(images.shape[-2:]),
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
