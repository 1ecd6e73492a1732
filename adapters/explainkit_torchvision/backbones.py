"""Cuts torchvision's classifiers where their grid of features ends."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from explainkit.errors import InputError, MissingPackageError, UnknownNameError, UnsupportedNetworkError
from explainkit.networks.backbones import Backbone, grid_size
from explainkit.networks.receptive_field import find_receptive_field
from explainkit.networks.tracing import split_after, split_at_pooling, split_before_last_pooling

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

PROBE = 128
"""Pixels a side of the image that a network is probed with, where it takes any size."""

ONE_SIZE = {"maxvit_t": 224}
"""Networks whose windows fit one size of image; vision transformers have theirs as an attribute."""

ENDS = {"squeezenet1_0": "features", "squeezenet1_1": "features"}
"""The last layer of networks whose last pooling takes class maps rather than features."""


class TorchvisionBackbone(Backbone):
    """The grid of features of a classifier; images in [0, 1] are normalized inside, as it was trained.

    Features that can go below zero are two channels each, above and below, so that nothing is lost.

    Attributes
    ----------
    receptive_field : int or None
        Found by trial on an image of 128 pixels; ``None`` for deep networks, whose cells see more than that.
        Those that are cut early with ``until=…`` see less.
    image_size : int or None
        The one size that it takes; ``None`` for any.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        features: nn.Module,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.image_size, self.signed = image_size, False
        self.eval()
        side = image_size or PROBE
        with torch.no_grad():
            maps = self(torch.rand(1, len(mean), side, side, generator=torch.Generator().manual_seed(0)))
        if maps.ndim != 4:
            shape = tuple(maps.shape)
            raise UnsupportedNetworkError(f"Expected features of (N, D, h, w); got {shape}.")
        cells = maps.shape[3]
        if image_size is None:  # a border may lack a cell, the difference of two sizes does not
            cells = grid_size(self, (2 * PROBE, 2 * PROBE))[1] - cells
        self.stride = side // cells
        self.signed = bool((maps < 0).any())
        self.channels = maps.shape[1] * (1 + self.signed)
        found = find_receptive_field(self, torch.full((1, len(mean), side, side), 0.5))
        if found is not None:
            self.receptive_field, self.first_pixel, self.stride = found.size, found.first_pixel, found.stride

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, channels, h, w)."""
        if self.image_size is not None and images.shape[-2:] != (self.image_size, self.image_size):
            raise InputError(
                f"Expected images of {self.image_size} x {self.image_size}, the one size that this backbone "
                f"takes; got {tuple(images.shape[-2:])}. Set image_size=… for another."
            )
        maps = self.features((images - self.mean) / self.std)
        return torch.cat([maps.clamp(min=0), (-maps).clamp(min=0)], 1) if self.signed else maps


class TokenGrid(nn.Module):
    """The tokens of a vision transformer, its class token left out, on the grid that they came from.

    Parameters
    ----------
    tokens : nn.Module
        Images to (N, 1 + h w, D).
    """

    def __init__(self, tokens: nn.Module) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, H) to (N, D, h, h)."""
        patches = self.tokens(images)[:, 1:].mT  # (N, D, h h)
        side = round(patches.shape[2] ** 0.5)
        return patches.unflatten(2, (side, side)).contiguous()


def torchvision_backbone(
    name: str,
    *,
    weights: str | None = None,
    until: str | None = None,
    image_size: int | None = None,
    in_channels: int = 3,
) -> TorchvisionBackbone:
    """The features of torchvision's classifier `name`.

    Parameters
    ----------
    weights : str or None
        As torchvision names them, such as ``"DEFAULT"``, downloaded at first use; random where ``None``.
    until : str or None
        The last layer, by dotted name, such as ``"layer3"``; ``None``: all before the last global pooling.
    image_size : int or None
        For vision transformers, which take one size alone; 224 unless given.
    in_channels : int
        Of the images. The filters of the first layer are averaged over colors and repeated, so that a gray
        image says to trained weights what it would say in color; mean and std are averaged too.

    Raises
    ------
    UnknownNameError
        For a name, weights or a layer that torchvision does not have.
    UnsupportedNetworkError
        For a network without a grid of features.
    InputError
        For weights that cannot be downloaded.
    MissingPackageError
        Where torchvision cannot be imported beside the installed torch.
    """
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        raise MissingPackageError(
            f"torchvision cannot be imported beside torch {torch.__version__} ({error}). They go in pairs: "
            "pip install --upgrade torch torchvision."
        ) from error
    names = models.list_models(module=models)
    if name not in names:
        close = get_close_matches(name, names, n=3)
        raise UnknownNameError(f"torchvision has no {name!r}. Did you mean {close or names[:3]}?")
    is_transformer = name.startswith("vit_")
    if image_size is not None and not is_transformer:
        raise InputError(f"Expected image_size=… for vision transformers alone; {name} takes any size.")
    entry = _weights_entry(models, name, weights)
    options = {"image_size": image_size} if image_size is not None else {}
    try:
        network = models.get_model(name, weights=entry, **options).eval()
    except OSError as error:
        raise InputError(
            f"The weights {weights!r} of {name} could not be downloaded ({error}). Put the file "
            f"{entry.url.rpartition('/')[2]} into {torch.hub.get_dir()}/checkpoints, or train from random "
            "weights with weights=None."
        ) from error
    except (AssertionError, TypeError, ValueError) as error:
        raise InputError(f"torchvision cannot make {name} so: {error}") from error
    if in_channels != 3:
        _replace_first_convolution(network, in_channels)
    features = (
        TokenGrid(split_after(network, "encoder")) if is_transformer else _features(network, name, until)
    )
    preprocessing = entry.transforms() if entry is not None else None
    mean = getattr(preprocessing, "mean", IMAGENET_MEAN)
    std = getattr(preprocessing, "std", IMAGENET_STD)
    if in_channels != 3:
        mean, std = ([sum(values) / len(values)] * in_channels for values in (mean, std))
    return TorchvisionBackbone(
        features,
        mean,
        std,
        network.image_size if is_transformer else ONE_SIZE.get(name),
    )


def _replace_first_convolution(network: nn.Module, in_channels: int) -> None:
    """Let `network` take images of `in_channels`, by what its filters make of gray, in equal shares."""
    name, first = next(item for item in network.named_modules() if isinstance(item[1], nn.Conv2d))
    convolution = nn.Conv2d(
        in_channels, first.out_channels, first.kernel_size, first.stride, first.padding, first.dilation,
        bias=first.bias is not None,
    )  # fmt: skip
    with torch.no_grad():
        gray = first.weight.sum(1, keepdim=True)
        convolution.weight.copy_(gray.expand_as(convolution.weight) / in_channels)
        if first.bias is not None and convolution.bias is not None:
            convolution.bias.copy_(first.bias)
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, convolution)


def _features(network: nn.Module, name: str, until: str | None) -> nn.Module:
    """All of `network` up to its layer `until`, or up to its last global pooling."""
    end = until or ENDS.get(name)
    if end is not None:
        return split_after(network, end)
    try:
        return split_at_pooling(network)[0]
    except UnsupportedNetworkError:
        return split_before_last_pooling(network)


def _weights_entry(models: Any, name: str, weights: str | None) -> Any:
    """The entry of `weights` in torchvision's list for the network, or ``None`` for random ones."""
    if weights is None:
        return None
    entries = models.get_model_weights(name)
    if weights not in entries.__members__:
        raise UnknownNameError(
            f"torchvision has no weights {weights!r} for {name}. There are: {', '.join(entries.__members__)}."
        )
    return entries[weights]
