"""What change would flip the decision: in the scores, and in the image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import torch
from attrs import evolve
from torch import Tensor

from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError
from explainkit.explanations.batch import Explanations
from explainkit.explanations.counterfactuals import Counterfactuals, Norm, ScoreEdits
from explainkit.explanations.decomposition import Decomposition, RescoreFn
from explainkit.protocols import Images, InterpretableExplainer, Targets
from explainkit.questions.goals import Goals, default_goals, goals_for
from explainkit.questions.region_swap import swap_regions
from explainkit.questions.score_edits import edit_scores


def search_counterfactuals(
    explainer: InterpretableExplainer,
    images: Images,
    targets: Targets | None = None,
    *,
    distractors: ImageDataset | Batch | None = None,
    norm: Norm = "l0",
    margin: float = 0.01,
    prove: bool = False,
    batch_size: int,
) -> Counterfactuals:
    """`InterpretableExplainer.counterfactual`."""
    if norm not in get_args(Norm):
        raise InputError(f"Expected norm as one of {get_args(Norm)}; got {norm!r}.")
    if not 0 <= margin < float("inf"):
        raise InputError(f"Expected a margin of at least 0, in logits; got {margin}.")
    if batch_size < 1:
        raise InputError(f"Expected batch_size of at least 1; got {batch_size}.")
    if distractors is None:
        raise InputError(
            "Expected training images to swap regions with: a model keeps none after load or from_network. "
            "Give them, counterfactual(images, targets, distractors=dataset)."
        )
    explainer.network  # refuses what is not fitted, in words  # noqa: B018
    decision = explainer.decision
    if decision.rule == "identity":
        raise InputError(
            "Expected a network that decides something; with decision 'identity' its outputs are numbers, "
            "and none can be flipped."
        )
    if isinstance(distractors, ImageDataset):
        explainer.check_classes(distractors)
    with torch.inference_mode(False):
        inputs = explainer.read_images(images)
        if targets is None:
            goals = default_goals(decision, explainer.predict(inputs, batch_size=batch_size))
        else:
            goals = goals_for(decision, targets, explainer.classes, len(inputs)).to(inputs.device)
        explanations = explainer.explain(inputs, goals.targets, batch_size=batch_size)
        decomposition = explanations.decomposition
        assert decomposition is not None
        edit = edit_scores if decision.is_exclusive else partial(_edit_label_scores, goals.to("cpu"))
        score_edits = edit(
            explanations.logits.cpu(), goals.targets.cpu(), explanations.scores.cpu(),
            _weight_fn(decomposition), *_plausible_range(explainer, explanations, goals, distractors),
            norm=norm, margin=margin, prove=prove, rescore=_rescore_fn(decomposition),
        )  # fmt: skip
        swaps = swap_regions(explainer, inputs, decomposition, goals, distractors)
        unit = explainer.input_spec.to_unit
        swaps = evolve(swaps, images=unit(swaps.images), sources=unit(swaps.sources))
    return Counterfactuals(
        explanations=explanations, edits={"score-edit": score_edits, "region-swap": swaps},
        wanted=None if decision.is_exclusive else goals.wanted,
    )  # fmt: skip


def _edit_label_scores(
    goals: Goals,
    logits: Tensor,
    targets: Tensor,
    scores: Tensor,
    weight_fn: Callable[[Tensor], Tensor],
    low: Tensor,
    high: Tensor,
    *,
    rescore: RescoreFn | None,
    **options: Any,
) -> ScoreEdits:
    """`edit_scores` for labels: each against its threshold, as a second class without weights."""
    index = torch.arange(len(targets))

    def against_threshold(values: Tensor, rows: Tensor) -> Tensor:
        own = values[torch.arange(len(rows)), targets[rows]]
        return torch.stack([torch.full_like(own, goals.decision.threshold), own], 1)

    def weights_of_two(rows: Tensor) -> Tensor:
        own = weight_fn(rows)[torch.arange(len(rows)), targets[rows]]
        return torch.stack([torch.zeros_like(own), own], 1)

    def rescore_two(rows: Tensor, values: Tensor) -> Tensor:
        assert rescore is not None
        return against_threshold(rescore(rows, values), rows)

    edits = edit_scores(
        against_threshold(logits, index), goals.wanted.long(), scores, weights_of_two, low, high,
        rescore=None if rescore is None else rescore_two, **options,
    )  # fmt: skip
    if rescore is None:
        after = logits + torch.einsum("nck,nk->nc", weight_fn(index), edits.after - edits.before)
    else:
        after = rescore(index, edits.after)
    return evolve(edits, logits=after.to(logits.dtype))


def _weight_fn(decomposition: Decomposition) -> Callable[[Tensor], Tensor]:
    """Rows (n,) to the weights of all classes, (n, C, K)."""
    num_classes = decomposition.logits.shape[1]
    if isinstance(decomposition.weights, Tensor):
        weights = decomposition.weights.cpu()
        return lambda rows: weights.expand(len(rows), -1, -1)
    device = decomposition.logits.device

    def weight_fn(rows: Tensor) -> Tensor:
        images = rows.to(device).repeat_interleave(num_classes)
        classes = torch.arange(num_classes, device=device).repeat(len(rows))
        return decomposition.weights_at(images, classes).view(len(rows), num_classes, -1).cpu()

    return weight_fn


def _plausible_range(
    explainer: InterpretableExplainer,
    explanations: Explanations,
    goals: Goals,
    distractors: ImageDataset | Batch,
) -> tuple[Tensor, Tensor]:
    """Ends of what is plausible for each image's goal, (N, K) each."""
    ranges = explanations.units.score_range
    if ranges is None:
        ranges = explainer.score_ranges(distractors)
    low, high = ranges.cpu()[:, goals.kind.cpu()].to(explanations.scores.dtype)
    return low, high


def _rescore_fn(decomposition: Decomposition) -> RescoreFn | None:
    """The decomposition's own, from and to the CPU."""
    rescore = decomposition.rescore
    if rescore is None:
        return None
    like = decomposition.scores

    def rescore_on_cpu(rows: Tensor, scores: Tensor) -> Tensor:
        with torch.no_grad():
            return rescore(rows.to(like.device), scores.to(like)).cpu()

    return rescore_on_cpu
