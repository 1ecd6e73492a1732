"""Captum's attributions, called as its documentation says."""

import warnings
from functools import partial

import numpy as np
import torch
from captum import attr
from captum._utils.models.linear_model import SkLearnLasso


def attribute_by_hand(method, network, images, targets):
    """Captum's attributions (N, h, w): channels summed, values of patches shared out among their pixels."""
    torch.manual_seed(0)
    calls = {
        **pixel_calls(network, images, targets),
        **patch_calls(network, images, targets),
        **layer_calls(network, images, targets),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sum(calls[method]().detach().unbind(1))  # in this order, as floating sums depend on it


def pixel_calls(network, images, targets):
    """What attributes to pixels."""
    pixels, grays = images.clone().requires_grad_(), gray_images(images)
    each = partial(attribute_each, images, targets)
    return {
        "saliency": lambda: attr.Saliency(network).attribute(pixels, target=targets),
        "input-x-gradient": lambda: attr.InputXGradient(network).attribute(pixels, target=targets),
        "integrated-gradients": lambda: attr.IntegratedGradients(network).attribute(pixels, target=targets),
        "guided-backprop": lambda: attr.GuidedBackprop(network).attribute(pixels, target=targets),
        "guided-grad-cam": lambda: attr.GuidedGradCam(network, network.rectify).attribute(
            pixels, target=targets
        ),
        "deconvolution": lambda: attr.Deconvolution(network).attribute(pixels, target=targets),
        "deep-lift": lambda: attr.DeepLift(network).attribute(pixels, target=targets),
        "deep-lift-shap": lambda: attr.DeepLiftShap(network).attribute(pixels, grays, target=targets),
        "lrp": lambda: attr.LRP(network).attribute(pixels, target=targets),
        "gradient-shap": lambda: each(attr.GradientShap(network), grays, n_samples=3, stdevs=0.1),
        "noise-tunnel": lambda: each(
            attr.NoiseTunnel(attr.Saliency(network)), nt_type="smoothgrad", nt_samples=3, stdevs=0.15
        ),
    }


def patch_calls(network, images, targets):
    """What covers windows and patches."""
    mask = square_mask(24, 3)
    each = partial(attribute_each, images, targets)
    return {
        "occlusion": lambda: attr.Occlusion(network).attribute(
            images, sliding_window_shapes=(3, 3, 3), strides=(3, 1, 1), target=targets
        ),
        "feature-ablation": lambda: shared(
            attr.FeatureAblation(network).attribute(images, feature_mask=square_mask(24, 8), target=targets),
            area=9,
        ),
        "shapley-value-sampling": lambda: shared(
            attr.ShapleyValueSampling(network).attribute(
                images, feature_mask=mask, n_samples=2, target=targets
            ),
            area=64,
        ),
        "kernel-shap": lambda: shared(
            each(attr.KernelShap(network), feature_mask=mask, n_samples=20), area=64
        ),
        "lime": lambda: shared(
            each(attr.Lime(network, SkLearnLasso(alpha=1e-6)), feature_mask=mask, n_samples=20), area=64
        ),
    }


def layer_calls(network, images, targets):
    """What attributes to the cells of the last layer with a grid."""
    layer, pixels, grays = network.rectify, images.clone().requires_grad_(), gray_images(images)
    cells = torch.arange(36).view(1, 1, 6, 6)

    def at_layer(method, *baselines):
        return method(network, layer).attribute(pixels, *baselines, target=targets)

    return {
        "layer-grad-cam": lambda: at_layer(attr.LayerGradCam),
        "layer-gradient-x-activation": lambda: at_layer(attr.LayerGradientXActivation),
        "layer-feature-ablation": lambda: shared(
            attr.LayerFeatureAblation(network, layer).attribute(images, layer_mask=cells, target=targets),
            area=1,
        ),
        "internal-influence": lambda: at_layer(attr.InternalInfluence),
        "layer-conductance": lambda: at_layer(attr.LayerConductance),
        "layer-integrated-gradients": lambda: at_layer(attr.LayerIntegratedGradients),
        "layer-gradient-shap": lambda: attribute_each(
            images, targets, attr.LayerGradientShap(network, layer), grays, n_samples=3, stdevs=0.1
        ),
        "layer-deep-lift": lambda: at_layer(attr.LayerDeepLift),
        "layer-deep-lift-shap": lambda: at_layer(attr.LayerDeepLiftShap, grays),
        "layer-lrp": lambda: attr.LayerLRP(network, network.deep).attribute(pixels, target=targets),
    }


def attribute_each(images, targets, method, *baselines, **settings):
    """Image by image, each from seed 0: what is drawn must not depend on the others."""
    attributions = []
    for image, target in zip(images, targets, strict=True):
        torch.manual_seed(0), np.random.seed(0)
        attributions.append(
            method.attribute(image[None].requires_grad_(), *baselines, target=int(target), **settings)
        )
    return torch.cat(attributions)


def gray_images(images):
    """Black, gray and white."""
    grays = torch.tensor([0.0, 0.5, 1.0], dtype=images.dtype)
    return grays[:, None, None, None].expand(-1, *images.shape[1:])


def square_mask(size, cells):
    """Which square of `cells` x `cells` each pixel is in."""
    index = torch.arange(size) // (size // cells)
    return (index[:, None] * cells + index)[None, None]


def shared(values, area):
    """The value of a patch, which each of its pixels has, shared among pixels and channels."""
    return values / (area * values.shape[1])
