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
    active : Tensor, (S, T, F, K, P) or (S, T, F, 1, P)
        How often each cell is active, in the images where a concept is known.
    mass, present : Tensor, (S, K, P)
        Sums of w and u.
    counts : Tensor, (S, K)
        Images in which a concept is known to be there or not.
    """

    hits: Tensor
    alarms: Tensor
    active: Tensor
    mass: Tensor
    present: Tensor
    counts: Tensor

    def scores(self, folds: Tensor) -> Tensor:
        """S of the images in `folds` (n,) together, (T, F, K); NaN where the concept is not there."""
        hits, alarms = self.hits[folds].sum(0), self.alarms[folds].sum(0)
        mass, present = self.mass[folds].sum(0), self.present[folds].sum(0)
        counts = self.counts[folds].sum(0).clamp(min=1)
        active = self.active[folds].sum(0)  # (T, F, K or 1, P)
        total = mass.sum(1)
        if active.shape[2] == 1:
            chance = torch.einsum("tfp,kp->tfk", active[:, :, 0], mass / counts[:, None])
            false = torch.einsum("tfp,kp->tfk", active[:, :, 0], 1 - present / counts[:, None])
        else:
            chance = torch.einsum("tfkp,kp->tfk", active, mass / counts[:, None])
            false = torch.einsum("tfkp,kp->tfk", active, 1 - present / counts[:, None])
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
    tallies = tally(maps, masks, annotated, fold_of(len(maps), folds, seed), folds)
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


def tally(
    maps: Tensor, masks: Tensor, annotated: Tensor | None, fold: Tensor, folds: int, size: int = 64
) -> Tallies:
    """Everything that scores follow from, a batch at a time."""
    n, f = maps.shape[:2]
    k, cells = masks.shape[1], masks.shape[2] * masks.shape[3]
    thresholds = levels(maps)  # (T, F)
    weights = instance_weights(masks).flatten(2).double()  # (N, K, P)
    inside = masks.flatten(2).double()
    valid = torch.ones(n, k, dtype=torch.float64) if annotated is None else annotated.double()
    t = len(thresholds)
    shape = (folds, t, f)
    hits, alarms = torch.zeros(*shape, k).double(), torch.zeros(*shape, k).double()
    is_shared = bool((valid == valid[:, :1]).all())  # every concept in the same images
    active = torch.zeros(*shape, 1 if is_shared else k, cells).double()
    mass, present = torch.zeros(folds, k, cells).double(), torch.zeros(folds, k, cells).double()
    counts = torch.zeros(folds, k).double().index_add(0, fold, valid)
    mass.index_add_(0, fold, weights * valid[:, :, None])
    present.index_add_(0, fold, inside * valid[:, :, None])
    for index in range(folds):
        for rows in (fold == index).nonzero()[:, 0].split(size):
            values = maps[rows].flatten(2).clamp(min=0)
            included = valid[rows]
            w, u = weights[rows] * included[:, :, None], (1 - inside[rows]) * included[:, :, None]
            for level in range(t):
                on = (values > thresholds[level][None, :, None]).double()
                hits[index, level] += torch.einsum("nfp,nkp->fk", on, w)
                alarms[index, level] += torch.einsum("nfp,nkp->fk", on, u)
                if is_shared:
                    active[index, level, :, 0] += torch.einsum("nfp,n->fp", on, included[:, 0])
                else:
                    active[index, level] += torch.einsum("nfp,nk->fkp", on, included)
    return Tallies(hits=hits, alarms=alarms, active=active, mass=mass, present=present, counts=counts)


def levels(maps: Tensor, shares: Sequence[float] = SHARES) -> Tensor:
    """The values that `shares` of all cells of each feature are above, (T, F); ties leave fewer above."""
    flat = maps.transpose(0, 1).flatten(1).clamp(min=0).sort(1, descending=True).values
    ranks = [min(flat.shape[1] - 1, max(1, round(share * flat.shape[1]))) for share in shares]
    return flat[:, ranks].T


def instance_weights(masks: Tensor) -> Tensor:
    """Masks (N, K, h, w) so that every instance of a concept weighs as much as the mean instance.

    An instance is a connected component of a mask.
    """
    neighbors = np.zeros((3, 3, 3, 3), bool)
    neighbors[1, 1] = True  # within a mask alone
    labels, count = ndimage.label(masks.numpy(), structure=neighbors)
    instances = torch.from_numpy(labels.astype(np.int64))
    area = torch.bincount(instances.flatten(), minlength=count + 1).double()
    concept = torch.arange(masks.shape[1])[None, :, None, None].expand_as(instances)
    owner = torch.zeros(count + 1, dtype=torch.long).index_put((instances.flatten(),), concept.flatten())
    total = torch.zeros(masks.shape[1]).double().index_add(0, owner[1:], area[1:])
    number = torch.bincount(owner[1:], minlength=masks.shape[1]).clamp(min=1)
    share = (total / number)[owner] / area.clamp(min=1)
    share[0] = 0
    return share[instances]


def on_grid(masks: Tensor, size: Sequence[int] = GRID) -> Tensor:
    """Masks (N, K, H, W) on a grid: cells half covered or more, and the best covered one of each mask."""
    covered = F.adaptive_avg_pool2d(masks.float(), (size[0], size[1]))
    flat = covered.flatten(2)
    best = torch.zeros_like(flat).scatter(2, flat.argmax(2, keepdim=True), 1.0).view_as(covered) > 0
    return (covered >= 0.5) | (best & (covered > 0))
