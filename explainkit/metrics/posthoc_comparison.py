"""What a network says of itself beside what post-hoc methods say of it, in numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict

from attrs import field, frozen

from explainkit.errors import InputError
from explainkit.explanations.display import figure, markup
from explainkit.explanations.json_values import JsonValue, json_form, schema_name
from explainkit.metrics.results import MetricTable, Score, cell_text
from explainkit.metrics.table_text import TableParts, as_markdown, as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_METRIC = "shapley-correlation"


@frozen(kw_only=True)
class Coincidence:
    """A method whose maps are the own ones, in other units.

    Attributes
    ----------
    factor : float
        What the method's maps are multiplied by; the same for all images, 1 where both are in logits.
    difference : float
        The largest difference that is left at a pixel of an image, in shares of the image's largest value.
    roundings : float or None
        The same in roundings of the image's logit, eps · |logit|; ``None`` where maps are not in logits.
    """

    factor: float
    difference: float
    roundings: float | None


class DifferenceFacts(TypedDict):
    """How much better the own explanation is by one metric: mean, 95 % interval, or why there is none."""

    mean: float | None
    interval: list[float | None]
    excludes_zero: bool
    reason: str | None


@frozen(eq=False, kw_only=True)
class PostHocComparison(JsonValue):
    """A network's own explanation beside post-hoc methods on the same network, over the same images.

    Attributes
    ----------
    own : str
        The row of the network's own explanation.
    table : MetricTable
        The own row, a row a method, and the trivial rows.
    coinciding : mapping of str to Coincidence
        Methods of the table that say the same as the own explanation; they are in no difference.
    unavailable : mapping of str to str
        Methods without a row, and why.
    """

    own: str
    table: MetricTable = field(
        repr=False,
        metadata=json_form(
            lambda table: json.loads(table.to_json()),
            lambda document: MetricTable.from_json(json.dumps(document)),
            {"type": "object", "description": f"A document of {schema_name(MetricTable)}."},
        ),
    )
    coinciding: Mapping[str, Coincidence] = field(factory=dict)
    unavailable: Mapping[str, str] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        names = [row.name for row in self.table.rows if not row.trivial]
        if self.own not in names or not {*self.coinciding} <= {*names} - {self.own}:
            raise InputError(
                f"Expected {self.own!r} and {list(self.coinciding)} among the rows of the table; got {names}."
            )

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that the own explanation is compared with."""
        rows = (row.name for row in self.table.rows if not row.trivial)
        return tuple(name for name in rows if name != self.own and name not in self.coinciding)

    @cached_property
    def differences(self) -> dict[str, dict[str, Score]]:
        """How much better the own explanation is, image by image, by method and metric.

        Above 0 where the own one is better, also by metrics of which lower is better.
        """
        of_rows = self.table.paired_differences(self.own)
        return {method: of_rows[method] for method in self.methods}

    def difference(self, method: str, metric: str) -> Score:
        """One of `differences`.

        Raises
        ------
        UnknownNameError
            For a method or a metric that is not in the table.
        InputError
            For what the own explanation is not compared with.
        """
        self.table.score(method, metric)
        if method not in self.differences:
            raise InputError(f"Expected one of the methods {', '.join(self.methods)}; got {method!r}.")
        return self.differences[method][metric]

    def views(self) -> tuple[TableParts, ...]:
        """The table and the differences as words, for a page: ``[TableView(**view) for view in …]``."""
        return (self.table.view(), self._difference_view()) if self.methods else (self.table.view(),)

    def tables(self) -> str:
        """Everything as plain text."""
        texts = [self.table.table()]
        texts += [as_text(self._difference_view())] if self.methods else []
        return "\n\n".join([*texts, *self._notes()])

    def markdown(self) -> str:
        """Everything in Markdown."""
        texts = [self.table.markdown()]
        texts += [as_markdown(self._difference_view())] if self.methods else []
        return "\n".join([*texts, *(f"{note}\n" for note in self._notes())])

    def figure(self, size: float = 3.0, *, metric: str = FIGURE_METRIC) -> Figure:
        """A metric over what an explanation costs, in passes an image; `size` in inches.

        Raises
        ------
        UnknownNameError
            For a metric that is not in the table, and a table without passes.
        InputError
            Where the own explanation has no value of it.
        """
        return figure(self, size, metric=metric)

    def _repr_html_(self) -> str:
        return markup(self.tables())

    def _difference_view(self) -> TableParts:
        reasons: dict[str, int] = {}
        rows = [
            (method, [_difference_text(scores[name], reasons) for name in self.table.columns], False)
            for method, scores in self.differences.items()
        ]
        notes = " ".join(f"[{number}] {reason}" for reason, number in reasons.items())
        about = (
            f"How much better {self.own} is than each method, image by image: above 0 where {self.own} is "
            "better, by metrics of which lower is better too. 95 % bootstrap intervals, not corrected for "
            "their number; * where the interval excludes 0."
        )
        return TableParts(
            title=f"{self.own} less each method",
            columns=list(self.table.columns),
            rows=rows,
            note=f"{about} {notes}".strip(),
        )

    def _notes(self) -> list[str]:
        """What is said beneath the tables: which methods coincide, and which are not there."""
        notes = [
            f"{method} equals {self.own}: its maps times {each.factor:.6g} differ by at most "
            f"{each.difference:.1e} of an image's largest value"
            f"{'' if each.roundings is None else f', {each.roundings:.2g} roundings of its logit'}."
            for method, each in self.coinciding.items()
        ]
        return [*notes, *(f"{method} is unavailable: {why}" for method, why in self.unavailable.items())]

    def _written_instead(self) -> Mapping[str, Any]:
        return {
            "differences": {
                method: {name: _facts(scores[name]) for name in self.table.columns}
                for method, scores in self.differences.items()
            }
        }

    @classmethod
    def _read_instead(cls) -> Mapping[str, Any]:
        return {"differences": dict[str, dict[str, DifferenceFacts]]}


def _facts(score: Score) -> DifferenceFacts:
    return DifferenceFacts(
        mean=score.mean, interval=list(score.interval), excludes_zero=score.excludes_zero, reason=score.reason
    )


def _difference_text(score: Score, reasons: dict[str, int]) -> str:
    return f"{cell_text(score, reasons, True)}{' *' if score.excludes_zero else ''}"
