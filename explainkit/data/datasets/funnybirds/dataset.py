"""FunnyBirds: rendered birds of 50 classes, and the same scenes without parts and background objects.

The layout is what the authors' code writes and reads: ``render/`` of github.com/visinf/funnybirds
(``create_dataset.py``, ``render_interventions.py``, ``page.html``, ``parts.json``) and
``datasets/funny_birds.py`` of github.com/visinf/funnybirds-framework. From there are the names of files, the
keys of the lists, the colors of part maps, and that every subset of the parts of a test bird is a picture.
The archive itself was not at hand. Not checked against it: the color of the body, which only the renderer
uses; whether it has part maps of training images, which are read where there are; whether no picture of the
interventions is missing; and the numbers of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from attrs import define, field, frozen
from PIL import Image
from torch import Tensor

from explainkit.data.cache import CachedRows
from explainkit.data.datasets.funnybirds.annotations import (
    PartCatalog,
    SceneList,
    read_catalog,
    read_identities,
    read_scenes,
)
from explainkit.data.datasets.packed import Files, open_files
from explainkit.data.reading import decode_picture, height_width, picture_bytes
from explainkit.data.splits import hold_out
from explainkit.data.transforms.augmentation import FlipShiftBrightness
from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import FormatError, InputError

_LARGEST_PICTURE = 2**26  # bytes, far more than 256 pixels a side take


@define(eq=False, kw_only=True)
class RenderedSplit:
    """Pictures that are decoded by threads when asked for, and kept as bytes while there is room.

    Attributes
    ----------
    files : Files
    mode : str
        The folder of the pictures: ``train`` or ``test``.
    numbers : Tensor, (N,), int64
        Which scene of its list image ``id`` is.
    labels : Tensor, (N,), int64
    parts : tuple of str
    present : Tensor, (N, P), bool
        Which parts each bird has.
    background : Tensor, (N,), int64
        How many objects are in the background of each.
    size : (int, int)
    has_maps : bool
        Whether there are part maps, and so masks.
    """

    files: Files = field(repr=False)
    mode: str
    numbers: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    parts: tuple[str, ...] = field(repr=False)
    present: Tensor = field(repr=False)
    background: Tensor = field(repr=False)
    size: tuple[int, int]
    has_maps: bool
    _rows: CachedRows = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        planes = 4 if self.has_maps else 3  # colors, and what each pixel shows
        self._rows = CachedRows(count=len(self), shape=(planes, *self.size), read=self._read)

    def __len__(self) -> int:
        return len(self.numbers)

    def batch(self, ids: Tensor) -> Batch:
        """The images of `ids` (n,), in that order, with masks of their parts where there are part maps.

        Raises
        ------
        InputError
            For a file that is damaged, with its name.
        FormatError
            For a part map of another size than its picture.
        """
        rows = self._rows.rows(ids)
        masks = _is_identity(rows[:, 3], 0, len(self.parts)) if self.has_maps else None
        return Batch(images=rows[:, :3].float() / 255, labels=self.labels[ids], ids=ids, masks=masks)

    def part_presence(self, ids: Tensor) -> Tensor:
        """Which parts the birds of `ids` (n,) have, (n, P), bool; they need not be seen."""
        return self.present[ids.cpu()]

    def object_masks(self, ids: Tensor) -> Tensor:
        """Where birds are seen, bodies and all, in the images of `ids` (n,): (n, H, W), bool.

        Raises
        ------
        InputError
            For a split without part maps.
        """
        return self._identities(ids) <= len(self.parts)

    def background_masks(self, ids: Tensor) -> Tensor:
        """Where each background object is seen in the images of `ids` (n,): (n, B, H, W), bool.

        Raises
        ------
        InputError
            For a split without part maps.
        """
        return _is_identity(self._identities(ids), len(self.parts) + 1, int(self.background.max()))

    def file_name(self, index: int, folder: str) -> str:
        """The file of image `index` in a folder such as ``test`` or ``test_part_map``, without its suffix."""
        return f"{folder}/{int(self.labels[index])}/{int(self.numbers[index]):06}"

    def _identities(self, ids: Tensor) -> Tensor:
        if not self.has_maps:
            raise InputError(
                f"Expected part maps in {self.files.locate(f'{self.mode}_part_map')!r}; none there."
            )
        return self._rows.rows(ids)[:, 3]

    def _read(self, index: int) -> Tensor:
        picture = self._picture(f"{self.file_name(index, self.mode)}.png")
        colors = picture_bytes(picture, self.size)
        if not self.has_maps:
            return colors
        name = f"{self.file_name(index, f'{self.mode}_part_map')}.png"
        part_map = self._picture(name)
        if part_map.size != picture.size:
            raise FormatError(
                f"Expected {picture.width} x {picture.height} pixels, as its picture has, in "
                f"{self.files.locate(name)!r}; got {part_map.width} x {part_map.height}."
            )
        identities = torch.from_numpy(read_identities(part_map, self.parts, self.size))
        return torch.cat([colors, identities[None]])

    def _picture(self, name: str) -> Image.Image:
        content = self.files.read(name, _LARGEST_PICTURE)
        return decode_picture(content, self.files.locate(name), upright=False)


@define(eq=False, kw_only=True)
class InterventionSplit(RenderedSplit):
    """Pictures that there are also without parts, and without each object of their background."""

    _subsets: CachedRows = field(init=False, repr=False)
    _backgrounds: CachedRows = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        shape, objects = (3, *self.size), int(self.background.max())
        self._subsets = CachedRows(count=len(self) << len(self.parts), shape=shape, read=self._read_subset)
        self._backgrounds = CachedRows(count=len(self) * objects, shape=shape, read=self._read_background)

    def with_parts(self, ids: Tensor, parts: Tensor) -> Batch:
        """The scenes of `ids` (n,) again, each with only those of its `parts` (n, P), bool.

        Where no part is removed it is the image itself. There are no masks: nobody has mapped these pictures.

        Raises
        ------
        InputError
            For a picture that is missing, with the subsets of parts that there are, or damaged.
        """
        if parts.shape != (len(ids), len(self.parts)) or parts.dtype != torch.bool:
            raise InputError(
                f"Expected parts as bool ({len(ids)}, {len(self.parts)}); "
                f"got {parts.dtype} {tuple(parts.shape)}."
            )
        ids, parts = ids.cpu(), parts.cpu()
        bits = 1 << torch.arange(len(self.parts))
        subsets = ((parts & self.present[ids]) * bits).sum(1)
        images = self._subsets.rows((ids << len(self.parts)) + subsets)
        return Batch(images=images.float() / 255, labels=self.labels[ids], ids=ids)

    def background_objects(self, ids: Tensor) -> Tensor:
        """Which background objects are in the scenes of `ids` (n,): (n, B), bool.

        B is the largest number of them in a scene of this split; they are numbered as in its list.
        """
        return torch.arange(int(self.background.max())) < self.background[ids.cpu()][:, None]

    def without_background_object(self, ids: Tensor, objects: Tensor) -> Batch:
        """The scenes of `ids` (n,) again, each without background object number `objects` (n,).

        Raises
        ------
        InputError
            For an object that a scene does not have, and for a picture that is missing or damaged.
        """
        ids, objects = ids.cpu(), objects.cpu()
        if objects.shape != ids.shape:
            raise InputError(f"Expected one object a scene, ({len(ids)},); got {tuple(objects.shape)}.")
        wrong = (objects < 0) | (objects >= self.background[ids])
        if wrong.any():
            index = int(wrong.int().argmax())
            raise InputError(
                f"Expected one of the {int(self.background[ids[index]])} background objects of scene "
                f"{int(ids[index])}, counted from 0; got {int(objects[index])}."
            )
        images = self._backgrounds.rows(ids * int(self.background.max()) + objects)
        return Batch(images=images.float() / 255, labels=self.labels[ids], ids=ids)

    def _read_subset(self, row: int) -> Tensor:
        index, subset = row >> len(self.parts), row & ((1 << len(self.parts)) - 1)
        kept = [part for number, part in enumerate(self.parts) if subset >> number & 1]
        if len(kept) == int(self.present[index].sum()):
            return picture_bytes(self._picture(f"{self.file_name(index, self.mode)}.png"), self.size)
        return self._read_intervention(index, "", f"body_{'_'.join(sorted(kept))}.png")

    def _read_background(self, row: int) -> Tensor:
        index, number = divmod(row, int(self.background.max()))
        return self._read_intervention(index, "/background_interventions", f"{number}.png")

    def _read_intervention(self, index: int, below: str, name: str) -> Tensor:
        folder = self.file_name(index, f"{self.mode}_interventions") + below
        if not self.files.has(f"{folder}/{name}"):
            names = [name for name in self.files.names(folder) if name.endswith(".png")]
            raise InputError(
                f"Expected the picture {self.files.locate(f'{folder}/{name}')!r}; it is missing. "
                f"Of this scene there are: {', '.join(names) or 'none'}. Is the archive whole?"
            )
        return picture_bytes(self._picture(f"{folder}/{name}"), self.size)


@frozen(eq=False, kw_only=True)
class FunnyBirds(ImageDataset):
    """Rendered birds, and which variant of each part their classes have.

    Attributes
    ----------
    catalog : PartCatalog
    """

    catalog: PartCatalog = field(repr=False)

    @property
    def shared_parts(self) -> Tensor:
        """Which parts two classes have in common, (C, C, P), bool."""
        codes = torch.from_numpy(self.catalog.codes)
        return codes[:, None] == codes


def funnybirds(
    *,
    path: str | Path,
    size: int | Sequence[int] = 256,
    validation: float = 0.1,
    seed: int = 0,
    ground_truth: bool = True,
    augmentation: Literal["light"] | None = None,
) -> FunnyBirds:
    """FunnyBirds in the layout of its archive, with its training and test images.

    Classes have numbers but no names, and are called ``bird 00`` and so on.

    Parameters
    ----------
    path
        The archive ``FunnyBirds.zip``, which is read as it is; the folder ``FunnyBirds``; or the one that it
        lies in.
    size : int or (int, int)
        Height and width; the pictures have 256.
    validation : float
        The share of the complete training birds of each class, at least one, that `seed` draws for
        validation: like those of the test, they have all parts. Birds that lack parts are all for training.
    ground_truth : bool
        Whether the test has masks and interventions, from ``test_part_map`` and ``test_interventions``;
        ``False`` where these were not kept.
    augmentation : {"light"} or None
        `FlipShiftBrightness`; the authors trained without.

    Raises
    ------
    InputError
        For files that are missing, and settings that do not fit.
    FormatError
        For lists that are damaged or do not agree, and for archives that are none.

    References
    ----------
    Hesse, Schaub-Meyer and Roth: FunnyBirds, ICCV 2023, arXiv:2308.06248.
    """
    height, width = height_width(size)
    if augmentation not in ("light", None):
        raise InputError(f"Expected the augmentation 'light' or None; got {augmentation!r}.")
    files = open_files(Path(path), "classes.json", "FunnyBirds")
    catalog = read_catalog(files)
    scenes = {mode: read_scenes(files, f"dataset_{mode}.json", catalog) for mode in ("train", "test")}
    digits = len(str(len(catalog.codes) - 1))
    classes = [f"bird {number:0{digits}}" for number in range(len(catalog.codes))]

    def split(mode: str, rows: Sequence[int]) -> RenderedSplit:
        is_intervenable = mode == "test" and ground_truth
        kind = InterventionSplit if is_intervenable else RenderedSplit
        numbers = torch.tensor(rows)
        rendered = kind(
            files=files,
            mode=mode,
            numbers=numbers,
            labels=torch.from_numpy(scenes[mode].labels)[numbers],
            parts=catalog.parts,
            present=torch.from_numpy(scenes[mode].present)[numbers],
            background=torch.from_numpy(scenes[mode].background)[numbers],
            size=(height, width),
            has_maps=is_intervenable or (mode == "train" and files.has_folder("train_part_map")),
        )
        folders = [mode, f"{mode}_part_map"] if rendered.has_maps else [mode]
        files.require(
            f"{rendered.file_name(index, folder)}.png" for folder in folders for index in range(len(rows))
        )
        return rendered

    if ground_truth:
        _require_ground_truth(files)
    train, drawn = _hold_out(scenes["train"], classes, validation, seed)
    return FunnyBirds(
        name="funnybirds",
        classes=classes,
        size=(height, width),
        splits={
            "train": split("train", train),
            "validation": split("train", drawn),
            "test": split("test", range(len(scenes["test"].labels))),
        },
        parts=catalog.parts,
        augment=FlipShiftBrightness(shift=max(1, height // 16)) if augmentation else None,
        catalog=catalog,
    )


def _require_ground_truth(files: Files) -> None:
    missing = [name for name in ("test_part_map", "test_interventions") if not files.has_folder(name)]
    if missing:
        raise InputError(
            f"Expected the folder {files.locate(missing[0])!r}; there is none. "
            "With ground_truth=False the test has no masks and no interventions."
        )


def _hold_out(
    scenes: SceneList, classes: Sequence[str], validation: float, seed: int
) -> tuple[list[int], list[int]]:
    """The rows of training and validation, each in the order of the list."""
    complete = {
        name: np.flatnonzero((scenes.labels == label) & scenes.present.all(1)).tolist()
        for label, name in enumerate(classes)
    }
    for name, rows in complete.items():
        if len(rows) < 2:
            raise InputError(
                "Expected at least two training birds of a class with all parts, one of them for validation; "
                f"{name!r} has {len(rows)}."
            )
    _, drawn = hold_out(complete, validation, seed)
    return sorted(set(range(len(scenes.labels))).difference(drawn)), sorted(drawn)


def _is_identity(identities: Tensor, first: int, count: int) -> Tensor:
    """Where identities (n, H, W) are each of `count` ones from `first`: (n, count, H, W), bool."""
    wanted = torch.arange(first, first + count, dtype=torch.uint8)
    return identities[:, None] == wanted[:, None, None]
