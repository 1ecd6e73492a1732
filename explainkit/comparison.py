"""Explainers side by side: the same images, the same targets, one scale, one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from explainkit.data.images import Batch, ImageData, Split
from explainkit.errors import ExplainKitError, InputError
from explainkit.explanation import Explanation, Explanations, class_indices
from explainkit.interfaces import Explainer, Images, InterpretableExplainer, Targets, distinct_names
from explainkit.metrics.table import MetricTable, measure
from explainkit.questions.class_level import ClassExplanations
from explainkit.questions.counterfactual import Counterfactuals

if TYPE_CHECKING:
    from explainkit.rendering.html import Fact

WITHOUT_SCENES = (
    "residual", "pixel-deletion", "pixel-insertion", "pointing", "units-to-95", "gini", "forward-passes",
    "backward-passes",
)  # fmt: skip
"""The metrics that need no more than images, and masks where there are any."""


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
    data, split
        What the table is measured on; ``None``: these images alone.
    count : int
        How many images of `data` the table is measured on.
    measures : sequence of str or None
        Metrics of the table; ``None``: all that can be.
    bank : ImageData or None
        Training images, for the questions what a class is and what would change a decision.
    """

    explainers: dict[str, Explainer] = field(repr=lambda named: str(list(named)))
    explanations: dict[str, Explanations] = field(repr=False)
    failures: dict[str, str] = field(factory=dict)
    batch: Batch = field(repr=False)
    labels: tuple[str, ...] | None = field(default=None, repr=False)
    data: ImageData | None = field(default=None, repr=False)
    split: str | None = None
    count: int = 200
    measures: Sequence[str] | None = None
    seed: int = 0
    bank: ImageData | None = field(default=None, repr=False)

    @cached_property
    def classes(self) -> dict[str, ClassExplanations]:
        """What the classes shown are to each architecture, over the training images of `bank`."""
        if self.bank is None:
            return {}
        shown = next(iter(self.explanations.values())).targets.unique().tolist()
        return {name: model.explain_class(self.bank, shown) for name, model in self._architectures()}

    @cached_property
    def changes(self) -> dict[str, Counterfactuals]:
        """What would make each image its runner-up, to each architecture, with regions of `bank`."""
        if self.bank is None:
            return {}
        told = next(iter(self.explanations.values()))
        rivals = told.logits.scatter(1, told.targets[:, None], -torch.inf).argmax(1)
        images = self.batch.images
        return {
            name: model.counterfactual(images, rivals, bank=self.bank)
            for name, model in self._architectures()
        }

    def _architectures(self) -> list[tuple[str, InterpretableExplainer[Any]]]:
        """Those that explain themselves: the others know one class, and change nothing."""
        return [
            (name, model) for name, model in self.explainers.items()
            if name in self.explanations and isinstance(model, InterpretableExplainer)
        ]  # fmt: skip

    @cached_property
    def metrics(self) -> MetricTable:
        """Every metric of every explainer, with the trivial rows; worked out when first asked for."""
        ready = {name: self.explainers[name] for name in self.explanations}
        if self.data is not None:
            return measure(
                ready, self.data, split=self.split, images=self.count, seed=self.seed, metrics=self.measures
            )
        first = next(iter(self.explanations.values()))
        alone = _AloneSplit(self.batch)
        data = ImageData(
            name="what is shown", classes=first.classes, size=(alone.height, alone.width),
            splits=alone.everywhere(),
        )  # fmt: skip
        table = measure(
            ready,
            data,
            split="test",
            images=len(self.batch),
            seed=self.seed,
            metrics=self.measures or WITHOUT_SCENES,
        )
        told = [row for row in table.rows if any(score.values is not None for score in row.scores.values())]
        return evolve(table, rows=tuple(told))

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
        from explainkit.rendering.html import TableView, report

        return report(
            list(self.explanations.values()), path, title=title, names=list(self.explanations),
            labels=self.labels,
            facts=facts, tables=[TableView(**self.metrics.view())], failures=self.failures,
            classes=self.classes, changes=self.changes,
        )  # fmt: skip

    def to_json(self) -> str:
        """Explanations (sums and strongest units) and metrics as JSON, for other programs."""
        facts = {
            "explanations": {
                name: [_facts(item) for item in told] for name, told in self.explanations.items()
            },
            "failures": self.failures,
            "labels": self.labels,
            "classes": {name: [item.facts() for item in told] for name, told in self.classes.items()},
            "changes": {name: [item.facts() for item in told] for name, told in self.changes.items()},
            "metrics": json.loads(self.metrics.to_json()),
        }
        return json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False)


def compare(
    explainers: Sequence[Explainer],
    images: Images,
    targets: Targets | None = None,
    *,
    against: Targets | None = None,
    data: ImageData | None = None,
    split: str | None = None,
    count: int = 200,
    measures: Sequence[str] | None = None,
    seed: int = 0,
    bank: ImageData | None = None,
) -> Comparison:
    """What `explainers` say of the same images, about the same classes.

    Parameters
    ----------
    images
        Tensor (N, 3, H, W) in [0, 1], a `Batch` (its masks give pointing), or files, PIL images and arrays.
    targets
        Classes by name or index; by default the first explainer's predictions.
    against
        Explain the margin over these classes instead.
    data, split, count
        What the table of metrics is measured on: the first `count` images of a split. For aviary the mixed
        scenes, whose parts are removed by drawing them again. ``None``: the images that are shown.
    measures : sequence of str or None
        Metrics of the table, by name; ``None``: all that can be.
    seed : int
        Of the random rows, of ties and of the intervals.
    bank : ImageData or None
        Training images: with them the page tells also what the classes are to each architecture, and what
        would change its mind.

    Raises
    ------
    InputError
        Where no explainer can explain the images, with each one's reason.
    """
    if not explainers:
        raise InputError("Expected at least one explainer to compare; got none.")
    first = explainers[0]
    for other in explainers[1:]:
        if other.classes and other.classes != first.classes:
            raise InputError(
                f"Expected explainers of the same classes; {first.card.title} knows "
                f"{', '.join(first.classes[:3])} …, {other.card.title} knows "
                f"{', '.join(other.classes[:3])} …. Name them with classes=…."
            )
    batch = images if isinstance(images, Batch) else _batch_of(first.read(images))
    wanted = first.predict(batch.images).argmax(1) if targets is None else targets
    wanted = class_indices(wanted, first.classes, len(batch))
    named = distinct_names(explainers)
    told, failures = {}, {}
    for name, explainer in named.items():
        try:
            told[name] = explainer.explain(batch.images, wanted, against=against)
        except ExplainKitError as error:
            failures[name] = str(error)
    if not told:
        raise InputError(f"No explainer could explain the images: {failures}.")
    labels = [first.classes[label] for label in batch.labels.tolist()] if isinstance(images, Batch) else None
    return Comparison(
        explainers=named, explanations=told, failures=failures, batch=batch, labels=None if labels is None
        else tuple(labels), data=data, split=split, count=count, measures=measures, seed=seed,
        bank=bank,
    )  # fmt: skip


@frozen(eq=False)
class _AloneSplit:
    """A batch as a split."""

    whole: Batch

    @property
    def labels(self) -> Tensor:
        return self.whole.labels

    @property
    def height(self) -> int:
        return self.whole.images.shape[-2]

    @property
    def width(self) -> int:
        return self.whole.images.shape[-1]

    def __len__(self) -> int:
        return len(self.whole)

    def batch(self, ids: Tensor) -> Batch:
        given = self.whole
        return Batch(
            images=given.images[ids], labels=given.labels[ids], ids=ids,
            masks=None if given.masks is None else given.masks[ids],
        )  # fmt: skip

    def everywhere(self) -> dict[str, Split]:
        """As every split that a data set needs."""
        return dict.fromkeys(("train", "validation", "test"), self)


def _batch_of(images: Tensor) -> Batch:
    count = torch.arange(len(images))
    return Batch(images=images, labels=torch.full_like(count, -1), ids=count)


def _facts(item: Explanation) -> dict[str, Any]:
    strongest = item.strongest(10)
    return {
        "target": item.target_name, "against": item.against_name, "prediction":
        item.batch.classes[item.prediction],
        "claim": item.batch.claim, "total": item.total, "base": item.base, "residual": item.residual,
        "sentence": item.sentence(),
        "evidence": [
            {"unit": unit.unit, "name": unit.name, "phrase": unit.phrase, "score": unit.score, "weight":
            unit.weight,
             "contribution": unit.contribution}
            for unit in strongest
        ],
        "others": item.contributions.sum().item() - sum(unit.contribution for unit in strongest),
    }  # fmt: skip
