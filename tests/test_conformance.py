"""Every registered explainer keeps every promise."""

import pytest

from explainkit import registry
from explainkit.testing import PROMISES, specimen, tiny_images


@pytest.mark.parametrize("name", registry.offers("explainers"))
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_conformance(name, promise):
    promise(specimen(name), tiny_images())
