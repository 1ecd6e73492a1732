"""Whether a score came from where it is shown: all outside is replaced, and the network is asked again.

That cells of deep networks see far more than their place, and how that misleads: Sacha, Jura, Rymarczyk,
Struski, Tabor, Zieliński: Interpretability benchmark for evaluating spatial misalignment of prototypical
parts explanations, AAAI 2024, arXiv:2308.08162; Carmichael et al.: Pixel-grounded prototypical part networks,
WACV 2024, arXiv:2309.14531.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from explainkit.data.random_keys import random_keys, uniform
from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.interface import Explainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.counts import check_count
from explainkit.explanations.factored_maps import FactoredMaps, UnitMaps
from explainkit.explanations.leak import Leak
from explainkit.explanations.spatial import (
    FAINTEST,
    SHOWN_FROM,
    SHOWN_FROM_PEAK,
    distribution,
    is_localized,
    is_pooled_by,
    paint,
    touched_pixels,
)
from explainkit.protocols import Split
from explainkit.questions.replacements import replacement_of, replacements
from explainkit.questions.true_scores import check_study
from explainkit.questions.unit_maps import images_at_once

UNITS = 3
"""Units of each image whose regions are measured."""

BEST_CELLS, DRAWN_CELLS = 2, 2
"""Cells of each image that are measured: the best of so many strongest units, and so many by chance."""

Explain = Callable[[Tensor, Tensor], Explanations]
"""(images (M, D, H, W), rows (M,)) to explanations of images that are made of those of `rows`."""


def measure_leak(
    explainer: Explainer,
    dataset: ImageDataset,
    *,
    split: str = "validation",
    images: int = 100,
    units: int = UNITS,
    seed: int = 0,
) -> Leak:
    """How much of each unit's score comes from outside of where it is shown, and of each cell's value.

    What is found of units is kept with the explainer's units, `Units.leak`, and is saved with it.

    *Region leak*: the region of a unit is the pixels of its map's cells that reach half of the map's maximum
    (85 % of it for units pooled by the maximum), connected or not. All other pixels become those of another
    scene. The leak is by how much that changes what the map puts on the region, though no pixel there did,
    as a share of the score; of units pooled by the maximum, how much of the score is lost. Scores count
    from the unit's reference.

    *Cell leak*: all pixels that a cell cannot see, by the claim of the units' receptive field, become those
    of another scene. The leak is by how much that changes the maps at the cell, as a share of what they hold
    there. 0 but for rounding where the claim is true.

    Parameters
    ----------
    images : int
        The first so many of `split`, at most. What is explained is the class that the network says.
    units : int
        Of the strongest units that have a place in an image, so many are measured.
    seed : int
        Of replacements, and of the cells that are drawn by chance.

    Raises
    ------
    InputError
        For less than an image or a unit, and for data of other classes.
    UnknownNameError
        For a split that there is not.

    Examples
    --------
    >>> from copy import copy
    >>> from explainkit.testing import fitted_example, tiny_dataset
    >>> leak = measure_leak(copy(fitted_example("cam")), tiny_dataset(), images=4)
    >>> leak.region.shape
    torch.Size([2, 4, 3])
    """
    check_study(explainer, dataset)
    images, units = check_count("images", images), check_count("units", units)
    explainer.network  # refuses what is not fitted, in words  # noqa: B018
    explainer.check_classes(dataset)
    source = dataset.split(split)
    ids = torch.arange(min(images, len(source)))
    with torch.inference_mode(False):
        leak = leak_of(explainer, dataset, split, ids, units=units, seed=seed)
    if explainer.units is not None:
        explainer.units = leak.apply(explainer.units)
    return leak


def leak_of(
    explainer: Explainer,
    dataset: ImageDataset,
    split: str,
    ids: Tensor,
    *,
    explanations: Explanations | None = None,
    units: int = UNITS,
    seed: int = 0,
    regions: bool = True,
    cells: bool = True,
) -> Leak:
    """`measure_leak` of the images `ids` (N,), one of both leaks or both; the explainer stays as it is.

    Parameters
    ----------
    explanations : Explanations or None
        Of those images, one each with all maps, where they are there.

    Raises
    ------
    InputError
        For explanations that have not kept all maps.
    """
    if explanations is not None and explanations.map_units is not None:
        raise InputError("Expected explanations with all maps; these kept some. Explain with maps='all'.")
    source = dataset.split(split)
    if "image" not in explainer.card.answers or not len(ids):
        return _without_leak(explainer, dataset, split, "There are no explanations of images to measure.")
    first = _explain_strongest(explainer, source.batch(ids[:1])) if explanations is None else explanations[:1]
    reason = _no_place(explainer, first)
    if reason is not None:
        return _without_leak(explainer, dataset, split, reason)
    cell_reason = _no_bound(explainer, first) if cells else "It was not asked for."
    region_reason = None if regions else "It was not asked for."
    study = _Study(
        explainer=explainer, source=source, units=min(units, len(first.units)), seed=seed,
        regions=regions, cells=cell_reason is None,
    )  # fmt: skip
    copies = 2 * max(study.units, BEST_CELLS + DRAWN_CELLS)
    rows = torch.arange(len(ids)).split(max(1, images_at_once(first, 256) // copies))
    parts = [study.measure(ids[some], None if explanations is None else explanations[some]) for some in rows]
    cells_measured = _joined([part.cells for part in parts], 0)
    per_kind = regions * study.units + (0 if cells_measured is None else cells_measured.shape[1])
    return Leak(
        explainer=explainer.card.title, dataset=dataset.name, split=split, names=first.units.names,
        ids=ids.cpu(), unit=torch.cat([part.unit for part in parts]),
        region=_joined([part.region for part in parts], 1), region_reason=region_reason,
        cell=_joined([part.cell for part in parts], 1), cell_reason=cell_reason, cells=cells_measured,
        receptive_field=first.units.receptive_field, replacement=replacement_of(source),
        passes=int(explanations is None) + 2 * per_kind, seed=seed,
    )  # fmt: skip


def region_leak(explain: Explain, explanations: Explanations, donors: Tensor, unit: Tensor) -> Tensor:
    """Region leak of the units `unit` (N, k), once all outside their regions is that of `donors`: (D, N, k).

    ``|change of the score - change of what the map puts outside| / |score|``; of units pooled by the maximum
    ``max(0, score - score after) / |score|``.

    Parameters
    ----------
    donors : Tensor, (D, N, C, H, W)
        For each image D others.
    """
    kinds, (images, count) = len(donors), unit.shape
    row = torch.arange(images, device=unit.device)[:, None].expand(-1, count)
    region = shown_regions(explanations, row, unit)  # (N, k, H, W)
    mixed = torch.where(region[:, :, None], explanations.images[:, None], donors[:, :, None])
    flat_row, flat_unit = (values.expand(kinds, -1, -1).flatten() for values in (row, unit))
    after = explain(mixed.flatten(0, 2), flat_row)
    shown = region.expand(kinds, -1, -1, -1, -1).flatten(0, 2)
    at = torch.arange(len(flat_row), device=unit.device)
    score, outside = _score_and_outside(explanations, flat_row, flat_unit, shown)
    new_score, new_outside = _score_and_outside(after, at, flat_unit, shown)
    change = ((new_score - score) - (new_outside - outside)).abs()
    is_max = is_pooled_by(explanations.units.poolings, "max").to(unit.device)[flat_unit]
    change = torch.where(is_max, (score - new_score).clamp(min=0), change)
    leak = torch.where(score.abs() > FAINTEST, change / score.abs(), torch.nan)
    has_place = _has_place(explanations)[flat_row, flat_unit]
    return torch.where(has_place, leak, torch.nan).view(kinds, images, count)


def cell_leak(explain: Explain, explanations: Explanations, donors: Tensor, cells: Tensor) -> Tensor:
    """Cell leak at `cells` (N, c, 2), once all that they cannot see is that of `donors`: (D, N, c).

    ``sum_k |map_k - map_k after| / sum_k |map_k|`` at the cell; NaN where all maps are 0 there. `donors`
    are those of `region_leak`.
    """
    maps, field = explanations.maps, explanations.units.receptive_field
    assert maps is not None and field is not None
    kinds, (images, count, _) = len(donors), cells.shape
    size, grid = explanations.images.shape[-2:], maps.shape[2:]
    flat_cell = (cells[..., 0] * grid[1] + cells[..., 1]).to(maps.device)  # (N, c)
    seen = field.seen(grid, size).flatten(0, 1).to(maps.device)[flat_cell]  # (N, c, H, W)
    mixed = torch.where(seen[:, :, None], explanations.images[:, None], donors[:, :, None])
    row = torch.arange(images, device=maps.device)[:, None].expand(kinds, -1, count).flatten()
    flat_cell = flat_cell.expand(kinds, -1, -1).flatten()
    after = explain(mixed.flatten(0, 2), row).maps
    assert after is not None
    before = maps_at(maps, row, flat_cell)
    change = (maps_at(after, torch.arange(len(row), device=row.device), flat_cell) - before).abs().sum(1)
    total = before.abs().sum(1)
    leak = torch.where(total > FAINTEST, change / total, torch.nan)
    return leak.view(kinds, images, count)


def shown_regions(explanations: Explanations, row: Tensor, unit: Tensor) -> Tensor:
    """Where a reader is shown the units `unit` (N, k) of images `row` (N, k): (N, k, H, W), bool.

    The pixels of all cells that reach half of the map's maximum; 85 % of it for units that are their maximum.
    """
    assert explanations.maps is not None
    maps = explanations.maps[row, unit]
    is_max = is_pooled_by(explanations.units.poolings, "max").to(unit.device)[unit]
    share = torch.where(is_max, SHOWN_FROM_PEAK, SHOWN_FROM)[..., None, None]
    reached = maps >= maps.amax((-2, -1), keepdim=True) * share.to(maps.dtype)
    return touched_pixels(reached, _boxes(explanations, row, unit), explanations.images.shape[-2:])


def maps_at(maps: UnitMaps, row: Tensor, cell: Tensor) -> Tensor:
    """What the maps of all units hold at cell number `cell` (M,) of image `row` (M,): (M, K), float64."""
    if isinstance(maps, FactoredMaps):
        attention, features = (factor.flatten(2)[row, :, cell] for factor in (maps.attention, maps.features))
        return (attention[:, maps.part] * features[:, maps.channel]).double()
    return maps.flatten(2)[row, :, cell].double()


@frozen(eq=False, kw_only=True)
class _Part:
    """What was measured on some of the images."""

    unit: Tensor
    region: Tensor | None = None
    cell: Tensor | None = None
    cells: Tensor | None = None


@frozen(eq=False, kw_only=True)
class _Study:
    """An explainer and the split that it is measured on."""

    explainer: Explainer
    source: Split
    units: int
    seed: int
    regions: bool
    cells: bool

    def measure(self, ids: Tensor, explanations: Explanations | None) -> _Part:
        """Both leaks of the images `ids` (n,), as far as they are asked for."""
        if explanations is None:
            explanations = _explain_strongest(self.explainer, self.source.batch(ids))
        batches, is_there = replacements(self.source, ids, self.seed)
        donors = torch.stack([self.explainer.read_images(batch) for batch in batches])  # (2, n, C, H, W)
        absent = ~is_there[:, :, None]  # (2, n, 1)

        def explain(images: Tensor, rows: Tensor) -> Explanations:
            return self.explainer.explain(images, explanations.targets[rows])

        unit = self._strongest_units(explanations)
        region = cell = cells = None
        if self.regions:
            region = region_leak(explain, explanations, donors, unit).cpu().masked_fill(absent, torch.nan)
        if self.cells:
            cells = self._cells(explanations, ids, unit)
            cell = cell_leak(explain, explanations, donors, cells).cpu().masked_fill(absent, torch.nan)
            cells = cells.cpu()
        return _Part(unit=unit.cpu(), region=region, cell=cell, cells=cells)

    def _strongest_units(self, explanations: Explanations) -> Tensor:
        """The strongest units that have a place, (n, k); where there are too few, others after them."""
        strength = explanations.contributions.abs()
        return strength.masked_fill(~_has_place(explanations), -1).topk(self.units, 1).indices

    def _cells(self, explanations: Explanations, ids: Tensor, unit: Tensor) -> Tensor:
        """The best cells of the strongest units and some by chance, (n, c, 2)."""
        maps = explanations.maps
        assert maps is not None
        grid = maps.shape[2:]
        row = torch.arange(len(unit), device=unit.device)[:, None]
        best = maps[row, unit[:, :BEST_CELLS]].flatten(2).argmax(2)  # (n, b)
        chance = uniform(random_keys(self.seed, 2, np.asarray(ids.cpu())), DRAWN_CELLS)
        drawn = (torch.from_numpy(chance).double() * grid.numel()).long().to(best.device)
        flat = torch.cat([best, drawn], 1)
        return torch.stack([flat // grid[1], flat % grid[1]], 2)


def _explain_strongest(explainer: Explainer, batch: Batch) -> Explanations:
    """One explanation an image, with all maps: of the class that wins, or of the label nearest to holding."""
    is_exclusive = explainer.decision.is_exclusive
    targets = None if is_exclusive else explainer.decision.strongest(explainer.predict(batch))
    return explainer.explain(batch, targets)


def _score_and_outside(
    explanations: Explanations, row: Tensor, unit: Tensor, region: Tensor
) -> tuple[Tensor, Tensor]:
    """Scores of `unit` (M,) in images `row` (M,), from references on, and their parts outside: (M,) each."""
    assert explanations.maps is not None
    score = explanations.scores[row, unit].double()
    if explanations.units.reference is not None:
        score = score - explanations.units.reference.to(score)[unit]
    shares = distribution(explanations.maps[row, unit][:, None].double(), "sum")[:, 0]  # (M, h, w)
    painted = paint(shares, _boxes(explanations, row, unit), explanations.images.shape[-2:])
    return score, score * (painted * ~region).sum((1, 2))


def _boxes(explanations: Explanations, row: Tensor, unit: Tensor) -> Tensor:
    """Where the maps of units `unit` (...) lie in images `row` (...): (..., 4), float64."""
    if explanations.boxes is None:
        height, width = explanations.images.shape[-2:]
        whole = torch.tensor([0, 0, width, height], dtype=torch.float64, device=row.device)
        return whole.expand(*row.shape, 4)
    groups = explanations.units.group
    group = torch.zeros_like(unit) if groups is None else groups.to(unit.device)[unit]
    return explanations.boxes[row, group].double()


def _has_place(explanations: Explanations) -> Tensor:
    """Which units have a place in which image, (N, K)."""
    assert explanations.maps is not None
    return is_localized(explanations.maps)


def _no_place(explainer: Explainer, explanations: Explanations) -> str | None:
    """Why the explanations have no places that scores could be asked to come from."""
    if explanations.decomposition is None:
        return (
            f"{explainer.card.title} attributes a decision after it was made: its units have no scores that "
            "the network read at their places."
        )
    is_placed = any(pooling != "none" for pooling in explanations.units.poolings)
    if explanations.is_tabular or explanations.maps is None or not is_placed:
        return f"The units of {explainer.card.title} have no places."
    return None


def _no_bound(explainer: Explainer, explanations: Explanations) -> str | None:
    """Why there is no bound on what a cell can see."""
    if explanations.boxes is not None:
        return f"The maps of {explainer.card.title} lie in boxes that the whole image moves."
    if explanations.units.receptive_field is None:
        return f"{explainer.card.title} claims no receptive field: a cell may see the whole image."
    return None


def _without_leak(explainer: Explainer, dataset: ImageDataset, split: str, reason: str) -> Leak:
    names = explainer.units.names if explainer.units is not None else ()
    nothing = torch.zeros(0, dtype=torch.long)
    return Leak(
        explainer=explainer.card.title, dataset=dataset.name, split=split, names=names,
        ids=nothing, unit=nothing.view(0, 0), region_reason=reason, cell_reason=reason,
        replacement=replacement_of(dataset.split(split)),
    )  # fmt: skip


def _joined(parts: list[Tensor | None], axis: int) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known, axis) if known else None
