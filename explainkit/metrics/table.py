"""Every metric of every explainer, and of the trivial rows, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from explainkit import registry
from explainkit.data.types import ImageDataset
from explainkit.errors import ExplainKitError, InputError
from explainkit.explainers.identity import distinct_names
from explainkit.explainers.inputs import check_same_scaling, network_key
from explainkit.explainers.interface import Explainer
from explainkit.metrics.baselines import TRIVIAL
from explainkit.metrics.context import EvalContext, ExplainerOutput, Passes
from explainkit.metrics.cost import counting
from explainkit.metrics.ground_truth import Value
from explainkit.metrics.results import MetricTable, Row, Score
from explainkit.protocols import Metric

COLUMN_ORDER = (
    "shapley-correlation", "within-class-correlation", "top-part", "part-deletion", "part-insertion",
    "residual", "pixel-deletion", "pixel-insertion", "pointing", "object-mass", "content-heatmap",
    "stochastic-pointing", "cell-leak", "region-leak", "location-instability", "part-interpretability",
    "units-to-95-percent", "gini", "mutual-information-score", "forward-passes", "backward-passes",
)  # fmt: skip
"""The order of the columns, from what is true to what it costs."""


def evaluate_explanations(
    explainers: Explainer | Sequence[Explainer] | Mapping[str, Explainer],
    dataset: ImageDataset,
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
        Fitted or made from a network; as a mapping, rows bear its names.
    split : str or None
        ``None``: ``"mixed"`` where the data have it, on which importance varies within a class; else
        ``"test"``.
    images : int
        The first so many of the split; what is explained is the class that the network predicts.
    seed : int
        Of the random rows, of ties and of the intervals.
    metrics : sequence of str or None
        Names as plugins offer them; ``None``: all.
    value : {"logit", "centered"}
        What the truth divides among parts.

    Raises
    ------
    InputError
        Where there is no explainer or no image.
    UnknownNameError
        For a split or a metric that is not there.
    """
    split = split or usual_split(dataset)
    ids = torch.arange(len(dataset.split(split)))[: max(images, 0)]
    by_name = explainers_by_name(explainers)
    if not by_name or not len(ids):
        raise InputError(f"Expected at least one explainer and one image; got {len(by_name)} and {len(ids)}.")
    metric_by_name = {name: registry.find("metrics", name) for name in metrics or _columns()}
    check_same_scaling(by_name.values())
    contexts: dict[object, tuple[str, EvalContext]] = {}  # by network
    rows = []
    for name, explainer in by_name.items():
        new_context = EvalContext(
            explainer=explainer, dataset=dataset, split=split, ids=ids, value=value, seed=seed
        )
        network, context = contexts.setdefault(network_key(explainer), (name, new_context))
        rows.append(
            evaluate_row(name, network, False, context, metric_by_name, explainer_output(explainer, name))
        )
    for name, context in contexts.values():
        rows += trivial_rows(name, context, metric_by_name, f" ({name})" if len(contexts) > 1 else "")
    return MetricTable(
        rows=tuple(rows),
        columns=tuple(metric_by_name),
        dataset=dataset.name,
        split=split,
        images=len(ids),
        seed=seed,
    )


def usual_split(dataset: ImageDataset) -> str:
    """``"mixed"`` where the data have it, on which importance varies within a class; else ``"test"``."""
    return "mixed" if "mixed" in dataset.splits else "test"


def trivial_rows(
    network: str, context: EvalContext, metrics: Mapping[str, Metric], suffix: str = ""
) -> list[Row]:
    """What every baseline scores about one network."""
    return [
        evaluate_row(f"{label}{suffix}", network, True, context, metrics, baseline)
        for label, baseline in TRIVIAL.items()
    ]


def _columns() -> list[str]:
    """All metrics on offer, ours first, in the order of `COLUMN_ORDER`."""
    offered = registry.offers("metrics")
    return [
        *(name for name in COLUMN_ORDER if name in offered),
        *(name for name in offered if name not in COLUMN_ORDER),
    ]


def explainers_by_name(
    explainers: Explainer | Sequence[Explainer] | Mapping[str, Explainer],
) -> dict[str, Explainer]:
    """Explainers by the names of their rows."""
    if isinstance(explainers, Mapping):
        return dict(explainers)
    return distinct_names([explainers] if isinstance(explainers, Explainer) else explainers)


def explainer_output(explainer: Explainer, name: str) -> Callable[[EvalContext], ExplainerOutput]:
    """A function that explains the images of a context, and counts what that costs."""

    def explain(context: EvalContext) -> ExplainerOutput:
        images, targets = context.images, context.targets
        with counting(explainer.network, images[:1]) as counter:
            explanations = explainer.explain(images, targets)
        passes = counter.passes
        if passes is not None:
            passes = Passes(forward=passes.forward / len(images), backward=passes.backward / len(images))
        return ExplainerOutput(
            context=context,
            name=name,
            full_explanations=explanations,
            explainer=explainer,
            saliency_map=explanations.saliency(),
            passes=passes,
        )

    return explain


def evaluate_row(
    name: str,
    network: str,
    trivial: bool,
    context: EvalContext,
    metrics: Mapping[str, Metric],
    make_output: Callable[[EvalContext], ExplainerOutput],
) -> Row:
    """A row; where there is no output, the reason stands in every cell."""
    try:
        output = make_output(context)
    except Exception as error:  # a third-party explainer must not cost the others their rows
        scores = {column: Score(name=column, reason=error_text(error)) for column in metrics}
    else:
        scores = {column: _evaluate_cell(column, metrics[column], output) for column in metrics}
    return Row(name=name, network=network, trivial=trivial, scores=scores)


def _evaluate_cell(column: str, metric: Metric, output: ExplainerOutput) -> Score:
    try:
        return metric(output)
    except Exception as error:  # a third-party metric must not cost the others their columns
        return Score(name=column, reason=error_text(error))


def error_text(error: Exception) -> str:
    """An error as a reason: in our words where it is one of ours."""
    return str(error) if isinstance(error, ExplainKitError) else f"{type(error).__name__}: {error}"
