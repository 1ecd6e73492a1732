"""How far the place of a map can be trusted: what becomes of it when other images are put beside.

Of any explainer with maps over the whole image: CAM, and whatever is to be compared with it.
"""

import hashlib
from typing import Any

import numpy as np
import torch
from attrs import evolve, field, frozen
from numpy.typing import NDArray
from torch import Tensor

import explainkit as ek
from explainkit.data.random_keys import Keys, random_keys
from explainkit.errors import ExplainKitError, InputError
from explainkit.explainers.interface import Explainer
from explainkit.explanations.counts import check_count, is_whole
from explainkit.explanations.images import are_absent
from explainkit.explanations.serialization import in_brief
from explainkit.protocols import Images, Targets
from explainkit_cigc.grids import (
    OTHERS,
    arranged,
    check_doubled,
    draw_ids,
    draw_others,
    placed,
    tile,
)
from explainkit_cigc.losses import inside_mass
from explainkit_cigc.model import normalized

LARGEST_POOL = 1024
"""Training images that others are drawn from, of a data set."""

TOLERANCE = 1e-3
"""How far apart logits and pixels of the same images may be, as a share of the largest."""

Others = ek.Batch | ek.ImageDataset


@frozen(eq=False, kw_only=True)
class Consistency:
    """What becomes of the maps of N images in R composites each.

    A map here is what speaks for a class, cell by cell, as shares: the positive part of the saliency on the
    network's own grid.

    Attributes
    ----------
    overlap : Tensor, (N, R)
        ``sum min(g', T)`` of the composite's map and the image's in its place, ``1 - sum |g' - T| / 2`` where
        both are there: 1 for a map that stays as it is. 0 where nothing in the composite speaks for the
        class; NaN where nothing in the image does.
    inside : Tensor, (N, R)
        The share of the composite's map that is on the image, which is at least the overlap.
    targets : Tensor, (N,)
        The classes that are looked for.
    classes : tuple of str, C
    logits : Tensor or None, (N, C)
    images : Tensor or None, (N, 3, H, W)
        By reference: what was measured, for `attach` to know it by.
    ids : tuple of int or str, or None
        What the image of each is called, where it has a name.
    """

    overlap: Tensor
    inside: Tensor
    targets: Tensor
    classes: tuple[str, ...]
    logits: Tensor | None = field(default=None, repr=False)
    images: Tensor | None = field(default=None, repr=False)
    ids: tuple[int | str, ...] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.overlap)

    @property
    def is_dead(self) -> Tensor:
        """Of which images no cell speaks for the class, (N,), bool: they are left out of means."""
        return self.overlap.isnan().any(1)

    @property
    def mean_overlap(self) -> Tensor:
        """Over the composites of each image, (N,); NaN where it is dead."""
        return self.overlap.mean(1)

    @property
    def mean_inside(self) -> Tensor:
        """Over the composites of each image, (N,); NaN where it is dead."""
        return self.inside.mean(1)

    def by_class(self) -> dict[str, tuple[float, float]]:
        """Mean overlap and mean share inside of the images of each class that has some, by its name."""
        overlap, inside = (_means(values, self.targets, len(self.classes)) for values in (
            self.mean_overlap, self.mean_inside
        ))  # fmt: skip
        measured = (~overlap.isnan()).nonzero()[:, 0].tolist()
        return {self.classes[c]: (overlap[c].item(), inside[c].item()) for c in measured}

    def attach(self, explanations: ek.Explanations) -> ek.Explanations:
        """`explanations` of the same images and classes, with their certificates among the diagnostics.

        They are known by their targets and logits, by their ids where both have some, and by their images
        where those were not left out.

        Raises
        ------
        InputError
            For explanations of others, for contrasts, and where nothing says what was measured.
        """
        if not isinstance(explanations, ek.Explanations):
            raise InputError(
                f"Expected explanations of the images that were measured; got {type(explanations).__name__}."
            )
        if explanations.foils is not None:
            raise InputError(
                "Expected explanations of a class each, whose maps were measured; got a contrast, whose maps "
                "are others. Call attach before contrast."
            )
        if self.logits is None:
            raise InputError("Expected a certificate that has the logits of what was measured; got none.")
        other = _difference(self, explanations)
        if other is not None:
            raise InputError(
                f"Expected explanations of the {len(self)} images and classes that were measured; "
                f"got others: their {other} differ."
            )
        columns = {"map overlap": self.mean_overlap, "map inside": self.mean_inside}
        added = {name: values.to(explanations.logits) for name, values in columns.items()}
        return evolve(explanations, diagnostics={**explanations.diagnostics, **added})


def measure_consistency(
    explainer: Explainer,
    images: Images,
    others: Others,
    targets: Targets | None = None,
    *,
    grids: int = 8,
    seed: int = 0,
    batch_size: int = 64,
) -> Consistency:
    """Put each image into `grids` composites with images of other classes, and see where its map goes.

    The quadrants take turns. Images of a draw differ where there are three without the class. Which are drawn
    depends on the seed, the image's id and the class, in any order of images; images of a tensor have no ids,
    and go by their number.

    Parameters
    ----------
    explainer : Explainer
        With maps over the whole image, of a network that takes images of twice the size.
    images
        As `explain` takes them.
    others : Batch or ImageDataset
        Images of the same size, with labels; of a data set 1,024 of its training images.
    targets
        Of each image; by default the predictions.
    batch_size : int
        How many composites are explained at once.

    Raises
    ------
    InputError
        For an explainer without such maps, for a network that takes no images of twice the size, for `others`
        of another size or without labels, and where all of them have the class of an image.
    """
    grids, seed, batch_size = _check_counts(grids, seed, batch_size)
    pool, truth = _pool_of(explainer, others, seed)
    explained = explainer.explain(images, targets, batch_size=batch_size)
    anchors = explainer.read_images(explainer.input_spec.from_unit(explained.images))
    is_allowed = ~truth[:, explained.targets.cpu()].T.numpy()
    if not is_allowed.any(1).all():
        name = explainer.classes[int(explained.targets[int(is_allowed.any(1).argmin())])]
        raise InputError(
            f"Expected others without class {name!r}; all have it. Give images of other classes."
        )
    rows = torch.arange(len(explained)).repeat_interleave(grids)
    rounds = torch.arange(grids).repeat(len(explained))
    index = rows.numpy()  # numpy takes a tensor of one number for that number
    words, classes = _image_words(explained)[index], explained.targets.cpu().numpy()[index]
    keys = random_keys(seed, words, classes, rounds.numpy())
    overlap, inside = _measure(
        explainer, anchors, explained, pool, is_allowed[index], rows, rounds % 4, keys, batch_size
    )
    shape = (len(explained), grids)
    return Consistency(
        overlap=overlap.view(shape), inside=inside.view(shape), targets=explained.targets,
        classes=explainer.classes, logits=explained.logits, images=explained.images, ids=explained.ids,
    )  # fmt: skip


def attention_confusion(
    explainer: Explainer,
    images: ek.Batch,
    others: Others,
    *,
    grids: int = 4,
    seed: int = 0,
    batch_size: int = 64,
) -> Tensor:
    """Which class draws attention from which, (C, C): the share of a map that stays on its image.

    In row y and column t, in the mean over the images of class y, each in `grids` composites with three
    images that have class t and lack y; what lacks to 1 is what images of class t draw from class y. NaN
    where there are none, as on the diagonal. It takes C times as many composites as `measure_consistency`.

    Raises
    ------
    InputError
        As `measure_consistency`; and for images without labels.
    """
    grids, seed, batch_size = _check_counts(grids, seed, batch_size)
    classes = len(explainer.classes)
    which, targets = _truth_of(explainer, "images", images).nonzero(as_tuple=True)
    pool, truth = _pool_of(explainer, others, seed)
    inputs = explainer.read_images(images)[which]
    if not len(which):
        return inputs.new_full((classes, classes), torch.nan)
    explained = explainer.explain(inputs, targets, batch_size=batch_size)
    allowed = truth.T[None] & ~truth.T[targets][:, None]  # (M, C, L): has the other class, and lacks its own
    row, column = allowed.any(2).nonzero(as_tuple=True)
    rows, columns = row.repeat_interleave(grids), column.repeat_interleave(grids)
    rounds = torch.arange(grids).repeat(len(row))
    ids = images.ids.cpu()[which]
    words = (ids[rows], targets[rows], columns, rounds)
    keys = random_keys(seed, *(word.numpy() for word in words))
    _, inside = _measure(
        explainer, inputs, explained, pool, allowed[rows, columns].numpy(), rows, rounds % 4, keys, batch_size
    )
    cells = targets[rows] * classes + columns
    return _means(inside, cells, classes**2).view(classes, classes)


def attention(explanations: ek.Explanations) -> Tensor:
    """What speaks for each target, cell by cell on the network's own grid, as shares: (N, h, w).

    Zero where nothing does. It is what CI-GC is trained on.

    Raises
    ------
    InputError
        For explanations without maps over the whole image.
    """
    maps, rest = explanations.maps, explanations.remainder_map
    if explanations.boxes is not None or (maps is None and rest is None):
        raise InputError(
            f"Expected maps over the whole image; those by {explanations.provenance.explainer} are "
            f"{'none' if explanations.boxes is None else 'in boxes'}."
        )
    grid = rest.shape[-2:] if maps is None and rest is not None else maps.shape[-2:]  # type: ignore[union-attr]
    return normalized(explanations.saliency(grid).clamp(min=0))


def _measure(
    explainer: Explainer,
    anchors: Tensor,
    explained: ek.Explanations,
    pool: ek.Batch,
    is_allowed: NDArray[np.bool_],
    rows: Tensor,
    quadrants: Tensor,
    keys: Keys,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Overlap and share inside, (M,) each, of composites of images `rows` (M,) with those allowed (M, L)."""
    if pool.images.shape[1:] != anchors.shape[1:]:
        raise InputError(
            f"Expected others of the images' shape, {tuple(anchors.shape[1:])}; got "
            f"{tuple(pool.images.shape[1:])}."
        )
    single = attention(explained)
    _check_composites(explainer, anchors)
    parts: list[tuple[Tensor, Tensor]] = []
    for chunk in torch.arange(len(rows)).split(batch_size):
        index = chunk.numpy()
        drawn = draw_others(keys[index], pool.ids.cpu().numpy(), is_allowed[index])
        images = pool.images[torch.from_numpy(drawn).flatten()]
        beside = explainer.read_images(explainer.input_spec.from_unit(images))
        where = quadrants[chunk].to(beside.device)
        row = rows[chunk].to(beside.device)
        tiles = arranged(anchors[row][:, None], beside.unflatten(0, (-1, OTHERS)), where)
        shown = explainer.explain(tile(tiles), explained.targets[row], batch_size=batch_size)
        composite = attention(shown)
        check_doubled(single, composite)
        parts.append(_overlap_and_inside(single[row], composite, where))
    if not parts:
        return single.new_zeros(0), single.new_zeros(0)
    overlap, inside = (torch.cat(values) for values in zip(*parts, strict=True))
    return overlap, inside


def _overlap_and_inside(single: Tensor, composite: Tensor, quadrants: Tensor) -> tuple[Tensor, Tensor]:
    """Of maps (M, h, w) and (M, 2 h, 2 w): NaN where the first are zero."""
    inside = inside_mass(composite, quadrants)
    overlap = torch.minimum(composite, placed(single, quadrants)).sum((1, 2))
    is_alive = single.flatten(1).any(1)
    return torch.where(is_alive, overlap, torch.nan), torch.where(is_alive, inside, torch.nan)


def _pool_of(explainer: Explainer, others: Others, seed: int) -> tuple[ek.Batch, Tensor]:
    """The images that others are drawn from, and which classes each has, (L, C), bool."""
    if isinstance(others, ek.ImageDataset):
        explainer.check_classes(others)
        others = others.train.batch(draw_ids(len(others.train), LARGEST_POOL, seed))
    return others, _truth_of(explainer, "others", others)


def _truth_of(explainer: Explainer, name: str, batch: ek.Batch) -> Tensor:
    """Which classes each image of a batch has, (N, C), bool; what is no batch with labels is refused."""
    if not isinstance(batch, ek.Batch):
        kinds = "a Batch with labels, or a data set" if name == "others" else "a Batch with labels"
        raise InputError(f"Expected {name} as {kinds}; got {type(batch).__name__}.")
    if not len(batch):
        raise InputError(f"Expected at least one image as {name}; got none.")
    for kind, values in (("a label", batch.labels), ("an id", batch.ids)):
        if not isinstance(values, Tensor) or values.shape[:1] != (len(batch),):
            got = tuple(values.shape) if isinstance(values, Tensor) else values
            raise InputError(f"Expected {kind} of each of {len(batch)} {name}; got {got}.")
    return explainer.decision.truth(batch.labels, len(explainer.classes)).cpu()


def _check_counts(grids: Any, seed: Any, batch_size: Any) -> tuple[int, int, int]:
    if not is_whole(seed) or abs(seed) >= 2**63:
        raise InputError(f"Expected seed as a whole number of 64 bits; got {seed!r}.")
    return check_count("grids", grids), int(seed), check_count("batch_size", batch_size)


def _check_composites(explainer: Explainer, images: Tensor) -> None:
    """Refuse a network that does not take images of twice the size."""
    composite = images[:1].repeat(1, 1, 2, 2)
    try:
        explainer.predict(composite)
    except (ExplainKitError, torch.cuda.OutOfMemoryError):
        raise
    except (AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        height, width = composite.shape[-2:]
        raise InputError(
            f"Expected a network that takes images of twice the size, {height} x {width}, as composites are; "
            f"it says: {in_brief(error)}"
        ) from error


def _image_words(explained: ek.Explanations) -> NDArray[np.int64]:
    """A number of the image of each explanation, (N,): its id, a digest of its name, or where it is."""
    if explained.ids is not None:
        return np.array([_word(name) for name in explained.ids], np.int64)
    if explained.image_index is not None:
        return explained.image_index.cpu().numpy()
    return np.arange(len(explained))


def _word(name: int | str) -> int:
    if not isinstance(name, str):
        return int(name)
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)


def _difference(measured: Consistency, explanations: ek.Explanations) -> str | None:
    """By what explanations are of something else than what was measured; ``None``: of the same."""
    if not torch.equal(explanations.targets.cpu(), measured.targets.cpu()):
        return "classes"
    if None not in (measured.ids, explanations.ids) and measured.ids != explanations.ids:
        return "ids"
    images, others = measured.images, explanations.images
    is_known = images is not None and not are_absent(images) and not are_absent(others)
    if images is not None and is_known and not _are_near(images, others):
        return "images"
    if measured.logits is None or not _are_near(measured.logits, explanations.logits):
        return "logits"
    return None


def _are_near(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same but for rounding."""
    if one.shape != other.shape:
        return False
    rounding = max(torch.finfo(values.dtype).eps for values in (one, other))
    first, second = one.cpu().double(), other.cpu().double()
    limit = max(TOLERANCE, 8 * rounding) * max(1.0, first.abs().max().item())
    return bool((first - second).abs().max() <= limit)


def _means(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """The mean of the values (M,) of each group, but for NaN; NaN where there are none: (G,)."""
    is_there = ~values.isnan()
    where, there = groups.to(values.device)[is_there], values[is_there]
    sums = values.new_zeros(count).index_add(0, where, there)
    return sums / torch.bincount(where, minlength=count).to(sums)
