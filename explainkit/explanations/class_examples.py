"""Images that show what a unit is to a class, as a value."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen
from torch import Tensor

from explainkit.explanations.class_json import PICTURES_BY_ID
from explainkit.explanations.json_values import JsonValue
from explainkit.explanations.units import UnitPicture


@frozen(eq=False, kw_only=True)
class Examples(JsonValue):
    """Images of each class with the largest score of each unit, at most E, each image once.

    The smallest where `Phrasing.absent_scores` of the units is ``"high"``.

    Kept in integers as small as hold them: 14 bytes for each in all, with int32 for ids and int16 for places
    (250 MB less than int64 for 1,000 classes and 2,048 units). `ids`, `cells` and `boxes` are made int64 when
    they are asked for.

    Attributes
    ----------
    ids : Tensor, (M, E, K)
        -1 where there are fewer; none where what is explained are rows.
    cells : Tensor, (M, E, K)
        The unit's best cell, counted along rows of `columns` cells.
    boxes : Tensor, (M, E, K, 4)
        x0, y0, x1, y1 in pixels: three cells a side around it; the whole image where it has no place.
    columns : int
    split : str
        Where they are from.
    pictures : mapping of int to Tensor (3, H, W), uint8
    """

    _ids: Tensor
    _cells: Tensor
    _boxes: Tensor
    columns: int
    split: str
    pictures: Mapping[int, Tensor] = field(metadata=PICTURES_BY_ID)

    @property
    def ids(self) -> Tensor:
        """See above."""
        return self._ids.long()

    @property
    def cells(self) -> Tensor:
        """See above."""
        return self._cells.long()

    @property
    def boxes(self) -> Tensor:
        """See above."""
        return self._boxes.long()

    def of(self, row: int, unit: int, label: int) -> tuple[UnitPicture, ...]:
        """Those of a unit, the largest score first."""
        triples = zip(
            self._ids[row, :, unit].tolist(), self._cells[row, :, unit].tolist(),
            self._boxes[row, :, unit].tolist(), strict=True,
        )  # fmt: skip
        return tuple(
            UnitPicture(
                id=id, split=self.split, label=label, cell=divmod(cell, self.columns), box=tuple(box),
                image=self.pictures.get(id),
            )
            for id, cell, box in triples
            if id >= 0 and box[2] > box[0]
        )  # fmt: skip
