import numpy as np
import pytest

from explainkit.data.datasets.aviary.dataset import aviary
from explainkit.data.datasets.aviary.preview import contact_sheet, part_map


@pytest.mark.parametrize(("size", "classes", "preset"), [(64, 20, "standard"), (32, 5, "shape")])
def test_the_contact_sheet_shows_every_section(size: int, classes: int, preset: str) -> None:
    sheet = contact_sheet(aviary(size=size, classes=classes, preset=preset))

    assert sheet.mode == "RGB" and sheet.width > 1000
    rows = np.asarray(sheet).reshape(sheet.height, -1).std(1)
    assert (rows > 10).mean() > 0.6


def test_the_contact_sheet_is_the_same_each_time() -> None:
    assert (np.asarray(contact_sheet(aviary(size=32))) == np.asarray(contact_sheet(aviary(size=32)))).all()


def test_a_part_map_paints_each_part_in_its_own_color() -> None:
    dataset = aviary(test=4)
    drawn = dataset.draw(dataset.scenes("test"))

    painted = part_map(drawn)

    colors = [{tuple(c) for c in np.moveaxis(painted, 1, -1)[drawn.masks[:, p]].tolist()} for p in range(7)]
    assert all(len(part_colors) == 1 for part_colors in colors)
    assert len(set.union(*colors)) == 7
