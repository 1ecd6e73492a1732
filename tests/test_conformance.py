"""Every registered explainer passes every check."""

import pytest

from explainkit import registry
from explainkit.testing import CHECKS, fitted_example, tiny_images

METHODS = (
    "saliency",
    "integrated-gradients",
    "deep-lift",
    "layer-grad-cam",
    "kernel-shap",
    "occlusion",
    "lrp",
)
"""One of Captum's methods of each kind: the others share their code."""

QUICK = ("check_additivity", "check_deterministic", "check_targets", "check_bad_images_refused")
"""Checks that run for the others too."""


def cases():
    """All explainers by all checks; those of Captum's methods that share the code of another are slow."""
    for name in registry.offers("explainers"):
        is_quick = not name.startswith("captum/") or name.removeprefix("captum/") in METHODS
        for check in CHECKS:
            marks = () if is_quick or check.__name__ in QUICK else pytest.mark.slow
            yield pytest.param(check, name, marks=marks, id=f"{check.__name__}-{name}")


@pytest.mark.parametrize(("check", "name"), cases())
def test_conformance(check, name):
    check(fitted_example(name), tiny_images())


def test_the_methods_and_checks_named_are_there():
    assert {f"captum/{method}" for method in METHODS} <= set(registry.offers("explainers"))
    assert {check.__name__ for check in CHECKS} >= set(QUICK)
