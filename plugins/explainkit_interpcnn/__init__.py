"""InterpCNN: each filter fires at one place of the image, for parts of one class.

Zhang, Wu, Zhu: Interpretable Convolutional Neural Networks. CVPR 2018, arXiv:1710.00935; extended as
Interpretable CNNs for Object Classification. TPAMI 2020, arXiv:1901.02413.

Read templates.py for the places and their masks, model.py for the network, losses.py for what ties a filter
to one place, categories.py for what ties it to one class, explainer.py for what it says, renderer.py for how
that is drawn.
"""

from explainkit import Offer, hookimpl


@hookimpl
def explainkit_explainers() -> list[Offer]:
    """The one explainer of this plugin."""
    return [
        Offer(
            "interp-cnn",
            "Filters that fire at one place each, by a mask and a mutual-information loss",
            "explainkit_interpcnn.explainer:InterpCNN",
            "explainkit_interpcnn.renderer:draw",
        )
    ]
