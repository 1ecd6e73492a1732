"""Checks of classes, of what was learned, of interventions and names."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from explainkit.data.types import (
    ArraySplit,
    Batch,
    Caption,
    ImageDataset,
)
from explainkit.explainers.interface import Explainer
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explainers.posthoc import PostHocExplainer
from explainkit.explainers.saving import load, save
from explainkit.explanations.batch import Explanations
from explainkit.networks.unit_mask import unit_mask_of
from explainkit.testing.assertions import check, check_refused, is_close


def check_class_explanations(explainer: Explainer, images: Tensor) -> None:
    """Class explanations sum to the mean logit where a sum is claimed; others are refused in words."""
    logits = explainer.predict(images)
    holds = explainer.decision.holds(logits)
    batch = labeled(explainer, images, holds)
    if "class" not in explainer.card.answers:
        check_refused("to average what has no meaning", lambda: explainer.explain_class([batch]))
        return
    class_explanations = explainer.explain_class([batch, batch])
    if class_explanations.additivity == "exact":
        class_explanations.check_additivity()
    check(int(class_explanations.counts.sum()) == 2 * int(holds.sum()), "every image counted in its class")
    check(bool(class_explanations.contributions.isfinite().all()), "finite mean contributions")
    for item in class_explanations:
        mean = logits[holds[:, item.target]].mean(0)[item.target]
        check(is_close(torch.tensor(item.explained_output), mean.cpu()), f"the mean logit of {item.name}")
        check((item.residual is None) == (item.batch.additivity == "none"), "a residual of a claimed sum")
        if item.residual is not None:
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
    if class_explanations.contributions_by_class is not None:
        first = next(iter(class_explanations)).contrast()
        check(
            abs(first.residual or 0.0) <= 1e-3 * max(1.0, abs(first.explained_output)),
            "a contrast that sums to the margin",
        )


def check_learned(explainer: Explainer, images: Tensor) -> None:
    """What a post-hoc method has learned is saved without the network, and says the same beside it alone."""
    if not isinstance(explainer, PostHocExplainer) or explainer.card.learns_from is None:
        return
    batch = labeled(explainer, images, explainer.decision.holds(explainer.predict(images)))
    with tempfile.TemporaryDirectory() as folder:
        loaded = load(save(explainer, folder), device=explainer.device, network=explainer.network)
        other = copy.deepcopy(explainer.network)
        with torch.no_grad():
            next(other.parameters()).add_(1)
        check_refused("of another network", lambda: load(folder, network=other))
    for name, value in explainer.saved_state().items():
        check(torch.equal(loaded.saved_state()[name], value.cpu()), f"{name} as it was learned")
    check(_have_same_units(loaded, explainer), "the same units")
    if "class" in explainer.card.answers:
        expected, same = explainer.explain_class([batch]), loaded.explain_class([batch])
        check(torch.equal(same.contributions, expected.contributions), "the same class explanations")
        sentences = [[item.sentence() for item in classes] for classes in (expected, same)]
        check(sentences[0] == sentences[1], "the same sentences of classes")
    if "image" not in explainer.card.answers:
        check_refused("to explain single images", lambda: explainer.explain(images))
        return
    check(
        torch.equal(loaded.explain(images).contributions, explainer.explain(images).contributions),
        "the same contributions from the folder",
    )


def _have_same_units(one: Explainer, other: Explainer) -> bool:
    if one.units is None or other.units is None:
        return one.units is other.units
    names = ("names", "phrases", "pooling", "kind")
    return all(getattr(one.units, name) == getattr(other.units, name) for name in names)


def labeled(explainer: Explainer, images: Tensor, holds: Tensor) -> Batch:
    """`images` with labels of the form that the explainer's network learns, by what `holds` (N, C)."""
    labels = holds.cpu()
    if explainer.decision.is_exclusive:
        labels = labels.int().argmax(1)
    elif labels.shape[1] == 1:
        labels = labels[:, 0].long()
    return Batch(images=images, labels=labels, ids=torch.arange(len(images)))


def check_interventions(explainer: Explainer, images: Tensor) -> None:
    """A score set to itself changes nothing; a unit that is off moves the logit by what it added."""
    explanations = explainer.explain(images)
    if explanations.decomposition is None:
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


def check_disabled_units(explainer: Explainer, images: Tensor) -> None:
    """A disabled unit adds nothing to any logit, saved and loaded too; or disabling is refused in words."""
    if not isinstance(explainer, InterpretableExplainer) or unit_mask_of(explainer.network) is None:
        disable = getattr(explainer, "disable_units", None)
        if disable is not None:
            check_refused("to switch off units", lambda: disable(0))
        return
    network = explainer.network
    state = {name: value.clone() for name, value in network.state_dict().items()}
    logits = explainer.predict(images)
    before = explainer.explain(images, explainer.decision.strongest(logits))
    strongest = before.units.names[int(before.contributions.abs().sum(0).argmax())]
    expected = before.intervene({strongest: "off"})
    try:
        explainer.disable_units(strongest)
        check(strongest in explainer.disabled_units, "a disabled unit that is listed")
        _check_disabled(explainer, images, expected, strongest)
        changed = [
            name for name, value in network.state_dict().items()
            if not torch.equal(value, state[name]) and name.rpartition(".")[2] != "unit_mask"
        ]  # fmt: skip
        check(not changed, f"a network that is otherwise as it was; changed are {changed}")
    finally:
        explainer.enable_units(strongest)
    check(strongest not in explainer.disabled_units, "a unit that is enabled again")
    check(torch.equal(explainer.predict(images), logits), "the same logits once it is enabled again")


def _check_disabled(
    explainer: InterpretableExplainer[Any], images: Tensor, expected: Explanations, unit: str
) -> None:
    """Hold the network without `unit`, and as it is loaded, to the logits that are `expected`."""
    logits = explainer.predict(images)
    check(is_close(logits, expected.logits), "logits of forward that are those with the unit off")
    after = explainer.explain(images, expected.targets)
    check(is_close(after.logits, expected.logits), "logits of decompose that are those with the unit off")
    check(not after.contributions[:, after.units.names.index(unit)].any(), "no contribution of that unit")
    if explainer.card.additivity == "exact":
        after.check_additivity()
    if explainer.bound:
        return
    with tempfile.TemporaryDirectory() as folder:
        loaded = load(save(explainer, Path(folder) / "explainer"), device=explainer.device)
    check(torch.equal(loaded.predict(images), logits), "the same logits without the unit from the folder")
    disabled = loaded.disabled_units if isinstance(loaded, InterpretableExplainer) else ()
    check(disabled == explainer.disabled_units, "the same disabled units from the folder")


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
    before = explainer.units
    try:
        names = name_units(explainer, dataset)
        explanations = explainer.explain(images)
    finally:
        explainer.units = before
    check(
        bool(names.reason) or len(names) == len(explanations.units),
        "a name a unit, or a reason why there is none",
    )
    scores = torch.tensor([[name.score, name.std_error] for name in names])
    check(bool(scores.isfinite().all()), "finite scores of names")
