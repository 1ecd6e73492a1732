"""Units that are switched off in a network itself, by its buffer ``unit_mask``.

The buffer (K,), bool, is saved with the network. Where `decompose` and `forward` compute their scores,
``torch.where(self.unit_mask, scores, 0.0)`` takes the reference for each unit whose entry is false. With all
units enabled no bit changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from explainkit.errors import UnsupportedNetworkError
from explainkit.explanations.interventions import unit_indices
from explainkit.explanations.units import Units


def unit_mask_of(network: nn.Module) -> Tensor | None:
    """Which units of `network` are enabled, (K,), bool; ``None`` where it has no units to switch off.

    Examples
    --------
    >>> unit_mask_of(nn.Linear(2, 3)) is None
    True
    """
    mask = getattr(network, "unit_mask", None)
    return mask if isinstance(mask, Tensor) and mask.dtype == torch.bool else None


def disabled_units_of(network: nn.Module, count: int) -> Tensor:
    """Which of the `count` units of `network` are off, (K,), bool; none where it has no mask of them.

    Examples
    --------
    >>> disabled_units_of(nn.Linear(2, 3), 2)
    tensor([False, False])
    """
    mask = unit_mask_of(network)
    if mask is None or mask.shape != (count,):
        return torch.zeros(count, dtype=torch.bool)
    return ~mask.cpu()


def switch_units(
    network: nn.Module, units: Units, chosen: Sequence[int | str] | int | str, is_enabled: bool
) -> None:
    """Enable or disable the `chosen` of a network's `units`, by number, name or phrase; all or none of them.

    Raises
    ------
    UnsupportedNetworkError
        For a network without a ``unit_mask`` of its units.
    UnknownNameError, InputError
        As `unit_indices`.
    """
    mask = unit_mask_of(network)
    if mask is None or mask.shape != (len(units),):
        found = "none" if mask is None else f"{tuple(mask.shape)}"
        raise UnsupportedNetworkError(
            f"Expected a network with a unit_mask ({len(units)},), which switches units off; "
            f"{type(network).__name__} has {found}. Use intervene(images, {{unit: 'off'}})."
        )
    columns = unit_indices(units, chosen)
    with torch.inference_mode(False), torch.no_grad():
        switched = mask.clone()
        switched[columns] = is_enabled
        mask.copy_(switched)  # at once: other threads see the units before, or after
