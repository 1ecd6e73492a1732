"""Backbones: images (N, 3, H, W) in [0, 1] to a grid of features (N, channels, h, w), never negative."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from explainkit.errors import InputError


class Backbone(nn.Module):
    """A feature extractor that states what one cell of its grid can see.

    Attributes
    ----------
    channels : int
        D, the length of a cell's feature vector.
    stride : int
        Pixels between neighbouring cells.
    receptive_field : int
        Side of the square of pixels that can change a cell.
    """

    channels: int
    stride: int
    receptive_field: int


class SmallBackbone(Backbone):
    """A residual network for images of 32 to 128 pixels; normalises inside.

    Parameters
    ----------
    widths : sequence of int
        Channels of each residual block; the stem has the first.
    strides : sequence of int
        Of each block, beside the stem's stride of 2.
    """

    def __init__(self, widths: Sequence[int] = (24, 48, 96), strides: Sequence[int] = (1, 2, 2)) -> None:
        super().__init__()
        if len(widths) != len(strides):
            raise InputError(f"Expected one stride a width; got {len(strides)} for {len(widths)} widths.")
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
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

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, channels, ceil(H / stride), ceil(W / stride)), after a ReLU."""
        return self.blocks(self.stem((images - 0.5) * 4))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al., CVPR 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )
        self.rectify = nn.ReLU()  # a module of its own, so that hooks of post-hoc methods can reach it

    def forward(self, features: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h / stride, w / stride)."""
        return self.rectify(self.second(self.first(features)) + self.shortcut(features))


class ChannelScale(nn.Module):
    """A batch norm at rest: each channel times a number, and another added; both learn.

    Parameters
    ----------
    norm : batch norm with statistics of its own
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        mean, variance = norm.running_mean, norm.running_var
        if mean is None or variance is None:
            raise InputError("Expected a batch norm that keeps its statistics; got one without any.")
        scale = (variance + norm.eps).rsqrt()
        shift = -mean * scale
        if norm.affine:
            scale, shift = scale * norm.weight.detach(), shift * norm.weight.detach() + norm.bias.detach()
        learns = not norm.affine or norm.weight.requires_grad
        self.weight, self.bias = nn.Parameter(scale, learns), nn.Parameter(shift, learns)

    def forward(self, values: Tensor) -> Tensor:
        """(N, channels, …) to the same."""
        axes = (-1, *[1] * (values.ndim - 2))
        return values * self.weight.view(axes) + self.bias.view(axes)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """`network` with its batch norms at rest: put into the convolution before, or a `ChannelScale` instead.

    In eval mode it is the same function; in training no image of a batch changes another any more. Those
    that follow a convolution in a sequence go into it. Those that keep no statistics are left as they are;
    layers are replaced in place.
    """
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for place, (first, second) in enumerate(pairwise(list(sequence))):
            if type(first) is nn.Conv2d and isinstance(second, nn.BatchNorm2d) and _keeps(second):
                training = first.training
                fused = fuse_conv_bn_eval(first.eval(), second.eval()).train(training)
                sequence[place] = fused.requires_grad_(first.weight.requires_grad)
                sequence[place + 1] = nn.Identity().train(training)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and _keeps(child):
                setattr(module, name, ChannelScale(child).train(child.training))
    return network


def _keeps(norm: nn.modules.batchnorm._BatchNorm) -> bool:
    """Whether it has statistics of the training images."""
    return norm.running_mean is not None and norm.running_var is not None


def mixes_images(network: nn.Module) -> str | None:
    """The name of a module by which the images of a training batch change each other; ``None`` for none."""
    kinds = (nn.modules.batchnorm._BatchNorm,)
    return next((name for name, module in network.named_modules() if isinstance(module, kinds)), None)


def small() -> Backbone:
    """Stride 8, 96 channels: the default for 64 pixels (an 8 x 8 grid)."""
    return SmallBackbone()


def small_fine() -> Backbone:
    """Stride 4, 96 channels: a 16 x 16 grid at 64 pixels, at about twice the cost."""
    return SmallBackbone(strides=(1, 2, 1))


def tiny() -> Backbone:
    """Stride 4, 32 channels: for images of 28 to 32 pixels, and for tests."""
    return SmallBackbone(widths=(16, 32), strides=(1, 2))
