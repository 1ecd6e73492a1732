"""ProtoPNet: this part looks like that part of a training image, and counts so much.

Chen, Li, Tao, Barnett, Su, Rudin: This Looks Like That: Deep Learning for Interpretable Image Recognition.
NeurIPS 2019, arXiv:1806.10574.

Read model.py for the network, losses.py for how it learns, initialization.py for where prototypes begin,
nearest.py for the search through training patches that projection.py and pruning.py rest on, head.py for the
last layer, explainer.py for what it says, report.py for a report on a trained one, renderer.py for how it is
drawn.
"""

from explainkit import Offer, hookimpl


@hookimpl
def explainkit_explainers() -> list[Offer]:
    """The one explainer of this plugin."""
    return [
        Offer(
            "protopnet",
            "Prototypes: this part looks like that part of a training image",
            "explainkit_protopnet.explainer:ProtoPNet",
            "explainkit_protopnet.renderer:draw",
        )
    ]
