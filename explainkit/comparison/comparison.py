"""Explanations by several explainers of the same images, and the table of their metrics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from explainkit.data.types import Batch, ImageDataset
from explainkit.explainers.card import Question
from explainkit.explainers.interface import Explainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.class_json import ClassFacts
from explainkit.explanations.class_level import ClassExplanations
from explainkit.explanations.counterfactuals import Counterfactuals
from explainkit.explanations.display import rendering
from explainkit.explanations.json_values import schema_name
from explainkit.explanations.serialization import SCHEMA
from explainkit.explanations.single import ExplanationFacts
from explainkit.metrics.results import MetricTable
from explainkit.metrics.table import evaluate_explanations

if TYPE_CHECKING:
    from explainkit.rendering.html import Fact

WITHOUT_SCENES = (
    "residual",
    "pixel-deletion",
    "pixel-insertion",
    "pointing",
    "units-to-95-percent",
    "gini",
    "forward-passes",
    "backward-passes",
)
"""The metrics that need no more than images, and masks where there are any."""


class ComparisonFacts(TypedDict):
    """What several explainers say of the same images, by the explainers' names, and their metrics."""

    schema: str
    explanations: dict[str, list[ExplanationFacts]]
    failures: dict[str, str]
    labels: list[str] | None
    class_explanations: dict[str, list[ClassFacts]]
    counterfactuals: dict[str, list[dict[str, Any]]]
    metrics: dict[str, Any]


@frozen(eq=False, kw_only=True)
class Comparison:
    """What several explainers say of the same images.

    Attributes
    ----------
    explainers : mapping of str to Explainer
    explanations : mapping of str to Explanations
        By the same names; without those that failed.
    failures : mapping of str to str
        Why an explainer has no explanations.
    batch : Batch
        The images, and what is known of them.
    labels : tuple of str or None
        What the images truly show, where that is known.
    dataset, split
        What the table is measured on; ``None``: these images alone.
    count : int
        How many images of `dataset` the table is measured on.
    metric_names : sequence of str or None
        Metrics of the table; ``None``: all that can be.
    distractors : ImageDataset or None
        Training images, for the questions what a class is and what would change a decision.
    """

    explainers: dict[str, Explainer] = field(repr=lambda named: str(list(named)))
    explanations: dict[str, Explanations] = field(repr=False)
    failures: dict[str, str] = field(factory=dict)
    batch: Batch = field(repr=False)
    labels: tuple[str, ...] | None = field(default=None, repr=False)
    dataset: ImageDataset | None = field(default=None, repr=False)
    split: str | None = None
    count: int = 200
    metric_names: Sequence[str] | None = None
    seed: int = 0
    distractors: ImageDataset | None = field(default=None, repr=False)

    @cached_property
    def class_explanations(self) -> dict[str, ClassExplanations]:
        """What the classes shown are to each explainer with a vocabulary, over images of `distractors`.

        Methods whose units are pixels of each image have none.
        """
        if self.distractors is None:
            return {}
        targets = next(iter(self.explanations.values())).targets.unique().tolist()
        return {
            name: model.explain_class(self.distractors, targets)
            for name, model in self._answering("class")
            if model.units is not None
        }

    @cached_property
    def counterfactuals(self) -> dict[str, Counterfactuals]:
        """What would make each image its runner-up, by explainers that answer it, with `distractors`."""
        if self.distractors is None:
            return {}
        first = next(iter(self.explanations.values()))
        runners_up = None  # of labels, each model flips the one that is nearest to it
        if first.decision.is_exclusive:
            runners_up = first.logits.scatter(1, first.targets[:, None], -torch.inf).argmax(1)
        return {
            name: model.counterfactual(self.batch, runners_up, distractors=self.distractors)
            for name, model in self._answering("counterfactual")
        }

    def _answering(self, question: Question) -> list[tuple[str, Explainer]]:
        """The explainers that answer a question, but for those that failed."""
        return [
            (name, model)
            for name, model in self.explainers.items()
            if question in model.card.answers and name not in self.failures
        ]

    @cached_property
    def metrics(self) -> MetricTable:
        """Every metric of every explainer, with the trivial rows; worked out when first asked for."""
        explainers = {name: self.explainers[name] for name in self.explanations}
        if self.dataset is not None:
            return evaluate_explanations(
                explainers,
                self.dataset,
                split=self.split,
                images=self.count,
                seed=self.seed,
                metrics=self.metric_names,
            )
        first = next(iter(self.explanations.values()))
        split = _BatchSplit(self.batch)
        height, width = self.batch.images.shape[-2:]
        dataset = ImageDataset(
            name="what is shown", classes=first.decision.class_names(first.classes), size=(height, width),
            decision=first.decision, channels=self.batch.images.shape[1],
            splits=dict.fromkeys(("train", "validation", "test"), split),
        )  # fmt: skip
        table = evaluate_explanations(
            explainers,
            dataset,
            split="test",
            images=len(self.batch),
            seed=self.seed,
            metrics=self.metric_names or WITHOUT_SCENES,
        )
        rows = [row for row in table.rows if any(score.values is not None for score in row.scores.values())]
        return evolve(table, rows=tuple(rows))

    def table(self) -> str:
        """The metrics as text, a row an explainer, with the trivial rows beneath."""
        return self.metrics.table()

    def save(
        self, path: str | Path, *, title: str = "Explainers side by side", facts: Sequence[Fact] = ()
    ) -> Path:
        """Write the page: a row an image, a column an explainer, the table at its foot.

        Raises
        ------
        InputError
            For a path that cannot be written.
        """
        render = rendering()
        page: Path = render.report(
            list(self.explanations.values()), path, title=title, names=list(self.explanations),
            labels=self.labels,
            facts=facts, tables=[render.TableView(**self.metrics.view())], failures=self.failures,
            class_explanations=self.class_explanations, counterfactuals=self.counterfactuals,
        )  # fmt: skip
        return page

    def to_json(self) -> str:
        """Explanations (sums and strongest units) and metrics as JSON, for other programs."""
        facts: ComparisonFacts = {
            "schema": f"{schema_name(Comparison)}/{SCHEMA}",
            "explanations": {
                name: [item.facts() for item in items] for name, items in self.explanations.items()
            },
            "failures": self.failures,
            "labels": None if self.labels is None else list(self.labels),
            "class_explanations": {
                name: [item.facts() for item in items] for name, items in self.class_explanations.items()
            },
            "counterfactuals": {
                name: [item.facts() for item in items] for name, items in self.counterfactuals.items()
            },
            "metrics": json.loads(self.metrics.to_json()),
        }
        return json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False)


@frozen(eq=False)
class _BatchSplit:
    """A batch as a split."""

    whole: Batch

    @property
    def labels(self) -> Tensor:
        return self.whole.labels

    def __len__(self) -> int:
        return len(self.whole)

    def batch(self, ids: Tensor) -> Batch:
        batch = self.whole
        return Batch(
            images=batch.images[ids], labels=batch.labels[ids], ids=ids,
            masks=None if batch.masks is None else batch.masks[ids],
        )  # fmt: skip
