"""Tables as data sets: rows of numbers in place of images, for architectures that take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from explainkit.data.random_keys import random_keys
from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError, MissingPackageError


@frozen(eq=False, kw_only=True)
class RowSplit:
    """A split of rows in memory.

    Attributes
    ----------
    rows : Tensor, (N, F), float32
    labels : Tensor, (N,), int64
    """

    rows: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, ids: Tensor) -> Batch:
        """The rows of `ids` (n,), in that order, under the name of images."""
        return Batch(images=self.rows[ids], labels=self.labels[ids], ids=ids)


def table(
    rows: ArrayLike,
    labels: ArrayLike,
    *,
    features: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    name: str = "table",
    seed: int = 0,
) -> ImageDataset:
    """A table as a data set: 70 % of the rows of each class to train, 10 % to validate, 20 % to test.

    Parameters
    ----------
    rows : array, (N, F)
        Finite numbers, in units of their own: networks bring them to a common scale.
    labels : array, (N,)
        Whole numbers from 0 on.
    features, classes : sequence of str or None
        Names; counted off where not given.

    Raises
    ------
    InputError
        For shapes that disagree, numbers that are not finite, and a class with fewer than five rows.
    """
    try:
        values, numbers = np.asarray(rows, np.float32), np.asarray(labels)
    except (TypeError, ValueError) as error:
        raise InputError(f"Expected rows (N, F) of numbers alone; {error}.") from error
    if values.ndim != 2 or numbers.shape != values.shape[:1] or 0 in values.shape:
        raise InputError(f"Expected rows (N, F) and labels (N,); got {values.shape} and {numbers.shape}.")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0].tolist()
        raise InputError(
            f"Expected finite rows; got {values[row, column]} at row {row}, column {column}. Fill it, or "
            "leave the row out."
        )
    is_integer = np.issubdtype(numbers.dtype, np.integer)
    if not is_integer or numbers.min() < 0:
        got = numbers.min() if is_integer else numbers.dtype
        raise InputError(f"Expected labels as whole numbers from 0 on; got {got}.")
    counts = np.bincount(np.minimum(numbers, len(numbers)))
    if counts.min() < 5:
        raise InputError(f"Expected five rows of every class at least; got {counts.tolist()}.")
    columns = tuple(features or (f"column {index}" for index in range(values.shape[1])))
    names = tuple(classes or (f"class {index}" for index in range(len(counts))))
    if len(columns) != values.shape[1] or len(names) != len(counts):
        raise InputError(
            f"Expected {values.shape[1]} names of columns and {len(counts)} of classes; "
            f"got {len(columns)} and {len(names)}."
        )
    return ImageDataset(
        name=name, classes=names, size=(values.shape[1],), features=columns,
        splits={
            split: RowSplit(
                rows=torch.from_numpy(values[sorted(ids)]),
                labels=torch.from_numpy(numbers[sorted(ids)].astype(np.int64)),
            )
            for split, ids in _split_ids(numbers, seed).items()
        },
    )  # fmt: skip


def _split_ids(labels: NDArray[Any], seed: int) -> dict[str, list[int]]:
    """The rows of each split: 70 %, 10 % and 20 % of each class, in an order drawn by `seed`."""
    ids_by_split: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for label in range(int(labels.max()) + 1):
        ids = np.flatnonzero(labels == label)
        order = ids[random_keys(seed, label, ids).argsort()]
        ends = np.ceil(len(order) * np.array([0.7, 0.8])).astype(int)
        for split, drawn in zip(ids_by_split, np.split(order, ends), strict=True):
            ids_by_split[split] += drawn.tolist()
    return ids_by_split


def wine(*, seed: int = 0) -> ImageDataset:
    """Thirteen measurements of 178 wines of three growers (Aeberhard and Forina, UCI, 1991).

    Raises
    ------
    MissingPackageError
        Without scikit-learn: ``pip install 'explainkit-sdk[digits]'``.
    """
    return _bundled("load_wine", "wine", seed)


def breast_cancer(*, seed: int = 0) -> ImageDataset:
    """Thirty measurements of cell nuclei in 569 biopsies, benign or not (Wolberg et al., UCI, 1995).

    Raises
    ------
    MissingPackageError
        Without scikit-learn: ``pip install 'explainkit-sdk[digits]'``.
    """
    return _bundled("load_breast_cancer", "breast-cancer", seed)


def _bundled(loader: str, name: str, seed: int) -> ImageDataset:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise MissingPackageError(
            f"The table {name} comes inside scikit-learn, which is not installed: "
            "pip install 'explainkit-sdk[digits]'."
        ) from error
    bunch: Any = getattr(datasets, loader)()
    return table(
        bunch.data, bunch.target, features=[str(column).replace("_", " ") for column in bunch.feature_names],
        classes=[str(label).replace("_", " ") for label in bunch.target_names], name=name, seed=seed,
    )  # fmt: skip
