"""Explainers and their counterfactuals of ten made images."""

from functools import cache

import pytest
from toys import balanced, labeled, noise

MARGIN = 0.02
"""By how much the target must win where a test asks for more than the default."""

each_explainer = pytest.mark.parametrize(
    "name", ["cells", "varying", "cam", "protopnet", "senn", "ccnn", "ra-cnn"]
)


@cache
def counterfactual_case(name, norm="l0", margin=0.01, prove=False):
    """An explainer, its distractors, images, and the counterfactuals of these for their runners-up."""
    explainer = balanced(name)
    distractors, images = labeled(explainer, noise(60)), noise(10, seed=1)
    counterfactuals = explainer.counterfactual(
        images, distractors=distractors, norm=norm, margin=margin, prove=prove
    )
    return explainer, distractors, images, counterfactuals
