"""Device and precision of a network, and sums in full precision under mixed precision."""

import torch
from torch import Tensor, nn


def reference_tensor(network: nn.Module) -> Tensor:
    """A tensor on the network's device and in its precision."""
    default = torch.empty(0, dtype=torch.float32)
    return next((p for p in network.parameters() if p.is_floating_point()), default)


def full_precision(values: Tensor) -> Tensor:
    """`values` in float32 where autocast made them less; float64 stays. Heads sum in this.

    Examples
    --------
    >>> full_precision(torch.ones(2, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return values.float() if is_low_precision(values.dtype) else values


def is_low_precision(dtype: torch.dtype) -> bool:
    """Whether `dtype` is float16 or bfloat16, in which sums and differences of logits lose their digits."""
    return dtype in (torch.float16, torch.bfloat16)


def disable_autocast(device: torch.device) -> torch.autocast:
    """A context in which operations on `device` keep the precision of their operands, as heads must.

    Examples
    --------
    >>> values = torch.ones(2, 2)
    >>> with torch.autocast("cpu", torch.bfloat16), disable_autocast(values.device):
    ...     (values @ values).dtype
    torch.float32
    """
    return torch.autocast(device.type, enabled=False)
