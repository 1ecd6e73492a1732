"""How far the place of a map can be trusted: what becomes of it when other images are put beside.

Of any explainer with maps over the whole image: CAM, and whatever is to be compared with it.
"""

import numpy as np
import torch
from attrs import evolve, frozen
from numpy.typing import NDArray
from torch import Tensor

import explainkit as ek
from explainkit.data.random_keys import random_keys
from explainkit.errors import InputError
from explainkit.explainers.interface import Explainer
from explainkit.protocols import Images, Targets
from explainkit_cigc.grids import OTHERS, arranged, check_doubled, draw_others, placed, tile, untile
from explainkit_cigc.model import normalized

LARGEST_POOL = 1024
"""Training images that others are drawn from, of a data set."""


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
    """

    overlap: Tensor
    inside: Tensor
    targets: Tensor
    classes: tuple[str, ...]

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
        found = (~overlap.isnan()).nonzero()[:, 0].tolist()
        return {self.classes[c]: (overlap[c].item(), inside[c].item()) for c in found}

    def attach(self, explanations: ek.Explanations) -> ek.Explanations:
        """`explanations` of the same images and classes, with their certificates among the diagnostics.

        Raises
        ------
        InputError
            For explanations of others.
        """
        if not torch.equal(explanations.targets.cpu(), self.targets.cpu()):
            raise InputError(
                f"Expected explanations of the {len(self)} images and classes that were measured; got others."
            )
        columns = {"map overlap": self.mean_overlap, "map inside": self.mean_inside}
        added = {name: values.to(explanations.logits) for name, values in columns.items()}
        return evolve(explanations, diagnostics={**explanations.diagnostics, **added})


def measure_consistency(
    explainer: Explainer,
    images: Images,
    others: ek.Batch | ek.ImageDataset,
    targets: Targets | None = None,
    *,
    grids: int = 8,
    seed: int = 0,
    batch_size: int = 64,
) -> Consistency:
    """Put each image into `grids` composites with images of other classes, and see where its map goes.

    The quadrants take turns. Images of a draw differ where there are three without the class.

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
        For an explainer without such maps, for `others` of another size, and where all of them have the class
        of an image.
    """
    _check_counts(grids, batch_size)
    inputs = explainer.read_images(images)
    explained = explainer.explain(inputs, targets, batch_size=batch_size)
    anchors = inputs if explained.image_index is None else inputs[explained.image_index]
    pool, truth = _pool_of(explainer, others, seed)
    of_class = ~truth[:, explained.targets.cpu()].T.numpy()
    if not of_class.any(1).all():
        name = explainer.classes[int(explained.targets[int(of_class.any(1).argmin())])]
        raise InputError(
            f"Expected others without class {name!r}; all have it. Give images of other classes."
        )
    rows = torch.arange(len(explained)).repeat_interleave(grids)
    rounds = torch.arange(grids).repeat(len(explained))
    overlap, inside = _measure(
        explainer, anchors, explained, pool, of_class[rows.numpy()], rows, rounds, seed, batch_size
    )
    shape = (len(explained), grids)
    return Consistency(
        overlap=overlap.view(shape), inside=inside.view(shape), targets=explained.targets,
        classes=explainer.classes,
    )  # fmt: skip


def attention_confusion(
    explainer: Explainer,
    images: ek.Batch,
    others: ek.Batch | ek.ImageDataset,
    *,
    grids: int = 4,
    seed: int = 0,
    batch_size: int = 64,
) -> Tensor:
    """Which class draws attention from which, (C, C): the share of a map that stays on its image.

    In row y and column t, in the mean over the images of class y, each in `grids` composites with three
    images that have class t and lack y; what lacks to 1 is what images of class t draw from class y. NaN
    where there are none, as on the diagonal. It takes C times as many composites as `measure_consistency`.
    """
    _check_counts(grids, batch_size)
    classes = len(explainer.classes)
    held = explainer.decision.truth(images.labels, classes).cpu()
    which, targets = held.nonzero(as_tuple=True)
    inputs = explainer.read_images(images)[which]
    explained = explainer.explain(inputs, targets, batch_size=batch_size)
    pool, truth = _pool_of(explainer, others, seed)
    allowed = truth.T[None] & ~truth.T[targets][:, None]  # (M, C, L): has the other class, and lacks its own
    row, column = allowed.any(2).nonzero(as_tuple=True)
    rows, columns = row.repeat_interleave(grids), column.repeat_interleave(grids)
    rounds = torch.arange(grids).repeat(len(row))
    _, inside = _measure(
        explainer, inputs, explained, pool, allowed[rows, columns].numpy(), rows, rounds + grids * columns,
        seed, batch_size,
    )  # fmt: skip
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
    rounds: Tensor,
    seed: int,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Overlap and share inside, (M,) each, of composites of images `rows` (M,) with those allowed (M, L)."""
    if pool.images.shape[1:] != anchors.shape[1:]:
        raise InputError(
            f"Expected others of the images' shape, {tuple(anchors.shape[1:])}; got "
            f"{tuple(pool.images.shape[1:])}."
        )
    single, quadrants = attention(explained), rounds % 4
    keys = random_keys(seed, rows.numpy(), rounds.numpy())
    parts: list[tuple[Tensor, Tensor]] = []
    for chunk in torch.arange(len(rows)).split(batch_size):
        index = chunk.numpy()  # numpy takes a tensor of one number for that number
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
    place = torch.arange(len(quadrants), device=quadrants.device), quadrants
    inside = untile(composite)[place].sum((1, 2))
    overlap = torch.minimum(composite, placed(single, quadrants)).sum((1, 2))
    is_alive = single.flatten(1).any(1)
    return torch.where(is_alive, overlap, torch.nan), torch.where(is_alive, inside, torch.nan)


def _pool_of(explainer: Explainer, others: ek.Batch | ek.ImageDataset, seed: int) -> tuple[ek.Batch, Tensor]:
    """The images that others are drawn from, and which classes each has, (L, C), bool."""
    if isinstance(others, ek.ImageDataset):
        explainer.check_classes(others)
        order = torch.from_numpy(random_keys(seed, np.arange(len(others.train))).argsort(kind="stable"))
        others = others.train.batch(order[:LARGEST_POOL])
    return others, explainer.decision.truth(others.labels, len(explainer.classes)).cpu()


def _check_counts(grids: int, batch_size: int) -> None:
    for name, value in (("grids", grids), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"Expected {name} of at least 1; got {value}.")


def _means(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """The mean of the values (M,) of each group, but for NaN; NaN where there are none: (G,)."""
    is_there = ~values.isnan()
    where, there = groups.to(values.device)[is_there], values[is_there]
    sums = values.new_zeros(count).index_add(0, where, there)
    return sums / torch.bincount(where, minlength=count).to(sums)
