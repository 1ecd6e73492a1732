"""FunnyBirds' table: its scores for explainers and for trivial rows, with thresholds chosen in two ways."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from attrs import field, frozen
from torch import Tensor

from explainkit.data.types import ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.inputs import check_same_scaling, network_key
from explainkit.explainers.interface import Explainer
from explainkit.explanations.json_values import breach, read_document, schema_name
from explainkit.explanations.serialization import SCHEMA, as_format_error
from explainkit.metrics import funnybirds as scores
from explainkit.metrics.baselines import TRIVIAL
from explainkit.metrics.funnybirds import THRESHOLDS
from explainkit.metrics.funnybirds_rows import (
    MakeRow,
    RowImportance,
    Scenes,
    explained_row,
    gather_scenes,
    has_boxes,
    importance_of_boxes,
    importance_of_explanations,
    is_editable,
    trivial_row,
)
from explainkit.metrics.results import MetricTable, Row, Score
from explainkit.metrics.table import error_text, explainers_by_name

COLUMNS = (
    "fb-accuracy", "fb-csdc", "fb-pc", "fb-dc", "fb-d", "fb-bi", "fb-sd", "fb-ts",
    "fb-completeness", "fb-correctness", "fb-contrastivity", "fb-mean", "fb-threshold",
)  # fmt: skip
"""In the order of the paper: accuracy, the scores, the three means, their mean, and the chosen threshold."""

BOXES = "boxes"
"""What the name of a row ends with whose units are shown as boxes."""


@frozen(eq=False, kw_only=True)
class FunnyBirdsTables:
    """FunnyBirds' scores twice, by how the threshold of each row is chosen.

    Attributes
    ----------
    by_validation : MetricTable
        Where completeness is highest on other images: what a threshold that is chosen beforehand gives. Of
        data whose validation scenes cannot be drawn again, on every other one of the same images, for the
        images between.
    by_test : MetricTable
        Where it is highest on the same images, as published: comparable with figures in print, and too good.
    """

    by_validation: MetricTable
    by_test: MetricTable = field(repr=False)

    def markdown(self) -> str:
        """Both tables in Markdown."""
        return "\n".join(f"**{title}**\n\n{table.markdown()}" for title, table in self._titled())

    def table(self, intervals: bool = False) -> str:
        """Both tables as plain text."""
        return "\n\n".join(f"{title}\n{table.table(intervals)}" for title, table in self._titled())

    def to_json(self) -> str:
        """Both tables as JSON, each as `MetricTable.to_json` writes it."""
        tables = {"by_validation": self.by_validation, "by_test": self.by_test}
        facts = {name: json.loads(table.to_json()) for name, table in tables.items()}
        return json.dumps({"schema": f"{schema_name(type(self))}/{SCHEMA}"} | facts, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote.

        Raises
        ------
        FormatError
            For text that is damaged, foreign, of another schema version, or against the rules.
        """
        document = read_document(text, schema_name(cls))
        with as_format_error(breach(cls)):
            tables = {name: document[name] for name in ("by_validation", "by_test")}
        return cls(**{name: MetricTable.from_json(json.dumps(table)) for name, table in tables.items()})

    def _titled(self) -> list[tuple[str, MetricTable]]:
        return [
            ("Thresholds chosen on validation images", self.by_validation),
            ("Thresholds chosen on the same images, as published", self.by_test),
        ]


def evaluate_funnybirds(
    explainers: Explainer | Sequence[Explainer] | Mapping[str, Explainer],
    dataset: ImageDataset,
    *,
    split: str = "test",
    validation: str | None = "validation",
    images: int = 500,
    seed: int = 0,
    trivial: Sequence[str] | None = None,
) -> FunnyBirdsTables:
    """FunnyBirds' scores of every explainer, and of the trivial rows of every network.

    Hesse, Schaub-Meyer, Roth: FunnyBirds, ICCV 2023, arXiv:2308.06248. The network's logits with every subset
    of parts are worked out once and shared by all of its explainers. An explainer whose units are prototypes
    has a second row, in which they are shown as boxes.

    Parameters
    ----------
    explainers
        Fitted or made from a network; as a mapping, rows bear its names.
    dataset : ImageDataset
        Whose scenes can be drawn without parts and background objects, and whose classes are defined by their
        parts: ``explainkit.dataset("aviary", preset="funny", classes=50, test=500)``.
    split : str
        What is measured on.
    validation : str or None
        What thresholds are chosen on. ``None``, and for a split whose scenes cannot be drawn again, as those
        of the published FunnyBirds: thresholds for the even images are chosen on the odd ones of `split`, and
        the other way round.
    images : int
        The first so many of either split.
    seed : int
        Of the random rows and of the intervals.
    trivial : sequence of str or None
        Names of trivial rows as in `evaluate_explanations`; ``None``: all.

    Raises
    ------
    InputError
        Where there is no explainer or no image, and for data of another kind.
    UnknownNameError
        For a split that is not there.
    """
    by_name = explainers_by_name(explainers)
    if validation is not None and not is_editable(dataset.split(validation)):
        validation = None
    ids, validation_ids = (
        torch.arange(len(dataset.split(name)))[: max(images, 0)] for name in (split, validation or split)
    )
    least = 2 if validation is None else 1
    if not by_name or min(len(ids), len(validation_ids)) < least:
        raise InputError(
            f"Expected at least one explainer and {least} of the images of each split; got {len(by_name)}, "
            f"{len(ids)} and {len(validation_ids)}."
        )
    names = tuple(TRIVIAL) if trivial is None else tuple(trivial)
    if not set(names) <= TRIVIAL.keys():
        raise InputError(f"Expected trivial rows of {', '.join(TRIVIAL)}; got {names}.")
    check_same_scaling(by_name.values())
    networks: dict[object, tuple[str, Scenes, Scenes | None]] = {}
    rows: list[tuple[Row, Row]] = []
    for name, explainer in by_name.items():
        explainer.check_classes(dataset)
        if network_key(explainer) not in networks:
            scenes = gather_scenes(explainer, dataset, split, ids, seed)
            others = None
            if validation is not None:
                others = gather_scenes(explainer, dataset, validation, validation_ids, seed)
            networks[network_key(explainer)] = (name, scenes, others)
        network, test, other = networks[network_key(explainer)]
        makers = {name: explained_row(explainer, importance_of_explanations)}
        if has_boxes(explainer.units):
            makers[f"{name}, {BOXES}"] = explained_row(explainer, importance_of_boxes)
        rows += [_two_rows(row, network, False, make, test, other) for row, make in makers.items()]
    for network, test, other in networks.values():
        for label in names:
            row = label if len(networks) == 1 else f"{label} ({network})"
            rows.append(_two_rows(row, network, True, trivial_row(label), test, other))
    by_validation, by_test = (
        MetricTable(
            rows=rows_of_way, columns=COLUMNS, dataset=dataset.name, split=split, images=len(ids), seed=seed
        )
        for rows_of_way in zip(*rows, strict=True)
    )
    return FunnyBirdsTables(by_validation=by_validation, by_test=by_test)


def _two_rows(
    name: str, network: str, trivial: bool, make: MakeRow, test: Scenes, validation: Scenes | None
) -> tuple[Row, Row]:
    """A row with the threshold chosen on `validation`, and one with that chosen on `test`.

    Without validation scenes it is chosen on the half of the test that an image is not in. Where an
    explanation fails, the reason stands in every cell but those about the network.
    """
    of_network: dict[str, Tensor | str] = {
        "fb-accuracy": (test.logits.predicted == test.logits.labels).double(),
        "fb-bi": scores.background_independence(test.logits),
    }
    cells: list[dict[str, Tensor | str]]
    notes: dict[str, str] = {}
    try:
        row = make(test, True)
        curves = _threshold_curves(test, row)
        if validation is None:
            beforehand = _by_other_half(curves)
        else:
            beforehand = scores.best_threshold(*_threshold_curves(validation, make(validation, False)))
        chosen = [beforehand, scores.best_threshold(*curves)]
    except Exception as error:  # a third-party explainer must not cost the others their rows
        reason = error_text(error)
        cells = [{**dict.fromkeys(COLUMNS, reason), **of_network}] * 2
    else:
        notes = _notes(row)
        cells = [_cells(test, row, curves, threshold) | of_network for threshold in chosen]
    seed = test.context.seed
    by_validation, by_test = (
        Row(
            name=name, network=network, trivial=trivial,
            scores={
                column: _score(column, values[column], notes.get(column, ""), seed) for column in COLUMNS
            },
        )
        for values in cells
    )  # fmt: skip
    return by_validation, by_test


def _by_other_half(curves: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """For even images the threshold that is best on odd ones, and the other way round, (N,)."""
    even = torch.arange(curves[0].shape[1]) % 2 == 0
    on_odd, on_even = (
        scores.best_threshold(*(values[:, half.to(values.device)] for values in curves))
        for half in (~even, even)
    )
    return torch.where(even, on_odd, on_even)


def _threshold_curves(scenes: Scenes, row: RowImportance) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four scores that depend on a threshold, each (T, N)."""
    logits = scenes.logits
    return (
        scores.controlled_synthetic_data_check(logits, row.of_label, THRESHOLDS),
        scores.preservation_check(logits, row.of_predicted, THRESHOLDS),
        scores.deletion_check(logits, row.of_predicted, THRESHOLDS),
        scores.distractibility(logits, row.of_label, THRESHOLDS),
    )


def _cells(
    scenes: Scenes, row: RowImportance, curves: tuple[Tensor, ...], chosen: Tensor
) -> dict[str, Tensor | str]:
    """The values (N,) of every score of an explanation, at thresholds by number, () or (N,)."""
    logits = scenes.logits
    images = torch.arange(len(logits.labels), device=logits.labels.device)
    chosen = chosen.to(images.device).expand(len(images))
    csdc, preservation, deletion, distractible = (values[chosen, images] for values in curves)
    correctness = scores.single_deletion(logits, row.of_label)
    contrastivity = torch.full_like(correctness, torch.nan)
    if row.of_first is not None and row.of_second is not None:
        compared = scores.target_sensitivity(logits, scenes.pairs, row.of_first, row.of_second)
        contrastivity = compared.where(scenes.is_sensitive, torch.nan)
    checks = [(1 / 6, values) for values in (csdc, preservation, deletion)]
    completeness = scores.weighted_sum([*checks, (1 / 2, distractible)])
    mean = scores.weighted_sum([(1 / 3, v) for v in (completeness, correctness, contrastivity)])
    return {
        "fb-csdc": csdc, "fb-pc": preservation, "fb-dc": deletion, "fb-d": distractible,
        "fb-sd": correctness, "fb-ts": contrastivity, "fb-completeness": completeness,
        "fb-correctness": correctness, "fb-contrastivity": contrastivity, "fb-mean": mean,
        "fb-threshold": THRESHOLDS.to(images.device)[chosen],
    }  # fmt: skip


def _notes(row: RowImportance) -> dict[str, str]:
    """Where the rule of the threshold is turned round."""
    share = (row.of_label.total <= 0).all(1).double().mean().item()
    note = f"all evidence sums to no more than 0 in {share:.1%} of the images" if share else ""
    return dict.fromkeys(("fb-csdc", "fb-pc", "fb-dc", "fb-d"), note)


def _score(column: str, values: Tensor | str, note: str, seed: int) -> Score:
    is_threshold = column == "fb-threshold"
    return Score(
        name=column, values=None if isinstance(values, str) else values.cpu(),
        reason=values if isinstance(values, str) else None, better=None if is_threshold else "higher",
        unit="share of all evidence" if is_threshold else "", note=note, seed=seed,
    )  # fmt: skip
