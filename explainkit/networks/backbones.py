"""Backbones: images (N, D, H, W) in [0, 1] to a grid of features (N, channels, h, w), never negative."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from explainkit.errors import InputError
from explainkit.explanations.receptive_field import ReceptiveField
from explainkit.networks.modes import eval_mode
from explainkit.networks.precision import reference_tensor


class Backbone(nn.Module):
    """A feature extractor that states what one cell of its grid can see.

    Attributes
    ----------
    channels : int
        D, the length of a cell's feature vector.
    stride : int
        Pixels between neighboring cells.
    receptive_field : int or None
        Side of the square of pixels that can change a cell; ``None`` where there is no bound, or none that is
        known.
    first_pixel : int or None
        Where the square of the first row's and column's cell begins: 0 at the border, below 0 in the padding.
        ``None``: not stated, so that nothing is claimed of where a cell looks.
    """

    channels: int
    stride: int
    receptive_field: int | None = None
    first_pixel: int | None = None

    @property
    def field(self) -> ReceptiveField | None:
        """What its cells see, where size and place of that are stated."""
        if self.receptive_field is None or self.first_pixel is None:
            return None
        return ReceptiveField(size=self.receptive_field, stride=self.stride, first_pixel=self.first_pixel)


class SmallBackbone(Backbone):
    """A residual network for images of 32 to 128 pixels; normalizes inside.

    Parameters
    ----------
    widths : sequence of int
        Channels of each residual block; the stem has the first.
    strides : sequence of int
        Of each block, beside the stem's stride of 2.
    in_channels : int
        Of the images.
    """

    def __init__(
        self,
        widths: Sequence[int] = (24, 48, 96),
        strides: Sequence[int] = (1, 2, 2),
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if len(widths) != len(strides):
            raise InputError(f"Expected one stride a width; got {len(strides)} for {len(widths)} widths.")
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        sizes = [widths[0], *widths]
        self.blocks = nn.Sequential(
            *(ResidualBlock(*step) for step in zip(sizes, sizes[1:], strides, strict=False))
        )
        self.channels = widths[-1]
        self.stride, self.receptive_field = 2, 3
        for stride in strides:  # two 3 x 3 convolutions, the first of them strided
            self.receptive_field += 2 * self.stride + 2 * self.stride * stride
            self.stride *= stride
        self.first_pixel = -(self.receptive_field // 2)  # padding keeps cell 0 centered on pixel 0

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, ceil(H / stride), ceil(W / stride)), after a ReLU."""
        return self.blocks(self.stem((images - 0.5) * 4))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al., CVPR 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = shortcut(inputs, outputs, stride)
        self.rectify = nn.ReLU()  # a module of its own, so that hooks of post-hoc methods can reach it

    def forward(self, features: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h / stride, w / stride)."""
        return self.rectify(self.second(self.first(features)) + self.shortcut(features))


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Past a residual block: as it is, or by a 1 x 1 convolution where the block changes the shape."""
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def grid_size(backbone: nn.Module, size: Sequence[int]) -> tuple[int, int]:
    """Height and width (h, w) of the grid of `backbone` for images of `size` (H, W).

    Found by one forward pass in eval mode; the backbone's mode is as it was afterwards.

    Examples
    --------
    >>> grid_size(small(), (64, 48))
    (8, 6)
    """
    image = reference_tensor(backbone).new_zeros(1, channels_of(backbone), *size)
    with eval_mode(backbone), torch.no_grad():
        height, width = backbone(image).shape[2:]
    return height, width


def channels_of(network: nn.Module) -> int:
    """Channels of the images that `network` takes, by its first convolution; 3 where it has none.

    Examples
    --------
    >>> channels_of(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)))
    1
    """
    return next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)), 3)


def small(in_channels: int = 3) -> Backbone:
    """Stride 8, 96 channels: the default for 64 pixels (an 8 x 8 grid)."""
    return SmallBackbone(in_channels=in_channels)


def small_fine(in_channels: int = 3) -> Backbone:
    """Stride 4, 96 channels: a 16 x 16 grid at 64 pixels, at about twice the cost."""
    return SmallBackbone(strides=(1, 2, 1), in_channels=in_channels)


def tiny(in_channels: int = 3) -> Backbone:
    """Stride 4, 32 channels: for images of 28 to 32 pixels, and for tests."""
    return SmallBackbone(widths=(16, 32), strides=(1, 2), in_channels=in_channels)
