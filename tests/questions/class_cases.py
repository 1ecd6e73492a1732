"""Explainers whose classes are explained, and their explanations of images and of classes."""

from functools import cache

import pytest
import torch
from toys import FAR, Varying, batch_of, noise, toy

from explainkit.testing import fitted_example, tiny_dataset

ADDITIVE = (
    "cam", "protopnet", "senn", "ccnn", "ra-cnn", "captum/integrated-gradients",
    "captum/layer-integrated-gradients",
)  # fmt: skip
ARCHITECTURES = ADDITIVE[:5]


def toy_explainers():
    return {
        "cells": toy(),
        "cells with a reference": toy(reference=0.3),
        "weights of each image": toy(Varying()),
        "weights of each image, with a reference": toy(Varying(seed=1), reference=0.2),
        "biases of each image": toy(Varying(seed=2, own_weights=False)),
    }


def explainer_named(name):
    return toy_explainers()[name] if name in toy_explainers() else fitted_example(name)


def images_for(explainer, count=40):
    return noise(count) if explainer.classes == ("ant", "bee", "cat") else tiny_dataset().train.batch(
        torch.arange(count)).images  # fmt: skip


def labels_for(count):
    return torch.randint(0, 3, (count,), generator=torch.Generator().manual_seed(5))


@cache
def explained_classes(name):
    """An explainer, its images, their labels, the explanation of each image, and those of the classes."""
    explainer = explainer_named(name)
    images = images_for(explainer)
    labels = labels_for(len(images))
    explanations = explainer.explain(images, labels)
    class_explanations = explainer.explain_class([batch_of(images, labels)])
    return explainer, images, labels, explanations, class_explanations


def close(one, other, scale=None):
    scale = float(other.abs().max()) if scale is None else scale
    return torch.allclose(one.double().cpu(), other.double().cpu(), rtol=FAR, atol=FAR * scale + 1e-7)


each_additive = pytest.mark.parametrize("name", [*ADDITIVE, *toy_explainers()])
each_architecture = pytest.mark.parametrize("name", [*ARCHITECTURES, *toy_explainers()])
