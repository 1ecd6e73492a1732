"""Every registered explainer passes every check."""

import pytest

from explainkit import registry
from explainkit.testing import CHECKS, fitted_example, tiny_images


@pytest.mark.parametrize("name", registry.offers("explainers"))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(name, check):
    check(fitted_example(name), tiny_images())
