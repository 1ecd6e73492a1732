"""From explanations to what they say of parts: the rows of FunnyBirds' table before they are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeGuard

import torch
from attrs import evolve, field, frozen
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.types import ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.interface import Explainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.factored_maps import dense_maps
from explainkit.explanations.spatial import FAINTEST, Keep, activation_regions, bounding_boxes
from explainkit.explanations.units import Units
from explainkit.metrics.baselines import TRIVIAL
from explainkit.metrics.context import EvalContext
from explainkit.metrics.funnybirds import PartImportance, SceneLogits, sensitivity_pairs
from explainkit.metrics.ground_truth import part_truth
from explainkit.protocols import BackgroundEditable, Intervenable, PartCoded, Split

GROWN = 5
"""The side of the square that masks are dilated by, in pixels."""

BOX_SHARE = 0.05
"""The share of the pixels that a unit's box encloses, those where it is most active."""

_CHUNK = 64
"""Images explained at a time."""

_BOXES = 256
"""Maps enlarged at a time."""

_DRAWN = 512
"""Pictures drawn and classified at a time."""


@frozen(eq=False, kw_only=True)
class Masks:
    """Where the P parts and then the B background objects of n scenes are seen.

    Attributes
    ----------
    seen : Tensor, (n, P + B, H, W), bool
    grown : Tensor, (n, P + B, H, W), bool
        The same dilated by 5 x 5.
    parts : int
        How many of them are parts.
    """

    seen: Tensor = field(repr=False)
    grown: Tensor = field(repr=False)
    parts: int

    @classmethod
    def of(cls, seen: Tensor, parts: int) -> Masks:
        """Masks (n, P + B, H, W), bool, and the same dilated."""
        grown = [F.max_pool2d(chunk.float(), GROWN, 1, GROWN // 2) > 0 for chunk in seen.split(_CHUNK)]
        return cls(seen=seen, grown=torch.cat(grown), parts=parts)

    def __getitem__(self, rows: Tensor) -> Masks:
        return evolve(self, seen=self.seen[rows], grown=self.grown[rows])


@frozen(eq=False, kw_only=True)
class Scenes:
    """The scenes that the explainers of one network are evaluated on, and what it says of them.

    Attributes
    ----------
    context : EvalContext
        Of the whole scenes; it explains their labels.
    logits : SceneLogits
    masks : Masks
        Of all N.
    pairs : Tensor, (N, 2)
        The two classes of target sensitivity.
    is_sensitive : Tensor, (N,), bool
        Where target sensitivity is looked at.
    """

    context: EvalContext = field(repr=False)
    logits: SceneLogits = field(repr=False)
    masks: Masks = field(repr=False)
    pairs: Tensor = field(repr=False)
    is_sensitive: Tensor = field(repr=False)


@frozen(eq=False, kw_only=True)
class RowImportance:
    """What a row says of the classes that FunnyBirds asks about.

    Attributes
    ----------
    of_label, of_predicted : PartImportance
    of_first, of_second : PartImportance
        Of the two classes of target sensitivity; ``None`` where they are not asked about.
    """

    of_label: PartImportance
    of_predicted: PartImportance
    of_first: PartImportance | None = None
    of_second: PartImportance | None = None


class EditableSplit(Split, Intervenable, BackgroundEditable, Protocol):
    """What the scores need of a split."""


Measure = Callable[[Explanations, Masks], PartImportance]
"""From explanations and the masks of their scenes to what they say of parts and objects."""

MakeRow = Callable[[Scenes, bool], RowImportance]
"""From scenes, and whether target sensitivity is asked about, to what a row says."""


def is_editable(split: Split) -> TypeGuard[EditableSplit]:
    """Whether scenes of a split can be drawn again without a part or a background object."""
    return isinstance(split, Intervenable) and isinstance(split, BackgroundEditable)


def gather_scenes(
    explainer: Explainer, dataset: ImageDataset, split_name: str, ids: Tensor, seed: int
) -> Scenes:
    """The scenes `ids` (N,) of a split, and the network's logits of each with and without everything.

    Raises
    ------
    InputError
        For data whose classes are not defined by parts, or whose scenes cannot be drawn again.
    """
    split = dataset.split(split_name)
    if not is_editable(split) or not isinstance(dataset, PartCoded):
        raise InputError(
            "Expected data whose classes are defined by parts and whose scenes can be drawn without a part "
            f"or a background object; got {dataset.name}. Use explainkit.dataset('aviary', preset='funny')."
        )
    batch = split.batch(ids)
    if batch.masks is None:
        raise InputError(f"{dataset.name} has no part masks.")
    device = explainer.device
    objects = split.background_objects(ids)
    without_object = _logits_without_objects(explainer, split, ids, objects)
    truth = part_truth(explainer.predict, split, ids, batch.labels)
    logits = SceneLogits(
        labels=batch.labels.to(device), present=truth.present, objects=objects.to(device),
        with_parts=truth.logits, without_object=without_object,
        shared_parts=dataset.shared_parts.to(device),
    )  # fmt: skip
    pairs, is_sensitive = sensitivity_pairs(logits)
    context = EvalContext(
        explainer=explainer, dataset=dataset, split=split_name, ids=ids, seed=seed,
        given_targets=logits.labels, subset_logits=truth.logits,
    )  # fmt: skip
    seen = torch.cat([batch.masks, split.background_masks(ids)], 1)
    masks = Masks.of(seen.to(device), batch.masks.shape[1])
    return Scenes(context=context, logits=logits, masks=masks, pairs=pairs, is_sensitive=is_sensitive)


def _logits_without_objects(
    explainer: Explainer, split: BackgroundEditable, ids: Tensor, objects: Tensor
) -> Tensor:
    """The logits without each background object, (N, B, C)."""
    logits = torch.zeros(*objects.shape, len(explainer.classes), device=explainer.device)
    for rows, numbers in (pairs.T for pairs in objects.nonzero().split(_DRAWN)):
        batch = split.without_background_object(ids.cpu()[rows], numbers)
        logits[rows.to(logits.device), numbers.to(logits.device)] = explainer.predict(batch).to(logits.dtype)
    return logits


def explained_row(explainer: Explainer, measure: Measure) -> MakeRow:
    """The row of an explainer, of which `measure` reads off each explanation what it says of parts."""

    def make(scenes: Scenes, is_sensitivity_asked: bool) -> RowImportance:
        logits = scenes.logits
        everything = torch.arange(len(logits.labels), device=logits.labels.device)
        of_label = _explain(explainer, scenes, everything, logits.labels, measure)
        is_other = logits.predicted != logits.labels
        of_predicted = of_label
        if is_other.any():
            of_others = _explain(explainer, scenes, is_other.nonzero()[:, 0], logits.predicted, measure)
            of_predicted = _with_rows(of_label, is_other, of_others)
        if not is_sensitivity_asked or not scenes.is_sensitive.any():
            return RowImportance(of_label=of_label, of_predicted=of_predicted)
        rows = scenes.is_sensitive.nonzero()[:, 0]
        first, second = (
            _with_rows(of_label, scenes.is_sensitive, _explain(explainer, scenes, rows, targets, measure))
            for targets in scenes.pairs.T
        )
        return RowImportance(of_label=of_label, of_predicted=of_predicted, of_first=first, of_second=second)

    return make


def trivial_row(name: str) -> MakeRow:
    """The row of one of the `TRIVIAL` baselines; what is drawn by chance is drawn anew for another target."""

    def of(scenes: Scenes, targets: Tensor, draw: int) -> PartImportance:
        context = evolve(scenes.context, given_targets=targets, seed=scenes.context.seed + draw)
        output = TRIVIAL[name](context)
        if output.given_part_scores is not None:
            scores = output.given_part_scores.double()
            evidence = F.pad(scores, (0, scenes.logits.objects.shape[1]))
            return PartImportance(parts=scores, evidence=evidence, total=scores.sum(1, keepdim=True))
        return _concat(
            [
                importance_of_maps(output.saliency[rows], scenes.masks[rows])
                for rows in torch.arange(len(targets), device=targets.device).split(_CHUNK)
            ]
        )

    def make(scenes: Scenes, is_sensitivity_asked: bool) -> RowImportance:
        logits = scenes.logits
        asked = [of(scenes, targets, i + 1) for i, targets in enumerate(scenes.pairs.T)]
        first, second = asked if is_sensitivity_asked else (None, None)
        return RowImportance(
            of_label=of(scenes, logits.labels, 0), of_predicted=of(scenes, logits.predicted, 0),
            of_first=first, of_second=second,
        )  # fmt: skip

    return make


def importance_of_explanations(explanations: Explanations, masks: Masks) -> PartImportance:
    """What the saliency of n explanations holds on each part and each object.

    Raises
    ------
    InputError
        For units without places, of which every part would get nothing.
    """
    if explanations.maps is None and explanations.remainder_map is None:
        raise InputError(f"{explanations.provenance.explainer} says how much, not where.")
    return importance_of_maps(explanations.saliency(), masks)


def importance_of_maps(saliency: Tensor, masks: Masks) -> PartImportance:
    """What maps (n, H, W) hold within two pixels of each part and each object, as a share of all."""
    evidence = torch.einsum("nhw,nphw->np", saliency.double(), masks.grown.double())
    total = saliency.double().sum((1, 2))[:, None]
    return PartImportance(parts=evidence[:, : masks.parts], evidence=evidence, total=total)


def importance_of_boxes(explanations: Explanations, masks: Masks) -> PartImportance:
    """What the boxes of the target's own units enclose of each part and each object, as it is seen.

    A part's importance is what the units contribute whose box encloses it, pixel by pixel; it is important
    where more than a share of it lies in any box. So the public code takes prototypes, as Oplatek et al.,
    arXiv:2408.11401, found.
    """
    units, is_own = own_units(explanations.units, explanations.targets)
    boxes = unit_boxes(explanations, units)
    rows, columns = (torch.arange(side, device=boxes.device) for side in masks.seen.shape[2:])
    x0, y0, x1, y1 = (boxes[..., i, None] for i in range(4))
    down, along = (y0 <= rows) & (rows < y1), (x0 <= columns) & (columns < x1)  # (n, k, H), (n, k, W)
    down = down & is_own[..., None]
    worth = explanations.contributions.gather(1, units).double()
    saliency = torch.einsum("nk,nkh,nkw->nhw", worth, down.double(), along.double())
    enclosed = torch.einsum("nkh,nkw->nhw", down.double(), along.double()) > 0
    seen = masks.seen.double()
    return PartImportance(
        parts=torch.einsum("nhw,nphw->np", saliency, seen[:, : masks.parts]),
        evidence=torch.einsum("nhw,nphw->np", enclosed.double(), seen),
        total=seen.sum((2, 3)),
    )


def has_boxes(units: Units | None) -> bool:
    """Whether units belong to classes and have pictures of training images: whether they are prototypes."""
    if units is None or units.class_affinity is None or units.pictures is None:
        return False
    return all(any(picture.kind == "training" for picture in pictures) for pictures in units.pictures)


def own_units(units: Units, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The units that belong to `targets` (n,) more than to any other class, (n, k), and which there are.

    Classes with fewer units than others have any in the end, for which the second tensor is false.
    """
    if units.class_affinity is None:
        raise InputError(f"Expected units that belong to classes; got those of kind {units.kind!r}.")
    owner = units.class_affinity.to(targets.device).argmax(1)
    is_own = owner == targets[:, None]  # (n, K)
    count = int(owner.bincount().max())
    index = is_own.int().argsort(dim=1, descending=True, stable=True)[:, :count]
    return index, is_own.gather(1, index)


def unit_boxes(explanations: Explanations, units: Tensor, keep: Keep = "all") -> Tensor:
    """The box around the pixels where each of `units` (n, k) is most active, (n, k, 4): x0, y0, x1, y1.

    Chen et al., NeurIPS 2019, arXiv:1806.10574, section 2.3. A flat map has the whole image as its box.

    Parameters
    ----------
    keep : {"all", "peak", "largest"}
        Which pieces of the region the box encloses; the public code of ProtoPNet encloses all.
    """
    if explanations.maps is None or explanations.map_units is not None:
        raise InputError("Expected the maps of all units.")
    rows = torch.arange(len(units), device=units.device)[:, None]
    maps = dense_maps(explanations.maps)[rows, units].flatten(0, 1)  # (n k, h, w)
    size = explanations.images.shape[-2:]
    boxes = []
    for chunk in maps.float().split(_BOXES):
        enlarged = F.interpolate(chunk[:, None], size=size, mode="bicubic", align_corners=False)[:, 0]
        is_flat = chunk.flatten(1).amax(1) == chunk.flatten(1).amin(1)
        enlarged = enlarged.clamp(min=0) * ~is_flat[:, None, None]
        level = enlarged.flatten(1).quantile(1 - BOX_SHARE, dim=1) / enlarged.flatten(1).amax(1).clamp(
            min=FAINTEST
        )
        boxes.append(bounding_boxes(activation_regions(enlarged, size, level, keep)))
    return torch.cat(boxes).view(*units.shape, 4)


def _explain(
    explainer: Explainer, scenes: Scenes, rows: Tensor, targets: Tensor, measure: Measure
) -> PartImportance:
    """What `explainer` says of the scenes `rows` (n,) for their `targets`, given for all N."""
    return _concat(
        [
            measure(explainer.explain(scenes.context.images[chunk], targets[chunk]), scenes.masks[chunk])
            for chunk in rows.split(_CHUNK)
        ]
    )


def _concat(chunks: Sequence[PartImportance]) -> PartImportance:
    names = ("parts", "evidence", "total")
    return PartImportance(**{name: torch.cat([getattr(chunk, name) for chunk in chunks]) for name in names})


def _with_rows(importance: PartImportance, mask: Tensor, others: PartImportance) -> PartImportance:
    """`importance` of N scenes with those of `mask` (N,) taken from `others`, in order."""
    merged = {}
    for name in ("parts", "evidence", "total"):
        merged[name] = getattr(importance, name).clone()
        merged[name][mask] = getattr(others, name)
    return PartImportance(**merged)
