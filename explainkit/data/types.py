"""Labeled images, as every part of explainkit receives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from attrs import evolve, field, frozen
from attrs.converters import optional
from torch import Tensor

from explainkit.errors import InputError, UnknownNameError
from explainkit.explanations.decisions import Decision, as_decision
from explainkit.explanations.validation import as_names
from explainkit.protocols import Split


@frozen(kw_only=True)
class Phrase:
    """A run of words in a caption, and what it refers to.

    Attributes
    ----------
    text : str
    start, end : int
        ``caption.text[start:end] == text``.
    part : str or None
        The part it names; ``None`` for the body, the background and other phrases irrelevant to the class.
    attributes : mapping of str to str
        Such as ``{"color": "red", "shape": "hooked"}``.
    """

    text: str
    start: int
    end: int
    part: str | None = None
    attributes: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Caption:
    """A sentence about one image, with its phrases in order."""

    text: str
    phrases: tuple[Phrase, ...] = ()


@frozen(eq=False, kw_only=True)
class Sample:
    """One image and what is known of it; the fields are those of `Batch` without the first axis."""

    image: Tensor
    label: int
    id: int
    masks: Tensor | None = None
    key_points: Tensor | None = None
    box: Tensor | None = None
    caption: Caption | None = None


@frozen(eq=False, kw_only=True)
class Batch:
    """N images and what is known of them.

    Attributes
    ----------
    images : Tensor, (N, 3, H, W), float32 in [0, 1]
    labels : Tensor, (N,), int64
        Multi-hot (N, C), bool, where an image may have several.
    ids : Tensor, (N,), int64
        Position in the split: the same image has the same id in any order and batch size.
    masks : Tensor or None, (N, P, H, W), bool
        Where each part of `ImageDataset.parts` is visible.
    key_points : Tensor or None, (N, P, 3)
        x and y in pixels, and 1 where the point is visible.
    boxes : Tensor or None, (N, 4)
        x0, y0, x1, y1 of the object in pixels, half-open.
    captions : tuple of Caption or None
    """

    images: Tensor = field(repr=lambda images: str(tuple(images.shape)))
    labels: Tensor
    ids: Tensor
    masks: Tensor | None = field(default=None, repr=False)
    key_points: Tensor | None = field(default=None, repr=False)
    boxes: Tensor | None = field(default=None, repr=False)
    captions: tuple[Caption, ...] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        def at_index(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[index]

        return Sample(
            image=self.images[index],
            label=int(self.labels[index]),
            id=int(self.ids[index]),
            masks=at_index(self.masks),
            key_points=at_index(self.key_points),
            box=at_index(self.boxes),
            caption=None if self.captions is None else self.captions[index],
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        tensors: dict[str, Any] = {
            name: value.to(device)
            for name in ("images", "labels", "ids", "masks", "key_points", "boxes")
            if isinstance(value := getattr(self, name), Tensor)
        }
        return evolve(self, **tensors)


Augmentation = Callable[[Batch, int, int], Batch]
"""(batch, seed, epoch) to a changed batch; what happens to an image depends on (seed, epoch, id) alone."""


@frozen(eq=False, kw_only=True)
class ArraySplit:
    """A split that lives in memory as bytes.

    Attributes
    ----------
    images : Tensor, (N, 3, H, W), uint8
    labels : Tensor, (N,), int64
    captions : tuple of Caption or None
    """

    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    captions: tuple[Caption, ...] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, ids: Tensor) -> Batch:
        """The images of `ids` (n,), in that order."""
        captions = None if self.captions is None else tuple(self.captions[index] for index in ids.tolist())
        return Batch(
            images=self.images[ids].float() / 255, labels=self.labels[ids], ids=ids, captions=captions
        )


class Batches(Iterator[Batch]):
    """The images of a split in order, a batch after the other, and the split that they come from.

    Parameters
    ----------
    split : Split
    name : str
        Of the split.
    batch_size : int
        Images of a batch, at most.
    """

    def __init__(self, split: Split, name: str, batch_size: int) -> None:
        self.split, self.name = split, name
        self._ids = iter(torch.arange(len(split)).split(batch_size))

    def __next__(self) -> Batch:
        return self.split.batch(next(self._ids))


@frozen(eq=False, kw_only=True)
class ImageDataset:
    """A data set: its splits, and the words for what is in it.

    Attributes
    ----------
    name : str
    classes : tuple of str
    size : (int, int), or (int,)
        Height and width of the images. One number for a table: a batch's ``images`` are then its rows (N, F).
    channels : int
        Of the images: 3 for colors, 1 for gray.
    decision : Decision, str or None
        What labels mean, which a network learns to say. ``None``: one class an image for labels (N,), each
        label for itself for multi-hot ones (N, C). With ``"sigmoid"``, labels (N,) of two classes are
        learned as one logit, which is for the second.
    splits : mapping of str to Split
        At least ``train``, ``validation`` and ``test``.
    parts : tuple of str
        Names of the P masks and key points of a batch, where it has them.
    vocabulary : tuple of str
        Every phrase that the captions can use.
    synonyms : mapping of str to str
        Words of captions, or runs of words, to the one that stands for them.
    features : tuple of str
        Names of the columns, for a table.
    augment : Augmentation or None
        Applied by `fit` to training batches, never by `batches`.
    """

    name: str
    classes: tuple[str, ...] = field(converter=as_names)
    size: tuple[int, ...]
    splits: Mapping[str, Split] = field(repr=False)
    parts: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = field(default=(), repr=False)
    synonyms: Mapping[str, str] = field(factory=dict, repr=False)
    features: tuple[str, ...] = field(default=(), converter=as_names)
    augment: Augmentation | None = field(default=None, repr=False)
    channels: int = 3
    decision: Decision = field(default=None, converter=optional(as_decision))

    def __attrs_post_init__(self) -> None:
        is_multi_label = getattr(self.splits["train"].labels, "ndim", 1) == 2
        decision = self.decision or Decision(rule="sigmoid" if is_multi_label else "softmax")
        if is_multi_label and decision.rule == "softmax":
            raise InputError(
                "Expected one label an image for decision 'softmax'; the labels are multi-hot. Use 'sigmoid'."
            )
        if not is_multi_label and not decision.is_exclusive:
            if len(self.classes) > 2:
                raise InputError(
                    f"Expected multi-hot labels (N, {len(self.classes)}) for decision 'sigmoid'; got one of "
                    f"{len(self.classes)} classes for each image."
                )
            if len(self.classes) == 2:
                decision = evolve(decision, negative=self.classes[0])
        object.__setattr__(self, "decision", decision)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The classes that a network has an output for: all, but for the negative one."""
        return self.classes[1:] if self.decision.negative is not None else self.classes

    @splits.validator
    def _check_splits(self, _: object, splits: Mapping[str, Split]) -> None:
        missing = {"train", "validation", "test"} - set(splits)
        if missing:
            raise InputError(
                f"Expected splits 'train', 'validation' and 'test'; {sorted(missing)} are missing."
            )

    @property
    def train(self) -> Split:
        """What `fit` learns from."""
        return self.splits["train"]

    @property
    def validation(self) -> Split:
        """What `fit` selects by."""
        return self.splits["validation"]

    @property
    def test(self) -> Split:
        """What nothing looks at before the end."""
        return self.splits["test"]

    def split(self, name: str) -> Split:
        """The split called `name`.

        Raises
        ------
        UnknownNameError
            Where there is none.
        """
        if name not in self.splits:
            raise UnknownNameError(f"{self.name} has no split {name!r}. There are: {', '.join(self.splits)}.")
        return self.splits[name]

    def batches(self, split: str, batch_size: int = 64) -> Batches:
        """The images of `split` in order, un-augmented, at most `batch_size` at a time."""
        return Batches(self.split(split), split, batch_size)
