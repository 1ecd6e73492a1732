"""A run of images of a source, decoded, with what is known of each."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen
from torch import Tensor


@frozen(eq=False, kw_only=True)
class Window:
    """Images number `start` to `stop` of a source.

    Attributes
    ----------
    start, stop : int
        Half-open.
    images : Tensor or None, (N, D, H, W)
        uint8, or floats in [0, 1]. In the place of each image that could not be read stands another; ``None``
        where none could.
    paths : tuple of (str or None) or None, N
        What the images are called.
    labels : Tensor or None, (N,) or (N, C)
        Class numbers, the number of classes for none; or multi-hot.
    errors : mapping of int to str
        Why images could not be read, by their place in the window.
    digests : tuple of (str or None) or None, N
        SHA-256 of the images' files.
    """

    start: int
    stop: int
    images: Tensor | None
    paths: tuple[str | None, ...] | None
    labels: Tensor | None
    errors: Mapping[int, str]
    digests: tuple[str | None, ...] | None = None

    def __len__(self) -> int:
        return self.stop - self.start
