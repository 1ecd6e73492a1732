"""Which images of a class have most of each unit, and where in them, in one pass over all.

Most of a unit is its largest score; where high scores say that it is absent, as of distances, its smallest.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor

from explainkit.explanations.batch import Explanations
from explainkit.explanations.class_examples import Examples
from explainkit.explanations.spatial import best_cells, is_localized

EXEMPLARS = 3
"""Images that are kept of each unit and class."""

CHUNK = 2**22
"""Most scores that are sorted at once."""

BOXES = 2**16
"""Most boxes that are made at once, of some 200 bytes each on the way."""

Layout = tuple[torch.Size, torch.Size | None]
"""The size of an image, and the shape of its maps."""


class Exemplars:
    """The images of M classes with the largest scores of K units, in 27 to 30 bytes for each class and unit.

    Boxes are 24 bytes more; where maps lie over the whole image, and all images are of one size, they follow
    from cells and are made at the end.
    """

    def __init__(self, explanations: Explanations, groups: int) -> None:
        shape = (groups, EXEMPLARS, len(explanations.units))
        self.layout = _layout_of(explanations)
        self.best = torch.full(shape, -torch.inf)
        self.ids = torch.full(shape, -1, dtype=torch.int32)
        self.places = torch.zeros(shape, dtype=torch.int8)  # of a map without a place: -1 - cell
        self.boxes = torch.zeros(*shape, 4, dtype=torch.int16) if self.layout is None else None

    def add(self, explanations: Explanations, row: Tensor, ids: Tensor) -> None:
        """Keep the images of each class `row` (N,) with the largest score of each unit, each image once."""
        if self.layout is not None and _layout_of(explanations) != self.layout:
            self.boxes = self._boxes_by_layout(self.layout, torch.arange(len(self.ids)))
            self.layout = None
        cells, has_place = _best_cells(explanations)
        boxes = None
        if self.boxes is not None:
            boxes = _narrow(_boxes_around(cells, has_place, _frames(explanations), _layout(explanations)))
        places = _narrow(torch.where(has_place, cells, -1 - cells))
        scores, ids = explanations.scores.detach().float().cpu(), _narrow(ids)
        if explanations.units.phrasing.absent_scores == "high":  # as of distances: most of it is the nearest
            scores = -scores
        once = _first_occurrences(ids)
        for part in once.split(max(1, isqrt(CHUNK // max(1, scores.shape[1])))):
            part_boxes = None if boxes is None else boxes[part]
            self._add_part(scores[part], places[part], part_boxes, row[part], ids[part])

    def finish(self, seen: Tensor, columns: int, split: str, pictures: Mapping[int, Tensor]) -> Examples:
        """Those of the classes in the rows `seen`; nothing can be added afterwards."""
        self.drop_scores()
        boxes = self.boxes if self.layout is None else self._boxes_by_layout(self.layout, seen)
        assert boxes is not None
        self.boxes = None
        if len(seen) < len(self.ids):  # else nothing is copied
            boxes = boxes if self.layout is not None else boxes[seen]
            self.ids, self.places = self.ids[seen], self.places[seen]
        cells = self.places.where(self.places >= 0, -1 - self.places)
        return Examples(
            ids=self.ids, cells=cells, boxes=boxes, columns=columns, split=split, pictures=pictures
        )

    def drop_scores(self) -> None:
        """Free what is needed to add, and no longer to `finish`."""
        self.best = self.best[:0].clone()

    def _add_part(
        self, scores: Tensor, places: Tensor, boxes: Tensor | None, row: Tensor, ids: Tensor
    ) -> None:
        """The same for a few images, none of which is there twice."""
        groups, local = row.unique(return_inverse=True)
        order = local.argsort(stable=True)
        local = local[order]
        counts = torch.bincount(local)
        rank = torch.arange(len(order)) - (counts.cumsum(0) - counts)[local]
        r, depth, k = len(groups), int(counts.max()), scores.shape[1]
        new_scores = torch.full((r, depth, k), -torch.inf)
        new_scores[local, rank] = scores[order]
        new_ids = torch.full((r, depth), -2, dtype=ids.dtype).index_put((local, rank), ids[order])
        old_ids = self.ids[groups]
        is_repeated = (new_ids[:, :, None, None] == old_ids[:, None]).any(2)  # a stream may come round again
        best = torch.cat([self.best[groups], new_scores.masked_fill_(is_repeated, -torch.inf)], 1)
        best_scores, chosen = best.topk(EXEMPLARS, 1)
        is_new, kept = chosen >= EXEMPLARS, chosen.clamp(max=EXEMPLARS - 1)
        source = torch.zeros(r, depth, dtype=torch.long).index_put((local, rank), order)
        image = source[torch.arange(r)[:, None, None], (chosen - EXEMPLARS).clamp(min=0)]  # (R, E, K)
        unit = torch.arange(k)
        merged_ids = torch.where(is_new, ids[image], old_ids.gather(1, kept))
        self.best[groups] = best_scores
        self.ids = _write(self.ids, groups, merged_ids.masked_fill(best_scores.isinf(), -1))
        old_places = self.places[groups].gather(1, kept)
        self.places = _write(self.places, groups, torch.where(is_new, places[image, unit], old_places))
        if boxes is not None and self.boxes is not None:
            old = self.boxes[groups].gather(1, kept[..., None].expand(-1, -1, -1, 4))
            self.boxes = _write(self.boxes, groups, torch.where(is_new[..., None], boxes[image, unit], old))

    def _boxes_by_layout(self, layout: Layout, rows: Tensor) -> Tensor:
        """The boxes of exemplars in images of one layout, (M, E, K, 4); 0 where there is none."""
        dtype = _integers_to(max(layout[0], default=0))
        boxes = torch.zeros(len(rows), *self.places.shape[1:], 4, dtype=dtype)
        frame, per_row = _whole(layout[0]), max(1, self.places[:1].numel())
        for part in torch.arange(len(rows)).split(max(1, BOXES // per_row)):
            places = self.places[rows[part]].long()
            cells = torch.where(places < 0, -1 - places, places)
            around = _boxes_around(cells, places >= 0, frame.expand(*cells.shape, 4), layout)
            boxes[part] = around.masked_fill_((self.ids[rows[part]] < 0)[..., None], 0).to(dtype)
        return boxes


def _layout_of(explanations: Explanations) -> Layout | None:
    """What boxes follow from besides cells; None where each image has frames of its own."""
    return None if explanations.boxes is not None else _layout(explanations)


def _layout(explanations: Explanations) -> Layout:
    size = torch.Size(()) if explanations.is_tabular else explanations.images.shape[-2:]
    return size, None if explanations.maps is None else explanations.maps.shape[2:]


def _best_cells(explanations: Explanations) -> tuple[Tensor, Tensor]:
    """Each unit's best cell (N, K), and whether its map has a place."""
    if explanations.is_tabular or explanations.maps is None:
        cells = torch.zeros(explanations.scores.shape, dtype=torch.long)
        return cells, torch.zeros_like(cells, dtype=torch.bool)
    cells = best_cells(explanations.maps.detach()).cpu()
    return cells, is_localized(explanations.maps).cpu()


def _frames(explanations: Explanations) -> Tensor:
    """Where the map of each unit lies in its image, (N, K, 4)."""
    n, k = explanations.scores.shape
    if explanations.boxes is None:
        return _whole(_layout(explanations)[0]).expand(n, k, 4)
    unit_group = explanations.units.group
    group = torch.zeros(k, dtype=torch.long) if unit_group is None else unit_group.cpu()
    return explanations.boxes.detach().float().cpu()[:, group]


def _whole(size: torch.Size) -> Tensor:
    """The box of a whole image; empty for a row of a table."""
    height, width = size or (0, 0)
    return torch.tensor([0.0, 0.0, width, height])


def _boxes_around(cells: Tensor, has_place: Tensor, frames: Tensor, layout: Layout) -> Tensor:
    """A box of three cells a side around each cell (..., 4); of the image where there is no place."""
    whole = _whole(layout[0])
    if layout[1] is None or not layout[0]:
        return whole.long().expand(*cells.shape, 4).clone()
    h, w = layout[1]
    x, y = (cells % w).float(), torch.div(cells, w, rounding_mode="floor").float()
    steps = (frames[..., 2:] - frames[..., :2]) / torch.tensor([w, h])
    low = torch.stack([x - 1, y - 1], -1).clamp(min=0)
    high = torch.minimum(torch.stack([x + 2, y + 2], -1), torch.tensor([w, h]).float())
    start = (frames[..., :2] + low * steps).floor()
    stop = torch.maximum((frames[..., :2] + high * steps).ceil(), start + 1)
    box = torch.cat([start, torch.minimum(stop, whole[2:])], -1)
    return torch.where(has_place[..., None], box, whole).long()


def _first_occurrences(ids: Tensor) -> Tensor:
    """The position at which each of `ids` occurs first."""
    values, inverse = ids.unique(return_inverse=True)
    positions = torch.arange(len(ids))
    return torch.full_like(values, len(ids), dtype=torch.long).scatter_reduce(0, inverse, positions, "amin")


def _integers_to(largest: int) -> torch.dtype:
    """The smallest integers that hold `largest` and its negative."""
    dtypes = (torch.int8, torch.int16, torch.int32)
    return next((dtype for dtype in dtypes if largest < torch.iinfo(dtype).max), torch.int64)


def _narrow(values: Tensor) -> Tensor:
    """The same integers in as few bits as hold them."""
    return values.to(_integers_to(int(values.abs().max()) if values.numel() else 0))


def _write(state: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """`state` with other rows, in integers that hold these."""
    state = state.to(torch.promote_types(state.dtype, values.dtype))
    state[rows] = values.to(state.dtype)
    return state
