"""Captum beside us: its post-hoc methods, on any network, as explanations that can be compared.

Kokhlikyan and others: Captum: A unified and generic model interpretability library for PyTorch.
arXiv:2009.07896. Each method cites its own paper in its card.

Read explainer.py for what they share, logits.py for networks that return more than logits, exported.py for
those from torch.export, requirements.py for gradients and hooks that are missing, rewiring.py for what
hooks leave, baseline.py and patches.py for what is compared and covered, seeding.py for chance; then the
methods: gradients.py, guided.py, deep_lift.py, relevance.py, perturbation.py, surrogate.py, noise.py; and
those that stop at a layer: layer_explainer.py for what they share, layer_gradients.py, layer_deep_lift.py,
layer_relevance.py, layer_perturbation.py.
"""

from explainkit import Offer, hookimpl

_METHODS = {
    "saliency": ("How strongly the logit reacts to each pixel", "gradients:Saliency"),
    "input-x-gradient": ("Each pixel times the logit's gradient there", "gradients:InputXGradient"),
    "integrated-gradients": (
        "Gradients along the way from a baseline to the image; adds up to the logit",
        "gradients:IntegratedGradients",
    ),
    "gradient-shap": ("The same over baselines and steps by chance", "gradients:GradientShap"),
    "guided-backprop": ("Gradients that only pass ReLUs upwards", "guided:GuidedBackprop"),
    "deconvolution": ("The same, whether or not the ReLU was on", "guided:Deconvolution"),
    "deep-lift": ("Differences from a baseline, through nonlinearities", "deep_lift:DeepLift"),
    "deep-lift-shap": ("The same in the mean over baselines", "deep_lift:DeepLiftShap"),
    "lrp": ("The logit handed back in shares of what each received", "relevance:LRP"),
    "occlusion": ("How far the logit falls when a window is covered", "perturbation:Occlusion"),
    "feature-ablation": ("How far it falls when a patch is covered", "perturbation:FeatureAblation"),
    "shapley-value-sampling": (
        "What a patch adds, in the mean over random orders",
        "perturbation:ShapleyValueSampling",
    ),
    "kernel-shap": ("Shapley values of patches, by least squares", "surrogate:KernelShap"),
    "lime": ("A sparse linear model of patches, near the image", "surrogate:Lime"),
    "layer-grad-cam": ("Maps of a layer, weighed by their mean gradient", "layer_gradients:LayerGradCam"),
    "guided-grad-cam": ("Guided backpropagation times Grad-CAM", "layer_gradients:GuidedGradCam"),
    "layer-gradient-x-activation": (
        "A layer's activations times the gradient there",
        "layer_gradients:LayerGradientXActivation",
    ),
    "layer-feature-ablation": (
        "How far the logit falls when a cell of a layer is zero",
        "layer_perturbation:LayerFeatureAblation",
    ),
    "internal-influence": ("The mean gradient at a layer", "layer_gradients:InternalInfluence"),
    "layer-conductance": ("What flows through the cells of a layer", "layer_gradients:LayerConductance"),
    "layer-integrated-gradients": (
        "Integrated gradients between a layer's answers",
        "layer_gradients:LayerIntegratedGradients",
    ),
    "layer-gradient-shap": ("GradientSHAP at a layer", "layer_gradients:LayerGradientShap"),
    "layer-deep-lift": ("DeepLIFT down to a layer", "layer_deep_lift:LayerDeepLift"),
    "layer-deep-lift-shap": ("DeepLIFT SHAP down to a layer", "layer_deep_lift:LayerDeepLiftShap"),
    "layer-lrp": ("Relevance down to a layer", "layer_relevance:LayerLRP"),
    "noise-tunnel": ("Any of these in the mean over noisy images", "noise:NoiseTunnel"),
}  # fmt: skip


@hookimpl
def explainkit_explainers() -> list[Offer]:
    """One explainer a method."""
    return [
        Offer(f"captum/{name}", summary, f"explainkit_captum.{target}")
        for name, (summary, target) in _METHODS.items()
    ]
