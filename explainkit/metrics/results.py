"""Scores as values: one number an image, or the reason why there is none; and tables of scores."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Literal, Self

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from explainkit.errors import ExplainKitError, InputError, UnknownNameError
from explainkit.explanations.json_values import JsonValue, breach, read_document, read_value, schema_name
from explainkit.explanations.serialization import SCHEMA, as_format_error, in_brief
from explainkit.metrics.context import ExplainerOutput
from explainkit.metrics.table_text import TableParts, as_markdown, as_text
from explainkit.protocols import Metric

ORACLE = "oracle"
AREA = "area"
PRIOR = "class average"

DRAWS = 2000
"""Resamplings of the images for an interval."""

Better = Literal["higher", "lower"]


@frozen(eq=False, kw_only=True)
class Score(JsonValue):
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

    def paired_difference(self, other: Score) -> Score:
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

    def advantage_over(self, other: Score) -> Score:
        """How much better than `other`, image by image: above 0 where this one is better.

        The `paired_difference`, its sign turned where lower is better, and as it is where neither is.

        Raises
        ------
        InputError
            As `paired_difference`.
        """
        difference = (
            other.paired_difference(self) if self.better == "lower" else self.paired_difference(other)
        )
        return evolve(difference, better=self.better and "higher", seed=self.seed)

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies to one side of 0."""
        low, high = self.interval
        return low > 0 or high < 0


def metric(
    *, better: Better | None, unit: str = "", note: str = ""
) -> Callable[[Callable[[ExplainerOutput], Tensor | Score]], Metric]:
    """Make a metric of a function from an output to values (N,); its name is the function's, with hyphens.

    A function may return a `Score` instead, such as one with a note on these very values. An error of ours
    that the function raises, such as that there are no masks, becomes the reason.
    """

    def decorate(function: Callable[[ExplainerOutput], Tensor | Score]) -> Metric:
        name = function.__name__.replace("_", "-")

        def evaluate(output: ExplainerOutput) -> Score:
            reason = output.not_applicable.get(name)
            values = None
            if reason is None:
                try:
                    result = function(output)
                    if isinstance(result, Score):
                        return result
                    values = result.detach().cpu().double()
                except ExplainKitError as error:
                    reason = str(error)
            return Score(
                name=name, values=values, reason=reason, better=better, unit=unit, note=note,
                seed=output.context.seed,
            )  # fmt: skip

        evaluate.__name__, evaluate.__doc__ = function.__name__, function.__doc__
        evaluate.__module__, evaluate.__qualname__ = function.__module__, function.__qualname__
        return evaluate

    return decorate


@frozen(eq=False, kw_only=True)
class Row(JsonValue):
    """What one explainer, or one baseline, scored.

    Attributes
    ----------
    name : str
    network : str
        Whose network it was about: the name of the first explainer of it.
    trivial : bool
    scores : mapping of str to Score
    """

    name: str
    network: str
    trivial: bool
    scores: Mapping[str, Score] = field(repr=False)


@frozen(eq=False, kw_only=True)
class MetricTable(JsonValue):
    """Scores of explainers and of trivial rows on the same images.

    Attributes
    ----------
    rows : tuple of Row
    columns : tuple of str
        Names of the metrics.
    dataset, split : str
    images, seed : int
    """

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    dataset: str
    split: str
    images: int
    seed: int

    def score(self, row: str, column: str) -> Score:
        """One cell.

        Raises
        ------
        UnknownNameError
            For a row or a column that is not there.
        """
        match = self._row(row)
        if column not in match.scores:
            raise UnknownNameError(f"No column {column!r}. There are: {', '.join(self.columns)}.")
        return match.scores[column]

    def paired_differences(self, row: str) -> dict[str, dict[str, Score]]:
        """How much better `row` is than each other row of its network, by row and column.

        Above 0 where `row` is better, by `Score.advantage_over`; a reason where one of two cells has no
        value. The intervals are those of each difference alone, not corrected for their number.

        Raises
        ------
        UnknownNameError
            For a row that is not there.
        """
        own = self._row(row)
        return {
            other.name: {column: _advantage(own, other, column) for column in self.columns}
            for other in self.rows
            if other is not own and other.network == own.network
        }

    def only(self, *columns: str) -> MetricTable:
        """The same rows with fewer columns, in this order.

        Raises
        ------
        UnknownNameError
            For a column that is not there.
        """
        for column in columns:
            if column not in self.columns:
                raise UnknownNameError(f"No column {column!r}. There are: {', '.join(self.columns)}.")
        return evolve(self, columns=columns)

    def skill(self, row: Row, column: str) -> float:
        """Where a row stands between the better of area and class average (0) and the oracle (1).

        NaN where one of them has no value.
        """
        scores = {
            _baseline_name(each): each.scores[column] for each in self.rows if each.network == row.network
        }
        floors = [
            scores[name].mean
            for name in (AREA, PRIOR)
            if name in scores and not math.isnan(scores[name].mean)
        ]
        if not floors or ORACLE not in scores:
            return math.nan
        best = min(floors) if row.scores[column].better == "lower" else max(floors)
        span = scores[ORACLE].mean - best
        return (row.scores[column].mean - best) / span if span else math.nan

    def to_json(self) -> str:
        """All means, intervals, reasons and values as JSON; what is no number is null."""
        facts = {
            "schema": f"{schema_name(MetricTable)}/{SCHEMA}", "tensors": {"dtype": "float64"},
            "dataset": self.dataset, "split": self.split, "images": self.images, "seed": self.seed,
            "columns": list(self.columns),
            "rows": [
                {
                    "name": row.name, "network": row.network, "trivial": row.trivial,
                    "scores": {name: self._facts(row, name) for name in self.columns},
                }
                for row in self.rows
            ],
        }  # fmt: skip
        return json.dumps(facts, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote; means, intervals and skill are worked out anew.

        Raises
        ------
        FormatError
            For text that is damaged, foreign, of another schema version, or against the rules.
        """
        document = read_document(text, schema_name(cls))
        with as_format_error(breach(cls)):
            for row in document["rows"]:
                for name, score in row["scores"].items():  # as all others, unless it says otherwise
                    row["scores"][name] = {"name": name, "seed": document["seed"]} | score
            table = read_value(cls, document, len(text))
            if any(not set(table.columns) <= row.scores.keys() for row in table.rows):
                raise InputError(f"Expected a score of each row in each of {in_brief(table.columns)}")
        return table

    def view(self, intervals: bool = True) -> TableParts:
        """The table as words, for a page: ``TableView(**table.view())``; `intervals` beside the means."""
        reasons: dict[str, int] = {}
        rows = [
            (
                row.name,
                [cell_text(row.scores[name], reasons, intervals) for name in self.columns],
                row.trivial,
            )
            for row in self.rows
        ]
        heads = [_head(name, [row.scores[name] for row in self.rows]) for name in self.columns]
        notes = " ".join(f"[{number}] {reason}" for reason, number in reasons.items())
        spread = ", with 95 % bootstrap intervals" if intervals else ""
        about = (
            f"Means over {self.images} images{spread}. Arrows point to better. "
            "Trivial rows explain nothing, save the oracle, which is the truth."
        )
        title = f"{self.images} images ({self.dataset}, {self.split})"
        return TableParts(title=title, columns=heads, rows=rows, note=f"{about} {notes}".strip())

    def table(self, intervals: bool = False) -> str:
        """The table as plain text, a line a row; trivial rows are marked with a dot."""
        return as_text(self.view(intervals))

    def markdown(self) -> str:
        """The table in Markdown; trivial rows in italics."""
        return as_markdown(self.view())

    def _row(self, name: str) -> Row:
        match = next((each for each in self.rows if each.name == name), None)
        if match is None:
            names = ", ".join(each.name for each in self.rows)
            raise UnknownNameError(f"No row {name!r}. There are: {names}.")
        return match

    def _facts(self, row: Row, column: str) -> dict[str, object]:
        score = row.scores[column]
        low, high = score.interval
        values = None if score.values is None else [_number(value) for value in score.values.tolist()]
        own: dict[str, object] = {} if score.name == column else {"name": score.name}
        if score.values is not None and score.seed != self.seed:
            own["seed"] = score.seed
        return {
            "mean": _number(score.mean), "interval": [_number(low), _number(high)], "reason": score.reason,
            "undefined": score.undefined, "skill": _number(self.skill(row, column)),
            "better": score.better, "unit": score.unit, "note": score.note, "values": values,
        } | own  # fmt: skip


def _advantage(own: Row, other: Row, column: str) -> Score:
    """Of one row over another, or why there is none."""
    without = next((row for row in (own, other) if row.scores[column].values is None), None)
    if without is None:
        return own.scores[column].advantage_over(other.scores[column])
    return Score(name=column, reason=f"{without.name}: {without.scores[column].reason}")


def _baseline_name(row: Row) -> str:
    """A trivial row's name without its network's."""
    return row.name.removesuffix(f" ({row.network})") if row.trivial else ""


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _head(name: str, scores: Sequence[Score]) -> str:
    better = next((score.better for score in scores if score.better), None)
    return name + {"higher": " ↑", "lower": " ↓", None: ""}[better]


def cell_text(score: Score, reasons: dict[str, int], intervals: bool) -> str:
    """Mean and interval, or the number of the reason."""
    if score.reason is not None or math.isnan(score.mean):
        reason = score.reason or f"Undefined for all {score.undefined} images."
        return f"- [{reasons.setdefault(reason, len(reasons) + 1)}]"
    low, high = score.interval
    if low == high or not intervals:
        return f"{score.mean:.3g}" if low == high else f"{score.mean:.3f}"
    return f"{score.mean:.3f} [{low:.3f}, {high:.3f}]"
