"""Batch norms that are folded, and whether images of a batch mix."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from explainkit.errors import InputError


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
        requires_grad = not norm.affine or norm.weight.requires_grad
        self.weight, self.bias = nn.Parameter(scale, requires_grad), nn.Parameter(shift, requires_grad)

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
        for index, (first, second) in enumerate(pairwise(list(sequence))):
            if type(first) is nn.Conv2d and isinstance(second, nn.BatchNorm2d) and _has_statistics(second):
                training = first.training
                fused = fuse_conv_bn_eval(first.eval(), second.eval()).train(training)
                sequence[index] = fused.requires_grad_(first.weight.requires_grad)
                sequence[index + 1] = nn.Identity().train(training)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and _has_statistics(child):
                setattr(module, name, ChannelScale(child).train(child.training))
    return network


def _has_statistics(norm: nn.modules.batchnorm._BatchNorm) -> bool:
    """Whether it has statistics of the training images."""
    return norm.running_mean is not None and norm.running_var is not None


def batch_mixing_module(network: nn.Module) -> str | None:
    """The name of a module by which the images of a training batch change each other; ``None`` for none."""
    kinds = (nn.modules.batchnorm._BatchNorm,)
    return next((name for name, module in network.named_modules() if isinstance(module, kinds)), None)
