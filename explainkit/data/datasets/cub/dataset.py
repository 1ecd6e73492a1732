"""CUB-200-2011: photographs of 200 species of birds, each with a box, key points and ten sentences."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from attrs import define, field
from torch import Tensor

from explainkit.data.cache import CachedRows
from explainkit.data.datasets.archives import find_existing, read_lines, require_files
from explainkit.data.datasets.cub.lists import CubLists, read_lists
from explainkit.data.geometry import crop_boxes, crop_points
from explainkit.data.reading import height_width, picture_bytes, read_picture
from explainkit.data.splits import hold_out
from explainkit.data.transforms.augmentation import FlipShiftBrightness
from explainkit.data.transforms.warping import RotateSkewShear
from explainkit.data.types import (
    Augmentation,
    Batch,
    Caption,
    ImageDataset,
)
from explainkit.errors import FormatError, InputError
from explainkit.explanations.validation import class_index

SENTENCES = "text_c10"
"""The folder of the sentences of Reed et al."""


@define(eq=False, kw_only=True)
class CubSplit:
    """Photographs that are decoded, cut out and resized by threads, and kept as bytes while there is room.

    Attributes
    ----------
    files : tuple of Path
        Where image ``id`` is.
    labels : Tensor, (N,), int64
    boxes : Tensor, (N, 4)
        x0, y0, x1, y1 of the bird, in pixels of the file.
    key_points : Tensor, (N, P, 3)
        x, y and 1 where the part is seen, in pixels of the file.
    sentences : tuple of Path or None
        Files of the captions.
    size : (int, int)
    crop : bool
        Whether an image is the bird's box or the whole photograph.
    """

    files: tuple[Path, ...] = field(repr=False)
    labels: Tensor = field(repr=False)
    boxes: Tensor = field(repr=False)
    key_points: Tensor = field(repr=False)
    sentences: tuple[Path, ...] | None = field(repr=False)
    size: tuple[int, int]
    crop: bool
    _pictures: CachedRows = field(init=False, repr=False)
    _crops: Tensor = field(init=False, repr=False)
    _captions: dict[int, Caption] = field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._pictures = CachedRows(count=len(self), shape=(3, *self.size), read=self._read)
        self._crops = torch.zeros(len(self), 4)

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, ids: Tensor) -> Batch:
        """The images of `ids` (n,), in that order, with all of their annotations.

        Raises
        ------
        InputError
            For a file that is missing or damaged, with its path.
        FormatError
            For a box that lies outside of its photograph.
        """
        images = self._pictures.rows(ids)
        crops = self._crops[ids]  # known once an image was read
        return Batch(
            images=images.float() / 255,
            labels=self.labels[ids],
            ids=ids,
            key_points=crop_points(self.key_points[ids], crops, self.size),
            boxes=crop_boxes(self.boxes[ids], crops, self.size),
            captions=None if self.sentences is None else tuple(map(self._caption, ids.tolist())),
        )

    def _read(self, index: int) -> Tensor:
        picture = read_picture(self.files[index], upright=False)  # points and boxes are of the file as it is
        width, height = picture.size
        x0, y0, x1, y1 = self.boxes[index].clamp(min=0).tolist()
        x0, y0, x1, y1 = min(x0, width), min(y0, height), min(x1, width), min(y1, height)
        crop = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
        if crop[0] >= crop[2] or crop[1] >= crop[3]:
            raise FormatError(
                f"Expected a box within the {width} x {height} pixels of {str(self.files[index])!r}; "
                f"got {self.boxes[index].tolist()}."
            )
        if not self.crop:
            crop = 0, 0, width, height
        self._crops[index] = torch.tensor(crop)
        return picture_bytes(picture, self.size, crop)

    def _caption(self, index: int) -> Caption:
        """The sentences of an image, one a line; which of their words are phrases is not annotated."""
        if index not in self._captions and self.sentences is not None:
            sentences = read_lines(self.sentences[index], errors="replace")
            self._captions[index] = Caption(text="\n".join(" ".join(line.split()) for line in sentences))
        return self._captions[index]


def cub(
    *,
    path: str | Path,
    size: int | Sequence[int] = 224,
    crop: bool = True,
    classes: int | Sequence[str] | None = None,
    validation: float = 0.1,
    seed: int = 0,
    captions: str | Path | None = None,
    augmentation: Literal["light", "protopnet"] | None = "light",
) -> ImageDataset:
    """Caltech-UCSD Birds-200-2011, in the layout of its archive, with its training and test images.

    Parameters
    ----------
    path
        The folder ``CUB_200_2011``, or the one that it lies in.
    size : int or (int, int)
        Height and width; aspect is not kept.
    crop : bool
        Cut out the box around the bird, in all splits, as ProtoPNet does; otherwise take whole photographs.
    classes : int, sequence of str, or None
        So many of the first classes, or those of these names; ``None``: all.
    validation : float
        The share of the training images of each class, at least one, that `seed` draws for validation.
    captions
        The folder ``text_c10`` of Reed et al., or the one that it lies in; ``None``: where it lies in or
        beside `path`, and otherwise none. A caption is the ten sentences, one a line, without phrases.
    augmentation : {"light", "protopnet"} or None
        `FlipShiftBrightness`, or `RotateSkewShear` with the numbers of ProtoPNet's authors.

    Raises
    ------
    InputError
        For files that are missing, and settings that do not fit.
    FormatError
        For lists that do not agree, with what and where.
    UnknownNameError
        For a class that there is not.

    References
    ----------
    Wah, Branson, Welinder, Perona and Belongie: technical report CNS-TR-2011-001, Caltech, 2011. Reed, Akata,
    Lee and Schiele, CVPR 2016, arXiv:1605.05395.
    """
    height, width = height_width(size)
    folder = Path(path)
    list_files = [folder / "images.txt", folder / "CUB_200_2011" / "images.txt"]
    root = find_existing(list_files, "images.txt of CUB-200-2011").parent
    lists = read_lists(root)
    chosen = _chosen_labels(lists, classes)
    sentences = _sentence_files(captions, root, lists.files)

    def split(rows: Sequence[int]) -> CubSplit:
        files = tuple(lists.files[row] for row in rows)
        caption_files = None if sentences is None else tuple(sentences[row] for row in rows)
        require_files(files)
        require_files(caption_files or ())
        return CubSplit(
            files=files,
            labels=torch.tensor([chosen.index(label) for label in lists.labels[rows].tolist()]),
            boxes=torch.from_numpy(lists.boxes[rows]).float(),
            key_points=torch.from_numpy(lists.key_points[rows]).float(),
            sentences=caption_files,
            size=(height, width),
            crop=crop,
        )

    rows_by_class: dict[str, list[int]] = {}
    test_rows: list[int] = []
    for label in chosen:
        is_label = lists.labels == label
        rows_by_class[lists.classes[label]] = np.flatnonzero(is_label & lists.training).tolist()
        test_rows += np.flatnonzero(is_label & ~lists.training).tolist()
    if not test_rows:
        raise InputError(f"Expected test images in {str(root / 'train_test_split.txt')!r}; there are none.")
    train_rows, validation_rows = hold_out(rows_by_class, validation, seed)
    return ImageDataset(
        name="cub",
        classes=[lists.classes[label] for label in chosen],
        size=(height, width),
        splits={"train": split(train_rows), "validation": split(validation_rows), "test": split(test_rows)},
        parts=lists.parts,
        augment=_augmentation(augmentation, height),
    )


def _chosen_labels(lists: CubLists, classes: int | Sequence[str] | None) -> list[int]:
    """The labels of the chosen `classes`, in the order of classes.txt."""
    count = len(lists.classes)
    if classes is None:
        labels = list(range(count))
    elif isinstance(classes, int):
        labels = list(range(min(max(classes, 0), count + 1)))
    elif isinstance(classes, Sequence) and not isinstance(classes, str):
        class_names = dict(zip(lists.folders, lists.classes, strict=True))
        labels = sorted({class_index(lists.classes, class_names.get(name, name)) for name in classes})
    else:
        labels = []
    if not 2 <= len(labels) <= count:
        raise InputError(f"Expected 2 … {count} classes, as a number or a list of names; got {classes!r}.")
    return labels


def _sentence_files(captions: str | Path | None, root: Path, files: Sequence[Path]) -> list[Path] | None:
    """The files of sentences, one an image."""
    parents = [root, root.parent] if captions is None else [Path(captions)]
    folders = [parent / SENTENCES for parent in parents] + ([] if captions is None else parents)
    if captions is None and not any(folder.is_dir() for folder in folders):
        return None
    folder = find_existing(folders, f"the folder {SENTENCES}")
    return [folder / file.relative_to(root / "images").with_suffix(".txt") for file in files]


def _augmentation(name: str | None, height: int) -> Augmentation | None:
    augmentations: dict[str | None, Augmentation | None] = {
        "light": FlipShiftBrightness(shift=max(1, height // 16)), "protopnet": RotateSkewShear(), None: None,
    }  # fmt: skip
    if name not in augmentations:
        raise InputError(f"Expected the augmentation 'light', 'protopnet' or None; got {name!r}.")
    return augmentations[name]
