"""Images from numbers, paths and bytes, in worker processes where there are some."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from attrs import field, frozen
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from explainkit.data.reading import decode_picture, picture_bytes, read_picture
from explainkit.errors import ExplainKitError, InputError
from explainkit.pipeline.windows import Window
from explainkit.protocols import Split


class Decoder(Protocol):
    """Makes images of what a source sends."""

    def __call__(self, payload: Any) -> Window:
        """The images."""
        ...


@frozen(eq=False, kw_only=True)
class FileDecoder:
    """Reads image files.

    Attributes
    ----------
    root : str or None
        The folder that paths are in.
    size : (int, int)
        That pictures are resized to.
    channels : int
        3, or 1 for gray.
    with_digests : bool
    """

    root: str | None
    size: tuple[int, int]
    channels: int
    with_digests: bool

    def __call__(self, payload: tuple[int, tuple[str, ...], Tensor | None]) -> Window:
        """The images of paths."""
        start, paths, labels = payload
        full = [path if self.root is None else os.path.join(self.root, path) for path in paths]
        return _decoded(start, full, paths, labels, self._read)

    def _read(self, path: str, _: str) -> tuple[Tensor, str | None]:
        if not self.with_digests:
            return _pixels(read_picture(path), self.size, self.channels), None
        if not os.path.isfile(path):
            raise InputError(f"Expected an image file; there is none at {path!r}.")
        content = Path(path).read_bytes()
        picture = decode_picture(content, path)
        return _pixels(picture, self.size, self.channels), hashlib.sha256(content).hexdigest()


@frozen(eq=False, kw_only=True)
class BytesDecoder:
    """Reads the bytes of image files; attributes as `FileDecoder` has them."""

    size: tuple[int, int]
    channels: int
    with_digests: bool

    def __call__(
        self, payload: tuple[int, Sequence[bytes | None], Sequence[str | None], Tensor | None]
    ) -> Window:
        """The images of bytes."""
        start, contents, names, labels = payload
        return _decoded(start, contents, names, labels, self._read)

    def _read(self, content: bytes | None, name: str) -> tuple[Tensor, str | None]:
        if not content:
            raise InputError(f"Expected the bytes of an image; there are none for {name}.")
        digest = hashlib.sha256(content).hexdigest() if self.with_digests else None
        return _pixels(decode_picture(content, name), self.size, self.channels), digest


@frozen(eq=False, kw_only=True)
class SplitDecoder:
    """Fetches the images of a split, all at once where it can.

    Attributes
    ----------
    split : Split
    num_classes : int
        Labels beyond stand for none.
    """

    split: Split = field(repr=False)
    num_classes: int

    def __call__(self, payload: tuple[int, int]) -> Window:
        """The images of ids."""
        start, stop = payload
        ids = torch.arange(start, stop)
        labels = self._labels(ids)
        errors: dict[int, str] = {}
        try:
            images: Tensor | None = self.split.batch(ids).images
        except (ExplainKitError, OSError):  # one of them cannot be read: which one?
            images, errors = self._one_by_one(ids)
        return Window(start=start, stop=stop, images=images, paths=None, labels=labels, errors=errors)

    def _labels(self, ids: Tensor) -> Tensor | None:
        labels = torch.as_tensor(self.split.labels)[ids]
        if labels.is_floating_point() and labels.ndim == 1:
            return None
        if labels.ndim == 2:
            return labels
        return labels.where((labels >= 0) & (labels < self.num_classes), self.num_classes)

    def _one_by_one(self, ids: Tensor) -> tuple[Tensor | None, dict[int, str]]:
        images: list[Tensor | None] = []
        errors: dict[int, str] = {}
        for place, index in enumerate(ids.split(1)):
            try:
                images.append(self.split.batch(index).images[0])
            except (ExplainKitError, OSError) as error:
                images.append(None)
                errors[place] = str(error)
        return _stacked(images), errors


def decoded(decoder: Decoder, payloads: Iterable[Any], workers: int) -> Iterator[Window]:
    """The images of each payload, in order; in `workers` processes, or in this one for 0.

    Raises
    ------
    ExplainKitError
        Where a worker process ends, as it does when memory runs out.
    """
    if not workers:
        yield from map(decoder, payloads)
        return
    loader = DataLoader(
        _Decoding(decoder), batch_size=None, sampler=payloads, num_workers=workers, collate_fn=_as_it_is
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ExplainKitError(
            f"A process that decodes images ended: {error}. Fewer workers or a smaller batch_size take less "
            "memory; the next run goes on from here."
        ) from error


class _Decoding(Dataset[Window]):
    """A decoder, as DataLoader calls it."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def __getitem__(self, payload: Any) -> Window:
        return self.decoder(payload)


def _as_it_is(window: Any) -> Any:
    return window


def _decoded(
    start: int, items: Sequence[Any], names: Sequence[str | None], labels: Tensor | None, read: Any
) -> Window:
    """A window of pictures that are read one by one, each for itself."""
    images: list[Tensor | None] = []
    digests: list[str | None] = []
    errors: dict[int, str] = {}
    for place, (item, name) in enumerate(zip(items, names, strict=True)):
        try:
            image, digest = read(item, name or f"row {start + place}")
        except (ExplainKitError, OSError) as error:
            image, digest, errors[place] = None, None, str(error)
        images.append(image)
        digests.append(digest)
    return Window(
        start=start, stop=start + len(items), images=_stacked(images), paths=tuple(names), labels=labels,
        errors=errors, digests=tuple(digests),
    )  # fmt: skip


def _pixels(picture: Any, size: tuple[int, int], channels: int) -> Tensor:
    """A picture as bytes (channels, H, W), as `read_images` has them."""
    return picture_bytes(picture if channels == 3 else picture.convert("L"), size)


def _stacked(images: Sequence[Tensor | None]) -> Tensor | None:
    """Images (N, D, H, W), the first one in the place of each that is missing; ``None`` where all are.

    So the batch has a size that depends on its indices alone, and other images get the same numbers.
    """
    first = next((image for image in images if image is not None), None)
    return None if first is None else torch.stack([first if image is None else image for image in images])
