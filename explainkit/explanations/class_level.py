"""What classes are to a model, as values: sums averaged over the images of a class.

The mean of sums is a sum of means: base and mean contributions make the mean logit. So a class explanation
stays in the algebra, and can be checked as any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from explainkit.errors import AdditivityError, InputError
from explainkit.explanations.class_contributions import ClassContributions
from explainkit.explanations.class_examples import Examples
from explainkit.explanations.class_json import ClassExplanationsJson, ClassFacts, class_facts
from explainkit.explanations.decomposition import Additivity
from explainkit.explanations.display import figure, markup
from explainkit.explanations.provenance import Provenance
from explainkit.explanations.sentences import class_sentence
from explainkit.explanations.tables import class_frame
from explainkit.explanations.units import UnitPicture, Units
from explainkit.explanations.validation import class_index

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@frozen(kw_only=True)
class ClassEvidence:
    """What one unit is to a class.

    Attributes
    ----------
    contribution, std : float
        Mean and standard deviation over the images of the class.
    low, median, high : float
        5 %, 50 % and 95 % quantiles.
    share : float
        ``contribution / mean logit``.
    sign_agreement : float
        Share of the images in which the contribution has the sign of its mean.
    decisive_rate : float or None
        Share of the rightly classified images in which it is one of the fewest units without which the
        runner-up would win; ``None`` where other classes are not known.
    is_absent : bool
        Whether the mean score says that what the unit stands for is mostly not there.
    """

    unit: int
    kind: str
    name: str
    phrase: str | None
    score: float
    contribution: float
    std: float
    low: float
    median: float
    high: float
    share: float
    sign_agreement: float
    decisive_rate: float | None
    is_absent: bool = False
    pictures: tuple[UnitPicture, ...] = field(default=(), repr=False, eq=False)

    @property
    def text(self) -> str:
        """The unit's phrase, or its name where it has none."""
        return self.phrase or self.name


@frozen(eq=False, kw_only=True)
class ClassExplanations(ClassExplanationsJson):
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
    scores, contributions, std : Tensor, (M, K)
        Mean scores, means and standard deviations of the contributions to the class.
    quantiles : Tensor, (3, M, K)
        5 %, 50 % and 95 % of the contributions, each right to a bin of `Quantiles`: 256 for few classes
        and units, 16 for 1,000 classes and 2,048 units.
    sign_agreement : Tensor, (M, K)
        Share of images in which the contribution has the sign of its mean.
    decisive_rate : Tensor or None, (M, K)
        Share of rightly classified images that the unit is decisive in; ``None`` for post-hoc methods.
    confusion : Tensor, (M, C), int64
        How many images of each class are taken for which.
    linear_r2 : Tensor or None, (M,)
        R² of the logit by the mean weights of the class: 1 where weights are the same in every image,
        less where the class has several explanations rather than one.
    contributions_by_class : ClassContributions or None
        Mean contributions to all classes, which contrasts are read off; ``None`` where they are not known,
        or are too many to keep.
    bases : Tensor or None, (M, C)
        The base of each class, with which its contributions make its mean logit.
    examples : Examples
        Images of the class with the largest score of the unit.
    units : Units
    additivity : {"exact", "approximate", "none"}
        Whether the contributions to one image add up to its logit.
    provenance : Provenance
    """

    classes: tuple[str, ...]
    index: Tensor
    counts: Tensor
    logits: Tensor = field(repr=False)
    base: Tensor = field(repr=False)
    scores: Tensor = field(repr=False)
    contributions: Tensor = field(repr=False)
    std: Tensor = field(repr=False)
    quantiles: Tensor = field(repr=False)
    sign_agreement: Tensor = field(repr=False)
    decisive_rate: Tensor | None = field(repr=False)
    confusion: Tensor = field(repr=False)
    linear_r2: Tensor | None = field(repr=False)
    contributions_by_class: ClassContributions | None = field(repr=False)
    bases: Tensor | None = field(repr=False)
    examples: Examples = field(repr=False)
    units: Units = field(repr=False)
    additivity: Additivity
    provenance: Provenance = field(repr=False)

    def __repr__(self) -> str:
        images = int(self.counts.sum())
        return f"<{len(self)} classes as {self.provenance.explainer} knows them, from {images} images>"

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[ClassExplanation]:
        return (ClassExplanation(batch=self, row=row) for row in range(len(self)))

    def __getitem__(self, target: int | str) -> ClassExplanation:
        """One class, by name, or by its index among all C."""
        index = class_index(self.classes, target)
        rows = (self.index == index).nonzero()[:, 0].tolist()
        if not rows:
            raise InputError(
                f"Expected one of the {len(self)} classes that were explained; got {self.classes[index]!r}."
            )
        return ClassExplanation(batch=self, row=rows[0])

    def __contains__(self, name: object) -> bool:
        return name in [self.classes[index] for index in self.index.tolist()]

    @property
    def explained_output(self) -> Tensor:
        """Mean logits of the classes themselves, (M,)."""
        return self.logits.gather(1, self.index[:, None])[:, 0]

    @property
    def all_class_contributions(self) -> Tensor | None:
        """Mean contributions to all classes, (M, C, K), made on request: see `ClassContributions.dense`."""
        return None if self.contributions_by_class is None else self.contributions_by_class.dense()

    @property
    def residual(self) -> Tensor | None:
        """What the mean sums leave unexplained, (M,); ``None`` where no sum is claimed."""
        if self.additivity == "none":
            return None
        return self.explained_output - self.base - self.contributions.sum(1)

    def check_additivity(self) -> ClassExplanations:
        """These, once every mean sum is found to hold to 1e-4 of its size.

        Raises
        ------
        AdditivityError
            Naming the class where it fails, and both sides of the sum.
        InputError
            Where no sum is claimed, so that there is nothing to check.
        """
        residual = self.residual
        if residual is None:
            raise InputError(f"{self.provenance.explainer} claims no sum: there is nothing to check.")
        scale = torch.maximum(self.logits.abs().amax(1), self.contributions.abs().sum(1))
        for row in (~(residual.abs() <= 1e-4 * scale)).nonzero()[:, 0].tolist():
            output, gap = self.explained_output[row].item(), residual[row].item()
            name = self.classes[int(self.index[row])]
            raise AdditivityError(
                f"{name}: base and mean contributions come to {output - gap:.6g}, "
                f"the mean logit is {output:.6g} (additivity {self.additivity!r})."
            )
        return self

    def _repr_html_(self) -> str:
        return markup(self)

    def to_pandas(self) -> pandas.DataFrame:
        """As a data frame, a row for each class and unit; MissingPackageError without pandas."""
        return class_frame(self)


@frozen(eq=False, kw_only=True)
class ClassExplanation:
    """One class: a view of `ClassExplanations`; with `foil`, what it has rather than another."""

    batch: ClassExplanations = field(repr=False)
    row: int
    foil: int | None = None

    @property
    def target(self) -> int:
        """The class's index."""
        return int(self.batch.index[self.row])

    @property
    def name(self) -> str:
        """The class's name."""
        return self.batch.classes[self.target]

    @property
    def foil_name(self) -> str | None:
        """The class that it is contrasted with, if any."""
        return None if self.foil is None else self.batch.classes[self.foil]

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
    def explained_output(self) -> float:
        """The mean logit, or the mean margin over `foil`."""
        logits = self.batch.logits[self.row]
        return (logits[self.target] - (0 if self.foil is None else logits[self.foil])).item()

    @property
    def base(self) -> float:
        """What of that is there before any evidence."""
        if self.foil is None:
            return self.batch.base[self.row].item()
        assert self.batch.bases is not None
        return (self.batch.bases[self.row, self.target] - self.batch.bases[self.row, self.foil]).item()

    @property
    def contributions(self) -> Tensor:
        """(K,), means over the images of the class."""
        if self.foil is None:
            return self.batch.contributions[self.row]
        known = self.batch.contributions_by_class
        assert known is not None
        return known.to_class(self.row, self.target) - known.to_class(self.row, self.foil)

    @property
    def residual(self) -> float | None:
        """What the sum leaves unexplained; ``None`` where no sum is claimed."""
        if self.batch.additivity == "none":
            return None
        return self.explained_output - self.base - self.contributions.sum().item()

    @property
    def linear_r2(self) -> float | None:
        """How much of the logit's variation the mean weights explain (R²)."""
        linear_r2 = self.batch.linear_r2
        return None if linear_r2 is None else linear_r2[self.row].item()

    @property
    def evidence(self) -> list[ClassEvidence]:
        """Every unit, the strongest first."""
        return self.top(len(self.batch.units))

    def top(self, count: int) -> list[ClassEvidence]:
        """The `count` units with the largest mean contributions, for or against."""
        sizes = self.contributions.abs()
        return [self.evidence_of(unit) for unit in sizes.topk(min(count, len(sizes))).indices.tolist()]

    def evidence_of(self, unit: int) -> ClassEvidence:
        """What unit number `unit` is to the class."""
        batch, row = self.batch, self.row
        low, median, high = batch.quantiles[:, row, unit].tolist()
        score = batch.scores[row, unit].item()
        return ClassEvidence(
            unit=unit, kind=batch.units.kind, name=batch.units.names[unit],
            phrase=batch.units.phrases[unit] if batch.units.phrases else None,
            score=score, is_absent=batch.units.is_absent(unit, score),
            contribution=self.contributions[unit].item(),
            std=batch.std[row, unit].item(), low=low, median=median, high=high,
            share=self.contributions[unit].item() / self.explained_output if self.explained_output else 0.0,
            sign_agreement=batch.sign_agreement[row, unit].item(),
            decisive_rate=None if batch.decisive_rate is None else batch.decisive_rate[row, unit].item(),
            pictures=batch.examples.of(row, unit, self.target),
        )  # fmt: skip

    def contrast(self, foil: int | str | None = None) -> ClassExplanation:
        """What is evidence for this class rather than `foil`, in the mean over this class's images.

        `std`, quantiles, `sign_agreement` and `decisive_rate` stay those of the class alone.

        Parameters
        ----------
        foil : int, str or None
            By index or name; the class that this one is most often taken for unless given.

        Raises
        ------
        InputError
            Where contributions to other classes are not known, as of post-hoc methods; for the class itself.
        """
        if self.batch.contributions_by_class is None:
            raise InputError(
                f"Expected contributions to all classes; {self.batch.provenance.explainer} gives those "
                "to one, or they are too many to keep."
            )
        index = self.rival if foil is None else class_index(self.batch.classes, foil)
        if index == self.target:
            raise InputError(f"Expected another class to contrast {self.name!r} with; got the same.")
        return evolve(self, foil=index)

    def sentence(self) -> str:
        """The class in words: what it mostly is to the model, and what is evidence against it."""
        return class_sentence(self)

    def facts(self, top: int = 20) -> ClassFacts:
        """What the class is, by its `top` strongest units, as JSON values."""
        return class_facts(self, top)

    def figure(self, size: float = 3.0) -> Figure:
        """A matplotlib figure: a row a unit, its pictures and what it counts."""
        return figure(self, size)

    def _repr_html_(self) -> str:
        return markup(self)
