"""CCNN: filters that are phrases, learned from what people said of the training images.

Wickramanayake, Hsu, Lee: Comprehensible Convolutional Neural Networks via Guided Concept Learning. IJCNN
2021, arXiv:2101.03919.

Read explainkit.data.captions.phrases for how phrases are found, model.py for the network, losses.py for how
it learns, explainer.py for what it says and how it puts that, renderer.py for how it is drawn.
"""

from explainkit import Offer, hookimpl


@hookimpl
def explainkit_explainers() -> list[Offer]:
    """The one explainer of this plugin."""
    return [
        Offer(
            "ccnn",
            "Filters that are phrases, such as 'red crest', learned from captions",
            "explainkit_ccnn.explainer:CCNN",
            "explainkit_ccnn.renderer:draw",
        )
    ]
