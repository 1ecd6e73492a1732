"""Where the logits are in what a network returns: a tensor, or a tuple, mapping or object that holds one."""

from collections.abc import Callable, Mapping
from operator import attrgetter, itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from explainkit.errors import InputError, UnsupportedNetworkError
from explainkit.explainers.inputs import InputSpec
from explainkit.explainers.state import undisturbed
from explainkit.networks.input_scaling import NormalizedNetwork
from explainkit.networks.layers import describe_output
from explainkit.networks.precision import reference_tensor

Reader = Callable[[Any], Tensor]
"""Takes the logits out of an output."""

SIZES = (64, 224, 32, 28, 299)
"""Heights and widths that a network is tried at, where none is given."""


class Logits(nn.Module):
    """A network whose logits are taken out of what it returns; it shares everything with the network itself.

    Parameters
    ----------
    network : nn.Module
        Kept as it is, under this name.
    reader : callable or None
        Where its logits are; ``None``: decided by the first output.
    """

    def __init__(self, network: nn.Module, reader: Reader | None = None) -> None:
        super().__init__()
        self.network = network
        self.training = network.training
        self._reader = reader

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, W)."""
        output = self.network(images)
        if self._reader is None:
            self._reader = reader_of(output, len(images))
        return self._reader(output)


def classifier(network: nn.Module, image: Tensor | None) -> nn.Module:
    """`network` itself where it returns logits, else with them taken out, as its output for `image` tells.

    Raises
    ------
    UnsupportedNetworkError
        Where that output holds no logits.
    """
    if image is None:
        return Logits(network)
    with undisturbed(network), torch.no_grad():
        output = network(image)
    reader = reader_of(output, 1)
    return network if isinstance(output, Tensor) else Logits(network, reader)


def unwrap(network: nn.Module) -> nn.Module:
    """The user's network, without what may have been put around it."""
    while isinstance(network, Logits | NormalizedNetwork):
        network = network.network
    return network


def probe_image(network: nn.Module, spec: InputSpec) -> Tensor | None:
    """A gray image (1, D, H, W) that `network` takes, of its size or of `SIZES`; ``None`` if of neither."""
    reference = reference_tensor(network)
    for height, width in [spec.size] if spec.size else [(side, side) for side in SIZES]:
        image = spec.from_unit(reference.new_full((1, spec.channels, height, width), 0.5))
        try:
            with undisturbed(network), torch.no_grad():
                network(image)
        except Exception:  # a user's network may refuse a size with any error
            continue
        return image
    return None


def reader_of(output: Any, count: int) -> Reader:
    """How the logits (N, C) of `count` images are taken out of `output`.

    Raises
    ------
    UnsupportedNetworkError
        Saying what came out instead.
    """
    if isinstance(output, Tensor):
        candidates: list[Reader] = [_itself]
    elif hasattr(output, "logits"):
        candidates = [attrgetter("logits")]
    elif isinstance(output, Mapping):
        candidates = [itemgetter(key) for key in (["logits"] if "logits" in output else output)]
    elif isinstance(output, tuple | list):
        candidates = [itemgetter(index) for index in range(len(output))]
    else:
        candidates = []
    for reader in candidates:
        if are_logits(reader(output), count):
            return reader
    raise UnsupportedNetworkError(
        f"Expected logits ({count}, C) from the network: a tensor, a tuple or mapping that holds one, or an "
        f"object with .logits; got {describe_output(output)}. Wrap it in a module that returns its logits."
    )


def check_logits(logits: Any, count: int) -> Tensor:
    """`logits`, checked to be (N, C).

    Raises
    ------
    InputError
    """
    if not are_logits(logits, count):
        raise InputError(f"Expected logits ({count}, C) from the network; got {describe_output(logits)}.")
    return logits


def are_logits(value: Any, count: int) -> bool:
    """Whether `value` is a floating tensor (N, C)."""
    return isinstance(value, Tensor) and value.ndim == 2 and len(value) == count and value.is_floating_point()


def _itself(output: Any) -> Tensor:
    return output
