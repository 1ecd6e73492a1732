"""Measures a network's own explanation beside post-hoc methods on the same network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from attrs import field, frozen
from torch import Tensor

from explainkit import registry
from explainkit.data.types import ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.identity import name_of
from explainkit.explainers.inputs import check_same_scaling
from explainkit.explainers.interface import Explainer
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explainers.posthoc import PostHocExplainer
from explainkit.metrics.context import EvalContext, ExplainerOutput
from explainkit.metrics.ground_truth import Value
from explainkit.metrics.posthoc_comparison import Coincidence, PostHocComparison
from explainkit.metrics.results import MetricTable, Row, Score
from explainkit.metrics.table import error_text, evaluate_row, explainer_output, trivial_rows, usual_split
from explainkit.protocols import Metric
from explainkit.registry.catalog import explainer as explainer_by_name

USUAL_METHODS = (
    "captum/saliency", "captum/input-x-gradient", "captum/guided-backprop", "captum/integrated-gradients",
    "captum/layer-grad-cam", "captum/layer-gradient-x-activation", "captum/layer-integrated-gradients",
    "captum/layer-feature-ablation", "captum/feature-ablation", "captum/occlusion",
    "captum/shapley-value-sampling",
)  # fmt: skip
"""The methods unless others are named, where they are installed."""

USUAL_METRICS = (
    "shapley-correlation", "within-class-correlation", "top-part", "part-deletion", "part-insertion",
    "forward-passes", "backward-passes",
)  # fmt: skip
"""What is true of an explanation, and what it costs."""

COINCIDENCE = 1e-5
"""Maps that differ by no more than this share of the largest value are the same."""

ROUNDINGS, ROUNDED = 8, 1e-3
"""So are maps that differ by no more than so many roundings of the logit, which methods that subtract logits
cannot get below; where that is no more than this share of the largest value."""


def compare_with_posthoc(
    explainer: Explainer,
    dataset: ImageDataset,
    *,
    methods: Sequence[str] | Literal["all"] | None = None,
    split: str | None = None,
    images: int = 200,
    seed: int = 0,
    metrics: Sequence[str] = USUAL_METRICS,
    value: Value = "logit",
    on_row: Callable[[Row], None] | None = None,
) -> PostHocComparison:
    """A network's own explanation beside post-hoc methods on the same network.

    All explain the same images for the same classes, and are held to the same truth. A method whose maps are
    the own ones times a number is found by its maps, and not compared. A method that cannot explain the
    network is a reason.

    Parameters
    ----------
    explainer : InterpretableExplainer
        One that is fitted, or made from a network; methods that are post hoc themselves are refused.
    methods : sequence of str, "all" or None
        Names as plugins offer them; ``"all"`` that are post hoc and learn nothing; ``None``: the usual ones.
    split, images, seed, metrics, value
        As for `evaluate_explanations`.
    on_row : callable or None
        Called with each row as soon as it is measured; of an unavailable method with a row of reasons.

    Raises
    ------
    InputError
        For an explainer that is itself post hoc or among the methods, and without a method or an image.
    UnknownNameError
        For a method, a split or a metric that is not there.

    Examples
    --------
    >>> comparison = ek.compare_with_posthoc(model, dataset, images=200)
    >>> print(comparison.tables())
    >>> comparison.difference("captum/occlusion", "shapley-correlation").interval
    >>> comparison.figure().savefig("own.png")
    """
    if not isinstance(explainer, InterpretableExplainer):
        raise InputError(
            f"Expected a network that explains itself; {explainer.card.title} is post hoc, as what it would "
            "be compared with. Give evaluate_explanations several of them."
        )
    names = _method_names(methods)
    metric_by_name = {name: registry.find("metrics", name) for name in metrics}
    split = split or usual_split(dataset)
    ids = torch.arange(len(dataset.split(split)))[: max(images, 0)]
    if not names or not len(ids):
        raise InputError(f"Expected at least one method and one image; got {len(names)} and {len(ids)}.")
    own = name_of(type(explainer))
    if own in names:
        raise InputError(f"Expected methods to compare with the own explanation; got {own!r}, which that is.")
    race = _Race(
        own=own,
        explainer=explainer,
        context=EvalContext(
            explainer=explainer, dataset=dataset, split=split, ids=ids, value=value, seed=seed
        ),
        metrics=metric_by_name,
        on_row=on_row or (lambda row: None),
    )
    race.run(names)
    table = MetricTable(
        rows=tuple(race.rows),
        columns=tuple(metric_by_name),
        dataset=dataset.name,
        split=split,
        images=len(ids),
        seed=seed,
    )
    return PostHocComparison(own=own, table=table, coinciding=race.coinciding, unavailable=race.unavailable)


def coincidence(own: ExplainerOutput, other: ExplainerOutput) -> Coincidence | None:
    """How two outputs about the same images are the same, or ``None`` where they are not.

    Maps are the same where one positive number, for all images and pixels, turns the one into the other up to
    `COINCIDENCE` of each image's largest value, or up to `ROUNDINGS` of its logit; where both are in logits
    that number is 1. A shift is none of it: maps are summed over parts, so that a shift adds the area of each
    part to its score. Nor is a factor of each image's own, as `within-class-correlation` is about all images.
    """
    one, two = own.saliency.double(), other.saliency.to(own.saliency).double()
    in_logits = [output.explanations.additivity != "none" for output in (own, other)]
    factor = 1.0 if all(in_logits) else ((one * two).sum() / two.square().sum()).item()
    differences = (one - factor * two).abs().amax((1, 2))
    shares = _ratio(differences, one.abs().amax((1, 2)))
    rounding = torch.finfo(other.saliency.dtype).eps * own.explanations.explained_output.abs().double()
    roundings = _ratio(differences, rounding if in_logits[0] else torch.zeros_like(differences))
    is_rounded = (roundings <= ROUNDINGS) & (shares <= ROUNDED)
    is_same = (shares <= COINCIDENCE) | is_rounded  # false for NaN
    if not is_same.all() or not 0 < factor < torch.inf:
        return None
    return Coincidence(
        factor=factor,
        difference=_largest(shares),
        roundings=_largest(roundings) if in_logits[0] else None,
    )


def _ratio(differences: Tensor, scales: Tensor) -> Tensor:
    """Differences by scale; 0 where there is none, whatever the scale."""
    return torch.where(differences == 0, 0, differences / scales)


def _largest(ratios: Tensor) -> float:
    """Of the images that have one: by a flat map, or a logit of 0, nothing can be divided."""
    return max(ratios[ratios.isfinite()].tolist(), default=0.0)


def _method_names(methods: Sequence[str] | str | None) -> list[str]:
    """Each once, and known to be offered."""
    offered = registry.offers("explainers")
    if methods is None:
        return [name for name in USUAL_METHODS if name in offered]
    if methods == "all":
        return [name for name in offered if _explains_any_network(name)]
    if isinstance(methods, str):
        raise InputError(f"Expected methods as a list of names, or 'all'; got {methods!r}.")
    for name in methods:
        registry.offer("explainers", name)
    return list(dict.fromkeys(methods))


def _explains_any_network(name: str) -> bool:
    """Whether an explainer is post hoc and learns nothing; one that cannot be loaded is taken for one."""
    try:
        kind = registry.find("explainers", name)
    except Exception:  # a third-party plugin must not cost the others their rows
        return True
    if not isinstance(kind, type) or not issubclass(kind, PostHocExplainer):
        return False
    return kind.card.learns_from is None


@frozen(eq=False, kw_only=True)
class _Race:
    """The own explanation and the methods, measured one after the other."""

    own: str
    explainer: Explainer
    context: EvalContext
    metrics: Mapping[str, Metric]
    on_row: Callable[[Row], None]
    rows: list[Row] = field(factory=list)
    coinciding: dict[str, Coincidence] = field(factory=dict)
    unavailable: dict[str, str] = field(factory=dict)

    def run(self, methods: Sequence[str]) -> None:
        """The own row, the rows of `methods`, and the trivial rows."""
        own = explainer_output(self.explainer, self.own)(self.context)
        self._add(own)
        for method in methods:
            self._run_method(method, own)
        self.rows.extend(trivial_rows(self.own, self.context, self.metrics))

    def _run_method(self, method: str, own: ExplainerOutput) -> None:
        try:
            explainer = explainer_by_name(
                method, network=self.explainer.network, classes=self.explainer.classes
            )
            check_same_scaling([self.explainer, explainer])
            output = explainer_output(explainer, method)(self.context)
            same = coincidence(own, output)
        except Exception as error:  # a third-party explainer must not cost the others their rows
            self.unavailable[method] = reason = error_text(error)
            scores = {name: Score(name=name, reason=reason) for name in self.metrics}
            self.on_row(Row(name=method, network=self.own, trivial=False, scores=scores))
            return
        if same is not None:
            self.coinciding[method] = same
        self._add(output)

    def _add(self, output: ExplainerOutput) -> None:
        row = evaluate_row(output.name, self.own, False, self.context, self.metrics, lambda _: output)
        self.rows.append(row)
        self.on_row(row)
