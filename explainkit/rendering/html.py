"""One page that needs nothing else: a row an image, a column an explainer, sums that add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

from attrs import field, frozen
from jinja2 import Environment, PackageLoader
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanation import Evidence, Explanation, Explanations
from explainkit.files import write
from explainkit.questions.class_level import ClassExplanation, ClassExplanations
from explainkit.questions.counterfactual import Counterfactual, Counterfactuals
from explainkit.rendering.figures import drawn
from explainkit.rendering.pictures import (
    common_grid,
    crop,
    data_uri,
    framed,
    outlined,
    overlay,
    pixels,
    rounded_limit,
    spotlight,
)  # fmt: skip
from explainkit.version import __version__
from explainkit.wording import percent

CLAIMS = {
    "exact": "adds up to the logit by construction",
    "approximate": "adds up to the logit but for the residual shown",
    "none": "not in logits",
}


@frozen(kw_only=True)
class Fact:
    """A figure for the head of a page: ``Fact(name="held-out accuracy", value="98.3 %")``."""

    name: str
    value: str
    note: str = ""


@frozen(kw_only=True)
class TableView:
    """A table for the foot of a page.

    Attributes
    ----------
    title, note : str
    columns : sequence of str
    rows : sequence of (str, sequence of str, bool)
        Name, cells, and whether the row is a trivial baseline.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str], bool]]
    note: str = ""
    notes: Mapping[str, str] = field(factory=dict)


def report(
    told: Explanations | Sequence[Explanations] | Counterfactuals | ClassExplanations,
    path: str | Path,
    *,
    title: str = "Why these decisions",
    names: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    facts: Sequence[Fact] = (),
    tables: Sequence[TableView] = (),
    failures: Mapping[str, str] | None = None,
    classes: Mapping[str, ClassExplanations] | None = None,
    changes: Mapping[str, Counterfactuals] | None = None,
) -> Path:
    """Write explanations of the same images, a column an explainer, to one HTML file; return its path.

    Parameters
    ----------
    told
        Explanations; or what would change decisions, or what classes are, alone.
    names : sequence of str or None
        Of the columns; by default their explainers'.
    labels : sequence of str or None
        What the images truly show, where it is known.
    facts, tables
        Figures above the images, and tables below them.
    failures : mapping of str to str or None
        Explainers that have no column, and why.
    classes, changes : mapping or None
        What classes are to explainers, and what would change the decisions, by the explainers' names.

    Raises
    ------
    InputError
        For explanations of different numbers of images, and for a path that cannot be written.
    """
    if isinstance(told, ClassExplanations):
        classes = {told.provenance.explainer: told}
        return _written(page([], [], title, None, facts, tables, failures or {}, classes, {}), path)
    if isinstance(told, Counterfactuals):
        changes = {told.explanations.provenance.explainer: told}
        told = told.explanations
    columns = [told] if isinstance(told, Explanations) else list(told)
    if not columns or len({len(column) for column in columns}) > 1:
        raise InputError(
            f"Expected explanations of the same images; got {[len(column) for column in columns]}."
        )
    if labels is not None and len(labels) != len(columns[0]):
        raise InputError(f"Expected one label an image; got {len(labels)} for {len(columns[0])}.")
    if any(_differ(column.images, columns[0].images) for column in columns[1:]):
        raise InputError("Expected explanations of the same images; these are of different ones.")
    heads = names or [column.provenance.explainer for column in columns]
    found = (classes or {}, changes or {})
    return _written(page(columns, heads, title, labels, facts, tables, failures or {}, *found), path)


def _written(text: str, path: str | Path) -> Path:
    path = Path(path)
    write(path, text.encode(errors="backslashreplace"))
    return path


def _differ(one: Tensor, other: Tensor) -> bool:
    """Whether images are not the same ones; precision and device are no matter."""
    return one.shape != other.shape or not one.float().cpu().allclose(other.float().cpu(), atol=1e-2)


def page(
    columns: Sequence[Explanations],
    names: Sequence[str],
    title: str,
    labels: Sequence[str] | None,
    facts: Sequence[Fact],
    tables: Sequence[TableView],
    failures: Mapping[str, str],
    classes: Mapping[str, ClassExplanations],
    changes: Mapping[str, Counterfactuals],
) -> str:
    """The page as a text."""
    rows = [
        _row([column[index] for column in columns], names, labels[index] if labels else None)
        | {"changes": [_change_card(told[index], name) for name, told in changes.items()]}
        for index in range(len(columns[0]) if columns else 0)
    ]
    known = {item.name: None for told in classes.values() for item in told}
    template = _templates().get_template("page.html.jinja")
    return template.render(
        title=title, rows=rows, names=names, facts=facts, tables=tables, failures=failures, claims=CLAIMS,
        version=__version__,
        classes=[
            {"name": label, "cards": [_class_card(told[label], name) for name, told in classes.items()
                                      if label in told]}
            for label in known
        ],
    )  # fmt: skip


def fragment(explanation: Explanation) -> str:
    """One explanation as HTML for a notebook: markup and style, no script."""
    template = _templates().get_template("fragment.html.jinja")
    return template.render(
        row=_row([explanation], [explanation.batch.provenance.explainer], None), claims=CLAIMS
    )


SHOWN = 3
"""How many of several values a notebook shows."""


def several(told: Iterable[Any], count: int) -> str:
    """The first of `count` values as HTML for a notebook, and how many more there are."""
    first = [item._repr_html_() for item in islice(told, SHOWN)]
    more = count - len(first)
    return "\n".join([*first, *([f"<p>and {more} more</p>"] if more else [])])


def plain_fragment(text: str) -> str:
    """A table of text as HTML for a notebook, its words escaped."""
    return f"<pre>{escape(text)}</pre>"


def class_fragment(told: ClassExplanation) -> str:
    """One class as HTML for a notebook."""
    card = _class_card(told, told.batch.provenance.explainer)
    return _templates().get_template("answer.html.jinja").render(kind="class", card=card, claims=CLAIMS)


def change_fragment(told: Counterfactual) -> str:
    """What would change one decision as HTML for a notebook."""
    card = _change_card(told, told.batch.explanations.provenance.explainer)
    return _templates().get_template("answer.html.jinja").render(kind="change", card=card, claims=CLAIMS)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("explainkit.rendering"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )


def _row(explanations: Sequence[Explanation], names: Sequence[str], label: str | None) -> dict[str, Any]:
    """All that the template shows of one image; sums of one network share one scale."""
    first = explanations[0]
    of_rows = first.batch.of_rows
    grids = [None if of_rows else common_grid(item.saliency().detach().cpu()) for item in explanations]
    limits = _limits(explanations, grids)
    return {
        "image": None if of_rows else data_uri(pixels(first.image)),
        "columns": _columns(first) if of_rows else [],
        "label": label,
        "predicted": first.batch.classes[first.prediction],
        "right": label is None or label == first.batch.classes[first.prediction],
        "cards": [
            _card(item, name, grid, limit)
            for item, name, grid, limit in zip(explanations, names, grids, limits, strict=True)
        ],
        "drawings": [
            {"explainer": name, "picture": data_uri(picture, 128)}
            for item, name in zip(explanations, names, strict=True)
            if (picture := drawn(item)) is not None
        ],
    }


def _columns(row: Explanation) -> list[tuple[str, float]]:
    """The columns of a row of a table, named as the units are where there is one for each."""
    values, names = row.image.tolist(), row.batch.units.names
    named = names if len(names) == len(values) else [f"column {place}" for place in range(len(values))]
    return list(zip(named, values, strict=True))


def _limits(explanations: Sequence[Explanation], grids: Sequence[Tensor | None]) -> list[float]:
    """The end of each one's colour scale: shared by the sums that are about the same logits, else its own."""

    def comparable(one: Explanation, other: Explanation) -> bool:
        if "none" in (one.batch.claim, other.batch.claim) or one.logits.shape != other.logits.shape:
            return one is other
        near = 1e-3 * float(one.logits.abs().max())
        return bool((one.logits - other.logits.to(one.logits)).abs().max() <= near)

    own = [1.0 if grid is None else rounded_limit(grid) for grid in grids]
    return [
        max(limit for other, limit in zip(explanations, own, strict=True) if comparable(item, other))
        for item in explanations
    ]


def _card(explanation: Explanation, name: str, grid: Any, limit: float, count: int = 6) -> dict[str, Any]:
    """One explainer's answer for one image."""
    items = explanation.strongest(count)
    others = explanation.contributions.sum().item() - sum(item.contribution for item in items)
    sums = {"others": others, "base": explanation.base, "residual": explanation.residual or 0.0}
    longest = max(
        [abs(item.contribution) for item in items] + [abs(value) for value in sums.values()] + [1e-12]
    )
    return {
        "explainer": name,
        "claim": explanation.batch.claim,
        "picture": None if grid is None else data_uri(overlay(explanation.image, grid, limit)),
        "placed": grid is not None and bool(grid.any()),
        "notes": explanation.notes,
        "limit": limit,
        "target": explanation.target_name,
        "against": explanation.against_name,
        "sentence": explanation.sentence(),
        "total": explanation.total,
        "unplaced": explanation.batch.unplaced[explanation.index].item(),
        "kind": explanation.batch.units.kind,
        "more": len(explanation.contributions) - len(items),
        "items": [_unit(explanation, item, longest) for item in items],
        "sums": sums,
        "longest": longest,
    }


def _unit(explanation: Explanation, item: Evidence, longest: float) -> dict[str, Any]:
    exemplar = next((found for found in item.exemplars if found.image is not None), None)
    side = 112 if exemplar else 72
    from_one_cell = explanation.batch.units.pooling == "max"
    threshold = 0.85 if from_one_cell else 0.5
    return {
        "words": item.words,
        "name": item.name,
        "fit": item.phrase_score,
        "score": item.score,
        "weight": item.weight,
        "contribution": item.contribution,
        "share": abs(item.contribution) / longest,
        "where": None
        if item.map is None
        else data_uri(spotlight(explanation.image, item.map, side, threshold)),
        "exemplar": data_uri(framed(exemplar.image, exemplar.box, side))
        if exemplar and exemplar.image is not None
        else None,
    }


def _class_card(told: ClassExplanation, name: str, count: int = 6) -> dict[str, Any]:
    """One explainer's answer for one class."""
    items = told.strongest(count)
    longest = max([abs(item.contribution) for item in items] + [1e-12])
    contrast = told.contrast().sentence() if told.against is None and told.batch.every is not None else None
    return {
        "explainer": name, "claim": told.batch.claim, "name": told.name, "kind": told.batch.units.kind,
        "sentence": told.sentence(), "contrast": contrast, "count": told.count, "accuracy": told.accuracy,
        "linearity": told.linearity, "total": told.total, "base": told.base + told.residual,
        "decides": told.batch.decisive is not None and told.against is None,
        "more": len(told.contributions) - len(items),
        "others": told.contributions.sum().item() - sum(item.contribution for item in items),
        "items": [
            {
                "words": item.words, "name": item.name,
                "contribution": item.contribution, "low": item.low, "high": item.high,
                "share": abs(item.contribution) / longest,
                "decisive": None if item.decisive is None else percent(item.decisive),
                "pictures": [
                    data_uri(crop(found.image, found.box, 56))
                    for found in item.exemplars if found.image is not None
                ],
            }
            for item in items
        ],
    }  # fmt: skip


def _change_card(told: Counterfactual, name: str, count: int = 6) -> dict[str, Any]:
    """One explainer's answer to what would change one decision."""
    changes, realised = told.changes, told.batch.realised
    regions = realised.regions[told.index]
    card: dict[str, Any] = {
        "explainer": name, "predicted": told.predicted_name, "target": told.target_name,
        "sentence": told.sentence(), "success": told.success, "kind": told.batch.explanations.units.kind,
        "changes": changes[:count], "more": len(changes) - len(changes[:count]), "before": None,
    }  # fmt: skip
    if not told.batch.explanations.of_rows:
        card["before"] = data_uri(pixels(told.explanation.image, 160))
        if told.success:
            card["source"] = data_uri(outlined(realised.sources[told.index], regions))
            card["after"] = data_uri(outlined(told.image, regions))
    return card
