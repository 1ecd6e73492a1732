"""What change would flip the decision: in the scores, and in the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor

from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError
from explainkit.explanations.batch import Explanations
from explainkit.explanations.counterfactuals import Counterfactuals, Norm
from explainkit.explanations.decomposition import Decomposition, RescoreFn
from explainkit.explanations.validation import class_indices
from explainkit.protocols import Images, InterpretableExplainer, Targets
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
    if isinstance(distractors, ImageDataset):
        explainer.check_classes(distractors)
    with torch.inference_mode(False):
        inputs = explainer.read_images(images)
        if targets is None:
            logits = explainer.predict(inputs, batch_size=batch_size)
            if logits.shape[1] < 2:
                raise InputError("Expected a network of two classes or more: there is none to change to.")
            targets = logits.topk(2, 1).indices[:, 1]
        target_indices = class_indices(targets, explainer.classes, len(inputs)).to(inputs.device)
        explanations = explainer.explain(inputs, target_indices, batch_size=batch_size)
        decomposition = explanations.decomposition
        assert decomposition is not None
        score_edits = edit_scores(
            explanations.logits.cpu(), target_indices.cpu(), explanations.scores.cpu(),
            _weight_fn(decomposition), *_plausible_range(explainer, explanations, distractors),
            norm=norm, margin=margin, prove=prove, rescore=_rescore_fn(decomposition),
        )  # fmt: skip
        swaps = swap_regions(explainer, inputs, decomposition, target_indices, distractors)
    return Counterfactuals(explanations=explanations, edits={"score-edit": score_edits, "region-swap": swaps})


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
    explainer: InterpretableExplainer, explanations: Explanations, distractors: ImageDataset | Batch
) -> tuple[Tensor, Tensor]:
    """Ends of what is plausible for each image's target, (N, K) each."""
    ranges = explanations.units.score_range
    if ranges is None:
        ranges = explainer.score_ranges(distractors)
    low, high = ranges.cpu()[:, explanations.targets.cpu()].to(explanations.scores.dtype)
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
