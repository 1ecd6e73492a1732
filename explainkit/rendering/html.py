"""One page that needs nothing else: a row an image, a column an explainer, sums that add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

from attrs import frozen
from jinja2 import Environment, PackageLoader
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.batch import Explanations
from explainkit.explanations.class_level import ClassExplanation, ClassExplanations
from explainkit.explanations.counterfactuals import Counterfactual, Counterfactuals
from explainkit.explanations.sentences import percent
from explainkit.explanations.serialization import write
from explainkit.explanations.single import Evidence, Explanation
from explainkit.explanations.spatial import SHOWN_FROM, SHOWN_FROM_PEAK
from explainkit.explanations.units import UnitPicture
from explainkit.rendering.class_figures import portrait_of
from explainkit.rendering.figures import drawn, image_note
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
from explainkit.rendering.place import SQUARE, cell_note, leak_note, leak_of_unit, strongest_cell_box
from explainkit.version import __version__

LABELS = {
    "exact": "adds up to the logit by construction",
    "approximate": "adds up to the logit but for the residual shown",
    "none": "not in logits",
}

SHOWN = 3
"""How many of several values a notebook shows."""


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


def report(
    explanations: Explanations | Sequence[Explanations] | Counterfactuals | ClassExplanations,
    path: str | Path,
    *,
    title: str = "Why these decisions",
    names: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    facts: Sequence[Fact] = (),
    tables: Sequence[TableView] = (),
    failures: Mapping[str, str] | None = None,
    class_explanations: Mapping[str, ClassExplanations] | None = None,
    counterfactuals: Mapping[str, Counterfactuals] | None = None,
) -> Path:
    """Write explanations of the same images, a column an explainer, to one HTML file; return its path.

    Parameters
    ----------
    explanations
        Explanations of images; or class explanations, or counterfactuals, alone.
    names : sequence of str or None
        Of the columns; by default their explainers'.
    labels : sequence of str or None
        What the images truly show, where it is known.
    facts, tables
        Figures above the images, and tables below them.
    failures : mapping of str to str or None
        Explainers that have no column, and why.
    class_explanations, counterfactuals : mapping or None
        What classes are to explainers, and what would change the decisions, by the explainers' names.

    Raises
    ------
    InputError
        For explanations of different numbers of images, and for a path that cannot be written.
    """
    if isinstance(explanations, ClassExplanations):
        class_explanations = {explanations.provenance.explainer: explanations}
        text = page([], [], title, None, facts, tables, failures or {}, class_explanations, {})
        return _write_page(text, path)
    if isinstance(explanations, Counterfactuals):
        counterfactuals = {explanations.explanations.provenance.explainer: explanations}
        explanations = explanations.explanations
    columns = [explanations] if isinstance(explanations, Explanations) else list(explanations)
    if not columns or len({len(column) for column in columns}) > 1:
        raise InputError(
            f"Expected explanations of the same images; got {[len(column) for column in columns]}."
        )
    labels = _labels_by_explanation(labels, columns[0])
    if labels is not None and len(labels) != len(columns[0]):
        raise InputError(f"Expected one label an image; got {len(labels)} for {len(columns[0])}.")
    if any(_are_different(column, columns[0]) for column in columns[1:]):
        raise InputError("Expected explanations of the same images; these are of different ones.")
    heads = names or [column.provenance.explainer for column in columns]
    text = page(
        columns, heads, title, labels, facts, tables, failures or {}, class_explanations or {},
        counterfactuals or {},
    )  # fmt: skip
    return _write_page(text, path)


def _write_page(text: str, path: str | Path) -> Path:
    path = Path(path)
    write(path, text.encode(errors="backslashreplace"))
    return path


def _are_different(one: Explanations, other: Explanations) -> bool:
    """Whether images are not the same ones, as far as they are there; precision and device are no matter."""
    if one.images.shape == other.images.shape and one.has_images and other.has_images:
        return not one.images.float().cpu().allclose(other.images.float().cpu(), atol=1e-2)
    return one.images.shape != other.images.shape


def page(
    columns: Sequence[Explanations],
    names: Sequence[str],
    title: str,
    labels: Sequence[str] | None,
    facts: Sequence[Fact],
    tables: Sequence[TableView],
    failures: Mapping[str, str],
    class_explanations: Mapping[str, ClassExplanations],
    counterfactuals: Mapping[str, Counterfactuals],
) -> str:
    """The page as a text."""
    rows = [
        _image_row([column[index] for column in columns], names, labels[index] if labels else None)
        | {
            "counterfactuals": [
                _counterfactual_card(batch[index], name) for name, batch in counterfactuals.items()
            ]
        }
        for index in range(len(columns[0]) if columns else 0)
    ]
    class_names = dict.fromkeys(item.name for batch in class_explanations.values() for item in batch)
    template = _templates().get_template("page.html.jinja")
    return template.render(
        title=title, rows=rows, names=names, facts=facts, tables=tables, failures=failures, labels=LABELS,
        version=__version__,
        classes=[
            {"name": label, "cards": [_class_card(batch[label], name)
                                      for name, batch in class_explanations.items() if label in batch]}
            for label in class_names
        ],
    )  # fmt: skip


def image_fragment(explanation: Explanation) -> str:
    """One explanation as HTML for a notebook: markup and style, no script."""
    template = _templates().get_template("image_fragment.html.jinja")
    return template.render(
        row=_image_row([explanation], [explanation.batch.provenance.explainer], None), labels=LABELS
    )


def batch_fragment(values: Iterable[Any], count: int) -> str:
    """The first of `count` values as HTML for a notebook, and how many more there are."""
    first = [item._repr_html_() for item in islice(values, SHOWN)]
    more = count - len(first)
    return "\n".join([*first, *([f"<p>and {more} more</p>"] if more else [])])


def text_fragment(text: str) -> str:
    """A table of text as HTML for a notebook, its words escaped."""
    return f"<pre>{escape(text)}</pre>"


def class_fragment(class_explanation: ClassExplanation) -> str:
    """One class as HTML for a notebook."""
    card = _class_card(class_explanation, class_explanation.batch.provenance.explainer)
    template = _templates().get_template("class_or_counterfactual_fragment.html.jinja")
    return template.render(kind="class", card=card, labels=LABELS)


def counterfactual_fragment(counterfactual: Counterfactual) -> str:
    """What would change one decision as HTML for a notebook."""
    card = _counterfactual_card(counterfactual, counterfactual.batch.explanations.provenance.explainer)
    template = _templates().get_template("class_or_counterfactual_fragment.html.jinja")
    return template.render(kind="counterfactual", card=card, labels=LABELS)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("explainkit.rendering"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )


def _labels_by_explanation(labels: Sequence[str] | None, explanations: Explanations) -> Sequence[str] | None:
    """What the image of each explanation truly shows, of which there may be several for an image."""
    index = explanations.image_index
    if labels is None or index is None or len(labels) == len(explanations) or len(labels) <= int(index.max()):
        return labels
    return [labels[image] for image in index.tolist()]


def _image_row(
    explanations: Sequence[Explanation], names: Sequence[str], label: str | None
) -> dict[str, Any]:
    """All that the template shows of one image; sums of one network share one scale."""
    first = explanations[0]
    is_tabular = first.batch.is_tabular
    grids = [None if is_tabular else common_grid(item.saliency().detach().cpu()) for item in explanations]
    limits = _limits(explanations, grids)
    return {
        "image": None if is_tabular else data_uri(pixels(first.image)),
        "note": "" if is_tabular else image_note(first),
        "columns": _columns(first) if is_tabular else [],
        "label": label,
        "predicted": first.prediction_name,
        "explained": None if first.batch.decision.rule == "softmax" else first.target_name,
        "right": label is None or label == first.prediction_name,
        "cards": [
            _image_card(item, name, grid, limit)
            for item, name, grid, limit in zip(explanations, names, grids, limits, strict=True)
        ],
        "drawings": [
            {"explainer": name, "picture": data_uri(picture, lossy=True)}
            for item, name in zip(explanations, names, strict=True)
            if (picture := drawn(item)) is not None
        ],
    }


def _columns(row: Explanation) -> list[tuple[str, float]]:
    """The columns of a row of a table, named as the units are where there is one for each."""
    if not row.batch.has_images:
        return []
    values, names = row.image.tolist(), row.batch.units.names
    column_names = names if len(names) == len(values) else [f"column {index}" for index in range(len(values))]
    return list(zip(column_names, values, strict=True))


def _limits(explanations: Sequence[Explanation], grids: Sequence[Tensor | None]) -> list[float]:
    """The end of each one's color scale: shared by the sums that are about the same logits, else its own."""

    def comparable(one: Explanation, other: Explanation) -> bool:
        if "none" in (one.batch.additivity, other.batch.additivity) or one.logits.shape != other.logits.shape:
            return one is other
        near = 1e-3 * float(one.logits.abs().max())
        return bool((one.logits - other.logits.to(one.logits)).abs().max() <= near)

    own = [1.0 if grid is None else rounded_limit(grid) for grid in grids]
    return [
        max(limit for other, limit in zip(explanations, own, strict=True) if comparable(item, other))
        for item in explanations
    ]


def _image_card(
    explanation: Explanation, name: str, grid: Any, limit: float, count: int = 6
) -> dict[str, Any]:
    """The card of one explainer for one image."""
    items = explanation.top(count)
    square = None if grid is None else strongest_cell_box(explanation)
    others = explanation.contributions.sum().item() - sum(item.contribution for item in items)
    sums = {"others": others, "base": explanation.base, "residual": explanation.residual or 0.0}
    longest = max(
        [abs(item.contribution) for item in items] + [abs(value) for value in sums.values()] + [1e-12]
    )
    return {
        "explainer": name,
        "additivity": explanation.batch.additivity,
        "picture": None if grid is None else data_uri(overlay(explanation.image, grid, limit, square=square)),
        "square": None if square is None else SQUARE,
        "place": " ".join(filter(None, (cell_note(explanation), leak_note(explanation, items)))),
        "is_localized": grid is not None and bool(grid.any()),
        "diagnostics": explanation.diagnostics,
        "limit": limit,
        "unit": explanation.batch.unit,
        "target": explanation.target_name,
        "foil": explanation.foil_name,
        "sentence": explanation.sentence(),
        "explained_output": explanation.explained_output,
        "nonspatial": explanation.batch.nonspatial[explanation.index].item(),
        "kind": explanation.batch.units.kind,
        "parents": explanation.parent_contributions,
        "more": len(explanation.contributions) - len(items),
        "items": [_unit_row(explanation, item, longest) for item in items],
        "sums": sums,
        "longest": longest,
    }


def _unit_row(explanation: Explanation, item: Evidence, longest: float) -> dict[str, Any]:
    picture = _shown_picture(item)
    side = 112 if picture else 72
    from_one_cell = explanation.batch.units.pooling_of(item.unit) == "max"
    threshold = SHOWN_FROM_PEAK if from_one_cell else SHOWN_FROM
    return {
        "text": item.text,
        "name": item.name,
        "fit": item.phrase_score,
        "leak": leak_of_unit(explanation, item.unit),
        "absent": item.is_absent and item.phrase is not None,
        "score": item.score,
        "weight": item.weight,
        "contribution": item.contribution,
        "share": abs(item.contribution) / longest,
        "where": None
        if item.map is None
        else data_uri(spotlight(explanation.image, item.map, side, threshold)),
        "picture": data_uri(framed(picture.image, picture.box, side))
        if picture and picture.image is not None
        else None,
    }


def _shown_picture(item: Evidence) -> UnitPicture | None:
    """The first picture of a unit that is kept: of the kind with little of it where it is absent."""
    pictures = [picture for picture in item.pictures if picture.image is not None]
    wanted = "least" if item.is_absent else "training"
    return next((picture for picture in pictures if picture.kind == wanted), next(iter(pictures), None))


def _class_card(class_explanation: ClassExplanation, name: str, count: int = 6) -> dict[str, Any]:
    """The card of one explainer for one class."""
    items = class_explanation.top(count)
    longest = max([abs(item.contribution) for item in items] + [1e-12])
    contrast = (
        class_explanation.contrast().sentence()
        if class_explanation.foil is None and class_explanation.batch.contributions_by_class is not None
        else None
    )
    return {
        "explainer": name,
        "additivity": class_explanation.batch.additivity,
        "name": class_explanation.name,
        "kind": class_explanation.batch.units.kind,
        "sentence": class_explanation.sentence(),
        "contrast": contrast,
        "count": class_explanation.count,
        "accuracy": class_explanation.accuracy,
        "linear_r2": class_explanation.linear_r2,
        "explained_output": class_explanation.explained_output,
        "base": class_explanation.base + (class_explanation.residual or 0.0),
        "decides": class_explanation.batch.decisive_rate is not None and class_explanation.foil is None,
        "more": len(class_explanation.contributions) - len(items),
        "others": class_explanation.contributions.sum().item() - sum(item.contribution for item in items),
        "items": [
            {
                "text": item.text,
                "name": item.name,
                "absent": item.is_absent and item.phrase is not None,
                "contribution": item.contribution,
                "low": item.low,
                "high": item.high,
                "share": abs(item.contribution) / longest,
                "decisive_rate": None if item.decisive_rate is None else percent(item.decisive_rate),
                "pictures": [
                    data_uri(crop(picture.image, picture.box, 56))
                    for picture in (*portrait_of(class_explanation, item), *item.pictures)
                    if picture.image is not None
                ],
            }
            for item in items
        ],
    }


def _counterfactual_card(counterfactual: Counterfactual, name: str, count: int = 6) -> dict[str, Any]:
    """The card of one explainer for what would change one decision: a part for each method."""
    batch, is_tabular = counterfactual.batch, counterfactual.batch.explanations.is_tabular
    return {
        "explainer": name,
        "predicted": counterfactual.predicted_name,
        "target": counterfactual.target_name,
        "sentence": counterfactual.sentence(),
        "success": counterfactual.success,
        "is_asked": bool(batch.image_edits),
        "kind": batch.explanations.units.kind,
        "before": None if is_tabular else data_uri(pixels(counterfactual.explanation.image, 160)),
        "images": [_edited_image(counterfactual, method) for method in batch.image_edits if not is_tabular],
        "scores": [
            {"method": method, "changes": changes[:count], "more": len(changes) - len(changes[:count])}
            for method in batch.score_edits
            if (changes := counterfactual.changes_by(method))
        ],
    }


def _edited_image(counterfactual: Counterfactual, method: str) -> dict[str, Any]:
    """The image as one method has edited it, and where that is from; nothing where it found no edit."""
    edits, row = counterfactual.batch.image_edits[method], counterfactual.index
    if edits.success is None or not edits.success[row]:
        return {"method": method, "after": None, "source": None, "source_label": "", "source_alt": ""}
    regions = None if edits.regions is None else edits.regions[row]

    def drawn_edit(image: Tensor) -> str:
        return data_uri(pixels(image, 160) if regions is None else outlined(image, regions))

    is_part = edits.source_label == "from"
    label = f"{edits.source_label} {counterfactual.target_name}"
    return {
        "method": method,
        "after": drawn_edit(edits.images[row]),
        "source": None if edits.sources is None else drawn_edit(edits.sources[row]),
        "source_label": "swapped in from" if is_part else label,
        "source_alt": "Where the regions are from" if is_part else label,
    }
