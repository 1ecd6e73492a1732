"""Image classifiers that explain themselves: why this decision, as a sum that adds up.

>>> import explainkit as ek
>>> dataset = ek.dataset("aviary")
>>> model = ek.explainer("cam").fit(dataset)
>>> explanations = model.explain(next(iter(dataset.batches("test"))))
>>> explanations[0].sentence()
"""

from importlib import import_module
from typing import TYPE_CHECKING

from explainkit.errors import ExplainKitError, InputError, PluginWarning
from explainkit.registry import plugins
from explainkit.registry.catalog import backbone, dataset, explainer
from explainkit.registry.hookspecs import Offer, hookimpl
from explainkit.version import __version__

if TYPE_CHECKING:
    from explainkit.comparison import Comparison, compare
    from explainkit.data.types import Batch, ImageDataset, Sample
    from explainkit.explainers.card import Card
    from explainkit.explainers.inputs import InputSpec
    from explainkit.explainers.interface import Explainer
    from explainkit.explainers.interpretable import InterpretableExplainer
    from explainkit.explainers.posthoc import PostHocExplainer
    from explainkit.explainers.saving import load, save
    from explainkit.explainers.settings import check_ranges
    from explainkit.explainers.task import Task
    from explainkit.explanations.batch import Explanations
    from explainkit.explanations.class_level import ClassExplanation, ClassExplanations
    from explainkit.explanations.counterfactuals import Counterfactual, Counterfactuals
    from explainkit.explanations.decisions import Decision
    from explainkit.explanations.decomposition import Decomposition, PerImageWeights
    from explainkit.explanations.edits import ImageEdits, ScoreEdits
    from explainkit.explanations.factored_maps import FactoredMaps
    from explainkit.explanations.intervention_curve import InterventionCurve
    from explainkit.explanations.leak import Leak
    from explainkit.explanations.phrasing import Phrasing
    from explainkit.explanations.provenance import Provenance
    from explainkit.explanations.receptive_field import ReceptiveField
    from explainkit.explanations.single import Evidence, Explanation
    from explainkit.explanations.units import UnitPicture, Units
    from explainkit.export.onnx_graphs import export_onnx
    from explainkit.metrics.funnybirds_table import FunnyBirdsTables, evaluate_funnybirds
    from explainkit.metrics.posthoc import compare_with_posthoc
    from explainkit.metrics.posthoc_comparison import PostHocComparison
    from explainkit.metrics.table import evaluate_explanations
    from explainkit.networks.backbones import Backbone
    from explainkit.pipeline import ExplanationDataset, explain_dataset
    from explainkit.questions.counterfactual_methods import CounterfactualMethod, CounterfactualQuestion
    from explainkit.questions.intervention_curves import correction_curve, unit_curve
    from explainkit.questions.leak import measure_leak
    from explainkit.questions.naming import Names, name_units
    from explainkit.questions.true_scores import concept_truth
    from explainkit.rendering.html import report
    from explainkit.training.phases import Phase, Repeat
    from explainkit.training.steps import Step

_LATER = {  # what needs torch is imported when it is first asked for
    "Backbone": "networks.backbones",
    "Batch": "data.types",
    "Card": "explainers.card",
    "ClassExplanation": "explanations.class_level",
    "ClassExplanations": "explanations.class_level",
    "Comparison": "comparison",
    "Counterfactual": "explanations.counterfactuals",
    "Counterfactuals": "explanations.counterfactuals",
    "CounterfactualMethod": "questions.counterfactual_methods",
    "CounterfactualQuestion": "questions.counterfactual_methods",
    "Decision": "explanations.decisions",
    "Decomposition": "explanations.decomposition",
    "Evidence": "explanations.single",
    "Explainer": "explainers.interface",
    "ExplanationDataset": "pipeline",
    "Explanation": "explanations.single",
    "Explanations": "explanations.batch",
    "FactoredMaps": "explanations.factored_maps",
    "FunnyBirdsTables": "metrics.funnybirds_table",
    "ImageDataset": "data.types",
    "ImageEdits": "explanations.edits",
    "InputSpec": "explainers.inputs",
    "InterpretableExplainer": "explainers.interpretable",
    "InterventionCurve": "explanations.intervention_curve",
    "Leak": "explanations.leak",
    "Names": "questions.naming",
    "PerImageWeights": "explanations.decomposition",
    "Phase": "training.phases",
    "Phrasing": "explanations.phrasing",
    "ReceptiveField": "explanations.receptive_field",
    "PostHocComparison": "metrics.posthoc_comparison",
    "PostHocExplainer": "explainers.posthoc",
    "Provenance": "explanations.provenance",
    "Repeat": "training.phases",
    "Sample": "data.types",
    "ScoreEdits": "explanations.edits",
    "Step": "training.steps",
    "Task": "explainers.task",
    "UnitPicture": "explanations.units",
    "Units": "explanations.units",
    "check_ranges": "explainers.settings",
    "compare": "comparison",
    "compare_with_posthoc": "metrics.posthoc",
    "concept_truth": "questions.true_scores",
    "correction_curve": "questions.intervention_curves",
    "evaluate_explanations": "metrics.table",
    "evaluate_funnybirds": "metrics.funnybirds_table",
    "explain_dataset": "pipeline",
    "export_onnx": "export.onnx_graphs",
    "load": "explainers.saving",
    "measure_leak": "questions.leak",
    "name_units": "questions.naming",
    "report": "rendering.html",
    "save": "explainers.saving",
    "unit_curve": "questions.intervention_curves",
}

__all__ = [
    "Backbone",
    "Batch",
    "Card",
    "ClassExplanation",
    "ClassExplanations",
    "Comparison",
    "Counterfactual",
    "CounterfactualMethod",
    "CounterfactualQuestion",
    "Counterfactuals",
    "Decision",
    "Decomposition",
    "Evidence",
    "ExplainKitError",
    "Explainer",
    "Explanation",
    "ExplanationDataset",
    "Explanations",
    "FactoredMaps",
    "FunnyBirdsTables",
    "ImageDataset",
    "ImageEdits",
    "InputError",
    "InputSpec",
    "InterpretableExplainer",
    "InterventionCurve",
    "Leak",
    "Names",
    "Offer",
    "PerImageWeights",
    "Phase",
    "Phrasing",
    "PluginWarning",
    "PostHocComparison",
    "PostHocExplainer",
    "Provenance",
    "ReceptiveField",
    "Repeat",
    "Sample",
    "ScoreEdits",
    "Step",
    "Task",
    "UnitPicture",
    "Units",
    "__version__",
    "backbone",
    "check_ranges",
    "compare",
    "compare_with_posthoc",
    "concept_truth",
    "correction_curve",
    "dataset",
    "evaluate_explanations",
    "evaluate_funnybirds",
    "explain_dataset",
    "explainer",
    "export_onnx",
    "hookimpl",
    "load",
    "measure_leak",
    "name_units",
    "plugins",
    "report",
    "save",
    "unit_curve",
]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module 'explainkit' has no attribute {name!r}")
    value = getattr(import_module(f"explainkit.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
