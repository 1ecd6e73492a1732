"""The conformance kit: what every explainer promises, as checks that run over any explainer.

>>> import pytest
>>> from explainkit.testing import CHECKS, fitted_example, tiny_images
>>> @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
... def test_conformance(check):
...     check(fitted_example("mine"), tiny_images())
"""

from explainkit.testing.checks import CHECKS, Check, check_explainer
from explainkit.testing.examples import architectures, fitted_example, tiny_dataset, tiny_images
from explainkit.testing.process_checks import check_distributed_training

__all__ = [
    "CHECKS",
    "Check",
    "architectures",
    "check_distributed_training",
    "check_explainer",
    "fitted_example",
    "tiny_dataset",
    "tiny_images",
]
