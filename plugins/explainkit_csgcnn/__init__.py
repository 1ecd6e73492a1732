"""CSG-CNN: a gate learned in training ties each filter to one class, or to few.

Liang, Ouyang, Zeng, Su, He, Xia, Zhu, Zhang: Training Interpretable Convolutional Neural Networks by
Differentiating Class-specific Filters. ECCV 2020, arXiv:2007.08194.

Read model.py for the network and its gate, losses.py for how it learns, explainer.py for settings and
phases, evidence.py for what of a logit comes from a class's own filters, classes.py for what the gate says of
classes, ablation.py for classes whose filters are silenced, renderer.py for how an explanation is drawn.
"""

from explainkit import Offer, hookimpl


@hookimpl
def explainkit_explainers() -> list[Offer]:
    """The one explainer of this plugin."""
    return [
        Offer(
            "csg-cnn",
            "Filters, averaged and weighed, each tied to its classes by a gate learned in training",
            "explainkit_csgcnn.explainer:CSGCNN",
            "explainkit_csgcnn.renderer:draw",
        )
    ]


@hookimpl
def explainkit_counterfactual_methods() -> list[Offer]:
    """For every explainer whose units belong to classes."""
    return [
        Offer(
            "csg-cnn/class-ablation",
            "All units of the predicted class silenced at once",
            "explainkit_csgcnn.ablation:ClassAblation",
        )
    ]
