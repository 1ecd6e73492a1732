"""What a metric gives: one value an image with its spread, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from explainkit.errors import ExplainKitError, InputError

if TYPE_CHECKING:
    from explainkit.metrics.exam import Answer

DRAWS = 2000
"""Resamplings of the images for an interval."""

Better = Literal["higher", "lower"]


@frozen(eq=False, kw_only=True)
class Score:
    """One metric of one explainer.

    Attributes
    ----------
    name : str
    values : Tensor or None, (N,)
        One value an image; NaN where the metric says nothing of that image. Such images are left out of
        mean and interval, and counted in `undefined`.
    reason : str or None
        Why there are no values; exactly one of the two is given.
    better : {"higher", "lower"} or None
        ``None`` where neither is good in itself.
    unit, note : str
    seed : int
        Of the interval.

    Raises
    ------
    InputError
        On construction, for both or neither of values and reason, and for values of another shape.
    """

    name: str
    values: Tensor | None = field(
        default=None, repr=lambda values: f"<{0 if values is None else len(values)}>"
    )
    reason: str | None = None
    better: Better | None = None
    unit: str = ""
    note: str = ""
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        if (self.values is None) == (self.reason is None):
            raise InputError(f"Expected values or a reason for {self.name!r}; got both or neither.")
        if self.values is not None and self.values.ndim != 1:
            raise InputError(
                f"Expected one value an image, (N,), for {self.name!r}; got {tuple(self.values.shape)}."
            )

    @property
    def defined(self) -> Tensor:
        """The values that are numbers, (n,), float64."""
        if self.values is None:
            return torch.empty(0, dtype=torch.float64)
        values = self.values.detach().cpu().double()
        return values[~values.isnan()]

    @property
    def undefined(self) -> int:
        """Of how many images the metric says nothing."""
        return 0 if self.values is None else len(self.values) - len(self.defined)

    @property
    def mean(self) -> float:
        """Over images; NaN where there is no value."""
        return self.defined.mean().item()

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean: percentile bootstrap over images, 2 000 draws, seeded.

        Efron and Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13.
        """
        values = self.defined
        if not len(values):
            return float("nan"), float("nan")
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randint(len(values), (DRAWS, len(values)), generator=generator)
        low, high = values[drawn].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return low, high

    def minus(self, other: Score) -> Score:
        """The difference image by image, whose interval says more than two intervals side by side.

        Raises
        ------
        InputError
            For scores of other images, of another metric, or without values.
        """
        if self.values is None or other.values is None or self.name != other.name:
            raise InputError(f"Expected two scores with values of one metric; got {self} and {other}.")
        if len(self.values) != len(other.values):
            raise InputError(
                f"Expected scores of the same images; got {len(self.values)} and {len(other.values)}."
            )
        return evolve(self, values=self.values.cpu() - other.values.cpu(), note="difference, image by image")


class Metric(Protocol):
    """What the hook ``explainkit_metrics`` targets: an answer to a score."""

    def __call__(self, answer: Answer) -> Score:
        """How good `answer` is."""
        ...


def metric(
    *, better: Better | None, unit: str = "", note: str = ""
) -> Callable[[Callable[[Answer], Tensor]], Metric]:
    """Make a metric of a function from an answer to values (N,); its name is the function's, with hyphens.

    An error of ours that the function raises, such as that there are no masks, becomes the reason.
    """

    def made(measure: Callable[[Answer], Tensor]) -> Metric:
        name = measure.__name__.replace("_", "-")

        def scored(answer: Answer) -> Score:
            said = answer.silent.get(name)
            values = None
            if said is None:
                try:
                    values = measure(answer).detach().cpu().double()
                except ExplainKitError as error:
                    said = str(error)
            return Score(
                name=name, values=values, reason=said, better=better, unit=unit, note=note,
                seed=answer.exam.seed,
            )  # fmt: skip

        scored.__name__, scored.__doc__ = measure.__name__, measure.__doc__
        scored.__module__, scored.__qualname__ = measure.__module__, measure.__qualname__
        return scored

    return made
