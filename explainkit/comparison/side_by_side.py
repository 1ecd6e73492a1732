"""`compare`: several explainers on the same images, about the same classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from explainkit.comparison.comparison import Comparison
from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import ExplainKitError, InputError
from explainkit.explainers.decisions import given_targets
from explainkit.explainers.identity import distinct_names
from explainkit.explainers.inputs import check_same_scaling
from explainkit.explainers.interface import Explainer
from explainkit.protocols import Images, Targets


def compare(
    explainers: Sequence[Explainer],
    images: Images,
    targets: Targets | None = None,
    *,
    foils: Targets | None = None,
    dataset: ImageDataset | None = None,
    split: str | None = None,
    count: int = 200,
    metric_names: Sequence[str] | None = None,
    seed: int = 0,
    distractors: ImageDataset | None = None,
) -> Comparison:
    """What `explainers` say of the same images, about the same classes.

    Parameters
    ----------
    images
        Tensor (N, 3, H, W) in [0, 1], a `Batch` (its masks give pointing), or files, PIL images and arrays.
    targets
        Classes by name or index; by default the first explainer's predictions.
    foils
        Explain the margin over these classes instead.
    dataset, split, count
        What the table of metrics is measured on: the first `count` images of a split. For aviary the mixed
        scenes, whose parts are removed by drawing them again. ``None``: the images that are shown.
    metric_names : sequence of str or None
        Metrics of the table, by name; ``None``: all that can be.
    seed : int
        Of the random rows, of ties and of the intervals.
    distractors : ImageDataset or None
        Training images: with them the page also has class explanations and counterfactuals of each
        architecture.

    Raises
    ------
    InputError
        Where no explainer can explain the images, with each one's reason.
    """
    if not explainers:
        raise InputError("Expected at least one explainer to compare; got none.")
    first = explainers[0]
    _check_same_classes(explainers)
    check_same_scaling(explainers)
    spec = first.input_spec
    batch = images if isinstance(images, Batch) else _batch_of(spec.to_unit(first.read_images(images)), first)
    targets = first.decision.strongest(first.predict(batch)) if targets is None else targets
    image_index, targets = given_targets(
        first.decision, first.classes, targets, len(batch), torch.device("cpu")
    )
    if image_index is not None:
        raise InputError(
            "Expected one target an image to compare explainers; got lists or a mask of several."
        )
    explainer_by_name = distinct_names(explainers)
    explanations, failures = {}, {}
    for name, explainer in explainer_by_name.items():
        if "image" not in explainer.card.answers and distractors is not None:
            continue  # it tells of classes alone
        try:
            explanations[name] = explainer.explain(batch, targets, foils=foils)
        except ExplainKitError as error:
            failures[name] = str(error)
    if not explanations:
        reason = failures or "they tell of classes alone, and a comparison is of images"
        raise InputError(f"No explainer could explain the images: {reason}.")
    labels = _true_names(images, first) if isinstance(images, Batch) else None
    return Comparison(
        explainers=explainer_by_name,
        explanations=explanations,
        failures=failures,
        batch=batch,
        labels=labels,
        dataset=dataset,
        split=split,
        count=count,
        metric_names=metric_names,
        seed=seed,
        distractors=distractors,
    )


def _check_same_classes(explainers: Sequence[Explainer]) -> None:
    """Refuse explainers of other classes than the first."""
    first = explainers[0]
    for other in explainers[1:]:
        if other.classes and other.classes != first.classes:
            raise InputError(
                f"Expected explainers of the same classes; {first.card.title} knows "
                f"{', '.join(first.classes[:3])} …, {other.card.title} knows "
                f"{', '.join(other.classes[:3])} …. Name them with classes=…."
            )


def _true_names(batch: Batch, explainer: Explainer) -> tuple[str, ...]:
    """What each image truly shows, in words."""
    truth = explainer.decision.truth(batch.labels.cpu(), len(explainer.classes))
    return tuple(explainer.decision.describe(row, explainer.classes) for row in truth)


def _batch_of(images: Tensor, explainer: Explainer) -> Batch:
    """Images of which nothing is known, with labels of the form that the network learns."""
    ids = torch.arange(len(images))
    labels = torch.full_like(ids, -1)
    if not explainer.decision.is_exclusive and len(explainer.classes) > 1:
        labels = torch.zeros(len(images), len(explainer.classes), dtype=torch.bool)
    return Batch(images=images, labels=labels, ids=ids)
