"""Real images that need no download: scikit-learn's 1,797 handwritten digits."""

import numpy as np
import torch

from explainkit.data.images import ArraySplit, ImageData
from explainkit.errors import InputError, MissingPackageError


def digits(*, size: int = 32, seed: int = 0) -> ImageData:
    """The optical digits of Alpaydin & Kaynak (UCI, 1998), 8 x 8 grey, enlarged to `size` and three channels.

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
    if size < 8:
        raise InputError(f"Expected a size of at least 8 pixels; got {size}.")
    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).float()[:, None] / 16
    large = torch.nn.functional.interpolate(grey, size=(size, size), mode="bicubic", align_corners=False)
    images = (large.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    ends = [int(len(order) * share) for share in (0.7, 0.8)]
    parts = torch.tensor_split(order, ends)
    return ImageData(
        name="digits",
        classes=("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
        size=(size, size),
        splits={
            name: ArraySplit(images=images[ids].contiguous(), labels=labels[ids])
            for name, ids in zip(("train", "validation", "test"), parts, strict=True)
        },
    )
