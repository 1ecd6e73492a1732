"""Where the logits are in what a network returns: a tensor, or a tuple, mapping or object that holds one."""

from collections.abc import Callable, Mapping
from operator import attrgetter, itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from explainkit.errors import InputError, UnsupportedNetworkError
from explainkit.explainers.isolation import running
from explainkit.networks.layers import describe_output
from explainkit.networks.precision import reference_tensor
from explainkit_captum.exported import exported_lengths

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
    copies_images : bool
        Whether the network gets a copy of its images, since it writes to them.
    batch_size : int or None
        How many images the network takes, where it takes one number alone.
    """

    def __init__(
        self,
        network: nn.Module,
        reader: Reader | None = None,
        *,
        copies_images: bool = False,
        batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.training = network.training
        self._reader, self._copies_images, self._batch_size = reader, copies_images, batch_size

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, W)."""
        if self._batch_size is None:
            return self._logits(images.clone() if self._copies_images else images)
        missing = -len(images) % self._batch_size
        filled = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)])  # always a copy
        return torch.cat([self._logits(chunk) for chunk in filled.split(self._batch_size)])[: len(images)]

    def _logits(self, images: Tensor) -> Tensor:
        output = self.network(images)
        if self._reader is None:
            self._reader = reader_of(output, len(images))
        logits = self._reader(output)
        return logits.clone() if logits.is_inference() else logits


def classifier(network: nn.Module, image: Tensor | None) -> nn.Module:
    """`network` itself where it returns logits and only reads its images, else in a module that sees to both.

    Parameters
    ----------
    image : Tensor or None, (1, 3, H, W)
        What decides it; ``None``: images are always copied, and the first output tells where the logits are.

    Raises
    ------
    UnsupportedNetworkError
        Where that output holds no logits.
    """
    batch_size = exported_lengths(unwrap(network))[0]
    if image is None:
        return Logits(network, copies_images=True, batch_size=batch_size)
    with running(network) as twin, torch.no_grad():
        images = image.expand(batch_size or 1, -1, -1, -1).clone()
        output = twin(images)
        is_written = images._version > 0 or not torch.equal(images[:1], image)
    reader = reader_of(output, len(images))
    is_plain = isinstance(output, Tensor) and not output.is_inference()
    if is_plain and not is_written and batch_size is None:
        return network
    return Logits(network, reader, copies_images=is_written, batch_size=batch_size)


def unwrap(network: nn.Module) -> nn.Module:
    """The user's network, without what `classifier` may have put around it."""
    return network.network if isinstance(network, Logits) else network


def probe_image(network: nn.Module, size: tuple[int, int] | None) -> Tensor | None:
    """A gray image (1, 3, H, W) that `network` takes, of `size` or one of `SIZES`; ``None`` if of neither."""
    if not isinstance(network, nn.Module):
        raise UnsupportedNetworkError(
            f"Expected a network, an nn.Module; got {type(network).__name__}. ExportedProgram has module()."
        )
    reference, exported = reference_tensor(network), exported_lengths(unwrap(network))
    sizes = [(side, side) for side in SIZES]
    if size is not None or None not in exported[2:]:
        sizes = [size or (exported[2], exported[3])]  # type: ignore[list-item]
    for height, width in sizes:
        image = reference.new_full((1, 3, height, width), 0.5)
        try:
            with running(network) as twin, torch.no_grad():
                twin(image.expand(exported[0] or 1, -1, -1, -1).clone())
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
