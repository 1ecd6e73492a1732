"""What the annotations of PASCAL-Part say: which objects there are, and where their parts are."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from explainkit.data.archives import inside, lines, require
from explainkit.data.matlab import read_variable
from explainkit.errors import FormatError

Box = tuple[int, int, int, int]

_SIDED = re.compile(
    r"[lr]?[fb]?[ul]?(eye|ear|ebrow|horn|wing|leg|foot|pa|ho|arm|hand|wheel|liplate)"
    r"|(?:left|right)(mirror)|[hc]?(?:left|right|front|back)(side)|[hc]?(roof)side"
)
"""Left or right, front or back, upper or lower, and the noun; of a train, head or coach before them."""
_FULL = {"ebrow": "eyebrow", "ho": "hoof", "liplate": "licence plate", "pa": "paw"}


def noun(part: str) -> str:
    """What a part is, whichever of several: ``lflleg`` is a leg, ``wheel_2`` a wheel, ``rear`` an ear."""
    part = re.sub(r"_\d+$", "", part)
    sided = _SIDED.fullmatch(part)
    bare = next(filter(None, sided.groups())) if sided else part
    return _FULL.get(bare, bare)


@frozen(kw_only=True)
class PartObject:
    """One object: where it is told of, and what is needed to choose it.

    Attributes
    ----------
    annotation, picture : Path
    number : int
        Which of the objects in the annotation, from 0.
    name : str
        Its class.
    box : (int, int, int, int)
        x0, y0, x1, y1 around its mask, half-open.
    shape : (int, int)
        Height and width of the picture.
    parts : tuple of str
        Names as in the annotation.
    """

    annotation: Path
    picture: Path
    number: int
    name: str
    box: Box
    shape: tuple[int, int]
    parts: tuple[str, ...]


@frozen(eq=False, kw_only=True)
class Annotated:
    """An object as an annotation has it; any number but 0 is in a mask."""

    name: str
    mask: NDArray[Any]
    parts: list[tuple[str, NDArray[Any]]]


def annotated(path: Path) -> list[Annotated]:
    """The objects of an annotation, in its order.

    Raises
    ------
    InputError
        For a file that is missing.
    FormatError
        For one that is damaged, or holds something else.
    """

    def structs(value: object) -> list[dict[str, Any]]:
        if isinstance(value, np.ndarray) and value.size == 0:  # how MATLAB writes that there are none
            return []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            kind = type(value).__name__
            raise FormatError(f"Expected objects and parts as structs in {str(path)!r}; got {kind}.")
        return value

    def text(value: object) -> str:
        if not isinstance(value, str):
            raise FormatError(f"Expected names as texts in {str(path)!r}; got {type(value).__name__}.")
        return value

    def mask(value: object, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
        if not isinstance(value, np.ndarray) or value.ndim != 2:
            raise FormatError(f"Expected masks of (H, W) in {str(path)!r}; got {type(value).__name__}.")
        if value.size and shape not in (None, value.shape):
            raise FormatError(f"Expected masks of {shape} in {str(path)!r}; got one of {value.shape}.")
        return value

    found = []
    for anno in structs(read_variable(path, "anno")):
        for each in structs(anno.get("objects")):
            whole = mask(each.get("mask"))
            parts = [
                (text(part.get("part_name")), mask(part.get("mask"), whole.shape))
                for part in structs(each.get("parts"))
            ]
            seen = [(name, covered) for name, covered in parts if covered.size]
            found.append(Annotated(name=text(each.get("class")), mask=whole, parts=seen))
    return found


def list_objects(root: Path, masks: Path, split: str, classes: Sequence[str]) -> list[PartObject]:
    """The objects of `classes` in the pictures of VOC's list of a `split`, without their masks.

    Parameters
    ----------
    root, masks : Path
        The folders ``VOC2010`` and ``Annotations_Part``.

    Raises
    ------
    InputError
        For files that are missing.
    FormatError
        For lists and annotations that are damaged.
    """
    lists = root / "ImageSets" / "Main"
    names = [line.split()[0] for line in lines(lists / f"{split}.txt")]
    of_classes = [lists / f"{name}_{split}.txt" for name in classes]
    if all(file.is_file() for file in of_classes):  # then most annotations need not be opened
        told = [line.split() for file in of_classes for line in lines(file)]
        shown = {words[0] for words in told if words[-1] != "-1"}
        names = [name for name in names if name in shown]
    annotations = [inside(masks, f"{name}.mat") for name in names]
    pictures = [inside(root / "JPEGImages", f"{name}.jpg") for name in names]
    require(annotations)
    require(pictures)
    with ThreadPoolExecutor() as pool:
        indexed = pool.map(_indexed, annotations, pictures, repeat(classes))
        return [each for some in indexed for each in some]


def _indexed(annotation: Path, picture: Path, classes: Sequence[str]) -> list[PartObject]:
    found = []
    for number, each in enumerate(annotated(annotation)):
        if each.name in classes and each.mask.any():
            rows, columns = np.flatnonzero(each.mask.any(1)), np.flatnonzero(each.mask.any(0))
            box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
            parts = tuple(dict.fromkeys(part for part, _ in each.parts))
            found.append(
                PartObject(
                    annotation=annotation, picture=picture, number=number, name=each.name, box=box,
                    shape=each.mask.shape, parts=parts,
                )
            )  # fmt: skip
    return found
