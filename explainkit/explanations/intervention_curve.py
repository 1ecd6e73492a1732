"""Accuracy and logits of a network as the scores of its units are set, one unit after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from torch import Tensor

from explainkit.explanations.display import figure, markup
from explainkit.explanations.json_values import JsonValue

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Intervention = Literal["off", "corrected"]
"""What scores are set to: the unit's reference, or the truth."""

ROWS = 12
"""Of a table, at most: numbers of units in between are left out."""


@frozen(eq=False, kw_only=True)
class InterventionCurve(JsonValue):
    """How good a network is with the scores of 0, 1, … M units set by hand, over the same images.

    Attributes
    ----------
    explainer : str
    intervention : {"off", "corrected"}
    order_by : str
        ``"contribution"``, ``"accuracy-cost"``, ``"given"``, or ``"random"``: several orders in the mean.
    order : tuple of str, or None
        The names of the M units, the first that is set first; ``None`` for random orders.
    num_images : int
    accuracy : Tensor, (M + 1,)
        Share of images whose class is right; of pairs of image and label, where an image has several.
    true_logit : Tensor, (M + 1,)
        Mean logit of the true class; of labels how far each is on its right side of the threshold.
    accuracy_std_error, true_logit_std_error : Tensor, (M + 1,)
        Over images.
    change_std_error : Tensor, (M + 1,)
        Of the change in accuracy since no unit was set, image by image.
    baseline : InterventionCurve or None
        The same with units in random order.
    """

    explainer: str
    intervention: Intervention
    order_by: str
    order: tuple[str, ...] | None = field(repr=False)
    num_images: int
    accuracy: Tensor = field(repr=False)
    true_logit: Tensor = field(repr=False)
    accuracy_std_error: Tensor = field(repr=False)
    true_logit_std_error: Tensor = field(repr=False)
    change_std_error: Tensor = field(repr=False)
    baseline: InterventionCurve | None = field(default=None, repr=False)

    @property
    def num_units(self) -> range:
        """How many units are set at each point, 0 … M."""
        return range(len(self.accuracy))

    @property
    def gain_per_unit(self) -> Tensor:
        """Change in accuracy by each of the units set so far, in the mean: (M,), from one unit on."""
        return (self.accuracy[1:] - self.accuracy[0]) / self._counts()

    @property
    def gain_per_unit_std_error(self) -> Tensor:
        """Of `gain_per_unit`, (M,), over images."""
        return self.change_std_error[1:] / self._counts()

    def table(self) -> str:
        """Some of the points as text, the first and the last among them."""
        last = len(self.accuracy) - 1
        points = sorted({*range(0, last + 1, max(1, -(-last // (ROWS - 1)))), last})
        columns = [
            [self.intervention, *map(str, points)],
            ["last unit", *("" if not (point and self.order) else self.order[point - 1] for point in points)],
            ["accuracy", *_column(self.accuracy, self.accuracy_std_error, points, 3)],
            ["true logit", *_column(self.true_logit, self.true_logit_std_error, points, 2)],
            ["gain a unit", "", *_column(self.gain_per_unit, self.gain_per_unit_std_error, points[1:], 4, 1)],
        ]
        if self.baseline is not None:
            baseline = self.baseline
            columns.append(["at random", *_column(baseline.accuracy, baseline.accuracy_std_error, points, 3)])
        widths = [max(map(len, column)) for column in columns]
        return "\n".join(
            "  ".join(
                text.ljust(width) if index == 1 else text.rjust(width)
                for index, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in zip(*columns, strict=True)
        )

    def figure(self, size: float = 3.0) -> Figure:
        """Accuracy over the number of units, with two standard errors; `size` in inches."""
        return figure(self, size)

    def _repr_html_(self) -> str:
        return markup(self.table())

    def _counts(self) -> Tensor:
        return self.accuracy.new_tensor(self.num_units[1:])


def _column(values: Tensor, errors: Tensor, points: Sequence[int], digits: int, first: int = 0) -> list[str]:
    """Values with their errors at `points`, of which number `first` is the first that there is one of."""
    pairs = [(values[point - first].item(), errors[point - first].item()) for point in points]
    return [f"{value:.{digits}f} ± {error:.{digits}f}" for value, error in pairs]
