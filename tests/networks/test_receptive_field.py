import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import explainkit as ek
from explainkit.networks.receptive_field import find_receptive_field

BOUNDED = {
    "small": ("small", {}),
    "tiny": ("tiny", {}),
    "local": ("local", {"width": 32}),
    "local-7": ("local", {"width": 32, "receptive_field": 7}),
    "local-27": ("local", {"width": 32, "receptive_field": 27}),
    "local-35-8": ("local", {"width": 32, "receptive_field": 35, "stride": 8}),
    "local-11-2": ("local", {"width": 32, "receptive_field": 11, "stride": 2}),
    "bagnet-9": ("bagnet", {"receptive_field": 9, "width": 4, "depths": (1, 1, 2, 1)}),
    "bagnet-17": ("bagnet", {"receptive_field": 17, "width": 4, "depths": (1, 2, 1, 1)}),
    "bagnet-33": ("bagnet", {"receptive_field": 33, "width": 4, "depths": (1, 1, 1, 1)}),
    "senn/lenet": ("senn/lenet", {}),
}
LOCAL = [name for name in BOUNDED if name.startswith(("local", "bagnet"))]


def backbone(name):
    """In double precision and all positive, so that no ReLU hides what a cell can see."""
    offered, chosen = BOUNDED[name]
    torch.manual_seed(0)
    made = ek.backbone(offered, **chosen).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.abs_()
    return made


def seen_by_gradient(made, cell, side):
    """The box of the pixels whose change changes a cell."""
    images = torch.full((1, 3, side, side), 0.8, dtype=torch.float64, requires_grad=True)
    made(images)[0, :, cell[0], cell[1]].sum().backward()
    touched = images.grad[0].abs().sum(0) > 0
    rows, columns = touched.any(1).nonzero().flatten(), touched.any(0).nonzero().flatten()
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@pytest.mark.parametrize("name", [name for name in BOUNDED if name != "senn/lenet"])  # its maxima tie
def test_a_cell_sees_the_pixels_that_are_stated_and_no_other(name):
    made = backbone(name)
    side = made.receptive_field + 4 * made.stride
    grid = made(torch.full((1, 3, side, side), 0.8, dtype=torch.float64)).shape[2:]

    for cell in ((grid[0] // 2, grid[1] // 2), (0, 0), (grid[0] // 2, grid[1] - 1)):
        assert seen_by_gradient(made, cell, side) == made.field.box(cell, (side, side))


@pytest.mark.parametrize("name", BOUNDED)
def test_trial_finds_what_is_stated(name):
    made = backbone(name)
    side = made.receptive_field + 8 * made.stride

    found = find_receptive_field(made, torch.full((1, 3, side, side), 0.5, dtype=torch.float64))

    assert found == made.field


@pytest.mark.parametrize("name", LOCAL)
def test_what_a_local_cell_sees_lies_around_the_pixels_that_it_is_drawn_on(name):
    field = backbone(name).field

    seen = field.first_pixel + (field.size - 1) / 2
    drawn = (field.stride - 1) / 2

    assert abs(seen - drawn) <= 0.5


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("size", [(64, 64), (47, 48), (33, 65)])
def test_local_grids_have_a_cell_for_each_stride(name, size):
    made = backbone(name)

    features = made(torch.rand(1, 3, *size, dtype=torch.float64))

    assert features.shape[1:] == (made.channels, *(-(-side // made.stride) for side in size))


def test_a_change_outside_of_what_a_cell_sees_changes_no_bit_of_it():
    made = ek.backbone("local").eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    x0, y0, x1, y1 = made.field.box((8, 5), (64, 64))
    other = images.flip(0)
    other[:, :, y0:y1, x0:x1] = images[:, :, y0:y1, x0:x1]

    with torch.no_grad():
        one, two = made(images)[:, :, 8, 5], made(other)[:, :, 8, 5]

    torch.testing.assert_close(one, two, rtol=0, atol=1e-6 * float(one.abs().max()))


class WithMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, images):
        return self.convolution(images) - images.mean((1, 2, 3), keepdim=True)


class Quiet(nn.Module):
    def forward(self, images):
        return images.new_ones(len(images), 2, 8, 8)


@pytest.mark.parametrize("network", [WithMean(), Quiet(), nn.AdaptiveAvgPool2d(1)])
def test_no_bound_is_found_where_there_is_none(network):
    assert find_receptive_field(network, torch.full((1, 3, 32, 32), 0.5)) is None


def test_the_image_that_is_tried_stays_as_it_was():
    image = torch.rand(1, 3, 32, 32)
    before = image.clone()

    find_receptive_field(nn.Conv2d(3, 4, 3, 2, 1), image)

    assert image.equal(before)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"receptive_field": 20}, "The nearest is 19"),
        ({"receptive_field": 3}, "The nearest is 7"),
        ({"stride": 3}, "a stride of 2, 4, 8 or 16"),
        ({"width": 34}, "a multiple of 4"),
        ({"width": 16}, "from 32 on"),
        ({"receptive_field": "19"}, "in whole numbers"),
        ({"receptive_field": 19.5}, "in whole numbers"),
    ],
)
def test_a_local_backbone_that_cannot_be_is_refused_with_the_nearest(chosen, message):
    with pytest.raises(ek.InputError, match=message):
        ek.backbone("local", **chosen)


@pytest.mark.parametrize("chosen", [{"receptive_field": 19}, {"depths": (1, 1)}, {"depths": 3}, {"width": 0}])
def test_a_bagnet_that_cannot_be_is_refused(chosen):
    with pytest.raises(ek.InputError, match="Expected"):
        ek.backbone("bagnet", **chosen)


fields = st.builds(
    ek.ReceptiveField,
    size=st.integers(1, 40),
    stride=st.integers(1, 9),
    first_pixel=st.integers(-30, 9),
)


@settings(max_examples=30, deadline=None)
@given(fields, st.integers(1, 6), st.integers(1, 6))
def test_boxes_are_those_of_single_cells_and_hold_what_is_seen(field, height, width):
    size = (23, 31)

    boxes, seen = field.boxes((height, width), size), field.seen((height, width), size)

    for row in range(height):
        for column in range(width):
            x0, y0, x1, y1 = field.box((row, column), size)
            assert boxes[row, column].tolist() == [x0, y0, x1, y1]
            inside = torch.zeros(size, dtype=torch.bool)
            inside[y0:y1, x0:x1] = True
            assert seen[row, column].equal(inside)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"stride": 0}, {"first_pixel": 0.5}, {"size": True}])
def test_a_field_in_other_than_whole_pixels_is_refused(wrong):
    with pytest.raises(ek.InputError, match="whole pixels"):
        ek.ReceptiveField(**{"size": 3, "stride": 2, "first_pixel": -1} | wrong)


def test_a_further_convolution_sees_a_stride_more_on_each_side():
    made = nn.Sequential(nn.Conv2d(3, 4, 5, 4, 2), nn.Conv2d(4, 4, 3, 1, 1))
    first = find_receptive_field(made[0], torch.full((1, 3, 64, 64), 0.5))

    assert first.after(kernel=3) == find_receptive_field(made, torch.full((1, 3, 64, 64), 0.5))
