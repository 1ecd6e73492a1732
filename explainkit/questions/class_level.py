"""What a class is to a model: its sums, averaged over the images of the class, in one pass over them.

The mean of sums is a sum of means: base and mean contributions make the mean logit. So a class explanation
stays in the algebra, and can be checked as any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from explainkit.data.images import Batch, Batches, ImageData, Split, class_index
from explainkit.decomposition import placed
from explainkit.errors import AlgebraError, InputError
from explainkit.explanation import Claim, Exemplar, Explanations, Provenance, Units
from explainkit.interfaces import MAX_BATCH, Explainer
from explainkit.quantiles import Quantiles
from explainkit.wording import (
    DESPITE,
    MANY,
    MOSTLY,
    TELLING,
    USUALLY,
    called,
    capital,
    counted,
    listed,
    percent,
    repeated,
    signed,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = (0.05, 0.5, 0.95)
"""The quantiles of contributions that are told."""

EXEMPLARS = 3
"""Images that are kept of each unit and class."""

SHOWN = 8
"""Units of each class whose exemplars come with their pictures."""

LARGEST = 2**25
"""Most numbers that are kept of contributions to all classes, M x C x K, and of pairs of units, M x K x K;
beyond, there is no contrast."""

ROUNDING = 1e-9
"""The share of the mean square below which a variance is rounding."""


@frozen(kw_only=True)
class ClassEvidence:
    """What one unit is to a class.

    Attributes
    ----------
    contribution, spread : float
        Mean and standard deviation over the images of the class.
    low, median, high : float
        5 %, 50 % and 95 % quantiles.
    share : float
        ``contribution / mean logit``.
    agreement : float
        Share of the images in which the contribution has the sign of its mean.
    decisive : float or None
        Share of the rightly classified images in which it is one of the fewest units without which the
        runner-up would win; ``None`` where other classes are not known.
    """

    unit: int
    kind: str
    name: str
    phrase: str | None
    score: float
    contribution: float
    spread: float
    low: float
    median: float
    high: float
    share: float
    agreement: float
    decisive: float | None
    exemplars: tuple[Exemplar, ...] = field(default=(), repr=False, eq=False)

    @property
    def words(self) -> str:
        """The unit's phrase, or its name where it has none."""
        return self.phrase or self.name


@frozen(eq=False, kw_only=True)
class Examples:
    """Images of each class with the largest score of each unit, at most E, each image once.

    Attributes
    ----------
    ids : Tensor, (M, E, K)
        -1 where there are fewer; none where what is explained are rows.
    cells : Tensor, (M, E, K)
        The unit's best cell, counted along rows of `columns` cells.
    boxes : Tensor, (M, E, K, 4)
        x0, y0, x1, y1 in pixels: three cells a side around it; the whole image where it has no place.
    columns : int
    split : str
        Where they are from.
    pictures : mapping of int to Tensor (3, H, W), uint8
    """

    ids: Tensor
    cells: Tensor
    boxes: Tensor
    columns: int
    split: str
    pictures: Mapping[int, Tensor]

    def of(self, row: int, unit: int, label: int) -> tuple[Exemplar, ...]:
        """Those of a unit, the largest score first."""
        found = zip(
            self.ids[row, :, unit].tolist(), self.cells[row, :, unit].tolist(),
            self.boxes[row, :, unit].tolist(), strict=True,
        )  # fmt: skip
        return tuple(
            Exemplar(
                id=image, split=self.split, label=label, cell=divmod(cell, self.columns), box=tuple(box),
                image=self.pictures.get(image),
            )
            for image, cell, box in found
            if image >= 0 and box[2] > box[0]
        )  # fmt: skip


@frozen(eq=False, kw_only=True)
class ClassExplanations:
    """What M classes are to a model of C classes and K units.

    Attributes
    ----------
    classes : tuple of str, C
    index : Tensor, (M,), int64
        The classes that are explained.
    counts : Tensor, (M,), int64
        How many images of each were seen.
    logits : Tensor, (M, C)
        Means of all logits over the images of each class.
    base : Tensor, (M,)
    scores, contributions, spread : Tensor, (M, K)
        Mean scores, means and standard deviations of the contributions to the class.
    quantiles : Tensor, (3, M, K)
        5 %, 50 % and 95 % of the contributions, each right to a bin of `Quantiles`.
    agreement : Tensor, (M, K)
        Share of images in which the contribution has the sign of its mean.
    decisive : Tensor or None, (M, K)
        Share of rightly classified images that the unit is decisive in; ``None`` for post-hoc methods.
    confusion : Tensor, (M, C), int64
        How many images of each class are taken for which.
    residual : Tensor, (M,)
        Of the mean sums.
    linearity : Tensor or None, (M,)
        R² of the logit by the mean weights of the class: 1 where weights are the same in every image,
        less where the class has several explanations rather than one.
    every : Tensor or None, (M, C, K)
        Mean contributions to all classes, which contrasts are read off; `bases` (M, C) belongs to it.
    examples : Examples
        Images of the class with the largest score of the unit.
    """

    classes: tuple[str, ...]
    index: Tensor
    counts: Tensor
    logits: Tensor = field(repr=False)
    base: Tensor = field(repr=False)
    scores: Tensor = field(repr=False)
    contributions: Tensor = field(repr=False)
    spread: Tensor = field(repr=False)
    quantiles: Tensor = field(repr=False)
    agreement: Tensor = field(repr=False)
    decisive: Tensor | None = field(repr=False)
    confusion: Tensor = field(repr=False)
    linearity: Tensor | None = field(repr=False)
    every: Tensor | None = field(repr=False)
    bases: Tensor | None = field(repr=False)
    examples: Examples = field(repr=False)
    units: Units = field(repr=False)
    claim: Claim
    provenance: Provenance = field(repr=False)

    def __repr__(self) -> str:
        images = int(self.counts.sum())
        return f"<{len(self)} classes as {self.provenance.explainer} knows them, from {images} images>"

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[ClassExplanation]:
        return (ClassExplanation(batch=self, row=row) for row in range(len(self)))

    def __getitem__(self, wanted: int | str) -> ClassExplanation:
        """One class, by name, or by its index among all C."""
        found = class_index(self.classes, wanted)
        rows = (self.index == found).nonzero()[:, 0].tolist()
        if not rows:
            raise InputError(
                f"Expected one of the {len(self)} classes that were explained; got {self.classes[found]!r}."
            )
        return ClassExplanation(batch=self, row=rows[0])

    def __contains__(self, name: object) -> bool:
        return name in [self.classes[place] for place in self.index.tolist()]

    @property
    def totals(self) -> Tensor:
        """Mean logits of the classes themselves, (M,)."""
        return self.logits.gather(1, self.index[:, None])[:, 0]

    @property
    def residual(self) -> Tensor:
        """What the mean sums leave unexplained, (M,)."""
        return self.totals - self.base - self.contributions.sum(1)

    def check(self) -> ClassExplanations:
        """These, once every mean sum is found to hold to 1e-4 of its size.

        Raises
        ------
        AlgebraError
            Naming the class where it fails, and both sides of the sum.
        """
        scale = torch.maximum(self.logits.abs().amax(1), self.contributions.abs().sum(1))
        for row in (~(self.residual.abs() <= 1e-4 * scale)).nonzero()[:, 0].tolist():
            total, gap = self.totals[row].item(), self.residual[row].item()
            name = self.classes[int(self.index[row])]
            raise AlgebraError(
                f"{name}: base and mean contributions come to {total - gap:.6g}, "
                f"the mean logit is {total:.6g} (claim {self.claim!r})."
            )
        return self

    def _repr_html_(self) -> str:
        from explainkit.rendering.html import several

        return several(self, len(self))

    def to_json(self) -> str:
        """All classes, their strongest units and sums, as JSON."""
        return json.dumps([item.facts() for item in self], indent=1, allow_nan=False, ensure_ascii=False)


@frozen(eq=False, kw_only=True)
class ClassExplanation:
    """One class: a view of `ClassExplanations`; with `against`, what it has rather than another."""

    batch: ClassExplanations = field(repr=False)
    row: int
    against: int | None = None

    @property
    def target(self) -> int:
        """The class's index."""
        return int(self.batch.index[self.row])

    @property
    def name(self) -> str:
        """The class's name."""
        return self.batch.classes[self.target]

    @property
    def against_name(self) -> str | None:
        """The class that it is contrasted with, if any."""
        return None if self.against is None else self.batch.classes[self.against]

    @property
    def count(self) -> int:
        """How many images of it were seen."""
        return int(self.batch.counts[self.row])

    @property
    def accuracy(self) -> float:
        """The share of them that were rightly classified."""
        return self.batch.confusion[self.row, self.target].item() / max(self.count, 1)

    @property
    def rival(self) -> int:
        """The class that it is most often taken for; where never, the one with the largest mean logit."""
        others = self.batch.confusion[self.row].clone()
        others[self.target] = -1
        if others.max() > 0 or len(others) == 1:
            return int(others.argmax())
        logits = self.batch.logits[self.row].clone()
        logits[self.target] = -torch.inf
        return int(logits.argmax())

    @property
    def total(self) -> float:
        """The mean logit, or the mean margin over `against`."""
        logits = self.batch.logits[self.row]
        return (logits[self.target] - (0 if self.against is None else logits[self.against])).item()

    @property
    def base(self) -> float:
        """What of that is there before any evidence."""
        if self.against is None:
            return self.batch.base[self.row].item()
        assert self.batch.bases is not None
        return (self.batch.bases[self.row, self.target] - self.batch.bases[self.row, self.against]).item()

    @property
    def contributions(self) -> Tensor:
        """(K,), means over the images of the class."""
        if self.against is None:
            return self.batch.contributions[self.row]
        assert self.batch.every is not None
        return self.batch.every[self.row, self.target] - self.batch.every[self.row, self.against]

    @property
    def residual(self) -> float:
        """What the sum leaves unexplained."""
        return self.total - self.base - self.contributions.sum().item()

    @property
    def linearity(self) -> float | None:
        """How much of the logit's variation the mean weights explain (R²)."""
        found = self.batch.linearity
        return None if found is None else found[self.row].item()

    @property
    def evidence(self) -> list[ClassEvidence]:
        """Every unit, the strongest first."""
        return self.strongest(len(self.batch.units))

    def strongest(self, count: int) -> list[ClassEvidence]:
        """The `count` units with the largest mean contributions, for or against."""
        sizes = self.contributions.abs()
        return [self.evidence_of(unit) for unit in sizes.topk(min(count, len(sizes))).indices.tolist()]

    def evidence_of(self, unit: int) -> ClassEvidence:
        """What unit number `unit` is to the class."""
        told, row = self.batch, self.row
        low, median, high = told.quantiles[:, row, unit].tolist()
        return ClassEvidence(
            unit=unit, kind=told.units.kind, name=told.units.names[unit],
            phrase=told.units.phrases[unit] if told.units.phrases else None,
            score=told.scores[row, unit].item(), contribution=self.contributions[unit].item(),
            spread=told.spread[row, unit].item(), low=low, median=median, high=high,
            share=self.contributions[unit].item() / self.total if self.total else 0.0,
            agreement=told.agreement[row, unit].item(),
            decisive=None if told.decisive is None else told.decisive[row, unit].item(),
            exemplars=told.examples.of(row, unit, self.target),
        )  # fmt: skip

    def contrast(self, against: int | str | None = None) -> ClassExplanation:
        """What speaks for this class rather than `against`, in the mean over this class's images.

        Spread, quantiles, agreement and decisive units stay those of the class alone.

        Parameters
        ----------
        against : int, str or None
            By index or name; the class that this one is most often taken for unless given.

        Raises
        ------
        InputError
            Where contributions to other classes are not known, as of post-hoc methods; for the class itself.
        """
        if self.batch.every is None:
            raise InputError(
                f"Expected contributions to all classes; {self.batch.provenance.explainer} tells those of "
                "one, or they are too many to keep."
            )
        rival = self.rival if against is None else class_index(self.batch.classes, against)
        if rival == self.target:
            raise InputError(f"Expected another class to contrast {self.name!r} with; got the same.")
        return evolve(self, against=rival)

    def sentence(self) -> str:
        """The class in words: what it mostly is to the model, and what speaks against it."""
        reasons = self._largest(self.contributions, 3)
        total = self.contributions.clamp(min=0).sum().item()
        reasons = reasons[:1] + [item for item in reasons[1:] if item.contribution >= TELLING * total]
        doubts = [
            item for item in self._largest(-self.contributions, 1) if -item.contribution >= DESPITE * total
        ]
        seen = f"on average over {counted(self.count, 'image')}"
        what = (
            f"{capital(self.name)}{f' rather than {self.against_name}' if self.against is not None else ''}"
        )
        if not reasons:
            return f"{what}, {seen}. For it: nothing; its base is {signed(self.base)}."
        twice = repeated([item.words for item in (*reasons, *doubts)])
        parts = [self._told(item, item.words in twice) for item in reasons]
        left = total - sum(item.contribution for item in reasons)
        others = int((self.contributions > 0).sum()) - len(reasons)
        if others and left > (1 - MANY) * total:
            kind = counted(others, f"other {self.batch.units.kind}")
            parts.append(f"{kind} ({signed(left)}{' together' if others > 1 else ''})")
        what_for = listed(parts)
        if len(parts) > 1 and reasons[0].contribution > MOSTLY * total:
            what_for = f"mostly {parts[0]}, also {listed(parts[1:])}"
        against = f" Against it: {self._told(doubts[0], doubts[0].words in twice)}." if doubts else ""
        return f"{what}, {seen}. For it: {what_for}.{against}"

    def facts(self) -> dict[str, Any]:
        """All that is told of the class, as JSON values."""
        keep = ["unit", "name", "phrase", "score", "contribution", "share"]
        if self.against is None:
            keep += ["spread", "low", "median", "high", "agreement", "decisive"]
        return {
            "class": self.name, "against": self.against_name, "images": self.count, "accuracy": self.accuracy,
            "total": self.total, "base": self.base, "residual": self.residual, "linearity": self.linearity,
            "sentence": self.sentence(),
            "evidence": [{name: getattr(item, name) for name in keep} for item in self.strongest(20)],
        }  # fmt: skip

    def figure(self, size: float = 3.0) -> Figure:
        """A matplotlib figure: a row a unit, its exemplars and what it counts."""
        from explainkit.rendering.answers import draw_class

        return draw_class(self, size)

    def _repr_html_(self) -> str:
        from explainkit.rendering.html import class_fragment

        return class_fragment(self)

    def _largest(self, contributions: Tensor, count: int) -> list[ClassEvidence]:
        top = contributions.topk(min(count, len(contributions)))
        return [self.evidence_of(unit) for unit in top.indices[top.values > 0].tolist()]

    def _told(self, item: ClassEvidence, shared: bool) -> str:
        facts = [signed(item.contribution)]
        if self.against is None:
            if item.decisive is not None and item.decisive > 0:
                facts.append(f"decisive in {percent(item.decisive)}")
            if item.agreement < USUALLY:
                facts.append(f"of that sign in only {percent(item.agreement)}")
        missing = self.batch.units.phrase_scores is not None and item.score < 0
        name = called(item.name, item.phrase, shared=shared, missing=missing)
        return f"{name} ({', '.join(facts)})"


def explain_class(
    explainer: Explainer,
    data: ImageData | Iterable[Batch],
    classes: Sequence[int | str] | int | str | None = None,
    *,
    max_batch: int = MAX_BATCH,
) -> ClassExplanations:
    """`Explainer.explain_class`."""
    if explainer.card.claim == "none":
        raise InputError(
            f"Expected an explainer whose contributions are logits; those of {explainer.card.title} add up "
            "to nothing, so that their mean over images has no meaning. Explain single images."
        )
    if max_batch < 1:
        raise InputError(f"Expected max_batch of at least 1; got {max_batch}.")
    wanted = _wanted(classes, explainer.classes)
    if isinstance(data, ImageData):
        explainer._same_classes(data)
    batches = data.batches("train", max_batch) if isinstance(data, ImageData) else data
    tally: _Tally | None = None
    with torch.inference_mode(False):
        for batch in _valid(batches, len(wanted)):
            rows = wanted[batch.labels.cpu()].nonzero()[:, 0]
            if not len(rows):
                continue
            labels = batch.labels.cpu()[rows]
            told = explainer.explain(batch.images[rows.to(batch.images.device)], labels, max_batch=max_batch)
            tally = tally or _Tally(told, wanted)
            tally.add(told, labels, batch.ids.cpu()[rows])
        if tally is None:
            raise InputError("Expected images of the classes to explain; the data have none.")
        split = (batches.split, batches.name) if isinstance(batches, Batches) else None
        return tally.finish(split, asked=classes is not None)


def _valid(batches: Iterable[Batch], count: int) -> Iterator[Batch]:
    """The batches that have images, once their labels are found to be of `count` classes."""
    for batch in batches if isinstance(batches, Iterable) else [batches]:
        if not isinstance(batch, Batch):
            raise InputError(
                f"Expected batches with labels, as data.batches('train'); got {type(batch).__name__}."
            )
        if not len(batch):
            continue
        if batch.labels.is_floating_point() or batch.labels.shape != (len(batch),):
            raise InputError(
                f"Expected a whole number as the label of each image, ({len(batch)},); got "
                f"{batch.labels.dtype} {tuple(batch.labels.shape)}."
            )
        low, high = (int(found) for found in batch.labels.aminmax())
        if not 0 <= low <= high < count:
            raise InputError(f"Expected labels in 0 … {count - 1}; got {low} … {high}.")
        yield batch


def _wanted(classes: Sequence[int | str] | int | str | None, names: Sequence[str]) -> Tensor:
    """Which classes are asked for, (C,) bool."""
    if classes is None:
        return torch.ones(len(names), dtype=torch.bool)
    asked = [classes] if isinstance(classes, int | str) else list(classes)
    wanted = torch.zeros(len(names), dtype=torch.bool)
    wanted[[class_index(names, item) for item in asked]] = True
    return wanted


class _Tally:
    """Sums over images, by class; nothing here grows with their number."""

    def __init__(self, told: Explanations, wanted: Tensor) -> None:
        self.index = wanted.nonzero()[:, 0]
        self.row = torch.full((len(wanted),), -1).index_put((self.index,), torch.arange(len(self.index)))
        self.first = told[:0]
        m, c, k = len(self.index), len(wanted), len(told.units)
        self.counts = torch.zeros(m, dtype=torch.long)
        self.logits, self.base = _sums(m, c), _sums(m)
        self.scores, self.sums, self.squares = (_sums(m, k) for _ in range(3))
        self.positive, self.negative, self.decisive = (torch.zeros(m, k) for _ in range(3))
        self.confusion = torch.zeros(m, c, dtype=torch.long)
        self.quantiles = Quantiles(m, k)
        self.best = torch.full((m, EXEMPLARS, k), -torch.inf)
        self.ids = torch.full((m, EXEMPLARS, k), -1)
        self.cells = torch.zeros(m, EXEMPLARS, k, dtype=torch.long)
        self.boxes = torch.zeros(m, EXEMPLARS, k, 4, dtype=torch.long)
        parts = told.decomposition
        self.constant = (
            parts.weights.cpu() if parts is not None and isinstance(parts.weights, Tensor) else None
        )
        self.varying = parts is not None and self.constant is None and m * k * max(c, k) <= LARGEST
        self.bases = _sums(m, c)
        if self.varying:
            self.every = _sums(m, c, k)
            self.weights, self.products = _sums(m, k), _sums(m, k, k)
            self.moments, self.power = _sums(m, k), _sums(m, 2)

    def add(self, told: Explanations, labels: Tensor, ids: Tensor) -> None:
        """Count explanations of images for their own classes `labels` (N,)."""
        row = self.row[labels]
        contributions = told.contributions.detach().cpu().double()
        self.counts += torch.bincount(row, minlength=len(self.counts))
        for total, values in (
            (self.logits, told.logits), (self.base, told.base), (self.scores, told.scores),
            (self.sums, contributions), (self.squares, contributions.square()),
            (self.positive, (contributions > 0).float()), (self.negative, (contributions < 0).float()),
        ):  # fmt: skip
            total.index_add_(0, row, values.detach().cpu().to(total.dtype))
        predicted = told.logits.argmax(1).cpu()
        self.confusion.view(-1).scatter_add_(
            0, row * self.confusion.shape[1] + predicted, torch.ones_like(predicted)
        )
        self.quantiles.add(contributions, row)
        if told.decomposition is not None and told.logits.shape[1] > 1:
            self.decisive.index_add_(0, row, decisive_units(told).float().cpu())
        if told.decomposition is not None:
            bias = told.decomposition.bias.detach().cpu().double()
            self.bases.index_add_(0, row, bias.expand(len(row), -1))
        if self.varying:
            self._add_varying(told, row)
        self._keep_best(told, row, ids)

    def finish(self, split: tuple[Split, str] | None, asked: bool) -> ClassExplanations:
        """The means, of the classes that had images."""
        seen = self.counts > 0
        told = self.first
        if asked and not seen.all():
            missing = [told.classes[int(c)] for c in self.index[~seen]]
            raise InputError(f"Expected images of {', '.join(missing[:5])}; the data have none.")
        n = self.counts[seen, None].double()
        mean = self.sums[seen] / n
        spread = (self.squares[seen] / n - mean.square()).clamp(min=0).sqrt()
        positive, negative = self.positive[seen] / n, self.negative[seen] / n
        silent = 1 - positive - negative
        right = self.confusion.gather(1, self.index[:, None])[seen].clamp(min=1)
        every, bases = self._every(seen)
        units = told.units.to("cpu")
        return ClassExplanations(
            classes=told.classes, index=self.index[seen], counts=self.counts[seen],
            logits=(self.logits[seen] / n).float(), base=(self.base[seen] / n[:, 0]).float(),
            scores=(self.scores[seen] / n).float(), contributions=mean.float(), spread=spread.float(),
            quantiles=self.quantiles.at(SHARES)[:, seen],
            agreement=torch.where(mean > 0, positive, torch.where(mean < 0, negative, silent)).float(),
            decisive=None if told.decomposition is None else self.decisive[seen] / right,
            confusion=self.confusion[seen], linearity=self._linearity(seen), every=every, bases=bases,
            examples=self._examples(seen, mean, split), units=units, claim=told.claim,
            provenance=told.provenance,
        )  # fmt: skip

    def _add_varying(self, told: Explanations, row: Tensor) -> None:
        """Contributions to all classes, and the moments that tell how linear the class is."""
        parts = told.decomposition
        assert parts is not None
        (n, c), k = told.logits.shape, len(told.units)
        rows = torch.arange(n, device=told.logits.device).repeat_interleave(c)
        targets = torch.arange(c, device=told.logits.device).repeat(n)
        weights = parts.weights_for_rows(rows, targets).view(n, c, k)
        reference = told.units.reference
        scores = told.scores if reference is None else told.scores - reference.to(told.scores)
        if reference is not None:
            silent = (weights * reference.to(weights)).sum(2)
            self.bases.index_add_(0, row, silent.detach().cpu().double())
        above = (told.totals - told.base).detach().cpu().double()
        exact = scores.detach().cpu().double()  # squares are subtracted from each other
        for place in row.unique().tolist():  # at once it would take N x K x K
            self.products[place] += exact[row == place].T @ exact[row == place]
        for total, values in (
            (self.every, weights * scores[:, None]), (self.weights, told.weights),
            (self.moments, exact * above[:, None]), (self.power, torch.stack([above, above.square()], 1)),
        ):  # fmt: skip
            total.index_add_(0, row, values.detach().cpu().double())

    def _every(self, seen: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Mean contributions to all classes, (M, C, K), and mean bases, (M, C)."""
        n = self.counts[seen, None].double()
        units, bases = self.first.units.to("cpu"), self.bases[seen] / n
        if bases.shape[1] < 2:  # nothing to contrast with
            return None, None
        if self.varying:
            return (self.every[seen] / n[:, :, None]).float(), bases.float()
        if self.constant is None or int(seen.sum()) * self.constant.numel() > LARGEST:
            return None, None
        weights, scores = self.constant.double(), self.scores[seen] / n
        if units.reference is not None:
            scores = scores - units.reference.double()
            bases = bases + weights @ units.reference.double()
        return (weights * scores[:, None]).float(), bases.float()

    def _linearity(self, seen: Tensor) -> Tensor | None:
        """R² of ``logit - base`` by mean weights times scores; 1 for constant weights."""
        if self.constant is not None:
            return torch.ones(int(seen.sum()))
        if not self.varying:
            return None
        n = self.counts[seen, None].double()
        theta = self.weights[seen] / n  # mean weights (M, K)
        first, second = (self.power[seen] / n).unbind(1)
        cross = (theta * self.moments[seen] / n).sum(1)
        fitted = torch.einsum("mk,mkl,ml->m", theta, self.products[seen] / n[:, :, None], theta)
        variance = torch.maximum(second - first.square(), ROUNDING * second).clamp(min=1e-30)
        return (1 - (second - 2 * cross + fitted) / variance).float()

    def _keep_best(self, told: Explanations, row: Tensor, ids: Tensor) -> None:
        """The images of each class with the largest score of each unit, one place an image."""
        once = _first_of_each(ids)
        order = once[row[once].argsort(stable=True)]
        starts = torch.bincount(row[order], minlength=len(self.counts)).cumsum(0).roll(1)
        starts[0] = 0
        rank = torch.arange(len(order)) - starts[row[order]]
        deep = int(rank.max()) + 1
        m, _, k = self.best.shape
        cells, boxes = _places(told)
        where = (row[order], rank)
        scores = torch.full((m, deep, k), -torch.inf).index_put(where, told.scores.float().cpu()[order])
        new = torch.full((m, deep), -2).index_put(where, ids[order])
        twice = (new[:, :, None, None] == self.ids[:, None]).any(2)  # a stream may come round again
        scores[twice] = -torch.inf
        at = torch.zeros(m, deep, k, dtype=torch.long).index_put(where, cells[order])
        around = torch.zeros(m, deep, k, 4, dtype=torch.long).index_put(where, boxes[order])
        best = torch.cat([self.best, scores], 1).topk(EXEMPLARS, 1)
        self.best, chosen = best.values, best.indices
        every = torch.cat([self.ids, new[:, :, None].expand(-1, -1, k)], 1)
        self.ids = every.gather(1, chosen).masked_fill(self.best.isinf(), -1)
        self.cells = torch.cat([self.cells, at], 1).gather(1, chosen)
        self.boxes = torch.cat([self.boxes, around], 1).gather(1, chosen[..., None].expand(-1, -1, -1, 4))

    def _examples(self, seen: Tensor, mean: Tensor, split: tuple[Split, str] | None) -> Examples:
        """Those found; of the strongest units with pictures, where images can be fetched again."""
        told = self.first
        ids = self.ids[seen]
        pictures: dict[int, Tensor] = {}
        if split is not None and not told.of_rows:
            shown = mean.abs().topk(min(SHOWN, mean.shape[1]), 1).indices
            wanted = ids.gather(2, shown[:, None].expand(-1, EXEMPLARS, -1)).unique()
            for some in wanted[wanted >= 0].split(64):
                images = (split[0].batch(some).images * 255).round().clamp(0, 255).byte()
                pictures |= dict(zip(some.tolist(), images, strict=True))
        return Examples(
            ids=ids, cells=self.cells[seen], boxes=self.boxes[seen], columns=_columns(told),
            split="data" if split is None else split[1], pictures=pictures,
        )  # fmt: skip


def decisive_units(told: Explanations) -> Tensor:
    """The fewest units without which the runner-up would win, (N, K) bool; none where the target loses.

    With their scores at the reference, the margin over the runner-up would be 0 or less. Sorted by what they
    add to that margin, they are the shortest run that reaches it.
    """
    parts = told.decomposition
    assert parts is not None
    rivals = told.logits.scatter(1, told.targets[:, None], -torch.inf).argmax(1)
    reference = told.units.reference
    scores = told.scores if reference is None else told.scores - reference.to(told.scores)
    added = told.contributions - parts.weights_for(rivals) * scores
    margin = told.totals - told.logits.gather(1, rivals[:, None])[:, 0]
    sizes = added.sort(1, descending=True)
    before = sizes.values.clamp(min=0).cumsum(1) - sizes.values.clamp(min=0)
    needed = (before < margin[:, None]) & (sizes.values > 0)
    enough = sizes.values.clamp(min=0).sum(1) >= margin
    needed &= ((margin > 0) & enough)[:, None]
    return torch.zeros_like(needed).scatter(1, sizes.indices, needed)


def _sums(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def _first_of_each(ids: Tensor) -> Tensor:
    """Where each of `ids` is for the first time."""
    values, which = ids.unique(return_inverse=True)
    places = torch.arange(len(ids))
    return torch.full_like(values, len(ids)).scatter_reduce(0, which, places, "amin")


def _columns(told: Explanations) -> int:
    return 1 if told.maps is None else told.maps.shape[3]


def _places(told: Explanations) -> tuple[Tensor, Tensor]:
    """Each unit's best cell (N, K), and a box of three cells a side around it (N, K, 4); or of the image."""
    n, k = told.scores.shape
    if told.of_rows:
        return torch.zeros(n, k, dtype=torch.long), torch.zeros(n, k, 4, dtype=torch.long)
    height, width = told.images.shape[-2:]
    whole = torch.tensor([0.0, 0.0, width, height])
    if told.maps is None:
        return torch.zeros(n, k, dtype=torch.long), whole.long().expand(n, k, 4)
    h, w = told.maps.shape[2:]
    cell = told.maps.detach().flatten(2).argmax(2).cpu()
    frame = whole.expand(n, k, 4)
    if told.boxes is not None:
        group = torch.zeros(k, dtype=torch.long) if told.units.group is None else told.units.group.cpu()
        frame = told.boxes.detach().float().cpu()[:, group]
    x, y = (cell % w).float(), torch.div(cell, w, rounding_mode="floor").float()
    steps = (frame[..., 2:] - frame[..., :2]) / torch.tensor([w, h])
    low = torch.stack([x - 1, y - 1], -1).clamp(min=0)
    high = torch.minimum(torch.stack([x + 2, y + 2], -1), torch.tensor([w, h]).float())
    start = (frame[..., :2] + low * steps).floor()
    stop = torch.maximum((frame[..., :2] + high * steps).ceil(), start + 1)
    box = torch.cat([start, torch.minimum(stop, whole[2:])], -1)
    return cell, torch.where(placed(told.maps).cpu()[..., None], box, whole).long()
