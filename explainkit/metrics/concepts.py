"""How much a unit is a concept: overlap of where it is active with where the concept is, chance taken off.

For feature f, concept k and threshold t, over images i and cells p, with ``R`` where f is above t:

    TP = sum R w      FP = sum R (1 - u)      J = TP / (m + FP)      S = (J - J0) / (1 - J0)

``u`` is 1 where the concept is; ``w`` is there the mean area of its instances over this instance's area, so
that every instance weighs the same, and sums to m. J0 is J with TP and FP as they are expected if maps and
images were paired at random: it takes off what frequency, size and position of a concept give for nothing.
With ``P = TP / (TP + FP)`` and ``C = TP / m``, always ``1/J = 1/P + 1/C - 1``.

The score FIS of a feature is S on each fold of the images, for the concept and threshold that are best on the
other folds: a choice among many concepts earns nothing by being a choice. Overlap without its corrections is
that of Bau et al.: Network Dissection, CVPR 2017, arXiv:1704.05796.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from attrs import field, frozen
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

SHARES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
"""Shares of all cells, or images, that a feature is held to be active in: its thresholds."""

FOLDS = 5

GRID = (16, 16)
"""The cells on which maps and masks are compared."""

LARGEST = 2**21
"""Most numbers, 16 MiB, that are counted at once of where features are active."""

SORTED = 2**21
"""Most numbers that are sorted at once."""

HOPELESS = 0.05
"""``1 - J0`` below which position alone explains everything, so that a score would mean nothing."""


@frozen(eq=False, kw_only=True)
class ConceptScores:
    """Features against concepts, cross-fitted.

    Attributes
    ----------
    fis : Tensor, (F,)
        The cross-fitted score: 1 for a concept itself, 0 in the mean for chance; unclipped.
    std_error : Tensor, (F,)
        Standard error, by leaving out each fold.
    concept : Tensor, (F,)
        The best concept on all images; -1 where there is none to choose.
    selection_stability : Tensor, (F,)
        In how large a share of the folds it was chosen.
    table : Tensor, (F, K)
        S on all images at each pair's best threshold: not cross-fitted, too high by choice.
    """

    fis: Tensor
    std_error: Tensor
    concept: Tensor
    selection_stability: Tensor
    table: Tensor = field(repr=False)


@frozen(eq=False, kw_only=True)
class Tallies:
    """Sums over the images of each fold, from which every score follows.

    Attributes
    ----------
    hits, alarms : Tensor, (S, T, F, K)
        TP and FP.
    active : Tensor, (S, T, F, G, P)
        How often each cell is active, in the images of each of G sets.
    image_set : Tensor, (K,)
        Which of them are those in which a concept is known.
    mass, present : Tensor, (S, K, P)
        Sums of w and u.
    counts : Tensor, (S, K)
        Images in which a concept is known to be there or not.
    """

    hits: Tensor
    alarms: Tensor
    active: Tensor
    image_set: Tensor
    mass: Tensor
    present: Tensor
    counts: Tensor

    def scores(self, folds: Tensor) -> Tensor:
        """S of the images in `folds` (n,) together, (T, F, K); NaN where the concept is not there."""
        hits, alarms = self.hits[folds].sum(0), self.alarms[folds].sum(0)
        mass, present = self.mass[folds].sum(0), self.present[folds].sum(0)
        counts = self.counts[folds].sum(0).clamp(min=1)
        active = torch.zeros_like(self.active[0])  # (T, F, G, P)
        for fold in folds.tolist():
            active += self.active[fold]
        total = mass.sum(1)
        chance, false = torch.empty_like(hits), torch.empty_like(hits)
        for index in range(active.shape[2]):
            concepts = (self.image_set == index).nonzero()[:, 0]
            of_set, count = active[:, :, index], counts[concepts, None]
            chance[..., concepts] = torch.einsum("tfp,kp->tfk", of_set, mass[concepts] / count)
            false[..., concepts] = torch.einsum("tfp,kp->tfk", of_set, 1 - present[concepts] / count)
        overlap = hits / (total + alarms).clamp(min=1e-12)
        expected = chance / (total + false).clamp(min=1e-12)
        score = (overlap - expected) / (1 - expected).clamp(min=1e-12)
        return score.masked_fill((total <= 0) | (1 - expected < HOPELESS), torch.nan)


def concept_scores(
    maps: Tensor, masks: Tensor, annotated: Tensor | None = None, *, folds: int = FOLDS, seed: int = 0
) -> ConceptScores:
    """Score features against concepts.

    Parameters
    ----------
    maps : Tensor, (N, F, h, w)
        How active each feature is; below 0 counts as 0. (N, F, 1, 1) scores whole images.
    masks : Tensor, (N, K, h, w), bool
        Where each concept is, on the same grid.
    annotated : Tensor or None, (N, K), bool
        For which images it is known whether a concept is there; all unless given.
    folds, seed : int
        How images are parted.
    """
    return score_features(maps, concept_regions(masks, annotated, fold_of(len(maps), folds, seed), folds))


def score_features(maps: Tensor, regions: ConceptRegions) -> ConceptScores:
    """`concept_scores` of features whose maps are (N, F, h, w), so many at once as fit in memory."""
    features = torch.arange(maps.shape[1])
    count = -(-len(features) * regions.numbers_per_feature // LARGEST)  # rounded up
    parts = features.tensor_split(min(count, len(features))) if len(features) else [features]
    return join_scores([_score_features(maps[:, part], regions) for part in parts])


def join_scores(parts: Sequence[ConceptScores]) -> ConceptScores:
    """The scores of features, of some after the other."""
    return ConceptScores(
        fis=torch.cat([part.fis for part in parts]),
        std_error=torch.cat([part.std_error for part in parts]),
        concept=torch.cat([part.concept for part in parts]),
        selection_stability=torch.cat([part.selection_stability for part in parts]),
        table=torch.cat([part.table for part in parts]),
    )


def _score_features(maps: Tensor, regions: ConceptRegions) -> ConceptScores:
    """The same, of all at once."""
    folds = len(regions.counts)
    tallies = tally_features(maps, regions)
    all_folds = torch.arange(folds)
    table = tallies.scores(all_folds).nan_to_num(-torch.inf).amax(0)  # (F, K)
    scores, chosen = [], []
    for fold in range(folds):
        fitted = tallies.scores(all_folds[all_folds != fold]).nan_to_num(-torch.inf)
        best = fitted.permute(1, 0, 2).flatten(1).max(1)
        tested = tallies.scores(all_folds[[fold]]).permute(1, 0, 2).flatten(1)
        score = tested.gather(1, best.indices[:, None])[:, 0]
        scores.append(score.masked_fill(best.values.isinf(), torch.nan))
        chosen.append(best.indices % fitted.shape[2])
    held_out = torch.stack(scores)  # (S, F)
    valid = ~held_out.isnan()
    number = valid.sum(0).clamp(min=1)
    fis = held_out.nan_to_num(0).sum(0) / number
    variance = (held_out - fis).nan_to_num(0).square().sum(0) / (number * (number - 1)).clamp(min=1)
    concept = table.argmax(1).masked_fill(table.amax(1).isinf(), -1)
    stability = (torch.stack(chosen) == concept).double().mean(0)
    return ConceptScores(
        fis=fis, std_error=variance.sqrt(), concept=concept, selection_stability=stability, table=table
    )


def fold_of(count: int, folds: int, seed: int) -> Tensor:
    """Which fold each of `count` images is in, (N,): even shares, by lot."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return torch.empty(count, dtype=torch.long).index_put((order,), torch.arange(count) % folds)


@frozen(eq=False, kw_only=True)
class ConceptRegions:
    """Where K concepts are in N images, and what follows from that alone.

    Attributes
    ----------
    masks : Tensor, (N, K, P), bool
    areas : Tensor, (N, K, P)
        Of the instance that each cell belongs to, in cells; 0 elsewhere.
    mean_area : Tensor, (K,)
        Of the instances of each concept.
    known : Tensor, (N, G)
        1 where it is known whether concepts are there, else 0: in each of G sets of images.
    image_set : Tensor, (K,)
        Which of these is that of each concept.
    fold : Tensor, (N,)
    mass, present : Tensor, (S, K, P)
        Sums of w and u.
    counts : Tensor, (S, K)
        Images in which a concept is known to be there or not.
    """

    masks: Tensor
    areas: Tensor
    mean_area: Tensor
    known: Tensor
    image_set: Tensor
    fold: Tensor
    mass: Tensor
    present: Tensor
    counts: Tensor

    @property
    def numbers_per_feature(self) -> int:
        """How many numbers `Tallies.active` has of each feature."""
        return len(self.counts) * len(SHARES) * self.known.shape[1] * self.masks.shape[2]

    def at(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The w, u and 1 - u of the images `rows`, where known: (n, K, P) each."""
        known = self.known[rows][:, self.image_set, None]
        inside = self.masks[rows].double() * known
        return instance_shares(self.areas[rows], self.mean_area) * known, inside, known - inside


def concept_regions(
    masks: Tensor, annotated: Tensor | None, fold: Tensor, folds: int, size: int = 16
) -> ConceptRegions:
    """Masks (N, K, h, w) of concepts, bool, in folds (N,); see `concept_scores`."""
    n, k = masks.shape[:2]
    areas, mean_area = instance_areas(masks)
    annotated = torch.ones(n, k, dtype=torch.bool) if annotated is None else annotated
    known, image_set = annotated.unique(dim=1, return_inverse=True)
    zeros = torch.zeros(folds, k, masks[0, 0].numel()).double()
    regions = ConceptRegions(
        masks=masks.flatten(2), areas=areas.flatten(2), mean_area=mean_area, known=known.double(),
        image_set=image_set, fold=fold, mass=zeros, present=zeros.clone(),
        counts=torch.zeros(folds, k).double().index_add(0, fold, annotated.double()),
    )  # fmt: skip
    for rows in torch.arange(n).split(size):
        w, u, _ = regions.at(rows)
        regions.mass.index_add_(0, fold[rows], w)
        regions.present.index_add_(0, fold[rows], u)
    return regions


def tally(
    maps: Tensor, masks: Tensor, annotated: Tensor | None, fold: Tensor, folds: int, size: int = 16
) -> Tallies:
    """Everything that scores follow from, a batch at a time."""
    return tally_features(maps, concept_regions(masks, annotated, fold, folds, size), size)


def tally_features(maps: Tensor, regions: ConceptRegions, size: int = 16) -> Tallies:
    """The same for the maps (N, F, h, w) of features."""
    thresholds = levels(maps)  # (T, F)
    (t, f), folds = thresholds.shape, len(regions.counts)
    (k, cells), sets = regions.masks.shape[1:], regions.known.shape[1]
    counted = torch.zeros(folds, t * f, 2 * k).double()
    active = torch.zeros(folds, t, f, sets, cells).double()
    for index in range(folds):
        for rows in (regions.fold == index).nonzero()[:, 0].split(size):
            w, _, outside = regions.at(rows)
            inside_or_not = torch.cat([w, outside], 1).transpose(0, 1).flatten(1)  # (2 K, n P)
            values = maps[rows].flatten(2).clamp(min=0).transpose(0, 1).flatten(1)  # (F, n P)
            on = (values > thresholds[..., None]).double()
            counted[index] += on.flatten(0, 1) @ inside_or_not.T
            for level in range(t):
                of_image = on[level].view(f, len(rows), cells)
                active[index, level] += torch.einsum("fnp,ng->fgp", of_image, regions.known[rows])
    hits, alarms = counted.view(folds, t, f, 2, k).unbind(3)
    return Tallies(
        hits=hits, alarms=alarms, active=active, image_set=regions.image_set, mass=regions.mass,
        present=regions.present, counts=regions.counts,
    )  # fmt: skip


def levels(maps: Tensor, shares: Sequence[float] = SHARES) -> Tensor:
    """The values that `shares` of all cells of each feature are above, (T, F); ties leave fewer above."""
    numbers = len(maps) * maps.shape[2] * maps.shape[3]
    ranks = [min(numbers - 1, max(1, round(share * numbers))) for share in shares]
    positions = [numbers - 1 - rank for rank in ranks]  # from the least
    found = [
        np.partition(part.detach().transpose(0, 1).flatten(1).clamp(min=0).numpy(), positions, 1)[
            :, positions
        ]
        for part in maps.split(max(1, SORTED // numbers), 1)
    ]
    return torch.from_numpy(np.concatenate(found)).T


def instance_weights(masks: Tensor) -> Tensor:
    """Masks (N, K, h, w) so that every instance of a concept weighs as much as the mean instance.

    An instance is a connected component of a mask.
    """
    return instance_shares(*instance_areas(masks))


def instance_shares(areas: Tensor, mean_area: Tensor) -> Tensor:
    """The mean area (K,) over that of each cell's instance, (N, K, ...): 0 where there is none."""
    mean_area = mean_area.view(-1, *[1] * (areas.ndim - 2))
    return (mean_area / areas.double().clamp(min=1)).masked_fill_(areas == 0, 0)


def instance_areas(masks: Tensor, size: int = 64) -> tuple[Tensor, Tensor]:
    """The area of the instance that each cell of masks (N, K, h, w) belongs to; the mean of each concept."""
    k, cells = masks.shape[1], masks.shape[2] * masks.shape[3]
    areas = torch.zeros(masks.shape, dtype=torch.int16 if cells < 2**15 else torch.int32)
    total, number = torch.zeros(k).double(), torch.zeros(k, dtype=torch.long)
    neighbors = np.zeros((3, 3, 3, 3), bool)
    neighbors[1, 1] = True  # within a mask alone
    for rows in torch.arange(len(masks)).split(size):
        labels, count = ndimage.label(masks[rows].numpy(), structure=neighbors)
        instances = torch.from_numpy(labels.astype(np.int64))
        area = torch.bincount(instances.flatten(), minlength=count + 1)
        area[0] = 0
        areas[rows] = area[instances].to(areas.dtype)
        concept = torch.arange(k)[None, :, None, None].expand_as(instances)
        owner = torch.zeros(count + 1, dtype=torch.long).index_put((instances.flatten(),), concept.flatten())
        total.index_add_(0, owner[1:], area[1:].double())
        number += torch.bincount(owner[1:], minlength=k)
    return areas, total / number.clamp(min=1)


def on_grid(masks: Tensor, size: Sequence[int] = GRID) -> Tensor:
    """Masks (N, K, H, W) on a grid: cells half covered or more, and the best covered one of each mask."""
    covered = F.adaptive_avg_pool2d(masks.float(), (size[0], size[1]))
    flat = covered.flatten(2)
    best = torch.zeros_like(flat).scatter(2, flat.argmax(2, keepdim=True), 1.0).view_as(covered) > 0
    return (covered >= 0.5) | (best & (covered > 0))
