"""Cuts torchvision's classifiers at the tensor that they pool."""

from difflib import get_close_matches

import torch
from torch import Tensor, nn

from explainkit.backbones import Backbone
from explainkit.errors import BindError, MissingPackageError, UnknownNameError
from explainkit.tracing import split_at_pooling

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TorchvisionBackbone(Backbone):
    """Everything of a classifier before its pooling; images in [0, 1] are normalised inside.

    Attributes
    ----------
    receptive_field : int
        0: not known; of deep networks it is mostly larger than the image.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Module, channels: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1))
        self.channels, self.receptive_field = channels, 0
        self.eval()
        with torch.no_grad():
            probe = self(torch.rand(1, 3, 128, 128))
        self.stride = 128 // probe.shape[-1]
        if (probe < 0).any():
            raise BindError("Expected features that are never negative, as after a ReLU.")

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, channels, h, w)."""
        return self.features((images - self.mean) / self.std)


def torchvision_backbone(name: str, *, weights: str | None = None) -> TorchvisionBackbone:
    """The features of torchvision's classifier `name`.

    Parameters
    ----------
    weights : str or None
        As torchvision names them, such as ``"DEFAULT"``, downloaded at first use; random where ``None``.

    Raises
    ------
    UnknownNameError
        For a name that torchvision does not have.
    BindError
        For a network without global average pooling before one linear layer, or with negative features.
    MissingPackageError
        Where torchvision cannot be imported beside the installed torch.
    """
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        raise MissingPackageError(
            f"torchvision cannot be imported ({error}): pip install --upgrade torch torchvision."
        ) from error
    known = models.list_models(module=models)
    if name not in known:
        close = get_close_matches(name, known, n=3)
        raise UnknownNameError(f"torchvision has no {name!r}. Did you mean {close or known[:3]}?")
    network = models.get_model(name, weights=weights).eval()
    features, head = split_at_pooling(network)
    return TorchvisionBackbone(features, head.in_features)
