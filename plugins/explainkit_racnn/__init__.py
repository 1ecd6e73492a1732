"""RA-CNN: looks at the whole image, then closer, then closer still, and says what each look adds.

Fu, Zheng, Mei: Look Closer to See Better: Recurrent Attention Convolutional Neural Network for Fine-Grained
Image Recognition. CVPR 2017, pages 4438-4446.

Read zoom.py for squares and crops, model.py for the network, losses.py and callbacks.py for how its two
halves take turns, explainer.py for what it says, renderer.py for how it is drawn.
"""

from explainkit import Offer, hookimpl


@hookimpl
def explainkit_explainers() -> list[Offer]:
    """The one explainer of this plugin."""
    return [
        Offer(
            "ra-cnn",
            "Looks closer twice: filters at three scales, each in a box of its own choice",
            "explainkit_racnn.explainer:RACNN",
            "explainkit_racnn.renderer:draw",
        )
    ]
