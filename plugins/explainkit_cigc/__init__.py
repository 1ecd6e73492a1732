"""CI-GC: a classifier whose Grad-CAM stays on its evidence when other images are put beside it.

Pillai, Pirsiavash: Explainable Models with Consistent Interpretations. AAAI 2021, 35(3), 2431-2439.

Read model.py for the network, grids.py for composites of four images, losses.py for how it learns,
certificate.py for how far maps can be trusted, explainer.py for what it says, renderer.py for how that is
drawn.
"""

from explainkit import Offer, hookimpl


@hookimpl
def explainkit_explainers() -> list[Offer]:
    """The one explainer of this plugin."""
    return [
        Offer(
            "ci-gc",
            "CAM, trained so that its maps stay where they are when other images are put beside",
            "explainkit_cigc.explainer:CIGC",
            "explainkit_cigc.renderer:draw",
        )
    ]
