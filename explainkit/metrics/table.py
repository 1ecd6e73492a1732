"""One table: a row an explainer, a column a metric, the trivial rows beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import torch
from attrs import evolve, field, frozen

from explainkit import registry
from explainkit.data.images import ImageData
from explainkit.errors import ExplainKitError, InputError, UnknownNameError
from explainkit.interfaces import Explainer, distinct_names
from explainkit.metrics.baselines import AREA, ORACLE, PRIOR, TRIVIAL
from explainkit.metrics.cost import Passes, counting
from explainkit.metrics.exam import Answer, Exam
from explainkit.metrics.score import Metric, Score
from explainkit.metrics.truth import Value

FIRST = (
    *("rho-phi", "residual-r", "top-part", "part-deletion", "part-insertion", "residual"),
    *("pixel-deletion", "pixel-insertion", "pointing", "mass-on-bird"),
    *("units-to-95", "gini", "forward-passes", "backward-passes"),
)
"""The order of the columns, from what is true to what it costs."""


class TableParts(TypedDict):
    """The same table as words: title, columns, rows of (name, cells, trivial) and a note."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str], bool]]
    note: str


@frozen(eq=False, kw_only=True)
class Row:
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
class MetricTable:
    """Scores of explainers and of trivial rows on the same images.

    Attributes
    ----------
    rows : tuple of Row
    columns : tuple of str
        Names of the metrics.
    data, split : str
    images, seed : int
    """

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    data: str
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
        found = next((each for each in self.rows if each.name == row), None)
        if found is None:
            raise UnknownNameError(
                f"No row {row!r}. There are: {', '.join(each.name for each in self.rows)}."
            )
        if column not in found.scores:
            raise UnknownNameError(f"No column {column!r}. There are: {', '.join(self.columns)}.")
        return found.scores[column]

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
        kin = {_plain(each): each.scores[column] for each in self.rows if each.network == row.network}
        bases = [kin[name].mean for name in (AREA, PRIOR) if name in kin and not math.isnan(kin[name].mean)]
        if not bases or ORACLE not in kin:
            return math.nan
        best = min(bases) if row.scores[column].better == "lower" else max(bases)
        span = kin[ORACLE].mean - best
        return (row.scores[column].mean - best) / span if span else math.nan

    def to_json(self) -> str:
        """All means, intervals, reasons and values as JSON; what is no number is null."""
        facts = {
            "data": self.data, "split": self.split, "images": self.images, "seed": self.seed,
            "columns": list(self.columns),
            "rows": [
                {
                    "name": row.name, "network": row.network, "trivial": row.trivial,
                    "scores": {name: self._facts(row, row.scores[name]) for name in self.columns},
                }
                for row in self.rows
            ],
        }  # fmt: skip
        return json.dumps(facts, indent=1, allow_nan=False)

    def view(self, intervals: bool = True) -> TableParts:
        """The table as words, for a page: ``TableView(**table.view())``; `intervals` beside the means."""
        reasons: dict[str, int] = {}
        rows = [
            (row.name, [_cell(row.scores[name], reasons, intervals) for name in self.columns], row.trivial)
            for row in self.rows
        ]
        heads = [_head(name, [row.scores[name] for row in self.rows]) for name in self.columns]
        notes = " ".join(f"[{number}] {reason}" for reason, number in reasons.items())
        spread = ", with 95 % bootstrap intervals" if intervals else ""
        about = (
            f"Means over {self.images} images{spread}. Arrows point to better. "
            "Trivial rows explain nothing, save the oracle, which is the truth."
        )
        title = f"{self.images} images ({self.data}, {self.split})"
        return TableParts(title=title, columns=heads, rows=rows, note=f"{about} {notes}".strip())

    def table(self, intervals: bool = False) -> str:
        """The table as plain text, a line a row; trivial rows are marked with a dot."""
        told = self.view(intervals)
        lines = [["", *told["columns"]]]
        lines += [[f"{'· ' if trivial else ''}{name}", *cells] for name, cells, trivial in told["rows"]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([told["title"], *text, told["note"]])

    def markdown(self) -> str:
        """The table in Markdown; trivial rows in italics."""
        told = self.view()
        lines = [["", *told["columns"]], ["---"] * (len(self.columns) + 1)]
        lines += [[f"*{name}*" if trivial else name, *cells] for name, cells, trivial in told["rows"]]
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        return "\n".join([*(f"| {' | '.join(line)} |" for line in escaped), "", told["note"], ""])

    def _facts(self, row: Row, score: Score) -> dict[str, object]:
        low, high = score.interval
        values = None if score.values is None else [_number(value) for value in score.values.tolist()]
        return {
            "mean": _number(score.mean), "interval": [_number(low), _number(high)], "reason": score.reason,
            "undefined": score.undefined, "skill": _number(self.skill(row, score.name)),
            "better": score.better, "unit": score.unit, "note": score.note, "values": values,
        }  # fmt: skip


def measure(
    explainers: Explainer | Sequence[Explainer] | Mapping[str, Explainer],
    data: ImageData,
    *,
    split: str | None = None,
    images: int = 200,
    seed: int = 0,
    metrics: Sequence[str] | None = None,
    value: Value = "logit",
) -> MetricTable:
    """Every metric of every explainer, and of the trivial rows of every network.

    The truth about a network's parts is worked out once and shared by all of its explainers. What cannot be
    measured is a reason in its cell; it never costs the rest of the table.

    Parameters
    ----------
    explainers
        Fitted or bound; as a mapping, rows bear its names.
    split : str or None
        ``None``: ``"mixed"`` where the data have it, on which importance varies within a class; else
        ``"test"``.
    images : int
        The first so many of the split; what is explained is the class that the network predicts.
    seed : int
        Of the random rows, of ties and of the intervals.
    metrics : sequence of str or None
        Names as plugins offer them; ``None``: all.
    value : {"logit", "centred"}
        What the truth divides among parts.

    Raises
    ------
    InputError
        Where there is no explainer or no image.
    UnknownNameError
        For a split or a metric that is not there.
    """
    split = split or ("mixed" if "mixed" in data.splits else "test")
    ids = torch.arange(len(data.split(split)))[: max(images, 0)]
    named = _names(explainers)
    if not named or not len(ids):
        raise InputError(f"Expected at least one explainer and one image; got {len(named)} and {len(ids)}.")
    measures = {name: registry.find("metrics", name) for name in metrics or _columns()}
    exams: dict[int, tuple[str, Exam]] = {}  # by network
    rows = []
    for name, explainer in named.items():
        fresh = Exam(explainer=explainer, data=data, split=split, ids=ids, value=value, seed=seed)
        network, exam = exams.setdefault(id(explainer.network), (name, fresh))
        rows.append(_measured(name, network, False, exam, measures, _asked(explainer, name)))
    for name, exam in exams.values():
        for label, maker in TRIVIAL.items():
            row = label if len(exams) == 1 else f"{label} ({name})"
            rows.append(_measured(row, name, True, exam, measures, maker))
    return MetricTable(
        rows=tuple(rows), columns=tuple(measures), data=data.name, split=split, images=len(ids), seed=seed
    )


def _columns() -> list[str]:
    """All metrics on offer, ours first, in the order of `FIRST`."""
    offered = registry.offers("metrics")
    return [*(name for name in FIRST if name in offered), *(name for name in offered if name not in FIRST)]


def _names(explainers: Explainer | Sequence[Explainer] | Mapping[str, Explainer]) -> dict[str, Explainer]:
    if isinstance(explainers, Mapping):
        return dict(explainers)
    return distinct_names([explainers] if isinstance(explainers, Explainer) else explainers)


def _asked(explainer: Explainer, name: str) -> Callable[[Exam], Answer]:
    """What gives the answer of an explainer to an exam, with what it cost."""

    def answered(exam: Exam) -> Answer:
        images, targets = exam.images, exam.targets
        with counting(explainer.network, images[:1]) as counter:
            told = explainer.explain(images, targets)
        passes = counter.passes
        if passes is not None:
            passes = Passes(forward=passes.forward / len(images), backward=passes.backward / len(images))
        return Answer(exam=exam, name=name, told=told, saliency_map=told.saliency(), passes=passes)

    return answered


def _measured(
    name: str,
    network: str,
    trivial: bool,
    exam: Exam,
    measures: Mapping[str, Metric],
    answer: Callable[[Exam], Answer],
) -> Row:
    """A row; where there is no answer, the reason stands in every cell."""
    try:
        answered = answer(exam)
    except Exception as error:  # a stranger's explainer must not cost the others their rows
        scores = {column: Score(name=column, reason=_told(error)) for column in measures}
    else:
        scores = {column: _scored(column, measures[column], answered) for column in measures}
    return Row(name=name, network=network, trivial=trivial, scores=scores)


def _scored(column: str, measure: Metric, answer: Answer) -> Score:
    try:
        return measure(answer)
    except Exception as error:  # a stranger's metric must not cost the others their columns
        return Score(name=column, reason=_told(error))


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, ExplainKitError) else f"{type(error).__name__}: {error}"


def _plain(row: Row) -> str:
    """A trivial row's name without its network's."""
    return row.name.removesuffix(f" ({row.network})") if row.trivial else ""


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _head(name: str, scores: Sequence[Score]) -> str:
    better = next((score.better for score in scores if score.better), None)
    return name + {"higher": " ↑", "lower": " ↓", None: ""}[better]


def _cell(score: Score, reasons: dict[str, int], intervals: bool) -> str:
    """Mean and interval, or the number of the reason."""
    if score.reason is not None or math.isnan(score.mean):
        reason = score.reason or f"Undefined for all {score.undefined} images."
        return f"- [{reasons.setdefault(reason, len(reasons) + 1)}]"
    low, high = score.interval
    if low == high or not intervals:
        return f"{score.mean:.3g}" if low == high else f"{score.mean:.3f}"
    return f"{score.mean:.3f} [{low:.3f}, {high:.3f}]"
