"""Whether contributions make the logit that they claim to make."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from explainkit.errors import AdditivityError, InputError

if TYPE_CHECKING:
    from explainkit.explanations.batch import Explanations


def check_sums(explanations: Explanations) -> None:
    """`Explanations.check_additivity`."""
    residual, logits = explanations.residual, explanations.logits
    if residual is None:
        raise InputError(f"{explanations.provenance.explainer} claims no sum: there is nothing to check.")
    scale = torch.maximum(logits.abs().amax(1), explanations.contributions.abs().sum(1))
    worst = (residual.abs() - 1e-4 * scale).argmax() if len(explanations) else None
    if worst is not None and not residual[worst].abs() <= 1e-4 * scale[worst]:  # NaN does not pass
        output, gap = explanations.explained_output[worst].item(), residual[worst].item()
        quantity = "logit" if explanations.foils is None else "margin"
        raise AdditivityError(
            f"Image {int(worst)}: base and contributions come to {output - gap:.6g}, the "
            f"{quantity} is {output:.6g}; the residual {gap:.3g} is over 1e-4 of {scale[worst].item():.3g} "
            f"(additivity {explanations.additivity!r}, {logits.dtype})."
        )
