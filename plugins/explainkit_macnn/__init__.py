"""MA-CNN: groups filters that peak at one place into parts, and says what each filter adds at each part.

Zheng, Fu, Mei, Luo: Learning Multi-Attention Convolutional Neural Network for Fine-Grained Image Recognition.
ICCV 2017, pages 5209-5217.

Read attention.py for maps and their peaks, grouping.py for how filters are grouped, model.py for the network,
losses.py and callbacks.py for how its halves take turns, explainer.py for settings and phases, parts.py for
what is said of parts, counterfactuals.py for parts of other images and attention elsewhere, renderer.py for
how an explanation is drawn.
"""

from explainkit import Offer, hookimpl


@hookimpl
def explainkit_explainers() -> list[Offer]:
    """The one explainer of this plugin."""
    return [
        Offer(
            "ma-cnn",
            "Parts found by grouping filters that peak together: what each filter adds at each part",
            "explainkit_macnn.explainer:MACNN",
            "explainkit_macnn.renderer:draw",
        )
    ]


@hookimpl
def explainkit_counterfactual_methods() -> list[Offer]:
    """For networks of this plugin."""
    return [
        Offer(
            "ma-cnn/part-swap",
            "The fewest parts whose features would have to be those of an image of the target",
            "explainkit_macnn.counterfactuals:PartSwap",
        ),
        Offer(
            "ma-cnn/attention-move",
            "The nearest cell that a part would have to look at instead",
            "explainkit_macnn.counterfactuals:AttentionMove",
        ),
    ]
