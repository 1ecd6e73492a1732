"""CAM: a class activation map is the logit, spread over the image.

Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning Deep Features for Discriminative Localization. CVPR 2016,
arXiv:1512.04150.

Read model.py for the network, binding.py for networks of others, losses.py for how it learns, explainer.py
for what it says, renderer.py for how that is drawn.
"""

from explainkit import Offer, hookimpl


@hookimpl
def explainkit_explainers() -> list[Offer]:
    """The one explainer of this plugin."""
    return [
        Offer(
            "cam",
            "Filters, averaged and weighed; trained here, or bound to any GAP + linear network",
            "explainkit_cam.explainer:CAM",
            "explainkit_cam.renderer:draw",
        )
    ]
