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
        Channels of each residual block.
    strides : sequence of int
        Of each block, beside the stem's stride of 2.
    in_channels : int
        Of the images.
    stem_width : int or None
        Channels of the stem; as many as the first block unless given.
    kernels : sequence of (int, int) or None
        Sides of each block's two convolutions, odd; all 3 unless given. What is 1 sees no farther.
    """

    def __init__(
        self,
        widths: Sequence[int] = (24, 48, 96),
        strides: Sequence[int] = (1, 2, 2),
        in_channels: int = 3,
        stem_width: int | None = None,
        kernels: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        super().__init__()
        kernels = [(3, 3)] * len(widths) if kernels is None else kernels
        if not len(widths) == len(strides) == len(kernels):
            raise InputError(
                f"Expected one stride and one pair of kernels a width; got {len(strides)} and {len(kernels)} "
                f"for {len(widths)} widths."
            )
        sizes = [stem_width or widths[0], *widths]
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, sizes[0], 3, 2, 1, bias=False), nn.BatchNorm2d(sizes[0]), nn.ReLU()
        )
        self.blocks = nn.Sequential(
            *(ResidualBlock(*step) for step in zip(sizes, sizes[1:], strides, kernels, strict=False))
        )
        self.channels = widths[-1]
        self.stride, self.receptive_field = 2, 3
        for stride, (first, second) in zip(strides, kernels, strict=True):  # the first of the two is strided
            self.receptive_field += (first - 1) * self.stride + (second - 1) * self.stride * stride
            self.stride *= stride
        self.first_pixel = -(self.receptive_field // 2)  # padding keeps cell 0 centered on pixel 0

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, ceil(H / stride), ceil(W / stride)), after a ReLU."""
        return self.blocks(self.stem((images - 0.5) * 4))


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut (He et al., CVPR 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int, kernels: tuple[int, int] = (3, 3)) -> None:
        super().__init__()
        first, second = kernels
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, first, stride, first // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.second = nn.Sequential(
            nn.Conv2d(outputs, outputs, second, 1, second // 2, bias=False), nn.BatchNorm2d(outputs)
        )
        self.shortcut = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )
        self.rectify = nn.ReLU()  # a module of its own, so that hooks of post-hoc methods can reach it

    def forward(self, features: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h / stride, w / stride)."""
        return self.rectify(self.second(self.first(features)) + self.shortcut(features))


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


def local(in_channels: int = 3, receptive_field: int = 19, stride: int = 4, width: int = 96) -> Backbone:
    """A residual network whose cells see few pixels, so that where it responds is where something is.

    One convolution of each block is 1 x 1, and so are both of the last block. Few layers look around, as in
    the BagNets of Brendel and Bethge (ICLR 2019, arXiv:1904.00760).

    Parameters
    ----------
    in_channels : int
        Of the images.
    receptive_field : int
        Side of the square of pixels that can change a cell: 19 of 64 is about a part of a bird.
    stride : {2, 4, 8, 16}
        Pixels between neighboring cells.
    width : int
        Channels of a cell, a multiple of 4.

    Raises
    ------
    InputError
        For a stride or width of another kind, and for a receptive field that no such layers have; the message
        names the nearest.
    """
    if stride not in (2, 4, 8, 16) or width < 4 or width % 4:
        raise InputError(
            f"Expected a stride of 2, 4, 8 or 16 and a width that is a multiple of 4; got {stride}, {width}."
        )
    # a 3 x 3 convolution adds two steps of the grid that it reads: 1 pixel, then 2, 4, …
    least = 3 + 2 * sum(2**level for level in range(1, stride.bit_length() - 1))
    extra = receptive_field - least
    if extra < 0 or extra % 4:
        nearest = least + 4 * max(0, round(extra / 4))
        raise InputError(
            f"Expected a receptive field of {least}, {least + 4}, {least + 8} … at stride {stride}; got "
            f"{receptive_field}. The nearest is {nearest}."
        )
    around = {}  # blocks that look around, by the step of their grid
    for step in reversed([2**level for level in range(1, stride.bit_length())]):
        around[step], extra = divmod(extra, 2 * step)
    plan: list[tuple[int, int, int]] = []  # width, stride, kernel
    for step, count in sorted(around.items()):
        if step > 2:
            plan.append((width, 2, 3))
        plan += [(width if step > 2 else width // 2, 1, 3)] * count
    plan.append((width, 1, 1))
    widths, strides, sides = zip(*plan, strict=True)
    return SmallBackbone(widths, strides, in_channels, width // 4, [(side, 1) for side in sides])
