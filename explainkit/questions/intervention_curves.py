"""How good a network is without its strongest units, or with their scores set to the truth.

Both follow from one decomposition of each image. Where logits are sums, setting the scores of units one after
the other is a cumulative sum of ``weight * (new score - score)``; where scores are coupled the network's
`rescore` is asked. Correcting scores by the truth is the test-time intervention of Koh et al.: Concept
Bottleneck Models, ICML 2020, arXiv:2007.04612, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from attrs import frozen
from numpy.typing import ArrayLike
from torch import Tensor

from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.interface import BATCH_SIZE, Explainer
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explanations.counts import check_count, is_whole
from explainkit.explanations.intervention_curve import Intervention, InterventionCurve
from explainkit.explanations.interventions import unit_indices
from explainkit.explanations.units import Units
from explainkit.networks.unit_mask import disabled_units_of
from explainkit.questions.score_changes import ScoreChanges
from explainkit.questions.true_scores import as_scores, check_study

OrderBy = Literal["contribution", "accuracy-cost", "random"]
"""Mean size of contributions to the true class; accuracy lost with the unit alone switched off; chance."""

Order = OrderBy | Sequence[int | str]

Truth = ArrayLike | Tensor | Callable[[Batch], ArrayLike | Tensor]
"""Scores that units should have in images, (N, K), NaN where that is unknown; or a function of a batch."""

RANDOM_ORDERS = 10
"""Random orders that the baseline is the mean of."""

LARGEST_CHUNK = 2**23
"""Most numbers images x units x classes that are worked on at once."""


def unit_curve(
    explainer: Explainer,
    dataset: ImageDataset,
    *,
    split: str = "test",
    images: int = 1000,
    order: Order = "contribution",
    order_split: str = "validation",
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> InterventionCurve:
    """Accuracy and mean logit of the true class as units are switched off one after the other.

    Parameters
    ----------
    split : str
        Images that are counted, the first `images` of it at most.
    order : {"contribution", "accuracy-cost", "random"}, or sequence of int or str
        Which unit goes first: that with the largest contributions to the true class, in the mean of their
        sizes; that without which alone accuracy is lowest; or units by number, name or phrase.
    order_split : str
        Images by which units are put in order, as many: others than those that are counted.
    seed : int
        Of the random orders of the baseline.

    Raises
    ------
    InputError
        For methods that do not decide by units, for outputs that decide nothing, for a split without images,
        and for units that are named twice.
    UnknownNameError
        For a split or a unit that there is not.

    Examples
    --------
    >>> from explainkit.testing import fitted_example, tiny_dataset
    >>> curve = unit_curve(fitted_example("cam"), tiny_dataset())
    >>> len(curve.accuracy) == 1 + len(curve.order)
    True
    """
    study = _study(explainer, dataset, images, batch_size)
    units = torch.arange(len(study.units))  # disabled ones too, which are off already
    with torch.inference_mode(False):
        return study.curve("off", split, study.orders(order, units, order_split, seed))


def correction_curve(
    explainer: Explainer,
    dataset: ImageDataset,
    truth: Truth,
    *,
    split: str = "test",
    images: int = 1000,
    order: Order = "contribution",
    order_split: str = "validation",
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> InterventionCurve:
    """The same as the scores of units are corrected by the truth, one unit after the other; see `unit_curve`.

    `gain_per_unit` is then the gain per correction. A score whose truth is unknown stays as it is, and units
    that are disabled in the network stay off.

    Parameters
    ----------
    truth : Tensor or array (N, K), or callable
        The scores that units should have in the first N images of `split`, NaN where that is unknown, as
        `concept_truth` gives them; or a function of a `Batch` of them. Units without any are left out, and
        so are disabled ones.
    split, images, order, order_split, seed
        As for `unit_curve`.

    Raises
    ------
    InputError, UnknownNameError
        As `unit_curve`; for truth of another shape, or of nothing, and for infinite scores.

    References
    ----------
    Koh et al., Concept Bottleneck Models, ICML 2020, arXiv:2007.04612, section 5.
    """
    study = _study(explainer, dataset, images, batch_size)
    scores = study.true_scores(truth, split)
    units = scores.isfinite().any(0).nonzero()[:, 0]
    if not len(units):
        raise InputError("Expected the true score of an enabled unit in an image at least; all are unknown.")
    with torch.inference_mode(False):
        return study.curve("corrected", split, study.orders(order, units, order_split, seed), scores)


def _study(explainer: Explainer, dataset: ImageDataset, images: int, batch_size: int) -> _Study:
    """The explainer and the data, once they are found to fit."""
    check_study(explainer, dataset)
    if not isinstance(explainer, InterpretableExplainer):
        raise InputError(
            f"Expected an architecture that decides by its units; {explainer.card.title} attributes a "
            "decision after it was made: there are no scores that could be set."
        )
    if explainer.decision.rule == "identity":
        raise InputError(
            "Expected a network that decides between classes or labels; with decision 'identity' its outputs "
            "are numbers, and none is right or wrong."
        )
    images, batch_size = check_count("images", images), check_count("batch_size", batch_size)
    explainer.network  # refuses what is not fitted, in words  # noqa: B018
    explainer.check_classes(dataset)
    units = explainer.units
    assert units is not None
    return _Study(explainer=explainer, units=units, dataset=dataset, images=images, batch_size=batch_size)


@frozen(eq=False, kw_only=True)
class _Study:
    """An explainer whose scores are set by hand, on the first `images` of splits of a data set."""

    explainer: InterpretableExplainer[Any]
    units: Units
    dataset: ImageDataset
    images: int
    batch_size: int

    def batches(self, split: str) -> Iterator[Batch]:
        """The images of `split` that are looked at."""
        source = self.dataset.split(split)
        if not len(source):
            raise InputError(f"Expected images in split {split!r} of {self.dataset.name}; there are none.")
        for ids in torch.arange(min(self.images, len(source))).split(self.batch_size):
            yield source.batch(ids)

    def true_scores(self, truth: Truth, split: str) -> Tensor:
        """What `truth` says of the images of `split`, (N, K), float64; NaN of units that are disabled."""
        count, k = min(self.images, len(self.dataset.split(split))), len(self.units)
        if callable(truth):
            parts = [
                as_scores(truth(batch), (len(batch), k), f" that truth gives for a batch of {len(batch)}")
                for batch in self.batches(split)
            ]
            scores = torch.cat(parts)
        else:
            scores = as_scores(truth, (count, k), "")
        return scores.masked_fill(disabled_units_of(self.explainer.network, k), torch.nan)

    def curve(
        self, intervention: Intervention, split: str, orders: _Orders, truth: Tensor | None = None
    ) -> InterventionCurve:
        """The curve along the given order, beside that in random order."""
        along, by_chance = _Tally(), _Tally()
        for index, batch in enumerate(self.batches(split)):
            start = index * self.batch_size
            of_batch = None if truth is None else truth[start : start + len(batch)]
            for changes in self._changes(batch, of_batch, orders.given.shape[1]):
                if len(orders.given):
                    along.add(*changes.along(orders.given))
                by_chance.add(*changes.along(orders.chance))
        facts = {"explainer": self.explainer.card.title, "intervention": intervention}
        baseline = by_chance.curve(order_by="random", order=None, **facts)
        if orders.by == "random":
            return baseline
        names = tuple(self.units.names[unit] for unit in orders.given[0].tolist())
        return along.curve(order_by=orders.by, order=names, baseline=baseline, **facts)

    def orders(self, order: Order, units: Tensor, split: str, seed: int) -> _Orders:
        """The `units` in the order that is asked for, by the images of `split`, and in random orders."""
        if not is_whole(seed) or not 0 <= seed < 2**63:
            raise InputError(f"Expected a seed in 0 … 2^63 - 1; got {seed!r}.")
        generator = torch.Generator().manual_seed(int(seed))
        shuffled = [units[torch.randperm(len(units), generator=generator)] for _ in range(RANDOM_ORDERS)]
        chance = torch.stack(shuffled)
        if not isinstance(order, str):
            given = self._chosen(order, units)
            return _Orders(by="given", given=given[None], chance=chance[:, : len(given)])
        if order not in get_args(OrderBy):
            raise InputError(f"Expected order as one of {get_args(OrderBy)}, or units; got {order!r}.")
        if order == "random":
            return _Orders(by=order, given=chance[:0], chance=chance)
        size, cost = self._strengths(split, units, with_cost=order == "accuracy-cost")
        ranks = size.argsort(descending=True, stable=True)
        ranks = ranks[cost[ranks].argsort(descending=True, stable=True)]  # equal costs stay in order of size
        return _Orders(by=order, given=units[ranks][None], chance=chance)

    def _chosen(self, order: Sequence[int | str], units: Tensor) -> Tensor:
        """The numbers of the units that are named, (M,)."""
        if not isinstance(order, Iterable):
            raise InputError(f"Expected order as one of {get_args(OrderBy)}, or units; got {order!r}.")
        chosen = unit_indices(self.units, order)
        if not chosen or len(set(chosen)) < len(chosen):
            raise InputError(f"Expected one unit or more, each once; got {list(order)!r}.")
        unknown = [self.units.names[unit] for unit in chosen if unit not in set(units.tolist())]
        disabled = set(self.explainer.disabled_units) & set(unknown)
        if disabled:
            raise InputError(
                f"Expected units that are enabled; {min(disabled)} is disabled in the network; "
                f"enable_units({min(disabled)!r}) first."
            )
        if unknown:
            raise InputError(f"Expected units whose true scores are known; those of {unknown[0]} are not.")
        return torch.tensor(chosen)

    def _strengths(self, split: str, units: Tensor, with_cost: bool) -> tuple[Tensor, Tensor]:
        """Mean size of each unit's contributions to the truth, and accuracy that is lost without it: (M,)."""
        (size, cost), count = torch.zeros(2, len(units)).double(), 0
        for batch in self.batches(split):
            for changes in self._changes(batch, None, len(units)):
                size += changes.sizes(units).sum(0)
                if with_cost:
                    right, _ = changes.alone(units)
                    cost += (right[:, :1] - right[:, 1:]).sum(0)
                count += len(changes.truth)
        return size / count, cost / count

    def _changes(self, batch: Batch, truth: Tensor | None, steps: int) -> Iterator[ScoreChanges]:
        """The images of `batch`, with what their scores are changed by, in chunks that fit into memory."""
        decomposition = self.explainer.explain(batch, 0, maps=None, batch_size=self.batch_size).decomposition
        assert decomposition is not None
        scores, reference = decomposition.scores.cpu().double(), self.units.reference
        if truth is not None:
            new_scores = torch.where(truth.isfinite(), truth, scores)
        else:
            new_scores = torch.zeros_like(scores) if reference is None else reference.cpu().expand_as(scores)
        (n, k), c = scores.shape, decomposition.logits.shape[1]
        decision = self.explainer.decision
        labels = decision.truth(batch.labels.cpu(), c)
        width = k * c if decomposition.rescore is None else steps * max(k, c)
        for rows in torch.arange(n).split(max(1, LARGEST_CHUNK // width)):
            yield ScoreChanges(
                decomposition=decomposition, rows=rows, truth=labels[rows],
                new_scores=new_scores[rows].double(), decision=decision,
                is_exact=self.explainer.card.additivity == "exact",
            )  # fmt: skip


@frozen(eq=False, kw_only=True)
class _Orders:
    """Units in the order in which their scores are set.

    Attributes
    ----------
    by : str
    given : Tensor, (1, M), or (0, M) where there is none but chance
    chance : Tensor, (R, M)
        Random ones.
    """

    by: str
    given: Tensor
    chance: Tensor


class _Tally:
    """Sums over images of what is measured at each point of a curve; nothing grows with their number."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Tensor | None = None
        self.squares: Tensor | None = None

    def add(self, right: Tensor, true_logit: Tensor) -> None:
        """Count images by whether they are right and by their true logits, (n, M + 1) each."""
        values = torch.stack([right, right - right[:, :1], true_logit])  # (3, n, M + 1)
        sums, squares = values.sum(1), values.square().sum(1)
        self.sums = sums if self.sums is None else self.sums + sums
        self.squares = squares if self.squares is None else self.squares + squares
        self.count += len(right)

    def curve(self, **facts: Any) -> InterventionCurve:
        """The means and their standard errors."""
        assert self.sums is not None and self.squares is not None
        mean = self.sums / self.count
        variance = (self.squares - self.count * mean.square()).clamp(min=0) / max(self.count - 1, 1)
        errors = (variance / self.count).sqrt()
        return InterventionCurve(
            num_images=self.count, accuracy=mean[0], accuracy_std_error=errors[0], change_std_error=errors[1],
            true_logit=mean[2], true_logit_std_error=errors[2], **facts,
        )  # fmt: skip
