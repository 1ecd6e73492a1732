"""What one cell of a unit's map can see: a bound on its place that the network itself keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import fields, frozen
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.counts import is_whole
from explainkit.explanations.json_values import JsonValue


@frozen(kw_only=True)
class ReceptiveField(JsonValue):
    """The square of pixels that can change one cell of a map; no other pixel can.

    Cell (i, j) sees the rows ``first_pixel + i stride`` to ``first_pixel + i stride + size - 1``, and such
    columns by j, as far as they are in the image.

    Attributes
    ----------
    size : int
        Side of the square, in pixels.
    stride : int
        Pixels between the squares of neighboring cells.
    first_pixel : int
        Where the square of cell (0, 0) begins; below 0 in the padding.

    Raises
    ------
    InputError
        On construction, for what are no whole numbers, or sizes below 1.

    Examples
    --------
    >>> ReceptiveField(size=19, stride=4, first_pixel=-9).box((2, 3), (64, 64))
    (3, 0, 22, 18)
    """

    size: int
    stride: int
    first_pixel: int

    def __attrs_post_init__(self) -> None:
        values = [getattr(self, item.name) for item in fields(type(self))]
        if not all(map(is_whole, values)) or min(self.size, self.stride) < 1:
            raise InputError(f"Expected a receptive field in whole pixels, from 1 on; got {self!r}.")

    def box(self, cell: Sequence[int], image_size: Sequence[int]) -> tuple[int, int, int, int]:
        """What cell (row, column) sees of an image of (H, W): x0, y0, x1, y1, half-open."""
        (y0, y1), (x0, x1) = (
            [min(max(first, 0), side) for first in (start, start + self.size)]
            for start, side in zip(self._starts(cell), image_size, strict=True)
        )
        return x0, y0, x1, y1

    def boxes(self, grid: Sequence[int], image_size: Sequence[int]) -> Tensor:
        """What each cell of a grid (h, w) sees of an image of (H, W): (h, w, 4), as `box` has them."""
        spans = []
        for cells, side in zip(grid, image_size, strict=True):
            starts = self.first_pixel + self.stride * torch.arange(cells)
            spans.append(torch.stack([starts, starts + self.size], 1).clamp(0, side))  # (cells, 2)
        rows, columns = spans
        rows, columns = rows[:, None].expand(-1, grid[1], -1), columns[None].expand(grid[0], -1, -1)
        return torch.stack([columns[..., 0], rows[..., 0], columns[..., 1], rows[..., 1]], 2)

    def seen(self, grid: Sequence[int], image_size: Sequence[int]) -> Tensor:
        """Which pixels each cell of a grid (h, w) sees, (h, w, H, W), bool."""
        x0, y0, x1, y1 = self.boxes(grid, image_size)[..., None, None].unbind(2)
        rows, columns = torch.arange(image_size[0])[:, None], torch.arange(image_size[1])
        return (rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1)

    def after(self, kernel: int) -> ReceptiveField:
        """That of a further convolution of an odd `kernel`, stride 1 and padding that keeps the grid."""
        around = self.stride * (kernel // 2)
        return ReceptiveField(
            size=self.size + 2 * around, stride=self.stride, first_pixel=self.first_pixel - around
        )

    def _starts(self, cell: Sequence[int]) -> list[int]:
        return [self.first_pixel + self.stride * index for index in cell]
