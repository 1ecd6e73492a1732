"""What a page says of places: what one cell sees, and how much of a score came from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from explainkit.explanations.factored_maps import dense_maps
from explainkit.explanations.sentences import percent
from explainkit.explanations.single import Evidence, Explanation

WHOLE_IMAGE = "Cells see the whole image."

TIMES = "\N{MULTIPLICATION SIGN}"

SQUARE = "dashed: what the strongest cell sees"


def strongest_cell_box(explanation: Explanation) -> tuple[int, int, int, int] | None:
    """What the cell with most evidence, for or against, sees of the image: x0, y0, x1, y1 in pixels.

    ``None`` where that is not bounded, or all of it; and where no unit has a place.
    """
    batch = explanation.batch
    field, maps = batch.units.receptive_field, batch.maps
    if field is None or maps is None or batch.boxes is not None or batch.is_tabular:
        return None
    grid = explanation.saliency(maps.shape[2:]).abs()
    if not grid.any():
        return None
    height, width = explanation.image.shape[-2:]
    box = field.box(divmod(int(grid.argmax()), grid.shape[1]), (height, width))
    return None if box == (0, 0, width, height) else box


def cell_note(explanation: Explanation) -> str:
    """How much of the image one cell of the units' maps can see; nothing where the network has no cells."""
    batch = explanation.batch
    maps, field = batch.maps, batch.units.receptive_field
    has_cells = maps is not None and (batch.decomposition is not None or field is not None)
    if batch.is_tabular or maps is None or not has_cells or not dense_maps(maps[[explanation.index]]).any():
        return ""
    if field is None or batch.boxes is not None:
        return WHOLE_IMAGE
    height, width = explanation.image.shape[-2:]
    seen = [min(field.size, side) for side in (height, width)]
    if seen == [height, width] and field.seen(maps.shape[2:], (height, width)).all():
        return WHOLE_IMAGE
    most = "" if max(seen) < min(height, width) else "at most "
    return f"One cell sees {most}{seen[0]} {TIMES} {seen[1]} of {height} {TIMES} {width} pixels."


def leak_of_unit(explanation: Explanation, unit: int) -> str | None:
    """Which share of a unit's score came from elsewhere, in the mean over images, as per cent."""
    leak = explanation.batch.units.leak
    share = float("nan") if leak is None else leak[unit].item()
    return None if share != share else percent(share)


def leak_note(explanation: Explanation, items: Sequence[Evidence]) -> str:
    """What was measured of the strongest of `items` that was measured at all; nothing where none was."""
    for item in items:
        share = leak_of_unit(explanation, item.unit)
        if share is not None:
            return f"{share} of the score of {item.text} came from elsewhere when all outside was replaced."
    return ""
