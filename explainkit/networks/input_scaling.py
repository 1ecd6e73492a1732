"""Images as a network wants them: a network that is given images in their own range and normalizes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from explainkit.networks.precision import reference_tensor


class Normalization(nn.Module):
    """``(images - mean) / std``, for each channel.

    Parameters
    ----------
    mean, std : sequence of float
        One a channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in {"mean": mean, "std": std}.items():
            column = torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
            self.register_buffer(name, column, persistent=False)  # explainer.json has them

    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W) to the same."""
        return (images - self.mean) / self.std


class NormalizedNetwork(nn.Module):
    """A network that normalizes its images; whatever else is asked of it, the network itself answers.

    Parameters
    ----------
    network : nn.Module
        Kept as it is, under this name.
    normalization : Normalization
    """

    def __init__(self, network: nn.Module, normalization: nn.Module) -> None:
        super().__init__()
        self.normalization, self.network = normalization, network
        self.training = network.training

    def forward(self, images: Tensor) -> Any:
        """What the network returns for normalized images."""
        return self.network(self.normalization(images))

    def decompose(self, images: Tensor) -> Any:
        """The network's decomposition for normalized images."""
        decompose: Any = self.network.decompose
        return decompose(self.normalization(images))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "network":  # not there yet: while it is copied or read from a pickle
                raise
            return getattr(self.network, name)


def normalized(network: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None) -> nn.Module:
    """`network` on images that are normalized by `mean` and `std`; itself where there are none.

    A network that has a module for it normalizes already, by what it states, and is left as it is.
    """
    if mean is None or std is None or normalizing_module(network) is not None:
        return network
    like = reference_tensor(network)
    return NormalizedNetwork(network, Normalization(mean, std).to(device=like.device, dtype=like.dtype))


def normalizing_module(network: nn.Module) -> str | None:
    """The name of a module of `network` that normalizes images, as torchvision's ``Normalize``.

    Examples
    --------
    >>> from torchvision.transforms import v2
    >>> normalizing_module(nn.Sequential(v2.Normalize([0.5], [0.5]), nn.Conv2d(1, 8, 3)))
    '0'
    """
    return next(
        (
            name or type(module).__name__
            for name, module in network.named_modules()
            if isinstance(module, Normalization)
            or (type(module).__name__ == "Normalize" and hasattr(module, "mean") and hasattr(module, "std"))
        ),
        None,
    )
