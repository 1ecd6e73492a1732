"""Region-CNN: cells are grouped into a few regions, and attention says how much each of them counts.

Huang, Li: Interpretable and Accurate Fine-grained Recognition via Region Grouping. CVPR 2020,
arXiv:2005.10411.

Read grouping.py for how cells join regions, occurrence.py for the prior that regions occur, model.py for the
network, losses.py for how it learns, dictionary.py for where the regions' centers begin, explainer.py for
settings and phases, shift.py and replacement.py for counterfactuals, agreement.py for how regions are held
against true parts, renderer.py for how an explanation is drawn.
"""

from explainkit import Offer, hookimpl


@hookimpl
def explainkit_explainers() -> list[Offer]:
    """The one explainer of this plugin."""
    return [
        Offer(
            "region-cnn",
            "Regions found without part labels, each weighed by attention",
            "explainkit_regioncnn.explainer:RegionCNN",
            "explainkit_regioncnn.renderer:draw",
        )
    ]


@hookimpl
def explainkit_counterfactual_methods() -> list[Offer]:
    """For this plugin's explainer."""
    return [
        Offer(
            "region-cnn/attention-shift",
            "The least attention that would have to lie on other regions",
            "explainkit_regioncnn.shift:AttentionShift",
        )
    ]
