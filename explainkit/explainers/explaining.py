"""How images are explained: a batch at a time, each on its own, put together in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import torch
from torch import Tensor

from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.decisions import given_targets
from explainkit.explainers.inputs import UNIT_RANGE
from explainkit.explainers.isolation import isolated
from explainkit.explanations.batch import Explanations
from explainkit.explanations.concatenation import concatenate
from explainkit.explanations.validation import foil_indices
from explainkit.protocols import Images, Targets

if TYPE_CHECKING:
    from explainkit.explainers.interface import Explainer

Maps = Literal["all"] | int | None
"""Which maps explanations keep: all, those of so many of the strongest units of each image, or none."""


def explain_images(
    explainer: Explainer,
    images: Images,
    targets: Targets | None,
    foils: Targets | None,
    maps: Maps,
    batch_size: int,
) -> Explanations:
    """`Explainer.explain`."""
    if batch_size < 1:
        raise InputError(f"Expected batch_size of at least 1; got {batch_size}.")
    if not (maps is None or maps == "all" or (type(maps) is int and maps >= 0)):
        raise InputError(f"Expected maps as 'all', a number of units, or None; got {maps!r}.")
    with torch.inference_mode(False):
        inputs = explainer.read_images(images)
        image_index, classes = _targets_of(explainer, inputs, targets, batch_size)
        against = None
        if foils is not None:
            against = foil_indices(foils, explainer.classes, len(inputs)).to(inputs.device)
        if image_index is not None:
            inputs = inputs[image_index]
            against = None if against is None else against[image_index]
        batches = []
        for start in range(0, len(inputs), batch_size):
            rows = slice(start, start + batch_size)
            with isolated(explainer) as twin:
                explanations = twin.explain_batch(
                    inputs[rows],
                    None if classes is None else classes[rows],
                    None if against is None else against[rows],
                )
            if maps is None:
                explanations = explanations.without_maps()
            elif maps != "all":
                explanations = explanations.keep_maps(maps)
            batches.append(explanations)
        explanations = concatenate(batches)
        changes: dict[str, Any] = {"ids": _ids_of(images, image_index)}
        if image_index is not None:
            changes["image_index"] = image_index
        if explanations.decision != explainer.decision:
            changes["decision"] = explainer.decision
        if explainer.input_spec.value_range not in (None, UNIT_RANGE):
            changes["images"] = explainer.input_spec.to_unit(explanations.images)
        changes = {name: value for name, value in changes.items() if value is not None}
        return attrs.evolve(explanations, **changes) if changes else explanations


def explain_batches(
    explainer: Explainer,
    source: ImageDataset | Iterable[Images],
    targets: int | str | None,
    foils: int | str | None,
    maps: Maps,
    batch_size: int,
) -> Iterator[Explanations]:
    """`Explainer.explain_stream`."""
    if isinstance(source, ImageDataset):
        explainer.check_classes(source)
        source = source.batches("test", batch_size)
    if isinstance(source, Tensor | Batch | str | Path) or not isinstance(source, Iterable):
        raise InputError(
            f"Expected a data set, or batches of images one after the other; got {type(source).__name__}. "
            "Of images that are there at once, call explain."
        )
    for images in source:
        if isinstance(images, Batch) and not len(images):
            continue
        yield explainer.explain(images, targets, foils=foils, maps=maps, batch_size=batch_size)


def _targets_of(
    explainer: Explainer, images: Tensor, targets: Any, batch_size: int
) -> tuple[Tensor | None, Tensor | None]:
    """Which image each explanation is about, and its class; ``None``: one each, and what wins."""
    decision = explainer.decision
    if targets is not None:
        return given_targets(decision, explainer.classes, targets, len(images), images.device)
    if decision.rule == "softmax" or len(explainer.classes) == 1:
        return None, None
    return decision.explained(explainer.predict(images, batch_size=batch_size))


def _ids_of(images: Images, image_index: Tensor | None) -> tuple[int | str, ...] | None:
    """What images are called: by their number in a split, or by their file."""
    ids: Sequence[int | str]
    if isinstance(images, Batch):
        ids = images.ids.tolist()
    elif isinstance(images, str | Path):
        ids = [str(images)]
    elif isinstance(images, list | tuple) and all(isinstance(item, str | Path) for item in images):
        ids = [str(item) for item in images]
    else:
        return None
    return tuple(ids if image_index is None else [ids[index] for index in image_index.tolist()])
