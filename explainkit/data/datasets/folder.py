"""Your own pictures: a folder of folders, one a class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from attrs import define, field
from torch import Tensor

from explainkit.data.cache import CachedRows
from explainkit.data.reading import height_width, list_images, picture_bytes, read_picture
from explainkit.data.splits import partition
from explainkit.data.transforms.augmentation import FlipShiftBrightness
from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError

SPLITS = {
    "train": "train", "training": "train", "test": "test",
    "val": "validation", "valid": "validation", "validation": "validation",
}  # fmt: skip


@define(eq=False, kw_only=True)
class FileSplit:
    """A split whose images are files, decoded by threads, and kept in memory as bytes while there is room.

    Attributes
    ----------
    files : tuple of Path
        Where image ``id`` is.
    labels : Tensor, (N,), int64
    size : (int, int)
    """

    files: tuple[Path, ...] = field(repr=False)
    labels: Tensor = field(repr=False)
    size: tuple[int, int]
    _pictures: CachedRows = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._pictures = CachedRows(count=len(self), shape=(3, *self.size), read=self._read)

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, ids: Tensor) -> Batch:
        """The images of `ids` (n,), in that order.

        Raises
        ------
        InputError
            For a file that is missing or damaged, with its path.
        """
        return Batch(images=self._pictures.rows(ids).float() / 255, labels=self.labels[ids], ids=ids)

    def _read(self, index: int) -> Tensor:
        return picture_bytes(read_picture(self.files[index]), self.size)


def folder(
    *, path: str | Path, size: int | Sequence[int] = 128, seed: int = 0, skip_damaged: bool = False
) -> ImageDataset:
    """Images in the usual layout: ``path/class/image.jpg``, or ``path/train/class/image.jpg`` and so on.

    What of validation and test has no folder is drawn from the images of train, 15 % each, by `seed` and
    order of names. Pictures are resized, not cropped.

    Parameters
    ----------
    size : int or (int, int)
        Height and width.
    skip_damaged : bool
        Read every file once beforehand and leave out, with a warning, what cannot be read; otherwise a
        damaged file ends the run when it is reached, with its path.

    Raises
    ------
    InputError
        For a folder that is not there or has fewer than two classes, and for a class without an image.
    """
    root = Path(path)
    if not os.path.isdir(root):
        raise InputError(f"Expected a folder of classes at {str(root)!r}; there is none.")
    folders = {SPLITS[p.name.lower()]: p for p in _list_folders(root) if p.name.lower() in SPLITS}
    files_by_split = {split: _list_files(p) for split, p in folders.items()} if "train" in folders else {}
    files_by_split = files_by_split or {"train": _list_files(root)}
    classes = sorted({name for files in files_by_split.values() for name in files})
    if len(classes) < 2:
        raise InputError(
            f"Expected two or more classes in {str(root)!r}, each a folder of images; got {classes}."
        )
    if skip_damaged:
        files_by_split = {split: _skip_damaged(files) for split, files in files_by_split.items()}
    empty = set(classes).difference(*files_by_split.values())
    if empty:
        raise InputError(f"Expected an image that can be read in every class; {sorted(empty)} have none.")
    height, width = height_width(size)
    splits = {
        name: _file_split(files, classes, (height, width), name)
        for name, files in _complete_splits(files_by_split, seed).items()
    }
    return ImageDataset(
        name=root.name, classes=classes, size=(height, width), splits=splits,
        augment=FlipShiftBrightness(shift=max(1, height // 16)),
    )  # fmt: skip


def _list_files(root: Path) -> dict[str, list[Path]]:
    """The image files of each class, by name."""
    return {
        folder.name: files
        for folder in _list_folders(root)
        if not folder.name.startswith(".") and (files := list_images(folder))
    }


def _list_folders(root: Path) -> list[Path]:
    """The folders in a folder, in order of name, which must be text so that it can be written."""
    try:
        folders = sorted(p for p in root.iterdir() if p.is_dir())
    except OSError as error:
        raise InputError(f"Expected a folder that can be searched at {str(root)!r}: {error}.") from None
    for folder in folders:
        if any("\ud800" <= letter <= "\udfff" for letter in folder.name):
            raise InputError(f"Expected folders named in Unicode in {str(root)!r}; got {folder.name!r}.")
    return folders


def _skip_damaged(files_by_class: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """The files that can be read, and a warning that names some of the others."""

    def fault_of(file: Path) -> str | None:
        try:
            read_picture(file)
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        faults = {
            file: fault
            for files in files_by_class.values()
            for file, fault in zip(files, pool.map(fault_of, files), strict=True)
            if fault
        }
    if faults:
        examples = "; ".join(list(faults.values())[:3])
        warnings.warn(f"{len(faults)} images were left out: {examples}", stacklevel=3)
    readable = {name: [f for f in files if f not in faults] for name, files in files_by_class.items()}
    return {name: files for name, files in readable.items() if files}


def _complete_splits(
    files_by_split: dict[str, dict[str, list[Path]]], seed: int
) -> dict[str, dict[str, list[Path]]]:
    """Train, validation and test of each class: as they are on disk, what is missing drawn from train."""
    splits = {split: files_by_split.get(split, {}) for split in ("train", "validation", "test")}
    missing = [split for split in ("validation", "test") if not splits[split]]
    if missing:
        ends = (0.7, 0.85) if len(missing) == 2 else (0.85,)
        parts = {name: _partition_class(files, seed, ends) for name, files in splits["train"].items()}
        for index, split in enumerate(["train", *missing]):
            splits[split] = {name: part[index] for name, part in parts.items()}
    return splits


def _partition_class(files: Sequence[Path], seed: int, ends: Sequence[float]) -> list[list[Path]]:
    """The parts of a class, with an image in each."""
    if len(files) < 3:
        raise InputError(
            f"Expected at least three images of a class to split; {str(files[0].parent)!r} has {len(files)}."
        )
    return partition(files, ends, seed)


def _file_split(
    files_by_class: dict[str, list[Path]], classes: Sequence[str], size: tuple[int, int], name: str
) -> FileSplit:
    pairs = [(file, classes.index(label)) for label, files in files_by_class.items() for file in files]
    if not pairs:
        raise InputError(f"Expected images in the {name} split; there are none.")
    return FileSplit(
        files=tuple(file for file, _ in pairs), labels=torch.tensor([label for _, label in pairs]), size=size
    )
