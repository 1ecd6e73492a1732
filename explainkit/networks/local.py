"""Backbones whose cells see few pixels each, so that where a cell responds is where something is.

Few of their convolutions are 3 x 3, all others 1 x 1, as in the bags of local features of Brendel and Bethge
(ICLR 2019, arXiv:1904.00760). Strided ones are padded after the image where that brings the middle of what a
cell sees to the middle of the pixels that it is drawn on: half a pixel is missing in the end. Padded alike
before and after, evidence would be drawn up to half a cell beside its place.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from explainkit.errors import InputError
from explainkit.explanations.counts import is_whole
from explainkit.networks.backbones import Backbone, shortcut

STRIDES = (2, 4, 8, 16)

NARROWEST = 32
"""Least channels of a cell. With a fourth of them below 8, torch 2.14 writes beyond its memory on processors:
in the gradient of a strided 1 x 1 convolution, channels last."""


class LocalBackbone(Backbone):
    """A residual network for images of 32 to 128 pixels, with one 3 x 3 convolution in a block, or none.

    Parameters
    ----------
    receptive_field : int
        Side of the square of pixels that can change a cell.
    stride : {2, 4, 8, 16}
        Pixels between neighboring cells.
    width : int
        Channels of a cell, a multiple of 4 from 32 on; at stride 2 there are a fourth of them.
    in_channels : int
        Of the images.

    Raises
    ------
    InputError
        For a stride or width of another kind, and for a receptive field that no such layers have; the message
        names the nearest.
    """

    def __init__(
        self, receptive_field: int = 19, stride: int = 4, width: int = 96, in_channels: int = 3
    ) -> None:
        super().__init__()
        plan = _plan(receptive_field, stride, width)
        narrow = width // 4
        self.stem = nn.Sequential(
            *convolution(in_channels, narrow, 3, 2, after=stride > 2), nn.BatchNorm2d(narrow), nn.ReLU()
        )
        blocks, channels, step = [], narrow, 2
        for outputs, block_stride, kernel in plan:
            step *= block_stride
            blocks.append(LocalBlock(channels, outputs, kernel, block_stride, after=step < stride))
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.channels, self.stride, self.receptive_field = width, stride, receptive_field
        self.first_pixel = stride // 2 - 1 - receptive_field // 2

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) in [0, 1] to (N, channels, H / stride, W / stride), after a ReLU."""
        features: Tensor = self.blocks(self.stem((images - 0.5) * 4))
        return features


class LocalBlock(nn.Module):
    """A convolution that may look around, one that does not, and a shortcut (He et al., CVPR 2016)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, after: bool = False
    ) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *convolution(inputs, outputs, kernel, stride, after=after), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = shortcut(inputs, outputs, stride)
        self.rectify = nn.ReLU()  # a module of its own, so that hooks of post-hoc methods can reach it

    def forward(self, features: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h / stride, w / stride)."""
        rectified: Tensor = self.rectify(self.residual(features) + self.shortcut(features))
        return rectified


def local(in_channels: int = 3, receptive_field: int = 19, stride: int = 4, width: int = 96) -> Backbone:
    """Cells that see 19 pixels, about a part of a bird of 64: a 16 x 16 grid there."""
    return LocalBackbone(receptive_field, stride, width, in_channels)


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, *, after: bool = False
) -> Sequence[nn.Module]:
    """A convolution without bias that keeps the grid but for its stride; a strided one may be padded `after`.

    That is at the end of the image alone.
    """
    if after and stride > 1 and kernel > 1:
        padding = nn.ZeroPad2d((0, kernel - 1, 0, kernel - 1))  # of even sides a line is never read
        return padding, nn.Conv2d(inputs, outputs, kernel, stride, bias=False)
    return (nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),)


def _plan(receptive_field: int, stride: int, width: int) -> list[tuple[int, int, int]]:
    """Channels, stride and kernel of each block after a stem of stride 2 whose cells see 3 pixels."""
    if not all(map(is_whole, (receptive_field, stride, width))):
        raise InputError(
            f"Expected a receptive field, a stride and a width in whole numbers; got {receptive_field!r}, "
            f"{stride!r} and {width!r}."
        )
    if stride not in STRIDES or width < NARROWEST or width % 4:
        raise InputError(
            f"Expected a stride of 2, 4, 8 or 16 and a width that is a multiple of 4, from {NARROWEST} on; "
            f"got {stride} and {width}."
        )
    steps = [2**level for level in range(1, stride.bit_length())]  # of the grids: 2, 4, … stride
    least = 3 + 2 * sum(steps[:-1])  # a 3 x 3 convolution adds two steps of the grid that it reads
    extra = receptive_field - least
    if extra < 0 or extra % 4:
        raise InputError(
            f"Expected a receptive field of {least}, {least + 4}, {least + 8} … at stride {stride}; got "
            f"{receptive_field}. The nearest is {least + 4 * max(0, round(extra / 4))}."
        )
    looking_around = {}  # blocks besides the strided ones, on the grid of each step
    for step in reversed(steps):
        looking_around[step], extra = divmod(extra, 2 * step)
    plan = [(width // 4, 1, 3)] * looking_around[2]
    for step in steps[1:]:
        plan += [(width, 2, 3), *[(width, 1, 3)] * looking_around[step]]
    return [*plan, (width, 1, 1)]
