"""The annotations of PASCAL-Part: which objects there are, and where their parts are."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from explainkit.data.datasets.archives import read_lines, require_files, safe_path
from explainkit.data.datasets.pascal_part.matlab import read_variable
from explainkit.errors import FormatError

Box = tuple[int, int, int, int]

_SIDED = re.compile(
    r"[lr]?[fb]?[ul]?(eye|ear|ebrow|horn|wing|leg|foot|pa|ho|arm|hand|wheel|liplate)"
    r"|(?:left|right)(mirror)|[hc]?(?:left|right|front|back)(side)|[hc]?(roof)side"
)
"""Left or right, front or back, upper or lower, and the noun; of a train, head or coach before them."""
_FULL = {"ebrow": "eyebrow", "ho": "hoof", "liplate": "license plate", "pa": "paw"}


def part_noun(part: str) -> str:
    """What a part is, whichever of several: ``lflleg`` is a leg, ``wheel_2`` a wheel, ``rear`` an ear."""
    part = re.sub(r"_\d+$", "", part)
    match = _SIDED.fullmatch(part)
    noun = next(filter(None, match.groups())) if match else part
    return _FULL.get(noun, noun)


@frozen(kw_only=True)
class PartObject:
    """One object: where it is listed, and what is needed to choose it.

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
class AnnotatedObject:
    """An object as an annotation has it; any number but 0 is in a mask."""

    name: str
    mask: NDArray[Any]
    parts: list[tuple[str, NDArray[Any]]]


def read_annotation(path: Path) -> list[AnnotatedObject]:
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
        if not isinstance(value, list) or not all(isinstance(struct, dict) for struct in value):
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

    objects = []
    for anno in structs(read_variable(path, "anno")):
        for struct in structs(anno.get("objects")):
            object_mask = mask(struct.get("mask"))
            parts = [
                (text(part.get("part_name")), mask(part.get("mask"), object_mask.shape))
                for part in structs(struct.get("parts"))
            ]
            parts = [(name, part_mask) for name, part_mask in parts if part_mask.size]
            objects.append(AnnotatedObject(name=text(struct.get("class")), mask=object_mask, parts=parts))
    return objects


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
    names = [line.split()[0] for line in read_lines(lists / f"{split}.txt")]
    class_lists = [lists / f"{name}_{split}.txt" for name in classes]
    if all(file.is_file() for file in class_lists):  # then most annotations need not be opened
        rows = [line.split() for file in class_lists for line in read_lines(file)]
        with_classes = {words[0] for words in rows if words[-1] != "-1"}
        names = [name for name in names if name in with_classes]
    annotations = [safe_path(masks, f"{name}.mat") for name in names]
    pictures = [safe_path(root / "JPEGImages", f"{name}.jpg") for name in names]
    require_files(annotations)
    require_files(pictures)
    with ThreadPoolExecutor() as pool:
        by_picture = pool.map(_objects_of, annotations, pictures, repeat(classes))
        return [part_object for objects in by_picture for part_object in objects]


def _objects_of(annotation: Path, picture: Path, classes: Sequence[str]) -> list[PartObject]:
    """The objects of `classes` in one picture."""
    objects = []
    for number, annotated in enumerate(read_annotation(annotation)):
        if annotated.name in classes and annotated.mask.any():
            rows, columns = np.flatnonzero(annotated.mask.any(1)), np.flatnonzero(annotated.mask.any(0))
            box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
            parts = tuple(dict.fromkeys(part for part, _ in annotated.parts))
            objects.append(
                PartObject(
                    annotation=annotation, picture=picture, number=number, name=annotated.name, box=box,
                    shape=annotated.mask.shape, parts=parts,
                )
            )  # fmt: skip
    return objects
