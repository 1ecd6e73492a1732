"""Encoder and decoder for images of any size: strided convolutions, and what undoes them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["relu", "sigmoid"]
"""After every layer but the decoder's last, which is a sigmoid."""

DecoderKind = Literal["deconv", "upconv"]
"""Transposed convolutions; or enlarging and a convolution, which leaves no checkerboard."""


def grid_sizes(size: Sequence[int], layers: int) -> list[tuple[int, int]]:
    """Height and width of an image of `size`, and after each of `layers` strided convolutions.

    Examples
    --------
    >>> grid_sizes((28, 29), 4)
    [(28, 29), (14, 15), (7, 8), (4, 4), (2, 2)]
    """
    height, width = size
    sizes = [(height, width)]
    for _ in range(layers):
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    return sizes


class Encoder(nn.Module):
    """Images (N, c, H, W) to maps (N, d, h, w): 3 x 3 convolutions of stride 2.

    Parameters
    ----------
    channels, width, latent_channels : int
        Of the images, of the layers between, of the last.
    layers : int
    activation : {"relu", "sigmoid"}
    """

    def __init__(
        self, channels: int, width: int, latent_channels: int, layers: int, activation: Activation
    ) -> None:
        super().__init__()
        depths = [channels, *[width] * (layers - 1), latent_channels]
        self.layers = nn.Sequential(*[
            module
            for inner, outer in pairwise(depths)
            for module in (nn.Conv2d(inner, outer, 3, 2, 1), activation_module(activation))
        ])  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Maps (N, d, h, w)."""
        return self.layers(images)


class Decoder(nn.Module):
    """Maps (N, d, h, w) to images (N, c, H, W) in [0, 1], its layers as large as the encoder's were.

    Parameters
    ----------
    channels, width, latent_channels : int
        As of the encoder.
    sizes : sequence of (int, int)
        Of the image and after each layer of the encoder, as `grid_sizes` gives them.
    activation : {"relu", "sigmoid"}
    kind : {"deconv", "upconv"}
    """

    def __init__(
        self,
        channels: int,
        width: int,
        latent_channels: int,
        sizes: Sequence[tuple[int, int]],
        activation: Activation,
        kind: DecoderKind = "deconv",
    ) -> None:
        super().__init__()
        self.sizes = list(reversed(sizes[:-1]))
        depths = [latent_channels, *[width] * (len(self.sizes) - 1), channels]
        layers: list[nn.Module] = []
        for (inner, outer), size in zip(pairwise(depths), self.sizes, strict=True):
            if kind == "deconv":  # 2 s - 1 + padding cells from s: the padding tells even sizes from odd ones
                padding = (1 - size[0] % 2, 1 - size[1] % 2)
                layers.append(nn.ConvTranspose2d(inner, outer, 3, 2, 1, output_padding=padding))
            else:
                layers.append(nn.Sequential(Enlarge(size), nn.Conv2d(inner, outer, 3, 1, 1)))
            is_last = len(layers) == 2 * len(self.sizes) - 1
            layers.append(nn.Sigmoid() if is_last else activation_module(activation))
        self.layers = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        """Images (N, c, H, W)."""
        return self.layers(maps)


class Enlarge(nn.Module):
    """Maps brought to `size`, each cell repeated.

    Parameters
    ----------
    size : (int, int)
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, maps: Tensor) -> Tensor:
        """(N, d, *size)."""
        return F.interpolate(maps, size=self.size, mode="nearest")


def activation_module(activation: Activation) -> nn.Module:
    """The module of that name."""
    return nn.ReLU() if activation == "relu" else nn.Sigmoid()
