"""Every check, and all of them at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from unittest import SkipTest

from torch import Tensor

from explainkit.errors import ConformanceError
from explainkit.explainers.interface import Explainer
from explainkit.testing.counterfactual_checks import check_counterfactuals
from explainkit.testing.examples import tiny_images
from explainkit.testing.export_checks import check_exports
from explainkit.testing.image_checks import (
    check_additivity,
    check_autocast,
    check_bad_images_refused,
    check_batch_invariance,
    check_constant_images,
    check_deterministic,
    check_layouts_and_dtypes,
    check_pickles,
    check_rendering,
    check_save_load,
    check_state_restored,
    check_targets,
)
from explainkit.testing.place_checks import check_cell_leak
from explainkit.testing.question_checks import (
    check_class_explanations,
    check_disabled_units,
    check_interventions,
    check_learned,
    check_unit_names,
)
from explainkit.testing.travel_checks import check_json

Check = Callable[[Explainer, Tensor], None]

CHECKS: tuple[Check, ...] = (
    check_additivity,
    check_cell_leak,
    check_batch_invariance,
    check_deterministic,
    check_state_restored,
    check_bad_images_refused,
    check_targets,
    check_save_load,
    check_pickles,
    check_layouts_and_dtypes,
    check_autocast,
    check_constant_images,
    check_rendering,
    check_class_explanations,
    check_learned,
    check_counterfactuals,
    check_interventions,
    check_disabled_units,
    check_unit_names,
    check_json,
    check_exports,
)

CLASS_CHECKS: tuple[Check, ...] = (
    check_class_explanations, check_learned, check_counterfactuals, check_json,
)  # fmt: skip
"""What explainers are held to that answer for classes alone."""


def check_explainer(explainer: Explainer, images: Tensor | None = None) -> None:
    """Hold a fitted `explainer` to every check.

    Parameters
    ----------
    images : Tensor or None, (N, 3, H, W)
        Of the kind that the network knows; six of `tiny_dataset` unless given.

    Raises
    ------
    ConformanceError
        At the first check that fails, with its name.

    Warns
    -----
    UserWarning
        Of a check that was skipped since it needs a library that is not installed.
    """
    for check in CHECKS if "image" in explainer.card.answers else CLASS_CHECKS:
        try:
            check(explainer, tiny_images() if images is None else images)
        except ConformanceError as error:
            raise ConformanceError(f"{check.__name__}: {error}") from error
        except SkipTest as reason:
            warnings.warn(f"{check.__name__} was skipped: {reason}", stacklevel=2)
