"""What the lists of CUB-200-2011 say, once they agree with each other."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from explainkit.data.datasets.archives import (
    Numbers,
    read_names,
    read_table,
    safe_path,
)
from explainkit.errors import FormatError


@frozen(eq=False, kw_only=True)
class CubLists:
    """All I images in the order of their numbers.

    Attributes
    ----------
    classes, folders : tuple of str
        Names of the classes to read, and as they stand in ``classes.txt``.
    parts : tuple of str
    files : tuple of Path
    labels : array, (I,), int64
    training : array, (I,), bool
        Whether an image is for training or for the test.
    boxes : array, (I, 4)
        x0, y0, x1, y1 in pixels of the file.
    key_points : array, (I, P, 3)
        x and y of the middle of the pixel, and 1 where the part is seen; all 0 elsewhere.
    """

    classes: tuple[str, ...]
    folders: tuple[str, ...]
    parts: tuple[str, ...]
    files: tuple[Path, ...]
    labels: NDArray[np.int64]
    training: NDArray[np.bool_]
    boxes: Numbers
    key_points: Numbers


def read_lists(root: Path) -> CubLists:
    """The lists in the folder ``CUB_200_2011``.

    Raises
    ------
    InputError
        For a list that is missing.
    FormatError
        For one of another form, and for lists that do not agree, with the image.
    """
    images, classes, parts = (
        read_names(root / name) for name in ("images.txt", "classes.txt", "parts/parts.txt")
    )

    def image_table(name: str, columns: int) -> Numbers:
        rows = read_table(root / name, columns)
        rows = rows[rows[:, 0].argsort()]
        if rows[:, 0].tolist() != list(images):
            unmatched = sorted(set(images) ^ set(rows[:, 0].tolist()))
            raise FormatError(
                f"Expected one line for each image of images.txt in {str(root / name)!r}; "
                + (
                    f"image {unmatched[0]:g} is in only one of them."
                    if unmatched
                    else "some images have several."
                )
            )
        return rows[:, 1:]

    labels = image_table("image_class_labels.txt", 2)[:, 0]
    training = image_table("train_test_split.txt", 2)[:, 0]
    boxes = image_table("bounding_boxes.txt", 5)
    for what, valid, values in (
        ("a class of classes.txt", np.isin(labels, list(classes)), labels),
        ("0 or 1 in train_test_split.txt", np.isin(training, [0, 1]), training),
        ("a width and height in bounding_boxes.txt", (boxes[:, 2:] > 0).all(1), boxes[:, 2:]),
    ):
        if not valid.all():
            number, value = list(images)[valid.argmin()], values[valid.argmin()].tolist()
            raise FormatError(f"Expected {what} for image {number} in {str(root)!r}; got {value}.")
    return CubLists(
        classes=_class_names(classes),
        folders=tuple(classes.values()),
        parts=tuple(parts.values()),
        files=tuple(safe_path(root / "images", name) for name in images.values()),
        labels=np.searchsorted(list(classes), labels),
        training=training == 1,
        boxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
        key_points=_key_points(root / "parts" / "part_locs.txt", list(images), list(parts)),
    )


def _class_names(classes: Mapping[int, str]) -> tuple[str, ...]:
    """``001.Black_footed_Albatross`` as ``Black footed Albatross``, unless that is no longer one class."""
    readable = [re.sub(r"^\d+\.", "", name).replace("_", " ") for name in classes.values()]
    names = readable if len(set(readable)) == len(readable) else list(classes.values())
    if len(set(names)) < len(names):
        raise FormatError("Expected a name of its own for each class of classes.txt; some have the same.")
    return tuple(names)


def _key_points(path: Path, images: Sequence[int], parts: Sequence[int]) -> Numbers:
    rows = read_table(path, 5)
    valid = np.isin(rows[:, 0], images) & np.isin(rows[:, 1], parts) & np.isin(rows[:, 4], [0, 1])
    if not valid.all():
        raise FormatError(
            "Expected a known image and part, a position, and whether it is seen in each line of "
            f"{str(path)!r}; got {rows[valid.argmin()].tolist()}."
        )
    key_points = np.zeros((len(images), len(parts), 3))
    visible = rows[rows[:, 4] == 1]
    image_indices = np.searchsorted(images, visible[:, 0])
    part_indices = np.searchsorted(parts, visible[:, 1])
    key_points[image_indices, part_indices] = visible[:, 2:] + [0.5, 0.5, 0]  # the middle of a pixel
    return key_points
