"""What a network takes: images, or rows of a table; all else is refused in words."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from attrs import evolve, field, frozen
from torch import Tensor, nn

from explainkit.data.reading import LARGEST_SIDE, read_images
from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError, NormalizationWarning, UnsupportedNetworkError
from explainkit.explanations.validation import as_floats
from explainkit.networks.backbones import channels_of
from explainkit.networks.input_scaling import normalized, normalizing_module
from explainkit.protocols import Images

UNIT_RANGE = (0.0, 1.0)
"""The values of images in data sets, files and explanations."""

TOLERANCE = 1e-3
"""How far outside the range an image may be, as a share of it: resizing overshoots."""


@frozen(kw_only=True)
class InputSpec:
    """What a network takes: images (N, channels, H, W), or rows of a table (N, columns).

    Attributes
    ----------
    channels : int
        Of an image.
    size : (int, int) or None
        Height and width that files are resized to; ``None`` leaves them as they are.
    columns : int or None
        Of the rows of a table, which are explained in place of images.
    mean, std : tuple of float or None
        One a channel: ``(image - mean) / std`` is what the network gets. ``None``: it gets images as they
        are, or normalizes them itself.
    value_range : (float, float) or None
        Lowest and highest value of the images that the explainer takes, before `mean` and `std`. Files and
        data sets, which are in [0, 1], are brought to it. ``None``: any finite values.
    is_assumed : bool
        Whether nobody has said how the network wants its images: reading a file then warns.

    Raises
    ------
    InputError
        On construction, for a mean without a std, another number of them than channels, a std that is not
        above 0, and an empty range.

    Examples
    --------
    >>> InputSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).value_range
    (0.0, 1.0)
    """

    channels: int = 3
    size: tuple[int, ...] | None = field(default=None)
    columns: int | None = None
    mean: tuple[float, ...] | None = field(default=None, converter=as_floats)
    std: tuple[float, ...] | None = field(default=None, converter=as_floats)
    value_range: tuple[float, ...] | None = field(default=UNIT_RANGE, converter=as_floats)
    is_assumed: bool = False

    def __attrs_post_init__(self) -> None:
        for name, value in {"channels": self.channels, "columns": self.columns or 1}.items():
            if type(value) is not int or value < 1:
                raise InputError(f"Expected {name} of at least 1; got {value!r}.")
        if self.size is not None and not is_image_size(self.size):
            raise InputError(
                f"Expected a size of height and width in pixels, up to {LARGEST_SIDE}; got {self.size!r}."
            )
        self._check_normalization()
        span = self.value_range
        if span is not None and (len(span) != 2 or not -math.inf < span[0] < span[1] < math.inf):
            raise InputError(f"Expected value_range as a lowest and a highest value; got {span}.")

    def _check_normalization(self) -> None:
        mean, std = self.mean, self.std
        if (mean is None) != (std is None):
            raise InputError(f"Expected mean and std, both or neither; got {mean} and {std}.")
        if mean is None or std is None:
            return
        if self.is_vector or len(mean) != self.channels or len(std) != self.channels:
            raise InputError(
                f"Expected mean and std of {self.channels} channels, one number each; got {mean} and {std}."
            )
        if not min(std) > 0 or not all(map(math.isfinite, (*mean, *std))):
            raise InputError(
                f"Expected a finite mean and a std above 0 for every channel; got {mean}, {std}."
            )

    @staticmethod
    def of_shape(shape: Sequence[int] | None, channels: int = 3) -> InputSpec:
        """For images of `shape` (H, W) or of any, in [0, 1]; or for rows of (F,) columns."""
        if shape is not None and len(shape) == 1:
            return InputSpec(columns=shape[0], value_range=None)
        return InputSpec(size=None if shape is None else tuple(shape), channels=channels)

    @property
    def is_vector(self) -> bool:
        """Whether inputs are rows of a table."""
        return self.columns is not None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(H, W); (F,) for rows; ``None`` for images of any size."""
        return self.size if self.columns is None else (self.columns,)

    @property
    def scaling(self) -> tuple[Any, ...]:
        """All by which two specs of one network would give it other numbers, to single precision."""
        return tuple(
            None if values is None else tuple(map(np.float32, values))
            for values in (self.mean, self.std, self.value_range)
        )

    @property
    def width(self) -> float:
        """From the lowest to the highest value of an image; 1 where any will do."""
        return 1.0 if self.value_range is None else self.value_range[1] - self.value_range[0]

    @property
    def arguments(self) -> dict[str, Any]:
        """What `from_network` is to be given for the same; nothing that is nobody's word."""
        stated = {} if self.is_assumed else {"value_range": self.value_range}
        return {"size": self.size, "mean": self.mean, "std": self.std, **stated}

    def read(self, images: Images) -> Tensor:
        """`images` as a checked tensor: (N, channels, H, W) in `value_range`, or rows (N, columns).

        Raises
        ------
        InputError
            For another shape or kind, values that are not finite, and values outside the range.
        """
        if self.is_vector:
            rows = images.images if isinstance(images, Batch) else images
            rows = torch.as_tensor(rows) if isinstance(rows, np.ndarray) else rows
            return self._checked_rows(rows)
        if isinstance(images, Batch):
            return self._checked_images(self.from_unit(images.images))
        if isinstance(images, Tensor):
            return self._checked_images(images)
        if self.is_assumed:
            warnings.warn(
                "Files are read as [0, 1], and nothing says whether the network was trained on such images. "
                "Give mean=… and std=…, or value_range=(0, 1) where it was.",
                NormalizationWarning,
                stacklevel=4,
            )
        is_single = isinstance(images, str | Path) or not isinstance(images, Sequence)
        items: Any = [images] if is_single else images
        return self._checked_images(self.from_unit(read_images(items, self._pair, self.channels)))

    def from_unit(self, images: Tensor) -> Tensor:
        """Images in [0, 1], as files and data sets are, in `value_range`."""
        if self.value_range in (None, UNIT_RANGE) or not images.is_floating_point():
            return images
        low, high = self.value_range
        return images * (high - low) + low

    def to_unit(self, images: Tensor) -> Tensor:
        """Images in `value_range` in [0, 1]; as they are where any values will do."""
        if self.value_range in (None, UNIT_RANGE):
            return images
        low, high = self.value_range
        return (images - low) / (high - low)

    @property
    def _pair(self) -> tuple[int, int] | None:
        return None if self.size is None else (self.size[0], self.size[1])

    def _checked_images(self, images: Tensor) -> Tensor:
        check_images(images, self.channels)
        if self.value_range is not None:
            self._check_range(images)
        return images

    def _check_range(self, images: Tensor) -> None:
        """Refuse values outside the range, with what is likely to have happened."""
        low, high = self.value_range or UNIT_RANGE
        slack = TOLERANCE * (high - low)
        lowest, highest = (value.item() for value in images.detach().aminmax())
        if lowest >= low - slack and highest <= high + slack:
            return
        if high <= 16 < highest and lowest >= 0:
            hint = "They look like bytes: divide by 255, and bring them to the range."
        elif self.mean is not None:
            hint = "They look normalized already: the explainer does it, since it was given mean and std."
        elif self.is_assumed:
            hint = (
                "They look normalized: give the explainer mean=… and std=… and the images before that; or "
                "value_range=(lowest, highest), or None for any values, to explain them as they are."
            )
        else:
            hint = "They look normalized already: do not normalize them, the network does."
        raise InputError(f"Expected images in [{low:g}, {high:g}]; got {lowest:.3g} … {highest:.3g}. {hint}")

    def _checked_rows(self, rows: Any) -> Tensor:
        shape = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
        if (
            not isinstance(rows, Tensor) or rows.ndim != 2 or rows.shape[1] != self.columns
            or not rows.is_floating_point() or not len(rows)
        ):  # fmt: skip
            kind = f"{rows.dtype} " if isinstance(rows, Tensor) else ""
            raise InputError(f"Expected float rows of (N, {self.columns}); got {kind}{shape}.")
        if not rows.isfinite().all():
            index = tuple((~rows.isfinite()).nonzero()[0].tolist())
            raise InputError(f"Expected finite rows; got {rows[index].item()} at {index} (row, column).")
        return rows


def spec_of_dataset(dataset: ImageDataset) -> InputSpec:
    """What a network takes that learns from `dataset`, and normalizes inside."""
    return InputSpec.of_shape(dataset.size, dataset.channels)


def spec_for_network(
    network: nn.Module,
    size: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    value_range: Sequence[float] | Literal["unit"] | None = "unit",
) -> InputSpec:
    """What `network`, trained elsewhere, takes: as it states itself, or as is said here.

    Raises
    ------
    UnsupportedNetworkError
        For what is no network.
    InputError
        Where it is said how to normalize, and the network does that already.
    """
    if not isinstance(network, nn.Module):
        raise UnsupportedNetworkError(
            f"Expected a network, an nn.Module; got {type(network).__name__}. ExportedProgram has module()."
        )
    stated = stated_spec(network)
    module = normalizing_module(network)
    is_unsaid = isinstance(value_range, str) and value_range == "unit"
    if isinstance(value_range, str) and not is_unsaid:
        raise InputError(f"Expected value_range as a lowest and a highest value; got {value_range!r}.")
    if mean is not None and (module is not None or stated is not None):
        what = f"its module {module!r}" if stated is None else "as it states by its input_spec"
        raise InputError(
            f"Expected images to be normalized once; {type(network).__name__} does it itself ({what}), and "
            "mean=… and std=… are given too. Leave them out."
        )
    sides = _sides(size)
    if stated is not None:
        if not is_unsaid and as_floats(value_range) != stated.value_range:  # type: ignore[arg-type]
            raise InputError(
                f"Expected the value_range that the network states, {stated.value_range}; got {value_range}."
            )
        return stated if sides is None else evolve(stated, size=sides)
    given = sides
    if sides is None and isinstance(size_of_network := getattr(network, "input_size", None), tuple):
        given = size_of_network
    if given is not None and len(given) == 1:
        return InputSpec.of_shape(given)
    return InputSpec(
        channels=channels_of(network),
        size=given,
        mean=mean,
        std=std,
        value_range=UNIT_RANGE if isinstance(value_range, str) else value_range,
        is_assumed=is_unsaid and mean is None and module is None,
    )


def stated_spec(network: nn.Module) -> InputSpec | None:
    """What `network` says that it takes, where explainkit has written that down on it."""
    stated = getattr(network, "input_spec", None)
    return stated if isinstance(stated, InputSpec) else None  # networks have attributes of all names


def normalize_inside(network: nn.Module, spec: InputSpec) -> nn.Module:
    """`network` on images as `spec` has them, which it then states."""
    wrapped = normalized(network, spec.mean, spec.std)
    if wrapped is not network:
        wrapped.input_spec = spec  # type: ignore[assignment]
    return wrapped


def _sides(size: Any) -> tuple[Any, ...] | None:
    """A size, one number or two, as a tuple; what it holds is checked on construction."""
    if size is None or isinstance(size, list | tuple):
        return None if size is None else tuple(size)
    try:
        return (size.__index__(),) * 2
    except AttributeError:
        raise InputError(
            f"Expected a size of height and width in pixels, or one for both; got {size!r}."
        ) from None


def check_images(images: Tensor, channels: int = 3) -> None:
    """Refuse, in words, what is not (N, channels, H, W), float and finite.

    Raises
    ------
    InputError
    """
    shape, hint = tuple(images.shape), ""
    if images.ndim == 3:
        hint = " Add a batch dimension with image[None]."
    elif images.ndim == 4 and shape[1] == 1 and channels == 3:
        hint = " Repeat the gray channel: images.expand(-1, 3, -1, -1)."
    elif images.ndim == 4 and shape[3] == channels:
        hint = " Move the channels first: images.permute(0, 3, 1, 2)."
    elif not images.is_floating_point():
        hint = " Bytes are floats in [0, 1] as images.float() / 255, or in [0, 255] as images.float()."
    if images.ndim != 4 or shape[1] != channels or not images.is_floating_point():
        raise InputError(f"Expected float images of (N, {channels}, H, W); got {images.dtype} {shape}.{hint}")
    if 0 in shape:
        raise InputError(f"Expected at least one image of at least one pixel; got {shape}.")
    if not images.detach().sum().isfinite() and not images.isfinite().all():
        index = tuple((~images.isfinite()).nonzero()[0].tolist())
        raise InputError(
            f"Expected finite images; got {images[index].item()} at {index} (image, channel, row, column)."
        )


def network_key(explainer: Any) -> object:
    """What explainers of one function have in common: its parameters, and how images are scaled."""
    parameters = tuple(id(parameter) for parameter in explainer.network.parameters())
    return parameters or id(explainer.network), explainer.input_spec.scaling, explainer.decision.rule


def check_same_scaling(explainers: Iterable[Any]) -> None:
    """Refuse two explainers of the same parameters that scale their images or decide differently.

    Raises
    ------
    InputError
        Naming both, and how each scales.
    """
    seen: dict[int, Any] = {}
    for explainer in explainers:
        for parameter in explainer.network.parameters():
            other = seen.setdefault(id(parameter), explainer)
            if other is explainer:
                continue
            if other.decision.rule != explainer.decision.rule:
                raise InputError(
                    f"Expected one decision for one network; {other.card.title} has {other.decision.rule!r}, "
                    f"{explainer.card.title} {explainer.decision.rule!r}. Give both the same decision=…."
                )
            if other.input_spec.scaling != explainer.input_spec.scaling:
                raise InputError(
                    "Expected one input specification for one network; "
                    f"{other.card.title} has {_in_words(other.input_spec)}, "
                    f"{explainer.card.title} {_in_words(explainer.input_spec)}: one of them explains "
                    "another function. Give both the same mean, std and value_range."
                )


def _in_words(spec: InputSpec) -> str:
    return f"mean={spec.mean}, std={spec.std}, value_range={spec.value_range}"


def is_image_size(size: Sequence[Any]) -> bool:
    """Whether it is height and width of images that somebody could have."""
    return len(size) == 2 and all(type(side) is int and 0 < side <= LARGEST_SIDE for side in size)
