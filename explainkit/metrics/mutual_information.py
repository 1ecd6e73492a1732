"""Mutual information score (MIS): how much each unit's score tells of whether an image is of a class.

``MIS = mean_k max_c I(a_k; 1[y = c])``, of Liang et al., ECCV 2020, arXiv:2007.08194, who estimate it by
nearest neighbors. Here scores are counted in bins of equal frequency, and each entropy has the correction of
Miller and Madow (1955) for its number of cells that are not empty. The estimate depends on the order of
scores alone, and counts add up over batches. Where no cell is empty, the correction is ``-(B - 1) / (2 N)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from attrs import define, field, frozen
from torch import Tensor

from explainkit.errors import InputError
from explainkit.metrics.context import ExplainerOutput
from explainkit.metrics.results import metric

BINS, FEWEST = 16, 10
"""Bins of equal frequency, or fewer where one would have less than `FEWEST` scores: all would look told."""

PERMUTATIONS = 20

CHUNK = 2**22
"""Most scores that are sorted or counted at once."""


@frozen(eq=False, kw_only=True)
class MutualInformation:
    """What K units tell of C classes, in nats.

    Attributes
    ----------
    information : Tensor, (K, C)
        I(a_k; 1[y = c]), corrected for its bias, and never below 0.
    entropy : Tensor, (C,)
        H(1[y = c]), with the same correction: the most that can be told of a class.
    chance : float
        `score` where labels are permuted, in the mean; NaN where that was not asked for.
    """

    information: Tensor
    entropy: Tensor
    chance: float = float("nan")

    @cached_property
    def score(self) -> float:
        """The mutual information score: of each unit about its best class, in the mean over units."""
        return float(self.information.amax(1).mean())

    @cached_property
    def normalized(self) -> Tensor:
        """`information` over `entropy`, (K, C), in [0, 1]; 0 of a class that all images are of, or none."""
        has_entropy = self.entropy > 0
        return torch.where(has_entropy, self.information / self.entropy.where(has_entropy, 1.0), 0.0)

    @cached_property
    def normalized_score(self) -> float:
        """The score of `normalized`, which compares data sets of different numbers of classes."""
        return float(self.normalized.amax(1).mean())


@define(eq=False)
class BinCounts:
    """Counts of images by bin of each unit and by class, added up over batches.

    Parameters
    ----------
    edges : Tensor, (K, B - 1)
        Of `equal_frequency_edges`, or quantiles of a stream: what is at most the first is in the first bin.
    classes : int
    """

    edges: Tensor
    classes: int
    count: int = field(init=False, default=0)
    by_bin: Tensor = field(init=False)  # (K, B)
    by_class: Tensor = field(init=False)  # (C,)
    joint: Tensor = field(init=False)  # (K, B, C)

    def __attrs_post_init__(self) -> None:
        units, bins = self.edges.shape[0], self.edges.shape[1] + 1
        self.by_bin = torch.zeros(units, bins, dtype=torch.long)
        self.by_class = torch.zeros(self.classes, dtype=torch.long)
        self.joint = torch.zeros(units, bins, self.classes, dtype=torch.long)

    def add(self, scores: Tensor, truth: Tensor) -> None:
        """Count images of scores (N, K) of which the classes `truth` (N, C) hold, bool."""
        self.count_bins(self.bins_of(scores), truth.cpu())

    def bins_of(self, scores: Tensor) -> Tensor:
        """The bin of each score (N, K), int64."""
        values = scores.detach().cpu().to(self.edges.dtype)
        return torch.searchsorted(self.edges.contiguous(), values.T.contiguous()).T

    def count_bins(self, bins: Tensor, truth: Tensor) -> None:
        """As `add`, of scores that are in the bins (N, K)."""
        units, width = self.by_bin.shape
        cell = bins + torch.arange(units) * width  # (N, K)
        self.count += len(bins)
        self.by_class += truth.sum(0)
        self.by_bin.view(-1).add_(torch.bincount(cell.flatten(), minlength=units * width))
        for pairs in truth.nonzero().split(max(1, CHUNK // max(1, units))):
            flat = cell[pairs[:, 0]] * self.classes + pairs[:, 1:]
            self.joint.view(-1).add_(torch.bincount(flat.flatten(), minlength=self.joint.numel()))

    def finish(self, chance: float = float("nan")) -> MutualInformation:
        """What was counted, as information."""
        n = max(1, self.count)
        entropy = _corrected_entropy(torch.stack([self.by_class, n - self.by_class]), n, (0,))  # (C,)
        of_bins = _corrected_entropy(self.by_bin, n, (1,))  # (K,)
        width = self.joint.shape[1] * self.joint.shape[2]
        information = torch.cat([
            of_bins[units, None] + entropy - self._joint_entropy(units)
            for units in torch.arange(len(self.joint)).split(max(1, CHUNK // max(1, width)))
        ])  # fmt: skip
        return MutualInformation(information=information.clamp(min=0), entropy=entropy, chance=chance)

    def _joint_entropy(self, units: Tensor) -> Tensor:
        """H(bin of unit, 1[y = c]) of some units, (k, C)."""
        inside = self.joint[units]
        cells = torch.stack([inside, self.by_bin[units, :, None] - inside])  # (2, k, B, C)
        return _corrected_entropy(cells, max(1, self.count), (0, 2))


def _corrected_entropy(counts: Tensor, count: int, axes: Sequence[int]) -> Tensor:
    """Entropy of counts, summed over `axes`, with ``(cells that are not empty - 1) / (2 N)`` added."""
    shares = counts.double() / count
    plug_in = -torch.special.xlogy(shares, shares).sum(tuple(axes))
    return plug_in + ((counts > 0).sum(tuple(axes)) - 1).clamp(min=0).double() / (2 * count)


def usual_bins(count: int) -> int:
    """How many bins `count` scores have.

    Examples
    --------
    >>> usual_bins(1000), usual_bins(75), usual_bins(12)
    (16, 7, 2)
    """
    return max(2, min(BINS, count // FEWEST))


def equal_frequency_edges(scores: Tensor, bins: int | None = None) -> Tensor:
    """The upper ends of all bins of each column but the last, (K, B - 1), from scores (N, K).

    They are scores themselves, so that any rising function of the scores has the same bins. Scores that are
    equal share a bin: with many zeros some bins are empty.

    Parameters
    ----------
    bins : int or None
        `usual_bins` unless given.

    Raises
    ------
    InputError
        For fewer than two bins, and without scores.
    """
    bins = usual_bins(len(scores)) if bins is None else bins
    if bins < 2 or scores.ndim != 2 or not len(scores):
        raise InputError(f"Expected scores (N, K) and 2 bins or more; got {tuple(scores.shape)} and {bins}.")
    last = (torch.arange(1, bins) * len(scores) // bins - 1).clamp(min=0)
    columns = scores.detach().cpu().T
    parts = [part.sort(1).values[:, last] for part in columns.split(max(1, CHUNK // len(scores)))]
    return torch.cat(parts)


def mutual_information(
    scores: Tensor, truth: Tensor, *, bins: int | None = None, permutations: int = PERMUTATIONS, seed: int = 0
) -> MutualInformation:
    """What scores tell of classes, in nats.

    Parameters
    ----------
    scores : Tensor, (N, K)
        Pooled, one a unit and image.
    truth : Tensor, (N, C), bool
        Which classes or labels hold.
    bins : int or None
        `usual_bins` unless given.
    permutations : int
        Of the images' labels, for the chance level; 0 for none. A maximum over classes is above 0 by chance.
    seed : int
        Of these.

    Raises
    ------
    InputError
        For shapes that disagree.

    Examples
    --------
    >>> truth = torch.eye(2, dtype=torch.bool).repeat(50, 1)
    >>> result = mutual_information(truth.float(), truth)
    >>> round(result.normalized_score, 6)
    1.0
    """
    if truth.ndim != 2 or truth.dtype != torch.bool or len(truth) != len(scores):
        raise InputError(
            f"Expected truth of ({len(scores)}, C), bool; got {truth.dtype} {tuple(truth.shape)}."
        )
    counts = BinCounts(equal_frequency_edges(scores, bins), truth.shape[1])
    binned, truth = counts.bins_of(scores), truth.cpu()
    counts.count_bins(binned, truth)
    generator, by_chance = torch.Generator().manual_seed(seed), []
    for _ in range(permutations):
        permuted = BinCounts(counts.edges, counts.classes)
        permuted.count_bins(binned, truth[torch.randperm(len(truth), generator=generator)])
        by_chance.append(permuted.finish().score)
    return counts.finish(sum(by_chance) / permutations if permutations else float("nan"))


@metric(better="higher", unit="nats", note="of each unit about its best class")
def mutual_information_score(output: ExplainerOutput) -> Tensor:
    """What units' scores tell of the true classes: the mutual information score, an image's share of it each.

    The pointwise information ``log p(bin, class) / (p(bin) p(class))`` of each image's bins, for each unit of
    its best class, in the mean over units. Its mean over images is the score of `mutual_information`: it is
    about the network, and not about how that is explained.
    """
    explanations = output.explanations
    if explanations.decomposition is None:
        raise InputError("It decides by no units, whose scores could tell of classes.")
    context = output.context
    if explanations.image_index is not None or len(explanations) != len(context.batch):
        raise InputError("Expected one explanation an image.")
    truth = context.explainer.decision.truth(context.batch.labels.cpu(), explanations.logits.shape[1])
    return pointwise_information(explanations.scores, truth)


def pointwise_information(scores: Tensor, truth: Tensor, bins: int | None = None) -> Tensor:
    """Each image's share of the mutual information score, (N,), in nats: their mean is the score."""
    counts = BinCounts(equal_frequency_edges(scores, bins), truth.shape[1])
    binned = counts.bins_of(scores)
    counts.count_bins(binned, truth)
    information, n = counts.finish().information, len(binned)
    best = information.argmax(1)  # (K,)
    units = torch.arange(len(best))
    holds = truth[:, best]  # (N, K)
    joint = counts.joint[units, binned, best]
    joint = torch.where(holds, joint, counts.by_bin[units, binned] - joint).double()
    by_class = torch.where(holds, counts.by_class[best], n - counts.by_class[best]).double()
    pointwise = (joint * n / (counts.by_bin[units, binned] * by_class)).log()  # (N, K)
    correction = information[units, best] - pointwise.mean(0)
    has_information = information[units, best] > 0
    return torch.where(has_information, pointwise + correction, 0.0).mean(1)
