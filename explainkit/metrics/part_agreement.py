"""Whether an explanation compares a part with its like: FunnyBirds' two evaluations of single methods.

Hesse, Schaub-Meyer, Roth: FunnyBirds, ICCV 2023, arXiv:2308.06248, custom evaluations. A prototype is
reasonable where its box in the image and its box in the training picture show some part in common; so is a
swapped cell. Large boxes agree easily: the mean number of parts in them stands in the note.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.interface import Explainer
from explainkit.explanations.edits import RegionSwaps
from explainkit.explanations.spatial import Keep
from explainkit.explanations.units import UnitPicture, Units
from explainkit.metrics.funnybirds_rows import has_boxes, own_units, unit_boxes
from explainkit.metrics.results import Score
from explainkit.protocols import PartCoded
from explainkit.questions.swap_cells import ImageCells

_CHUNK = 64
"""Images explained at a time."""


def unreasonable_prototypes(
    explainer: Explainer,
    dataset: ImageDataset,
    *,
    split: str = "test",
    images: int = 100,
    prototypes: int = 10,
    keep: Keep = "all",
    seed: int = 0,
) -> Score:
    """The share of the class's strongest prototypes that show no part of their training picture.

    Parameters
    ----------
    explainer : Explainer
        Any whose units belong to classes and have a picture of a training image with a box.
    dataset : ImageDataset
        With part masks; the one that the pictures are from.
    images : int
        The first so many of the split; the classes are their labels.
    prototypes : int
        Of each image, at most.
    keep : {"all", "peak", "largest"}
        Which pieces of a prototype's most active 5 % its box in the image encloses; their code encloses all.
        The box in the training picture is the explainer's own.

    Raises
    ------
    InputError
        For units of another kind, and for data without part masks.
    """
    units = explainer.units
    if units is None or not has_boxes(units):
        raise InputError(
            "Expected units that belong to classes and have a picture of a training image with a box, as "
            f"prototypes do; got {explainer.card.title}."
        )
    shown_by_unit = _parts_of_pictures(units, dataset)  # (K, P)
    shares, counts = [], []
    for ids in torch.arange(len(dataset.split(split)))[:images].split(_CHUNK):
        batch = dataset.split(split).batch(ids)
        explanations = explainer.explain(batch, batch.labels)
        index, is_own = own_units(explanations.units, explanations.targets)
        worth = explanations.contributions.gather(1, index).where(is_own, -torch.inf)
        strongest = worth.argsort(1, descending=True)[:, :prototypes]
        index, is_own = index.gather(1, strongest), is_own.gather(1, strongest)
        shown = parts_in_boxes(
            _masks(dataset, batch), unit_boxes(explanations, index, keep).cpu()
        )  # (n, k, P)
        is_reasonable = (shown & shown_by_unit[index.cpu()]).any(2)
        shares.append((~is_reasonable & is_own.cpu()).sum(1) / is_own.cpu().sum(1))
        counts.append(shown.sum(2).double().mean(1))
    note = f"{torch.cat(counts).mean():.1f} parts in a box of an image, "
    note += f"{shown_by_unit.sum(1).double().mean():.1f} in one of a picture"
    return Score(
        name="unreasonable-prototypes", values=torch.cat(shares).double(), better="lower",
        unit="share of prototypes", note=note, seed=seed,
    )  # fmt: skip


def unreasonable_swaps(
    explainer: Explainer,
    dataset: ImageDataset,
    *,
    differing: int | None = None,
    split: str = "test",
    images: int = 100,
    seed: int = 0,
) -> Score:
    """How many swapped regions of a counterfactual show no part in common with what they are swapped for.

    Of the method ``"region-swap"``, for correctly classified images; those without a swap that succeeds are
    undefined.

    Parameters
    ----------
    explainer : Explainer
        One that answers by region swaps.
    dataset : ImageDataset
        With part masks; the other images are its training images, in another pose.
    differing : int or None
        In how many parts the target differs from the image's class, drawn among such; images whose class has
        none are left out. ``None``: any other class.
    images : int
        The first so many of the split.
    seed : int
        Of targets and interval.

    Raises
    ------
    InputError
        For data without part masks, for `differing` and data whose classes are not defined by parts, where no
        image is left, and for an explainer that cannot swap regions.
    """
    batch = dataset.split(split).batch(torch.arange(len(dataset.split(split)))[:images])
    targets, has_target = _swap_targets(dataset, batch.labels, differing, seed)
    predicted = explainer.decision.strongest(explainer.predict(batch)).cpu()
    rows = (has_target & (predicted == batch.labels)).nonzero()[:, 0]
    if not len(rows):
        raise InputError(
            f"Expected correctly classified images with a class to become; of {len(batch)} there is none. "
            "Take more images, or another number of differing parts."
        )
    found = explainer.counterfactual(
        batch.images[rows], targets[rows], "region-swap", distractors=dataset
    ).edits["region-swap"]
    assert isinstance(found, RegionSwaps) and found.regions is not None and found.success is not None
    regions, success = found.regions.cpu(), found.success.cpu()
    seen, laid_over = (
        F.adaptive_max_pool2d(masks.float(), regions.shape[1:]) > 0
        for masks in (_masks(dataset, batch)[rows], _source_masks(dataset, found))
    )
    unreasonable = (regions & ~(seen & laid_over).any(1)).flatten(1).sum(1).double()
    swapped = regions.flatten(1).sum(1).double()[success].mean().nan_to_num(0)
    return Score(
        name="unreasonable-swaps", values=unreasonable.where(success, torch.nan), better="lower",
        unit="regions", note=f"of {swapped:.2f} swapped in an image", seed=seed,
    )  # fmt: skip


def parts_in_boxes(masks: Tensor, boxes: Tensor) -> Tensor:
    """Which parts are seen in boxes (n, k, 4) of images with masks (n, P, H, W): (n, k, P), bool."""
    rows, columns = (torch.arange(side) for side in masks.shape[2:])
    x0, y0, x1, y1 = (boxes[..., i, None] for i in range(4))
    down, along = ((y0 <= rows) & (rows < y1)).float(), ((x0 <= columns) & (columns < x1)).float()
    return torch.einsum("nkh,nphw,nkw->nkp", down, masks.float(), along) > 0


def _parts_of_pictures(units: Units, dataset: ImageDataset) -> Tensor:
    """Which parts are seen in the box of each unit's first picture of a training image, (K, P), bool."""
    pictures = [next(p for p in of_unit if p.kind == "training") for of_unit in units.pictures or ()]
    missing = [picture for picture in pictures if picture.id is None or picture.split is None]
    if missing:
        raise InputError("Expected pictures that say which image of the data they are of; some do not.")
    shown = torch.zeros(len(pictures), len(dataset.parts), dtype=torch.bool)
    by_split: dict[str, list[tuple[int, UnitPicture]]] = {}
    for unit, picture in enumerate(pictures):
        by_split.setdefault(str(picture.split), []).append((unit, picture))
    for split, rows in by_split.items():
        batch = dataset.split(split).batch(torch.tensor([picture.id for _, picture in rows]))
        boxes = torch.tensor([picture.box for _, picture in rows])[:, None]
        shown[torch.tensor([unit for unit, _ in rows])] = parts_in_boxes(_masks(dataset, batch), boxes)[:, 0]
    return shown


def _swap_targets(
    dataset: ImageDataset, labels: Tensor, differing: int | None, seed: int
) -> tuple[Tensor, Tensor]:
    """A class for each of `labels` (N,), drawn among those that differ so much, and where there is one."""
    is_allowed = ~torch.eye(len(dataset.classes), dtype=torch.bool)
    if differing is not None:
        if not isinstance(dataset, PartCoded):
            raise InputError(
                f"The classes of {dataset.name} are not defined by parts: leave out `differing`."
            )
        shared = dataset.shared_parts.sum(2)
        is_allowed &= shared.diagonal()[:, None] - shared == differing
    allowed = is_allowed[labels]
    chance = torch.rand(allowed.shape, generator=torch.Generator().manual_seed(seed))
    return chance.where(allowed, -1).argmax(1), allowed.any(1)


def _source_masks(dataset: ImageDataset, swaps: RegionSwaps) -> Tensor:
    """Where the parts of what was laid over are seen, (N, P, H, W), as it was mirrored and shifted."""
    batch: Any = dataset.split("train").batch(swaps.exemplars.cpu().clamp(min=0))
    masks = _masks(dataset, batch)
    masks = masks.flip(-1).where(swaps.mirrored.cpu()[:, None, None, None], masks)
    return ImageCells().shift(masks[:, None], swaps.shifts.cpu()[:, None])[:, 0]


def _masks(dataset: ImageDataset, batch: Batch) -> Tensor:
    if batch.masks is None:
        raise InputError(f"{dataset.name} has no part masks.")
    return batch.masks
