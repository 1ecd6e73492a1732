"""The scores that units should have: what captions and masks say of their concepts, as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.interface import BATCH_SIZE, Explainer
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explanations.counts import check_count
from explainkit.networks.unit_mask import disabled_units_of
from explainkit.questions.naming import find_concepts

Levels = Literal["mean", "quantile"]
"""Mean scores where the concept is there, and where it is not; or the 95 % and 5 % quantiles of Koh et al."""


def concept_truth(
    explainer: InterpretableExplainer[Any],
    dataset: ImageDataset,
    *,
    split: str = "test",
    images: int = 1000,
    levels: Levels = "mean",
    level_split: str = "train",
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """The scores that units with phrases should have in images: (N, K), for `correction_curve`.

    Whether a unit's concept is in an image is read off the captions, and masks where there are some; it
    becomes the score that the unit typically has where it is, or is not. NaN for units without a phrase, for
    phrases that the data set says too little of, for images of which nothing is said, and for units that are
    disabled in the network.

    Parameters
    ----------
    split : str
        Whose first `images` the truth is of.
    levels : {"mean", "quantile"}
        Of the scores in images with the concept, and without it; or the 95 % and the 5 % quantile of scores
        in all images of which it is known.
    level_split : str
        Where typical scores are taken from, as many images: those that the network learned from.

    Raises
    ------
    InputError
        For units without phrases, for data that have neither parts nor captions, and for too few images.
    """
    check_study(explainer, dataset)
    images, batch_size = check_count("images", images), check_count("batch_size", batch_size)
    if levels not in get_args(Levels):
        raise InputError(f"Expected levels as one of {get_args(Levels)}; got {levels!r}.")
    explainer.network  # refuses what is not fitted, in words  # noqa: B018
    phrases = () if explainer.units is None else explainer.units.phrases or ()
    if not any(phrases):
        raise InputError(
            f"Expected units with phrases; those of {explainer.card.title} have none. "
            "Call name_units(explainer, dataset)."
        )
    present, known = _presence(dataset, split, images, phrases, batch_size)
    example_present, example_known = _presence(dataset, level_split, images, phrases, batch_size)
    scores = torch.cat([
        explainer.explain(batch, 0, maps=None, batch_size=batch_size).scores.cpu().double()
        for batch in _batches(dataset, level_split, images, batch_size)
    ])  # fmt: skip
    if levels == "mean":
        with_it, without_it = (
            scores.where(example_known & (example_present == there), torch.nan).nanmean(0)
            for there in (True, False)
        )
    else:
        without_it, with_it = scores.where(example_known, torch.nan).nanquantile(
            torch.tensor([0.05, 0.95]).double(), dim=0
        )
    truth = torch.where(known, torch.where(present, with_it, without_it), torch.nan)
    if isinstance(explainer, InterpretableExplainer):
        truth = truth.masked_fill(disabled_units_of(explainer.network, len(phrases)), torch.nan)
    return truth


def check_study(explainer: Any, dataset: Any) -> None:
    """Refuse what is no explainer, and no data set.

    Raises
    ------
    InputError
    """
    if not isinstance(explainer, Explainer):
        raise InputError(f"Expected an explainer, as ek.load gives it; got {type(explainer).__name__}.")
    if not isinstance(dataset, ImageDataset):
        raise InputError(f"Expected an ImageDataset, with its splits; got {type(dataset).__name__}.")


def as_scores(values: Any, shape: tuple[int, int], source: str) -> Tensor:
    """The true scores of `shape` (N, K) that somebody gives, float64 and on the CPU; of the first N images.

    Parameters
    ----------
    values
        A tensor, or what becomes one; NaN where a score is unknown.
    source : str
        Where they are from, for the message.

    Raises
    ------
    InputError
    """
    try:
        is_typed = isinstance(values, Tensor | np.ndarray)
        given = torch.as_tensor(values, dtype=None if is_typed else torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError(
            f"Expected the true scores{source} as numbers {shape}; got {type(values).__name__} that is no "
            "tensor of numbers."
        ) from None
    if given.is_complex():
        raise InputError(f"Expected the true scores{source} as real numbers; got {given.dtype}.")
    scores = given.double().clone()
    scores = scores if source or scores.ndim != 2 else scores[: shape[0]]
    if scores.shape != shape:
        raise InputError(
            f"Expected the true scores{source} of {shape[0]} images and {shape[1]} units, {shape}; "
            f"got {tuple(given.shape)}."
        )
    if scores.isinf().any():
        raise InputError(f"Expected finite true scores{source}, NaN where one is unknown; some are infinite.")
    return scores


def _presence(
    dataset: ImageDataset, split: str, images: int, phrases: tuple[str | None, ...], batch_size: int
) -> tuple[Tensor, Tensor]:
    """Whether what each of K phrases says is in images, and whether that is known: (N, K) each, bool."""
    try:
        concepts = find_concepts(_batches(dataset, split, images, batch_size), dataset, False)
    except InputError as error:
        whole = len(dataset.split(split))
        if images >= whole:
            raise
        raise InputError(
            f"{error} Only {images} of the {whole} images of split {split!r} were looked at: give a larger "
            "number of images."
        ) from None
    index = torch.tensor([concepts.names.index(p) if p in concepts.names else -1 for p in phrases])
    present, known = concepts.masks.flatten(2).any(2)[:, index], concepts.known[:, index]
    return present & (index >= 0), known & (index >= 0)


def _batches(dataset: ImageDataset, split: str, images: int, batch_size: int) -> Iterator[Batch]:
    """The first `images` of a split, one batch after the other."""
    source = dataset.split(split)
    if not len(source):
        raise InputError(f"Expected images in split {split!r} of {dataset.name}; there are none.")
    for ids in torch.arange(min(images, len(source))).split(batch_size):
        yield source.batch(ids)
