"""Captum beside us: six post-hoc methods, on any network, as explanations that can be compared.

Kokhlikyan and others: Captum: A unified and generic model interpretability library for PyTorch.
arXiv:2009.07896. Each method cites its own paper in its card.

Read explainer.py for what they share, logits.py for networks that return more than logits, layers.py for how
a layer is found; then a file a method.
"""

from explainkit import Offer, hookimpl

_METHODS = {
    "saliency": ("How strongly the logit reacts to each pixel", "saliency:Saliency"),
    "input-x-gradient": ("Each pixel times the logit's gradient there", "input_x_gradient:InputXGradient"),
    "integrated-gradients": (
        "Gradients along the way from a baseline to the image; adds up to the logit",
        "integrated_gradients:IntegratedGradients",
    ),
    "layer-grad-cam": ("Maps of a layer, weighed by their mean gradient", "layer_grad_cam:LayerGradCam"),
    "occlusion": ("How far the logit falls when a window is covered", "occlusion:Occlusion"),
    "guided-backprop": ("Gradients that only pass ReLUs upwards", "guided_backprop:GuidedBackprop"),
}  # fmt: skip


@hookimpl
def explainkit_explainers() -> list[Offer]:
    """One explainer a method."""
    return [
        Offer(f"captum/{name}", summary, f"explainkit_captum.{target}")
        for name, (summary, target) in _METHODS.items()
    ]
