"""SENN: a linear model of a few concepts, whose weights a network chooses anew for every image.

Alvarez-Melis, Jaakkola: Towards Robust Interpretability with Self-Explaining Neural Networks. NeurIPS 2018,
arXiv:1806.07538.

Read concepts.py for how concepts are found and drawn, model.py for the network, robustness.py for what keeps
its weights stable, losses.py for how it learns, grounding.py for what its concepts look like, lenet.py for
the paper's backbone, explainer.py for what it says, renderer.py for how it is drawn.
"""

from explainkit import Offer, hookimpl


@hookimpl
def explainkit_backbones() -> list[Offer]:
    """The network of the paper's experiments on MNIST."""
    return [Offer("senn/lenet", "Two convolutions, for 28 pixels", "explainkit_senn.lenet:LeNet")]


@hookimpl
def explainkit_explainers() -> list[Offer]:
    """The one explainer of this plugin."""
    return [
        Offer(
            "senn",
            "Concepts, weighed anew for every image by weights that are held stable",
            "explainkit_senn.explainer:SENN",
            "explainkit_senn.renderer:draw",
        )
    ]
