"""Networks for large images whose cells see few pixels each: bags of local features."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from explainkit.errors import InputError
from explainkit.explanations.counts import is_whole
from explainkit.networks.backbones import Backbone, shortcut
from explainkit.networks.local import convolution

STRIDES = (2, 2, 2, 1)
"""Of the four stages."""

STAGES_LOOKING_AROUND = {9: 2, 17: 3, 33: 4}
"""How many stages have a 3 x 3 convolution, for each side of what a cell sees."""

EXPANSION = 4
"""Channels of a block over those of its middle."""


class BagNet(Backbone):
    """A ResNet of bottlenecks with one 3 x 3 convolution in each of the first stages, all else 1 x 1.

    Brendel and Bethge: Approximating CNNs with Bag-of-local-Features Models works surprisingly well on
    ImageNet, ICLR 2019, arXiv:1904.00760. Here convolutions are padded, so that there is a cell for each 8
    pixels up to the border, in the middle of what it sees; theirs are not.

    Parameters
    ----------
    receptive_field : {9, 17, 33}
        Side of the square of pixels that can change a cell.
    width : int
        Channels in the middle of the blocks of the first stage; a cell has 32 times as many.
    depths : sequence of int, 4
        Blocks of each stage; those of a ResNet-50 unless given.
    in_channels : int
        Of the images.

    Raises
    ------
    InputError
        For another receptive field, and for other than four stages.
    """

    def __init__(
        self,
        receptive_field: int = 33,
        width: int = 64,
        depths: Sequence[int] = (3, 4, 6, 3),
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if not is_whole(width) or width < 1:
            raise InputError(f"Expected a width of 1 channel at least; got {width!r}.")
        if receptive_field not in STAGES_LOOKING_AROUND:
            raise InputError(f"Expected a receptive field of 9, 17 or 33 pixels; got {receptive_field!r}.")
        if not isinstance(depths, Sequence) or len(depths) != len(STRIDES) or min(depths) < 1:
            raise InputError(f"Expected the depths of {len(STRIDES)} stages; got {depths!r}.")
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 1, bias=False),
            *convolution(width, width, 3),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.stride, self.receptive_field = 1, 3
        channels, blocks = width, []
        for stage, (depth, stride) in enumerate(zip(depths, STRIDES, strict=True)):
            kernel = 3 if stage < STAGES_LOOKING_AROUND[receptive_field] else 1
            middle = width * 2**stage
            blocks += [
                Bottleneck(channels, middle, kernel, stride, after=stage < 2),
                *(Bottleneck(middle * EXPANSION, middle) for _ in range(depth - 1)),
            ]
            channels = middle * EXPANSION
            self.receptive_field += (kernel - 1) * self.stride
            self.stride *= stride
        self.blocks = nn.Sequential(*blocks)
        self.channels = channels
        self.first_pixel = self.stride // 2 - 1 - self.receptive_field // 2

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) in [0, 1] to (N, channels, H / 8, W / 8), rounded up, after a ReLU."""
        features: Tensor = self.blocks(self.stem((images - 0.5) * 4))
        return features


class Bottleneck(nn.Module):
    """Three convolutions, of which the middle one may look around, and a shortcut (He et al., CVPR 2016)."""

    def __init__(
        self, inputs: int, middle: int, kernel: int = 1, stride: int = 1, *, after: bool = False
    ) -> None:
        super().__init__()
        outputs = middle * EXPANSION
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(),
            *convolution(middle, middle, kernel, stride, after=after), nn.BatchNorm2d(middle), nn.ReLU(),
            nn.Conv2d(middle, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = shortcut(inputs, outputs, stride)
        self.rectify = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, 4 middle, h / stride, w / stride)."""
        rectified: Tensor = self.rectify(self.residual(features) + self.shortcut(features))
        return rectified


def bagnet(
    in_channels: int = 3,
    receptive_field: int = 33,
    width: int = 64,
    depths: Sequence[int] = (3, 4, 6, 3),
) -> Backbone:
    """Stride 8, 2048 channels, cells that see 9, 17 or 33 pixels: for images of about 224."""
    return BagNet(receptive_field, width, depths, in_channels)
