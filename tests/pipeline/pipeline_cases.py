"""Made images as a split, explainers that fail, and rows as plain values."""

import torch

from explainkit.data.types import ArraySplit
from explainkit.errors import InputError


def make_split(count, size=32, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    return ArraySplit(images=images, labels=torch.arange(count) % classes)


class DamagedSplit:
    """A split of which some images cannot be read."""

    def __init__(self, count, damaged):
        self.split, self.damaged = make_split(count), set(damaged)
        self.labels = self.split.labels

    def __len__(self):
        return len(self.split)

    def batch(self, ids):
        bad = self.damaged & set(ids.tolist())
        if bad:
            raise InputError(f"Expected a whole image; number {min(bad)} is damaged.")
        return self.split.batch(ids)


class FloatSplit:
    """A split of float images, some of which are not finite."""

    def __init__(self, count, broken):
        self.images = make_split(count).images.float() / 255
        self.images[list(broken), 0, 0, 0] = torch.nan
        self.labels = torch.zeros(count, dtype=torch.long)

    def __len__(self):
        return len(self.images)

    def batch(self, ids):
        from explainkit.data.types import Batch

        return Batch(images=self.images[ids], labels=self.labels[ids], ids=ids)


def rows_of(dataset):
    return dataset.to_arrow().to_pylist()


def content_of(folder):
    """The bytes of each Parquet file, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}
