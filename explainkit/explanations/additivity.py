"""Whether contributions make the logit that they claim to make."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from explainkit.errors import AdditivityError, InputError

if TYPE_CHECKING:
    from explainkit.explanations.batch import Explanations


def check_sums(explanations: Explanations) -> None:
    """`Explanations.check_additivity`."""
    residual, logits = explanations.residual, explanations.logits
    if residual is None:
        raise InputError(f"{explanations.provenance.explainer} claims no sum: there is nothing to check.")
    limits = tolerances(explanations)
    worst = (residual.abs() - limits).argmax() if len(explanations) else None
    if worst is not None and not residual[worst].abs() <= limits[worst]:  # NaN does not pass
        output, gap = explanations.explained_output[worst].item(), residual[worst].item()
        quantity = "logit" if explanations.foils is None else "margin"
        raise AdditivityError(
            f"Image {int(worst)}: base and contributions come to {output - gap:.6g}, the "
            f"{quantity} is {output:.6g}; the residual {gap:.3g} is over 1e-4 of "
            f"{1e4 * limits[worst].item():.3g} "
            f"(additivity {explanations.additivity!r}, {logits.dtype})."
        )


def tolerances(explanations: Explanations) -> Tensor:
    """How large the residual of each may be, (N,): 1e-4 of its largest logit, or of all that was summed."""
    contributions = explanations.contributions.abs().sum(1)
    return 1e-4 * torch.maximum(explanations.logits.abs().amax(1), contributions)
