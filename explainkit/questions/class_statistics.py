"""What a class is to a model: its sums, averaged over the images of the class, in one pass over them.

For M classes and K units about 110 bytes are held for each pair, whatever the number of images: 230 MB for
1,000 x 2,048. What is made of them at the end takes the place of what it was made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from explainkit.data.types import Batch, Batches, ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.explaining import explain_images
from explainkit.explainers.interface import Explainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.class_contributions import ClassContributions
from explainkit.explanations.class_level import ClassExplanations
from explainkit.explanations.colors import as_rgb
from explainkit.explanations.counts import check_count, is_whole
from explainkit.explanations.validation import class_index
from explainkit.protocols import Split
from explainkit.questions.exemplars import EXEMPLARS, Exemplars
from explainkit.questions.quantiles import Quantiles

SHARES = (0.05, 0.5, 0.95)
"""The quantiles of contributions that are kept."""

SHOWN = 8
"""Units of each class whose example images are kept."""

LARGEST = 2**23
"""Most numbers, 64 MiB, that are kept of contributions to all classes, M x C x K, beyond which there is no
contrast, and of pairs of units, M x K x K, beyond which no `linear_r2`: where weights differ by image."""

CHUNK = 2**18
"""Numbers that are worked on at once."""

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
    explainer = explainer.snapshot()
    if explainer.decision.rule == "identity":
        raise InputError(
            "Expected a network that decides between classes or labels; with decision 'identity' its outputs "
            "are numbers. Explain single images."
        )
    batch_size = check_count("batch_size", batch_size)
    is_explained = _mask_of_classes(classes, explainer.classes)
    if isinstance(dataset, ImageDataset):
        explainer.check_classes(dataset)
    batches = dataset.batches("train", batch_size) if isinstance(dataset, ImageDataset) else dataset
    tally: _Tally | None = None
    with torch.inference_mode(False):
        for batch in _checked_batches(batches):
            truth = explainer.decision.truth(batch.labels.cpu(), len(is_explained))
            pairs = (truth & is_explained).nonzero()
            for rows, labels in (part.unbind(1) for part in pairs.split(batch_size) if len(part)):
                images = explainer.input_spec.from_unit(batch.images[rows.to(batch.images.device)])
                explanations = explain_images(explainer, images, labels, None, "all", batch_size)
                tally = tally or _Tally(explanations, is_explained)
                tally.add(explanations, labels, batch.ids.cpu()[rows])
                del explanations  # before the next are made
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
    targets: Any = classes.tolist() if isinstance(classes, Tensor) else classes
    if isinstance(targets, str | bool) or is_whole(targets):
        targets = [targets]
    if not isinstance(targets, Iterable):
        raise InputError(f"Expected classes by name or number, one or several; got {classes!r}.")
    mask = torch.zeros(len(names), dtype=torch.bool)
    for target in targets:
        if not isinstance(target, str) and not is_whole(target):
            raise InputError(f"Expected classes by name or number; got {target!r}.")
        mask[class_index(names, target)] = True
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
        self.positive, self.negative, self.decisive = (
            torch.zeros(m, k, dtype=torch.int16) for _ in range(3)
        )  # numbers of images
        self.confusion = torch.zeros(m, c, dtype=torch.int32)
        self.quantiles = Quantiles(m, k)
        self.exemplars = Exemplars(explanations, m)
        weights = None if explanations.decomposition is None else explanations.decomposition.weights
        self.constant_weights = weights.cpu() if isinstance(weights, Tensor) else None
        has_weight_fn = weights is not None and self.constant_weights is None
        self.has_contrasts = has_weight_fn and m * c * k <= LARGEST
        self.has_linearity = has_weight_fn and m * k * k <= LARGEST
        bias = None if explanations.decomposition is None else explanations.decomposition.bias
        is_constant = bias is not None and bias.ndim == 1 and not self.has_contrasts
        self.constant_bias = bias.cpu().double() if bias is not None and is_constant else None
        self.bases = _sums(m if self.constant_bias is None else 0, c)
        if self.has_contrasts:
            self.all_class_contributions = _sums(m, c, k)
        if self.has_linearity:
            self.weights, self.products = _sums(m, k), _sums(m, k, k)
            self.moments, self.power = _sums(m, k), _sums(m, 2)

    def add(self, explanations: Explanations, labels: Tensor, ids: Tensor) -> None:
        """Count explanations of images for their own classes `labels` (N,)."""
        row = self.row[labels]
        contributions = explanations.contributions.detach().cpu().double()
        self.counts += torch.bincount(row, minlength=len(self.counts))
        self._make_room()
        for total, values in (
            (self.logits, explanations.logits), (self.base, explanations.base),
            (self.scores, explanations.scores),
            (self.sums, contributions), (self.squares, contributions.square()),
            (self.positive, contributions > 0), (self.negative, contributions < 0),
            (self.confusion, explanations.holds),
        ):  # fmt: skip
            total.index_add_(0, row, values.detach().cpu().to(total.dtype))
        self.quantiles.add(contributions, row)
        if explanations.decomposition is not None and (
            explanations.logits.shape[1] > 1 or not explanations.decision.is_exclusive
        ):
            self.decisive.index_add_(0, row, decisive_units(explanations).cpu().to(self.decisive.dtype))
        if explanations.decomposition is not None and self.constant_bias is None:
            bias = explanations.decomposition.bias.detach().cpu().double()
            self.bases.index_add_(0, row, bias.expand(len(row), -1))
        if self.has_contrasts:
            self._add_contrasts(explanations, row)
        if self.has_linearity:
            self._add_moments(explanations, row)
        self.exemplars.add(explanations, row, ids)

    def finish(self, split: tuple[Split, str] | None, are_all_required: bool) -> ClassExplanations:
        """The means, of the classes that had images; sums are given up as they are used."""
        is_seen = self.counts > 0
        seen, explanations = is_seen.nonzero()[:, 0], self.first
        if are_all_required and not is_seen.all():
            missing = [explanations.classes[int(c)] for c in self.index[~is_seen]]
            raise InputError(f"Expected images of {', '.join(missing[:5])}; the data have none.")
        contributions = self._mean(self.sums, seen)
        self.exemplars.drop_scores()
        std, sign_agreement = self._spread(seen)
        decisive_rate = self._decisive_rate(seen)
        del self.sums, self.squares, self.positive, self.negative, self.decisive
        quantiles = self.quantiles.at(SHARES)
        del self.quantiles
        examples = self.exemplars.finish(
            seen, 1 if explanations.maps is None else explanations.maps.shape[3],
            "data" if split is None else split[1], self._pictures(seen, contributions, split),
        )  # fmt: skip
        del self.exemplars
        contributions_by_class, bases = self._contributions_by_class(seen)
        return ClassExplanations(
            classes=explanations.classes,
            index=self.index[seen],
            counts=self.counts[seen],
            logits=self._mean(self.logits, seen),
            base=self._mean(self.base, seen),
            scores=self._mean(self.scores, seen),
            contributions=contributions,
            std=std,
            quantiles=quantiles if is_seen.all() else quantiles[:, seen],
            sign_agreement=sign_agreement,
            decisive_rate=decisive_rate,
            confusion=self.confusion[seen].long(),
            linear_r2=self._linear_r2(seen),
            contributions_by_class=contributions_by_class,
            bases=bases,
            examples=examples,
            units=explanations.units.to("cpu"),
            additivity=explanations.additivity,
            provenance=explanations.provenance,
        )

    def _make_room(self) -> None:
        """Count images in larger integers before one overflows."""
        if self.positive.dtype == torch.int16 and self.counts.max() > torch.iinfo(torch.int16).max:
            self.positive, self.negative, self.decisive = (
                counts.int() for counts in (self.positive, self.negative, self.decisive)
            )

    def _add_contrasts(self, explanations: Explanations, row: Tensor) -> None:
        """Count contributions to all classes, a few pairs of an image and a class at a time."""
        decomposition = explanations.decomposition
        assert decomposition is not None
        (n, c), k = explanations.logits.shape, len(explanations.units)
        device = explanations.logits.device
        reference, scores = explanations.units.reference, _scores_over_reference(explanations)
        for pairs in torch.arange(n * c, device=device).split(max(1, CHUNK // k)):
            images, targets = torch.div(pairs, c, rounding_mode="floor"), pairs % c
            weights = decomposition.weights_at(images, targets)  # (P, K)
            cell = row[images.cpu()] * c + targets.cpu()
            values = (weights * scores[images]).detach().cpu().double()
            self.all_class_contributions.view(-1, k).index_add_(0, cell, values)
            if reference is not None:
                at_reference = (weights * reference.to(weights)).sum(1).detach().cpu().double()
                self.bases.view(-1).index_add_(0, cell, at_reference)

    def _add_moments(self, explanations: Explanations, row: Tensor) -> None:
        """Count the moments that `_linear_r2` needs."""
        above = (explanations.explained_output - explanations.base).detach().cpu().double()
        scores = _scores_over_reference(explanations).detach().cpu().double()  # squares are subtracted
        for class_row in row.unique().tolist():  # at once it would take N x K x K
            of_class = scores[row == class_row]
            self.products[class_row] += of_class.T @ of_class
        for total, values in (
            (self.weights, explanations.weights), (self.moments, scores * above[:, None]),
            (self.power, torch.stack([above, above.square()], 1)),
        ):  # fmt: skip
            total.index_add_(0, row, values.detach().cpu().double())

    def _mean(self, total: Tensor, seen: Tensor) -> Tensor:
        """A sum over images, divided by their number, in float32: of the rows `seen`."""
        mean = torch.empty(len(seen), *total.shape[1:])
        for part in self._parts(seen, total[:1].numel()):
            count = self.counts[seen[part]].double().view(-1, *[1] * (total.ndim - 1))
            mean[part] = (total[seen[part]] / count).float()
        return mean

    def _parts(self, seen: Tensor, width: int) -> Sequence[Tensor]:
        """Positions in `seen`, so few at once that `width` numbers of each are not many."""
        return torch.arange(len(seen)).split(max(1, CHUNK // max(1, width)))

    def _spread(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Standard deviations, and shares of images with the sign of the mean: (M, K) each."""
        std = torch.empty(len(seen), self.sums.shape[1])
        sign_agreement = torch.empty_like(std)
        for part in self._parts(seen, self.sums.shape[1]):
            rows, n = seen[part], self.counts[seen[part], None].double()
            mean = self.sums[rows] / n
            std[part] = (self.squares[rows] / n - mean.square()).clamp(min=0).sqrt().float()
            positive, negative = self.positive[rows] / n, self.negative[rows] / n
            zero = 1 - positive - negative
            of_mean = torch.where(mean > 0, positive, torch.where(mean < 0, negative, zero))
            sign_agreement[part] = of_mean.float()
        return std, sign_agreement

    def _decisive_rate(self, seen: Tensor) -> Tensor | None:
        """The share of rightly classified images that each unit is decisive in, (M, K)."""
        if self.first.decomposition is None:
            return None
        num_correct = self.confusion.gather(1, self.index[:, None])[seen].clamp(min=1)
        return self.decisive[seen].float().div_(num_correct)

    def _contributions_by_class(self, seen: Tensor) -> tuple[ClassContributions | None, Tensor | None]:
        """Mean contributions to all classes, and mean bases, (M, C)."""
        units = self.first.units.to("cpu")
        if self.bases.shape[1] < 2:  # nothing to contrast with
            return None, None
        if self.has_contrasts:
            contributions = self._mean(self.all_class_contributions, seen)
            return ClassContributions(weights=contributions), self._mean(self.bases, seen)
        if self.constant_weights is None:
            return None, None
        scores = self.scores[seen]  # in float64: the reference is subtracted
        scores /= self.counts[seen, None]
        if self.constant_bias is None:
            bases = self.bases[seen] / self.counts[seen, None]
        else:
            bases = self.constant_bias.repeat(len(seen), 1)
        if units.reference is not None:
            scores -= units.reference.double()
            bases += self.constant_weights.double() @ units.reference.double()
        return ClassContributions(weights=self.constant_weights, scores=scores), bases.float()

    def _linear_r2(self, seen: Tensor) -> Tensor | None:
        """R² of ``logit - base`` by mean weights times scores; 1 for constant weights."""
        if self.constant_weights is not None:
            return torch.ones(len(seen))
        if not self.has_linearity:
            return None
        n = self.counts[seen, None].double()
        theta = self.weights[seen] / n  # mean weights (M, K)
        first, second = (self.power[seen] / n).unbind(1)
        cross = (theta * self.moments[seen] / n).sum(1)
        fitted = torch.einsum("mk,mkl,ml->m", theta, self.products[seen] / n[:, :, None], theta)
        variance = torch.maximum(second - first.square(), ROUNDING * second).clamp(min=1e-30)
        return (1 - (second - 2 * cross + fitted) / variance).float()

    def _pictures(
        self, seen: Tensor, contributions: Tensor, split: tuple[Split, str] | None
    ) -> dict[int, Tensor]:
        """The exemplars of each class's strongest units by id, where images can be fetched again."""
        pictures: dict[int, Tensor] = {}
        if split is not None and not self.first.is_tabular:
            shown = contributions.abs().topk(min(SHOWN, contributions.shape[1]), 1).indices
            units = shown[:, None].expand(-1, EXEMPLARS, -1)
            ids = self.exemplars.ids[seen].gather(2, units).unique().long()
            for chunk in ids[ids >= 0].split(64):
                images = (as_rgb(split[0].batch(chunk).images) * 255).round().clamp(0, 255).byte()
                pictures |= dict(zip(chunk.tolist(), images, strict=True))
        return pictures


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
