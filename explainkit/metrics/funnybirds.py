"""FunnyBirds' scores: what a network does without parts and background objects, against what is explained.

Hesse, Schaub-Meyer, Roth: FunnyBirds, ICCV 2023, arXiv:2308.06248, section 4, as their public code takes
them. Each function gives one value an image, NaN where the image is left out, in the order of the paper:
accuracy is counted elsewhere. T thresholds are looked at together. docs/metrics.md says where the code
differs from the paper and what follows from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from attrs import field, frozen
from torch import Tensor

from explainkit.metrics.faithfulness import spearman
from explainkit.metrics.ground_truth import subset_table

THRESHOLDS = torch.linspace(0.01, 0.5, 80, dtype=torch.float64)
"""Shares of all evidence that a part must hold to be important, of which one is chosen."""

RELEVANT = 0.05
"""The share of a logit that the removal of something relevant takes away."""

SHARED = 2
"""Parts that a class of target sensitivity has in common with the image's."""


@frozen(eq=False, kw_only=True)
class SceneLogits:
    """A network's logits for N scenes, whole, with every subset of parts, and without each background object.

    Attributes
    ----------
    labels : Tensor, (N,)
    present : Tensor, (N, P), bool
        Which parts the whole scenes have.
    objects : Tensor, (N, B), bool
        Which background objects they have.
    with_parts : Tensor, (N, S, C)
        With the parts whose bits are set in s, as `PartTruth.logits`.
    without_object : Tensor, (N, B, C)
        Any values where there is no such object.
    shared_parts : Tensor, (C, C, P), bool
        Which parts two classes have in common; of a class and itself, which it has.
    """

    labels: Tensor
    present: Tensor = field(repr=False)
    objects: Tensor = field(repr=False)
    with_parts: Tensor = field(repr=False)
    without_object: Tensor = field(repr=False)
    shared_parts: Tensor = field(repr=False)

    @property
    def predicted(self) -> Tensor:
        """The class of the whole scenes, (N,)."""
        return self.predictions[:, -1]

    @property
    def coded(self) -> Tensor:
        """Which parts any class has, (P,), bool."""
        return self.shared_parts.any(0).any(0)

    @cached_property
    def predictions(self) -> Tensor:
        """The class with each subset of parts, (N, S)."""
        return self.with_parts.argmax(2)

    @cached_property
    def minimal_sets(self) -> Tensor:
        """Which subsets of parts are minimal sufficient for each class, (C, S), bool."""
        return minimal_sufficient_sets(self.shared_parts)

    @cached_property
    def pairs(self) -> Tensor:
        """The two classes of target sensitivity for each class, (C, 2)."""
        return target_pairs(self.shared_parts)

    def without_part(self, targets: Tensor) -> Tensor:
        """The logit of `targets` (N,) without each part, (N, P), float64."""
        singles = 1 << torch.arange(self.present.shape[1], device=targets.device)
        return self._of(targets)[:, self.with_parts.shape[1] - 1 - singles]

    def without(self, removed: Tensor, targets: Tensor) -> Tensor:
        """The logit of `targets` (N,) without the parts `removed` (N, P), (N,), float64."""
        kept = self.with_parts.shape[1] - 1 - subset_index(removed)
        return self._of(targets).gather(1, kept[:, None])[:, 0]

    def whole(self, targets: Tensor) -> Tensor:
        """The logit of `targets` (N,) of the whole scenes, (N,), float64."""
        return self._of(targets)[:, -1]

    @cached_property
    def drops(self) -> Tensor:
        """By how much the label's logit falls without each part and each object, (N, P + B), float64."""
        labels = self.labels[:, None, None].expand(-1, self.objects.shape[1], 1)
        of_objects = self.without_object.double().gather(2, labels)[..., 0]
        without = torch.cat([self.without_part(self.labels), of_objects], 1)
        return self.whole(self.labels)[:, None] - without

    @cached_property
    def relevant(self) -> Tensor:
        """What is there and takes at least `RELEVANT` of the label's |logit| with it, (N, P + B), bool."""
        return (
            self._there & (self.drops >= RELEVANT * self.whole(self.labels).abs()[:, None]) & (self.drops > 0)
        )

    @cached_property
    def irrelevant(self) -> Tensor:
        """What is there and does not, or whose removal raises the logit, (N, P + B), bool."""
        is_small = self.drops.abs() < RELEVANT * self.whole(self.labels).abs()[:, None]
        return self._there & (is_small | (self.drops < 0))

    @property
    def _there(self) -> Tensor:
        return torch.cat([self.present, self.objects], 1)

    def _of(self, targets: Tensor) -> Tensor:
        index = targets[:, None, None].expand(-1, self.with_parts.shape[1], 1)
        return self.with_parts.double().gather(2, index)[..., 0]


@frozen(eq=False, kw_only=True)
class PartImportance:
    """What an explanation says of the parts and background objects of N scenes.

    Attributes
    ----------
    parts : Tensor, (N, P)
        The importance of each part, which single deletion and target sensitivity compare.
    evidence : Tensor, (N, P + B)
        What each part and each background object holds.
    total : Tensor, (N, P + B) or (N, 1)
        What it is a share of. An item is important at threshold t where ``evidence > t * total``.
    """

    parts: Tensor = field(repr=False)
    evidence: Tensor = field(repr=False)
    total: Tensor = field(repr=False)

    def important(self, thresholds: Tensor) -> Tensor:
        """Which parts and objects are important at each of `thresholds` (T,): (T, N, P + B), bool."""
        return self.evidence > thresholds.to(self.total)[:, None, None] * self.total

    def important_parts(self, thresholds: Tensor) -> Tensor:
        """Which parts are important at each of `thresholds` (T,): (T, N, P), bool."""
        return self.important(thresholds)[..., : self.parts.shape[1]]


def controlled_synthetic_data_check(
    logits: SceneLogits, of_label: PartImportance, thresholds: Tensor
) -> Tensor:
    """The largest share of a minimal sufficient set of the class that is important, (T, N).

    Of scenes that the network classifies correctly.
    """
    important = of_label.important_parts(thresholds).double()
    table = subset_table(important.shape[2]).to(important)  # (S, P)
    shares = important @ (table / table.sum(1, keepdim=True).clamp(min=1)).T  # (T, N, S)
    best = shares.where(logits.minimal_sets[logits.labels], -1).amax(2)
    is_counted = (logits.predicted == logits.labels) & logits.minimal_sets.any(1)[logits.labels]
    return best.where(is_counted, torch.nan)


def preservation_check(logits: SceneLogits, of_predicted: PartImportance, thresholds: Tensor) -> Tensor:
    """Whether the network says the same of the important parts alone, (T, N)."""
    return _is_same(logits, of_predicted.important_parts(thresholds)).double()


def deletion_check(logits: SceneLogits, of_predicted: PartImportance, thresholds: Tensor) -> Tensor:
    """Whether the network says another class without the important parts, (T, N)."""
    return 1 - _is_same(logits, ~of_predicted.important_parts(thresholds)).double()


def distractibility(logits: SceneLogits, of_label: PartImportance, thresholds: Tensor) -> Tensor:
    """The share of what is irrelevant to the network that is not important, (T, N).

    Of scenes in which something is irrelevant.
    """
    irrelevant = logits.irrelevant.double()
    found = (of_label.important(thresholds) * irrelevant).sum(2)
    return 1 - found / irrelevant.sum(1)


def background_independence(logits: SceneLogits) -> Tensor:
    """The share of all background objects that are not relevant, as values (N,) of which it is the mean.

    It belongs to all objects together: a value is the share plus the scene's influence on it.
    """
    is_object = logits.objects.double()
    relevant = logits.relevant[:, logits.present.shape[1] :].double().sum(1)
    count = is_object.sum(1)
    share = relevant.sum() / count.sum()
    return 1 - share - (relevant - share * count) / count.mean()


def single_deletion(logits: SceneLogits, of_label: PartImportance) -> Tensor:
    """Rank correlation of importance with the drop of the logit as each part goes, from [-1, 1] to [0, 1]."""
    drops = logits.drops[:, : logits.present.shape[1]]
    correlation = spearman(of_label.parts[:, logits.coded].double(), drops[:, logits.coded])
    return (correlation + 1) / 2


def sensitivity_pairs(logits: SceneLogits) -> tuple[Tensor, Tensor]:
    """The two classes that the sensitivity to targets is looked at with, (N, 2), and where it is, (N,), bool.

    Two classes of which each shares two parts with the label's, and not the same ones. A scene is counted
    where the network bears the assumption out: to remove the parts shared with a class costs that class more
    than to remove those shared with the other.
    """
    pairs = logits.pairs[logits.labels]  # (N, 2)
    has_pair = (pairs >= 0).all(1)
    pairs = pairs.where(has_pair[:, None], logits.labels[:, None])
    own, other = (logits.shared_parts[logits.labels, pairs[:, i]] for i in range(2))  # (N, P)
    first, second = pairs.T
    holds_first = logits.without(own, first) < logits.without(other, first)
    holds_second = logits.without(other, second) < logits.without(own, second)
    return pairs, has_pair & holds_first & holds_second


def target_sensitivity(
    logits: SceneLogits, pairs: Tensor, of_first: PartImportance, of_second: PartImportance
) -> Tensor:
    """How many of two comparisons come out right, (N,), as a share; equal importance counts as wrong.

    The parts shared with a class must be more important to that class than to the other of `pairs` (N, 2).
    """
    values = []
    for one, (own, other) in enumerate([(of_first, of_second), (of_second, of_first)]):
        shared = logits.shared_parts[logits.labels, pairs[:, one]]
        values.append((own.parts * shared).sum(1) > (other.parts * shared).sum(1))
    return torch.stack(values).double().mean(0)


def best_threshold(csdc: Tensor, preservation: Tensor, deletion: Tensor, distractible: Tensor) -> Tensor:
    """The number of the first threshold at which completeness is highest, from values (T, N) of its parts."""
    checks = torch.stack([values.nanmean(1) for values in (csdc, preservation, deletion)]).mean(0)
    return (checks + distractible.nanmean(1)).nan_to_num(-1).argmax().cpu()


def weighted_sum(terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Values (N,) whose mean is the sum of weights times means of values (N,), each over what is defined.

    A value is the sum plus the image's influence on it, so that an interval of the mean is one of the sum.
    """
    total = torch.zeros_like(terms[0][1])
    for weight, values in terms:
        mean, is_defined = values.nanmean(), ~values.isnan()
        influence = (values - mean).nan_to_num(0) * len(values) / is_defined.sum().clamp(min=1)
        total = total + weight * (mean + influence)
    return total


def minimal_sufficient_sets(shared_parts: Tensor) -> Tensor:
    """Which subsets of parts are the smallest that no other class shares as a whole, (C, S), bool.

    No such set contains another.

    Parameters
    ----------
    shared_parts : Tensor, (C, C, P), bool
    """
    classes, _, parts = shared_parts.shape
    subsets = torch.arange(1 << parts, device=shared_parts.device)
    bits = subset_index(shared_parts)  # (C, C)
    is_own = torch.eye(classes, dtype=torch.bool, device=bits.device)[..., None]
    tells = ((subsets & ~bits[..., None]) != 0) | is_own  # (C, C, S): some part is not shared
    is_sufficient = tells.all(1) & ((subsets & ~bits.diagonal()[:, None]) == 0)  # (C, S)
    smaller = subsets[:, None] & ~(1 << torch.arange(parts, device=subsets.device))  # (S, P)
    return is_sufficient & ~(is_sufficient[:, smaller] & (smaller != subsets[:, None])).any(2)


def target_pairs(shared_parts: Tensor) -> Tensor:
    """For each class the first two others that share `SHARED` parts each with it, and not the same ones.

    (C, 2), -1 where there are none. The order is that of the public code: the first class first.
    """
    bits = subset_index(shared_parts)  # (C, C)
    shares = shared_parts.sum(2) == SHARED
    shares = shares & ~torch.eye(len(bits), dtype=torch.bool, device=bits.device)
    is_pair = shares[:, :, None] & shares[:, None] & ((bits[:, :, None] & bits[:, None]) == 0)
    flat = is_pair.flatten(1).int()
    first = flat.argmax(1)  # the pair is symmetric, so that the first class has the smaller number
    pairs = torch.stack([first // len(bits), first % len(bits)], 1)
    return pairs.where(flat.any(1)[:, None], -1)


def subset_index(parts: Tensor) -> Tensor:
    """The number of each subset (…, P), bool, in `subset_table`: (…)."""
    return (parts.long() << torch.arange(parts.shape[-1], device=parts.device)).sum(-1)


def _is_same(logits: SceneLogits, parts: Tensor) -> Tensor:
    """Whether the prediction stands with `parts` (T, N, P) alone, (T, N), bool."""
    seen = logits.predictions.gather(1, subset_index(parts).T).T
    return seen == logits.predicted
