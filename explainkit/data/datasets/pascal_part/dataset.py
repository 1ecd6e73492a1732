"""PASCAL-Part: the objects of VOC 2010, with masks of their parts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import torch
from attrs import define, field
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from explainkit.data.cache import CachedRows
from explainkit.data.datasets.archives import find_existing
from explainkit.data.datasets.pascal_part.annotations import (
    Box,
    PartObject,
    list_objects,
    part_noun,
    read_annotation,
)
from explainkit.data.geometry import crop_boxes
from explainkit.data.reading import height_width, picture_bytes, read_picture
from explainkit.data.splits import hold_out
from explainkit.data.transforms.augmentation import FlipShiftBrightness
from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import FormatError, InputError

ANIMALS = ("bird", "cat", "cow", "dog", "horse", "sheep")
"""The classes that papers on interpretable networks use."""


@define(eq=False, kw_only=True)
class PartSplit:
    """Objects that are cut out, resized and kept as bytes with their masks while there is room.

    Attributes
    ----------
    objects : tuple of PartObject
    labels : Tensor, (N,), int64
    parts : tuple of str
    rename : callable
        From a part's name in an annotation to one of `parts`.
    size : (int, int)
    margin : float
        By how much the crop is larger than the box, on each side, as a share of the box.
    """

    objects: tuple[PartObject, ...] = field(repr=False)
    labels: Tensor = field(repr=False)
    parts: tuple[str, ...] = field(repr=False)
    rename: Callable[[str], str] = field(repr=False)
    size: tuple[int, int]
    margin: float
    _rows: CachedRows = field(init=False, repr=False)
    _crops: Tensor = field(init=False, repr=False)
    _boxes: Tensor = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        planes = 3 + -(-len(self.parts) // 8)  # colors, and eight masks a byte
        self._rows = CachedRows(count=len(self), shape=(planes, *self.size), read=self._read)
        self._boxes = torch.tensor([part_object.box for part_object in self.objects]).float()
        self._crops = torch.tensor([_crop(part_object, self.margin) for part_object in self.objects]).float()

    def __len__(self) -> int:
        return len(self.objects)

    def batch(self, ids: Tensor) -> Batch:
        """The objects of `ids` (n,), in that order, with all of their annotations.

        Raises
        ------
        InputError
            For a file that is missing or damaged, with its path.
        FormatError
            For an annotation that is damaged, or of another picture.
        """
        rows = self._rows.rows(ids)
        masks = _unpack_masks(rows[:, 3:])[:, : len(self.parts)] if self.parts else None
        return Batch(
            images=rows[:, :3].float() / 255,
            labels=self.labels[ids],
            ids=ids,
            masks=masks,
            key_points=None if masks is None else centroids(masks),
            boxes=crop_boxes(self._boxes[ids], self._crops[ids], self.size),
        )

    def _read(self, index: int) -> Tensor:
        part_object = self.objects[index]
        picture = read_picture(part_object.picture, upright=False)  # masks are of the file as it is
        height, width = part_object.shape
        if (picture.height, picture.width) != (height, width):
            raise FormatError(
                f"Expected {width} x {height} pixels, as {str(part_object.annotation)!r} has them; "
                f"got {picture.width} x {picture.height} in {str(part_object.picture)!r}."
            )
        crop = _crop(part_object, self.margin)
        masks = np.zeros((len(self.parts), *self.size), bool)
        parts = read_annotation(part_object.annotation)[part_object.number].parts
        for name in {self.rename(part) for part, _ in parts}:
            mask = np.logical_or.reduce([mask for part, mask in parts if self.rename(part) == name])
            masks[self.parts.index(name)] = _resize_mask(mask, self.size, crop)
        packed = np.packbits(masks, axis=0, bitorder="little")
        return torch.cat([picture_bytes(picture, self.size, crop), torch.from_numpy(packed)])


def _unpack_masks(planes: Tensor) -> Tensor:
    """Masks (n, 8 B, H, W) from bytes (n, B, H, W)."""
    bits = (planes[:, :, None] >> torch.arange(8, dtype=torch.uint8)[:, None, None]) & 1
    return bits.flatten(1, 2).bool()


def centroids(masks: Tensor) -> Tensor:
    """The middle of each mask (N, P, H, W), as x, y and 1; all 0 where it is empty: (N, P, 3)."""
    count = masks.sum((2, 3))
    x = (masks.sum(2) * (torch.arange(masks.shape[3]) + 0.5)).sum(2)
    y = (masks.sum(3) * (torch.arange(masks.shape[2]) + 0.5)).sum(2)
    return torch.stack([x / count.clamp(min=1), y / count.clamp(min=1), (count > 0).float()], 2)


def pascal_part(
    *,
    path: str | Path,
    annotations: str | Path | None = None,
    size: int | Sequence[int] = 224,
    classes: Sequence[str] = ANIMALS,
    merge: bool = True,
    margin: float = 0.1,
    minimum_area: int = 2500,
    whole: bool = False,
    validation: float = 0.1,
    seed: int = 0,
) -> ImageDataset:
    """PASCAL-Part on VOC 2010, in the layouts of their archives: an image is one object, cut out.

    VOC's ``train`` is for training and validation, its ``val`` for the test. All annotations that can have an
    object of `classes` are looked through first, which takes some 10 ms each.

    Parameters
    ----------
    path
        The folder ``VOC2010``, or the one that it or its ``VOCdevkit`` lies in.
    annotations
        The folder ``Annotations_Part``, or the one that it lies in; ``None``: in ``VOC2010`` or up to two
        folders above it.
    size : int or (int, int)
        Height and width; aspect is not kept.
    classes : sequence of str
        As they are called in the annotations; by default six animals.
    merge : bool
        Call parts by their nouns, left and right, front and back, upper and lower together; otherwise as
        they are called in the annotations, such as ``lflleg``.
    margin : float
        By how much an image is larger than the box of the object, on each side, as a share of the box.
    minimum_area : int
        Pixels of the box, in the picture, below which an object is left out.
    whole : bool
        Leave out objects that reach the border of their picture, which mostly are cut off there.
    validation : float
        The share of the pictures of each class, at least one, that `seed` draws from ``train``.

    Raises
    ------
    InputError
        For files that are missing, and settings that do not fit.
    FormatError
        For annotations that are damaged.

    References
    ----------
    Chen, Mottaghi, Liu, Fidler, Urtasun and Yuille, CVPR 2014, arXiv:1406.2031. Everingham, Van Gool,
    Williams, Winn and Zisserman: The Pascal Visual Object Classes (VOC) Challenge, IJCV, 2010.
    """
    height, width = height_width(size)
    if isinstance(classes, str) or len(set(classes)) < max(2, len(classes)):
        raise InputError(f"Expected a list of two or more different classes; got {classes!r}.")
    if margin < 0 or minimum_area < 0:
        raise InputError(f"Expected margin and minimum_area of at least 0; got {margin} and {minimum_area}.")
    root = _find_devkit(Path(path))
    masks = _find_annotations(annotations, root)

    def objects(split: str) -> list[PartObject]:
        listed = list_objects(root, masks, split, classes)
        return [part_object for part_object in listed if _is_usable(part_object, minimum_area, whole)]

    train_objects, test_objects = objects("train"), objects("val")
    rename = part_noun if merge else str
    parts = {rename(part) for part_object in train_objects + test_objects for part in part_object.parts}
    objects_by_split = dict(
        zip(("train", "validation"), _hold_out(train_objects, validation, seed), strict=True)
    )
    objects_by_split["test"] = test_objects
    _check_classes(objects_by_split, classes)
    return ImageDataset(
        name="pascal-part",
        classes=classes,
        size=(height, width),
        splits={
            name: PartSplit(
                objects=tuple(split),
                labels=torch.tensor([list(classes).index(part_object.name) for part_object in split]),
                parts=tuple(sorted(parts)),
                rename=rename,
                size=(height, width),
                margin=margin,
            )
            for name, split in objects_by_split.items()
        },
        parts=tuple(sorted(parts)),
        augment=FlipShiftBrightness(shift=max(1, height // 16)),
    )


def _find_devkit(path: Path) -> Path:
    """The folder ``VOC2010``."""
    folders = [path, path / "VOC2010", path / "VOCdevkit" / "VOC2010"]
    return find_existing([folder / "JPEGImages" for folder in folders], "VOC's JPEGImages").parent


def _find_annotations(path: str | Path | None, root: Path) -> Path:
    """The folder ``Annotations_Part``."""
    if path is not None:
        return find_existing([Path(path) / "Annotations_Part", Path(path)], "the folder Annotations_Part")
    folders = (root, root.parent, root.parent.parent)
    names = ("Annotations_Part", "trainval/Annotations_Part")
    return find_existing(
        [folder / name for folder in folders for name in names], "the folder Annotations_Part"
    )


def _is_usable(part_object: PartObject, minimum_area: int, whole: bool) -> bool:
    """Whether an object is large enough, and where that is required lies within its picture."""
    x0, y0, x1, y1 = part_object.box
    height, width = part_object.shape
    is_cut = x0 == 0 or y0 == 0 or y1 == height or x1 == width
    return (x1 - x0) * (y1 - y0) >= minimum_area and not (whole and is_cut)


def _hold_out(
    objects: Iterable[PartObject], validation: float, seed: int
) -> tuple[list[PartObject], list[PartObject]]:
    """Training and validation, drawn by pictures, so that no picture is in both."""
    groups: dict[str, list[list[PartObject]]] = {}
    for _, group in groupby(objects, lambda part_object: part_object.annotation):
        of_picture = list(group)
        groups.setdefault(of_picture[0].name, []).append(of_picture)
    train, drawn = hold_out(groups, validation, seed)
    return list(chain.from_iterable(train)), list(chain.from_iterable(drawn))


def _check_classes(objects_by_split: Mapping[str, Sequence[PartObject]], classes: Sequence[str]) -> None:
    """Refuse a split that lacks a class."""
    for split, objects in objects_by_split.items():
        missing = [name for name in classes if name not in {part_object.name for part_object in objects}]
        if missing:
            raise InputError(
                f"Expected objects of every class in the {split} split; there are none of "
                f"{', '.join(missing)} that are large enough, or the annotations call them otherwise."
            )


def _crop(part_object: PartObject, margin: float) -> Box:
    """What becomes the image."""
    x0, y0, x1, y1 = part_object.box
    across, down = round((x1 - x0) * margin), round((y1 - y0) * margin)
    height, width = part_object.shape
    return max(x0 - across, 0), max(y0 - down, 0), min(x1 + across, width), min(y1 + down, height)


def _resize_mask(mask: NDArray[np.bool_], size: tuple[int, int], crop: Box) -> NDArray[np.bool_]:
    """A mask in its crop, resized as pictures are; a pixel is in it where half of it is."""
    x0, y0, x1, y1 = crop
    image = Image.fromarray(mask[y0:y1, x0:x1].astype(np.uint8) * 255)
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR)) >= 128
