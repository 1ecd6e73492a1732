"""What the lists of FunnyBirds say, once they agree with each other, and what part maps show."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image

from explainkit.data.datasets.packed import Files
from explainkit.errors import FormatError

COLORS = {
    (255, 255, 0): "beak",
    (255, 255, 253): "eye",
    (255, 255, 254): "eye",
    (255, 0, 1): "foot",
    (255, 0, 2): "foot",
    (0, 0, 255): "tail",
    (0, 255, 1): "wing",
    (0, 255, 2): "wing",
}
"""What a pixel of a part map shows; left and right have a color each."""
BODY = (170, 170, 170)
FIRST_OBJECT = (204, 204, 204)
"""Of background object 0; the next is one bluer."""
MOST_OBJECTS = 255 - FIRST_OBJECT[2] + 1
"""Background objects of a scene for which part maps have colors; the authors' scenes have up to 34."""
NOTHING = 255
"""The identity of a pixel of any other color: the sky, and edges, where colors mix."""
ABSENT = ("", "placeholder")
"""What stands for the model of a part that was left out."""

_LARGEST = 2**30  # bytes of a list: the scenes of 50,000 training images take some 135 million
_BYTES = np.array([1 << 16, 1 << 8, 1], np.int64)  # a color (…, 3) as one number
_IGNORED = re.compile(r"(camera|light|bg)_(?!objects$)")

Identities = NDArray[np.uint8]
"""What each pixel shows: part 0 … P - 1, the body P, background object j as P + 1 + j, or `NOTHING`."""


@frozen(eq=False, kw_only=True)
class PartCatalog:
    """Which variants of parts there are, and which of them each class has.

    Attributes
    ----------
    parts : tuple of str
    variants : mapping of str to tuple of mapping
        Of each part: its attributes, ``{"model": "beak01.glb", "color": "yellow"}``.
    codes : array, (C, P), int64
        The variant of each part of each class.
    """

    parts: tuple[str, ...]
    variants: Mapping[str, tuple[Mapping[str, str], ...]]
    codes: NDArray[np.int64]


@frozen(eq=False, kw_only=True)
class SceneList:
    """What was rendered, in the order of the files.

    Attributes
    ----------
    labels : array, (N,), int64
    present : array, (N, P), bool
        Which parts the bird has.
    background : array, (N,), int64
        How many objects are in the background.
    """

    labels: NDArray[np.int64]
    present: NDArray[np.bool_]
    background: NDArray[np.int64]


def read_catalog(files: Files) -> PartCatalog:
    """Parts and classes, by ``parts.json`` and ``classes.json``.

    Raises
    ------
    InputError
        For a list that is missing.
    FormatError
        For one that is damaged, a part without colors in part maps, and classes of unknown parts.
    """
    value = _read_json(files, "parts.json")
    if not isinstance(value, dict) or not value:
        _refuse(files, "parts.json", "parts by name", value)
    for part, variants in value.items():
        if part not in COLORS.values():
            _refuse(files, "parts.json", f"parts among {', '.join(dict.fromkeys(COLORS.values()))}", part)
        is_list = isinstance(variants, list) and variants and all(isinstance(one, dict) for one in variants)
        if not is_list or not all(_is_variant(variant) for variant in variants):
            _refuse(files, "parts.json", f"variants of the part {part!r}, each with its model", variants)
    parts = tuple(value)
    counts = [len(variants) for variants in value.values()]
    classes = _read_json(files, "classes.json")
    if not isinstance(classes, list) or len(classes) < 2:
        _refuse(files, "classes.json", "a list of two or more classes", classes)
    for number, kind in enumerate(classes):
        if not isinstance(kind, dict) or kind.get("class_idx") != number:
            _refuse(files, "classes.json", f"class {number} at its place", kind)
        code = kind.get("parts")
        if not isinstance(code, dict) or set(code) != set(parts):
            _refuse(files, "classes.json", f"the parts of parts.json for class {number}", code)
        if not all(
            type(code[part]) is int and 0 <= code[part] < n for part, n in zip(parts, counts, strict=True)
        ):
            _refuse(files, "classes.json", f"variants of parts.json for class {number}", code)
    codes = np.array([[kind["parts"][part] for part in parts] for kind in classes], np.int64)
    variants = {part: tuple(variants) for part, variants in value.items()}
    return PartCatalog(parts=parts, variants=variants, codes=codes)


def read_scenes(files: Files, name: str, catalog: PartCatalog) -> SceneList:
    """The scenes of a list such as ``dataset_test.json``.

    Raises
    ------
    InputError
        For a list that is missing.
    FormatError
        For one that is damaged, an unknown class or part, and parts of another class.
    """
    scenes = _read_json(files, name)
    if not isinstance(scenes, list) or not scenes:
        _refuse(files, name, "a list of scenes", scenes)
    attributes = [
        [
            {f"{part}_{key}": value for key, value in catalog.variants[part][variant].items()}
            for part, variant in zip(catalog.parts, code, strict=True)
        ]
        for code in catalog.codes.tolist()
    ]  # what stands in a complete scene of each class, part by part
    labels = np.zeros(len(scenes), np.int64)
    present = np.zeros((len(scenes), len(catalog.parts)), np.bool_)
    background = np.zeros(len(scenes), np.int64)
    for number, scene in enumerate(scenes):
        label = scene.get("class_idx") if isinstance(scene, dict) else None
        if type(label) is not int or not 0 <= label < len(attributes):
            _refuse(files, name, f"a class of classes.json for scene {number}", label)
        unknown = {key[:-6] for key in scene if key.endswith("_model")}.difference(catalog.parts)
        if unknown:
            _refuse(files, name, f"parts of parts.json in scene {number}", min(unknown))
        labels[number] = label
        present[number] = [
            _is_present(files, name, number, scene, f"{part}_model", expected)
            for part, expected in zip(catalog.parts, attributes[label], strict=True)
        ]
        objects = scene.get("bg_objects")
        if not isinstance(objects, str) or not re.fullmatch(r"(\d{1,3}(,\d{1,3})*,?)?", objects):
            _refuse(files, name, f"numbers of background objects in scene {number}", objects)
        background[number] = len(re.findall(r"\d+", objects))
        if background[number] > MOST_OBJECTS:
            _refuse(files, name, f"up to {MOST_OBJECTS} background objects in scene {number}", objects)
    return SceneList(labels=labels, present=present, background=background)


def read_identities(picture: Image.Image, parts: Sequence[str], size: tuple[int, int]) -> Identities:
    """What each pixel of a part map shows, (H, W); once resized to `size`, what most of a pixel shows."""
    pixels = np.asarray(picture, np.int64) @ _BYTES
    colors, values = _color_table(parts)
    index = np.searchsorted(colors, pixels).clip(max=len(colors) - 1)
    identities = np.where(colors[index] == pixels, values[index], NOTHING).astype(np.uint8)
    if identities.shape == size:
        return identities
    resized, most = np.full(size, NOTHING, np.uint8), np.zeros(size, np.uint8)
    for identity in np.unique(identities)[::-1]:  # `NOTHING` first: it wins a tie
        mask = Image.fromarray((identities == identity).astype(np.uint8) * 255)
        share = np.asarray(mask.resize((size[1], size[0]), Image.Resampling.BOX))
        resized[share > most] = identity
        most = np.maximum(most, share)
    return resized


def _color_table(parts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All colors with a meaning as numbers in rising order, and what they mean."""
    meanings = {color: parts.index(part) for color, part in COLORS.items() if part in parts}
    red, green, blue = FIRST_OBJECT
    meanings |= {BODY: len(parts)}
    meanings |= {(red, green, blue + number): len(parts) + 1 + number for number in range(MOST_OBJECTS)}
    colors = np.array(list(meanings), np.int64) @ _BYTES
    order = colors.argsort()
    return colors[order], np.array(list(meanings.values()), np.int64)[order]


def _is_variant(variant: Mapping[str, Any]) -> bool:
    """Whether `variant` names a model, and nothing but texts."""
    texts = all(isinstance(value, str) for value in variant.values())
    return texts and variant.get("model", "") not in ABSENT


def _is_present(
    files: Files, name: str, number: int, scene: Mapping[str, Any], model: str, expected: Mapping[str, str]
) -> bool:
    """Whether a scene has a part, which must then be that of its class."""
    if scene.get(model) in ABSENT:
        return False
    found = {key: scene.get(key) for key in expected}
    if found != expected:
        _refuse(files, name, f"{expected} or a part left out in scene {number}", found)
    return True


def _read_json(files: Files, name: str) -> Any:
    """What a JSON file holds, less the numbers of camera, light and background, which nothing here reads."""
    content = files.read(name, _LARGEST)
    try:
        return json.loads(
            content, object_hook=lambda scene: {k: v for k, v in scene.items() if not _IGNORED.match(k)}
        )
    except (ValueError, RecursionError, MemoryError) as error:
        raise FormatError(f"Expected JSON in {files.locate(name)!r}: {error}.") from None


def _refuse(files: Files, name: str, expected: str, value: object) -> NoReturn:
    raise FormatError(f"Expected {expected} in {files.locate(name)!r}; got {reprlib.repr(value)}.")
