"""PASCAL-Part: the objects of VOC 2010, with masks of their parts."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from attrs import define, field
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from explainkit.data.archives import located
from explainkit.data.augmentation import MirrorShiftLight
from explainkit.data.frames import framed_boxes
from explainkit.data.images import Batch, ImageData
from explainkit.data.kept import KeptRows
from explainkit.data.keyed import held_out
from explainkit.data.part_annotations import Box, PartObject, annotated, list_objects, noun
from explainkit.data.reading import height_width, picture_bytes, read_picture
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
    called : callable
        From a part's name in an annotation to one of `parts`.
    size : (int, int)
    margin : float
        By how much the frame is larger than the box, on each side, as a share of the box.
    """

    objects: tuple[PartObject, ...] = field(repr=False)
    labels: Tensor = field(repr=False)
    parts: tuple[str, ...] = field(repr=False)
    called: Callable[[str], str] = field(repr=False)
    size: tuple[int, int]
    margin: float
    _rows: KeptRows = field(init=False, repr=False)
    _frames: Tensor = field(init=False, repr=False)
    _boxes: Tensor = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        planes = 3 + -(-len(self.parts) // 8)  # colours, and eight masks a byte
        self._rows = KeptRows(count=len(self), shape=(planes, *self.size), read=self._read)
        self._boxes = torch.tensor([each.box for each in self.objects]).float()
        self._frames = torch.tensor([_frame(each, self.margin) for each in self.objects]).float()

    def __len__(self) -> int:
        return len(self.objects)

    def batch(self, ids: Tensor) -> Batch:
        """The objects of `ids` (n,), in that order, with all that is known of them.

        Raises
        ------
        InputError
            For a file that is missing or damaged, with its path.
        FormatError
            For an annotation that is damaged, or of another picture.
        """
        rows = self._rows.rows(ids)
        masks = _unpacked(rows[:, 3:])[:, : len(self.parts)] if self.parts else None
        return Batch(
            images=rows[:, :3].float() / 255,
            labels=self.labels[ids],
            ids=ids,
            masks=masks,
            key_points=None if masks is None else centroids(masks),
            boxes=framed_boxes(self._boxes[ids], self._frames[ids], self.size),
        )

    def _read(self, index: int) -> Tensor:
        each = self.objects[index]
        picture = read_picture(each.picture, upright=False)  # masks are of the file as it is
        if (picture.height, picture.width) != each.shape:
            raise FormatError(
                f"Expected {each.shape[1]} x {each.shape[0]} pixels, as {str(each.annotation)!r} has them; "
                f"got {picture.width} x {picture.height} in {str(each.picture)!r}."
            )
        frame = _frame(each, self.margin)
        masks = np.zeros((len(self.parts), *self.size), bool)
        parts = annotated(each.annotation)[each.number].parts
        for name in {self.called(part) for part, _ in parts}:
            whole = np.logical_or.reduce([mask for part, mask in parts if self.called(part) == name])
            masks[self.parts.index(name)] = _resized(whole, self.size, frame)
        packed = np.packbits(masks, axis=0, bitorder="little")
        return torch.cat([picture_bytes(picture, self.size, frame), torch.from_numpy(packed)])


def _unpacked(planes: Tensor) -> Tensor:
    """Masks (n, 8 B, H, W) from bytes (n, B, H, W)."""
    bits = (planes[:, :, None] >> torch.arange(8, dtype=torch.uint8)[:, None, None]) & 1
    return bits.flatten(1, 2).bool()


def centroids(masks: Tensor) -> Tensor:
    """The middle of each mask (N, P, H, W), as x, y and 1; all 0 where it is empty: (N, P, 3)."""
    count = masks.sum((2, 3))
    x = (masks.sum(2) * (torch.arange(masks.shape[3]) + 0.5)).sum(2)
    y = (masks.sum(3) * (torch.arange(masks.shape[2]) + 0.5)).sum(2)
    return torch.stack([x / count.clamp(min=1), y / count.clamp(min=1), (count > 0).float()], 2)


def voc_part(
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
) -> ImageData:
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
    above = Path(path)
    root = located(
        [
            above / "JPEGImages",
            above / "VOC2010" / "JPEGImages",
            above / "VOCdevkit" / "VOC2010" / "JPEGImages",
        ],
        "VOC's JPEGImages",
    ).parent
    masks = _annotations(annotations, root)

    def objects(split: str) -> list[PartObject]:
        some = list_objects(root, masks, split, classes)
        return [each for each in some if _taken(each, minimum_area, whole)]

    learnt, tested = objects("train"), objects("val")
    train, drawn = _held_out(learnt, validation, seed)
    called = noun if merge else str
    parts = tuple(sorted({called(part) for each in learnt + tested for part in each.parts}))

    def split_of(name: str, some: Sequence[PartObject]) -> PartSplit:
        missing = [wanted for wanted in classes if wanted not in {each.name for each in some}]
        if missing:
            raise InputError(
                f"Expected objects of every class in the {name} split; there are none of "
                f"{', '.join(missing)} that are large enough, or the annotations call them otherwise."
            )
        return PartSplit(
            objects=tuple(some), labels=torch.tensor([list(classes).index(each.name) for each in some]),
            parts=parts, called=called, size=(height, width), margin=margin,
        )  # fmt: skip

    return ImageData(
        name="voc-part",
        classes=classes,
        size=(height, width),
        splits={
            name: split_of(name, some)
            for name, some in (("train", train), ("validation", drawn), ("test", tested))
        },
        parts=parts,
        augment=MirrorShiftLight(shift=max(1, height // 16)),
    )


def _annotations(given: str | Path | None, root: Path) -> Path:
    """Where the annotations are."""
    if given is not None:
        return located([Path(given) / "Annotations_Part", Path(given)], "the folder Annotations_Part")
    above = (root, root.parent, root.parent.parent)
    within = ("Annotations_Part", "trainval/Annotations_Part")
    return located([folder / name for folder in above for name in within], "the folder Annotations_Part")


def _taken(each: PartObject, minimum_area: int, whole: bool) -> bool:
    x0, y0, x1, y1 = each.box
    cut = x0 == 0 or y0 == 0 or y1 == each.shape[0] or x1 == each.shape[1]
    return (x1 - x0) * (y1 - y0) >= minimum_area and not (whole and cut)


def _held_out(
    objects: Iterable[PartObject], validation: float, seed: int
) -> tuple[list[PartObject], list[PartObject]]:
    """Training and validation, drawn by pictures, so that no picture is in both."""
    groups: dict[str, list[list[PartObject]]] = {}
    for _, some in groupby(objects, lambda each: each.annotation):
        of_picture = list(some)
        groups.setdefault(of_picture[0].name, []).append(of_picture)
    train, drawn = held_out(groups, validation, seed)
    return [each for some in train for each in some], [each for some in drawn for each in some]


def _frame(each: PartObject, margin: float) -> Box:
    """What becomes the image."""
    x0, y0, x1, y1 = each.box
    across, down = round((x1 - x0) * margin), round((y1 - y0) * margin)
    height, width = each.shape
    return max(x0 - across, 0), max(y0 - down, 0), min(x1 + across, width), min(y1 + down, height)


def _resized(mask: NDArray[np.bool_], size: tuple[int, int], frame: Box) -> NDArray[np.bool_]:
    """A mask in its frame, resized as pictures are; a pixel is in it where half of it is."""
    x0, y0, x1, y1 = frame
    cut = Image.fromarray(mask[y0:y1, x0:x1].astype(np.uint8) * 255)
    return np.asarray(cut.resize((size[1], size[0]), Image.Resampling.BILINEAR)) >= 128
