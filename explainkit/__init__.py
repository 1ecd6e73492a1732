"""Image classifiers that explain themselves: why this decision, as a sum that adds up.

>>> import explainkit as ek
>>> data = ek.dataset("aviary")
>>> model = ek.explainer("cam").fit(data)
>>> told = model.explain(next(iter(data.batches("test"))))
>>> told[0].sentence()
"""

from importlib import import_module
from typing import TYPE_CHECKING

from explainkit.catalogue import backbone, dataset, explainer
from explainkit.errors import ExplainKitError, InputError, PluginWarning
from explainkit.hookspecs import Offer, hookimpl
from explainkit.registry import plugins
from explainkit.version import __version__

if TYPE_CHECKING:
    from explainkit.backbones import Backbone
    from explainkit.comparison import Comparison, compare
    from explainkit.data.images import Batch, ImageData, Sample
    from explainkit.decomposition import Decomposition
    from explainkit.explanation import Evidence, Exemplar, Explanation, Explanations, Provenance, Units
    from explainkit.interfaces import Card, Explainer, InterpretableExplainer, PostHocExplainer, Task
    from explainkit.questions.class_level import ClassExplanation, ClassExplanations
    from explainkit.questions.counterfactual import Counterfactual, Counterfactuals
    from explainkit.questions.naming import Names, name_units
    from explainkit.rendering.html import report
    from explainkit.storage import load, save
    from explainkit.training.phases import Phase, Repeat

_LATER = {  # what needs torch is imported when it is first asked for
    "Backbone": "backbones",
    "Batch": "data.images",
    "Card": "interfaces",
    "ClassExplanation": "questions.class_level",
    "ClassExplanations": "questions.class_level",
    "Comparison": "comparison",
    "Counterfactual": "questions.counterfactual",
    "Counterfactuals": "questions.counterfactual",
    "Decomposition": "decomposition",
    "Evidence": "explanation",
    "Exemplar": "explanation",
    "Explainer": "interfaces",
    "Explanation": "explanation",
    "Explanations": "explanation",
    "ImageData": "data.images",
    "InterpretableExplainer": "interfaces",
    "Names": "questions.naming",
    "Phase": "training.phases",
    "PostHocExplainer": "interfaces",
    "Provenance": "explanation",
    "Repeat": "training.phases",
    "Sample": "data.images",
    "Task": "interfaces",
    "Units": "explanation",
    "compare": "comparison",
    "load": "storage",
    "name_units": "questions.naming",
    "report": "rendering.html",
    "save": "storage",
}

__all__ = [
    "Backbone",
    "Batch",
    "Card",
    "ClassExplanation",
    "ClassExplanations",
    "Comparison",
    "Counterfactual",
    "Counterfactuals",
    "Decomposition",
    "Evidence",
    "Exemplar",
    "ExplainKitError",
    "Explainer",
    "Explanation",
    "Explanations",
    "ImageData",
    "InputError",
    "InterpretableExplainer",
    "Names",
    "Offer",
    "Phase",
    "PluginWarning",
    "PostHocExplainer",
    "Provenance",
    "Repeat",
    "Sample",
    "Task",
    "Units",
    "__version__",
    "backbone",
    "compare",
    "dataset",
    "explainer",
    "hookimpl",
    "load",
    "name_units",
    "plugins",
    "report",
    "save",
]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module 'explainkit' has no attribute {name!r}")
    value = getattr(import_module(f"explainkit.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
