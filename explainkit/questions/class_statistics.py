"""What a class is to a model: its sums, averaged over the images of the class, in one pass over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from explainkit.data.types import Batch, Batches, ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.explaining import explain_images
from explainkit.explainers.interface import Explainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.class_level import ClassExplanations, Examples
from explainkit.explanations.colors import as_rgb
from explainkit.explanations.spatial import best_cells, is_localized
from explainkit.explanations.validation import class_index
from explainkit.protocols import Split
from explainkit.questions.quantiles import Quantiles

SHARES = (0.05, 0.5, 0.95)
"""The quantiles of contributions that are kept."""

EXEMPLARS = 3
"""Images that are kept of each unit and class."""

SHOWN = 8
"""Units of each class whose example images are kept."""

LARGEST = 2**25
"""Most numbers that are kept of contributions to all classes, M x C x K, and of pairs of units, M x K x K;
beyond, there is no contrast."""

ROUNDING = 1e-9
"""The share of the mean square below which a variance is rounding."""


def explain_class(
    explainer: Explainer,
    dataset: ImageDataset | Iterable[Batch],
    classes: Sequence[int | str] | int | str | None = None,
    *,
    batch_size: int,
) -> ClassExplanations:
    """`Explainer.explain_class`."""
    explainer.check_answers("class")
    if explainer.decision.rule == "identity":
        raise InputError(
            "Expected a network that decides between classes or labels; with decision 'identity' its outputs "
            "are numbers. Explain single images."
        )
    if batch_size < 1:
        raise InputError(f"Expected batch_size of at least 1; got {batch_size}.")
    is_explained = _mask_of_classes(classes, explainer.classes)
    if isinstance(dataset, ImageDataset):
        explainer.check_classes(dataset)
    batches = dataset.batches("train", batch_size) if isinstance(dataset, ImageDataset) else dataset
    tally: _Tally | None = None
    with torch.inference_mode(False):
        for batch in _checked_batches(batches):
            truth = explainer.decision.truth(batch.labels.cpu(), len(is_explained))
            rows, labels = (truth & is_explained).nonzero(as_tuple=True)
            if not len(rows):
                continue
            images = explainer.input_spec.from_unit(batch.images[rows.to(batch.images.device)])
            explanations = explain_images(explainer, images, labels, None, "all", batch_size)
            tally = tally or _Tally(explanations, is_explained)
            tally.add(explanations, labels, batch.ids.cpu()[rows])
        if tally is None:
            raise InputError("Expected images of the classes to explain; the data have none.")
        split = (batches.split, batches.name) if isinstance(batches, Batches) else None
        return tally.finish(split, are_all_required=classes is not None)


def _checked_batches(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches that have images."""
    for batch in batches if isinstance(batches, Iterable) else [batches]:
        if not isinstance(batch, Batch):
            raise InputError(
                f"Expected batches with labels, as dataset.batches('train'); got {type(batch).__name__}."
            )
        if len(batch.labels) != len(batch):
            raise InputError(f"Expected a label an image, {len(batch)}; got {len(batch.labels)}.")
        if len(batch):
            yield batch


def _mask_of_classes(classes: Sequence[int | str] | int | str | None, names: Sequence[str]) -> Tensor:
    """Which classes are to be explained, (C,) bool."""
    if classes is None:
        return torch.ones(len(names), dtype=torch.bool)
    targets = [classes] if isinstance(classes, int | str) else list(classes)
    mask = torch.zeros(len(names), dtype=torch.bool)
    mask[[class_index(names, target) for target in targets]] = True
    return mask


class _Tally:
    """Sums over images, by class; nothing here grows with their number."""

    def __init__(self, explanations: Explanations, is_explained: Tensor) -> None:
        self.index = is_explained.nonzero()[:, 0]
        self.row = torch.full((len(is_explained),), -1)
        self.row[self.index] = torch.arange(len(self.index))
        self.first = explanations[:0]
        m, c, k = len(self.index), len(is_explained), len(explanations.units)
        self.counts = torch.zeros(m, dtype=torch.long)
        self.logits, self.base = _sums(m, c), _sums(m)
        self.scores, self.sums, self.squares = (_sums(m, k) for _ in range(3))
        self.positive, self.negative, self.decisive_rate = (torch.zeros(m, k) for _ in range(3))
        self.confusion = torch.zeros(m, c, dtype=torch.long)
        self.quantiles = Quantiles(m, k)
        self.best = torch.full((m, EXEMPLARS, k), -torch.inf)
        self.ids = torch.full((m, EXEMPLARS, k), -1)
        self.cells = torch.zeros(m, EXEMPLARS, k, dtype=torch.long)
        self.boxes = torch.zeros(m, EXEMPLARS, k, 4, dtype=torch.long)
        weights = None if explanations.decomposition is None else explanations.decomposition.weights
        self.constant_weights = weights.cpu() if isinstance(weights, Tensor) else None
        has_weight_fn = weights is not None and self.constant_weights is None
        self.has_varying_weights = has_weight_fn and m * k * max(c, k) <= LARGEST
        self.bases = _sums(m, c)
        if self.has_varying_weights:
            self.all_class_contributions = _sums(m, c, k)
            self.weights, self.products = _sums(m, k), _sums(m, k, k)
            self.moments, self.power = _sums(m, k), _sums(m, 2)

    def add(self, explanations: Explanations, labels: Tensor, ids: Tensor) -> None:
        """Count explanations of images for their own classes `labels` (N,)."""
        row = self.row[labels]
        contributions = explanations.contributions.detach().cpu().double()
        self.counts += torch.bincount(row, minlength=len(self.counts))
        for total, values in (
            (self.logits, explanations.logits), (self.base, explanations.base),
            (self.scores, explanations.scores),
            (self.sums, contributions), (self.squares, contributions.square()),
            (self.positive, (contributions > 0).float()), (self.negative, (contributions < 0).float()),
        ):  # fmt: skip
            total.index_add_(0, row, values.detach().cpu().to(total.dtype))
        self.confusion.index_add_(0, row, explanations.holds.cpu().long())
        self.quantiles.add(contributions, row)
        if explanations.decomposition is not None and (
            explanations.logits.shape[1] > 1 or not explanations.decision.is_exclusive
        ):
            self.decisive_rate.index_add_(0, row, decisive_units(explanations).float().cpu())
        if explanations.decomposition is not None:
            bias = explanations.decomposition.bias.detach().cpu().double()
            self.bases.index_add_(0, row, bias.expand(len(row), -1))
        if self.has_varying_weights:
            self._add_varying(explanations, row)
        self._update_exemplars(explanations, row, ids)

    def finish(self, split: tuple[Split, str] | None, are_all_required: bool) -> ClassExplanations:
        """The means, of the classes that had images."""
        seen = self.counts > 0
        explanations = self.first
        if are_all_required and not seen.all():
            missing = [explanations.classes[int(c)] for c in self.index[~seen]]
            raise InputError(f"Expected images of {', '.join(missing[:5])}; the data have none.")
        n = self.counts[seen, None].double()
        mean = self.sums[seen] / n
        std = (self.squares[seen] / n - mean.square()).clamp(min=0).sqrt()
        positive, negative = self.positive[seen] / n, self.negative[seen] / n
        zero = 1 - positive - negative
        num_correct = self.confusion.gather(1, self.index[:, None])[seen].clamp(min=1)
        all_class_contributions, bases = self._all_class_means(seen)
        return ClassExplanations(
            classes=explanations.classes,
            index=self.index[seen],
            counts=self.counts[seen],
            logits=(self.logits[seen] / n).float(),
            base=(self.base[seen] / n[:, 0]).float(),
            scores=(self.scores[seen] / n).float(),
            contributions=mean.float(),
            std=std.float(),
            quantiles=self.quantiles.at(SHARES)[:, seen],
            sign_agreement=torch.where(mean > 0, positive, torch.where(mean < 0, negative, zero)).float(),
            decisive_rate=(
                None if explanations.decomposition is None else self.decisive_rate[seen] / num_correct
            ),
            confusion=self.confusion[seen],
            linear_r2=self._linear_r2(seen),
            all_class_contributions=all_class_contributions,
            bases=bases,
            examples=self._examples(seen, mean, split),
            units=explanations.units.to("cpu"),
            additivity=explanations.additivity,
            provenance=explanations.provenance,
        )

    def _add_varying(self, explanations: Explanations, row: Tensor) -> None:
        """Count contributions to all classes, and the moments that `_linear_r2` needs."""
        decomposition = explanations.decomposition
        assert decomposition is not None
        (n, c), k = explanations.logits.shape, len(explanations.units)
        rows = torch.arange(n, device=explanations.logits.device).repeat_interleave(c)
        targets = torch.arange(c, device=explanations.logits.device).repeat(n)
        weights = decomposition.weights_at(rows, targets).view(n, c, k)
        reference, scores = explanations.units.reference, _scores_over_reference(explanations)
        if reference is not None:
            at_reference = (weights * reference.to(weights)).sum(2)
            self.bases.index_add_(0, row, at_reference.detach().cpu().double())
        above = (explanations.explained_output - explanations.base).detach().cpu().double()
        scores64 = scores.detach().cpu().double()  # squares are subtracted from each other
        for class_row in row.unique().tolist():  # at once it would take N x K x K
            of_class = scores64[row == class_row]
            self.products[class_row] += of_class.T @ of_class
        for total, values in (
            (self.all_class_contributions, weights * scores[:, None]), (self.weights, explanations.weights),
            (self.moments, scores64 * above[:, None]), (self.power, torch.stack([above, above.square()], 1)),
        ):  # fmt: skip
            total.index_add_(0, row, values.detach().cpu().double())

    def _all_class_means(self, seen: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Mean contributions to all classes, (M, C, K), and mean bases, (M, C)."""
        n = self.counts[seen, None].double()
        units, bases = self.first.units.to("cpu"), self.bases[seen] / n
        if bases.shape[1] < 2:  # nothing to contrast with
            return None, None
        if self.has_varying_weights:
            return (self.all_class_contributions[seen] / n[:, :, None]).float(), bases.float()
        if self.constant_weights is None or int(seen.sum()) * self.constant_weights.numel() > LARGEST:
            return None, None
        weights, scores = self.constant_weights.double(), self.scores[seen] / n
        if units.reference is not None:
            scores = scores - units.reference.double()
            bases = bases + weights @ units.reference.double()
        return (weights * scores[:, None]).float(), bases.float()

    def _linear_r2(self, seen: Tensor) -> Tensor | None:
        """R² of ``logit - base`` by mean weights times scores; 1 for constant weights."""
        if self.constant_weights is not None:
            return torch.ones(int(seen.sum()))
        if not self.has_varying_weights:
            return None
        n = self.counts[seen, None].double()
        theta = self.weights[seen] / n  # mean weights (M, K)
        first, second = (self.power[seen] / n).unbind(1)
        cross = (theta * self.moments[seen] / n).sum(1)
        fitted = torch.einsum("mk,mkl,ml->m", theta, self.products[seen] / n[:, :, None], theta)
        variance = torch.maximum(second - first.square(), ROUNDING * second).clamp(min=1e-30)
        return (1 - (second - 2 * cross + fitted) / variance).float()

    def _update_exemplars(self, explanations: Explanations, row: Tensor, ids: Tensor) -> None:
        """Keep the images of each class with the largest score of each unit, each image once."""
        once = _first_occurrences(ids)
        order = once[row[once].argsort(stable=True)]
        starts = torch.bincount(row[order], minlength=len(self.counts)).cumsum(0).roll(1)
        starts[0] = 0
        rank = torch.arange(len(order)) - starts[row[order]]
        depth = int(rank.max()) + 1
        m, _, k = self.best.shape
        index = (row[order], rank)
        cells, boxes = (
            torch.zeros(m, depth, *values.shape[1:], dtype=torch.long).index_put(index, values[order])
            for values in _best_cells(explanations)
        )
        scores = torch.full((m, depth, k), -torch.inf)
        scores[index] = explanations.scores.float().cpu()[order]
        new_ids = torch.full((m, depth), -2).index_put(index, ids[order])
        is_repeated = (new_ids[:, :, None, None] == self.ids[:, None]).any(2)  # a stream may come round again
        scores[is_repeated] = -torch.inf
        best = torch.cat([self.best, scores], 1).topk(EXEMPLARS, 1)
        self.best, chosen = best.values, best.indices
        all_ids = torch.cat([self.ids, new_ids[:, :, None].expand(-1, -1, k)], 1)
        self.ids = all_ids.gather(1, chosen).masked_fill(self.best.isinf(), -1)
        self.cells = torch.cat([self.cells, cells], 1).gather(1, chosen)
        self.boxes = torch.cat([self.boxes, boxes], 1).gather(1, chosen[..., None].expand(-1, -1, -1, 4))

    def _examples(self, seen: Tensor, mean: Tensor, split: tuple[Split, str] | None) -> Examples:
        """The examples; images of those of the strongest units, where they can be fetched again."""
        explanations = self.first
        ids = self.ids[seen]
        pictures: dict[int, Tensor] = {}
        if split is not None and not explanations.is_tabular:
            shown = mean.abs().topk(min(SHOWN, mean.shape[1]), 1).indices
            shown_ids = ids.gather(2, shown[:, None].expand(-1, EXEMPLARS, -1)).unique()
            for chunk in shown_ids[shown_ids >= 0].split(64):
                images = (as_rgb(split[0].batch(chunk).images) * 255).round().clamp(0, 255).byte()
                pictures |= dict(zip(chunk.tolist(), images, strict=True))
        return Examples(
            ids=ids, cells=self.cells[seen], boxes=self.boxes[seen],
            columns=1 if explanations.maps is None else explanations.maps.shape[3],
            split="data" if split is None else split[1], pictures=pictures,
        )  # fmt: skip


def decisive_units(explanations: Explanations) -> Tensor:
    """The fewest units without which the runner-up would win, (N, K) bool; none where the target loses.

    With their scores at the reference, the margin over the runner-up would be 0 or less. Sorted by what they
    add to that margin, they are the shortest run that reaches it. A label's margin is over its threshold.
    """
    decomposition = explanations.decomposition
    assert decomposition is not None
    logits = explanations.logits
    if explanations.decision.is_exclusive:
        runner_up = logits.scatter(1, explanations.targets[:, None], -torch.inf).argmax(1)
        opposing = decomposition.weights_for(runner_up) * _scores_over_reference(explanations)
        margin = explanations.explained_output - logits.gather(1, runner_up[:, None])[:, 0]
    else:
        opposing = torch.zeros_like(explanations.contributions)
        margin = explanations.explained_output - explanations.decision.threshold
    added = (explanations.contributions - opposing).sort(1, descending=True)
    before = added.values.clamp(min=0).cumsum(1) - added.values.clamp(min=0)
    is_decisive = (before < margin[:, None]) & (added.values > 0)
    is_enough = added.values.clamp(min=0).sum(1) >= margin
    is_decisive &= ((margin > 0) & is_enough)[:, None]
    return torch.zeros_like(is_decisive).scatter(1, added.indices, is_decisive)


def _scores_over_reference(explanations: Explanations) -> Tensor:
    """Scores less the reference, (N, K)."""
    scores, reference = explanations.scores, explanations.units.reference
    return scores if reference is None else scores - reference.to(scores)


def _sums(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def _first_occurrences(ids: Tensor) -> Tensor:
    """The position at which each of `ids` occurs first."""
    values, inverse = ids.unique(return_inverse=True)
    positions = torch.arange(len(ids))
    return torch.full_like(values, len(ids)).scatter_reduce(0, inverse, positions, "amin")


def _best_cells(explanations: Explanations) -> tuple[Tensor, Tensor]:
    """Each unit's best cell (N, K), and a box of three cells a side around it (N, K, 4); or of the image."""
    n, k = explanations.scores.shape
    if explanations.is_tabular:
        return torch.zeros(n, k, dtype=torch.long), torch.zeros(n, k, 4, dtype=torch.long)
    height, width = explanations.images.shape[-2:]
    whole = torch.tensor([0.0, 0.0, width, height])
    if explanations.maps is None:
        return torch.zeros(n, k, dtype=torch.long), whole.long().expand(n, k, 4)
    h, w = explanations.maps.shape[2:]
    cell = best_cells(explanations.maps.detach()).cpu()
    frame = whole.expand(n, k, 4)
    if explanations.boxes is not None:
        unit_group = explanations.units.group
        group = torch.zeros(k, dtype=torch.long) if unit_group is None else unit_group.cpu()
        frame = explanations.boxes.detach().float().cpu()[:, group]
    x, y = (cell % w).float(), torch.div(cell, w, rounding_mode="floor").float()
    steps = (frame[..., 2:] - frame[..., :2]) / torch.tensor([w, h])
    low = torch.stack([x - 1, y - 1], -1).clamp(min=0)
    high = torch.minimum(torch.stack([x + 2, y + 2], -1), torch.tensor([w, h]).float())
    start = (frame[..., :2] + low * steps).floor()
    stop = torch.maximum((frame[..., :2] + high * steps).ceil(), start + 1)
    box = torch.cat([start, torch.minimum(stop, whole[2:])], -1)
    return cell, torch.where(is_localized(explanations.maps).cpu()[..., None], box, whole).long()
