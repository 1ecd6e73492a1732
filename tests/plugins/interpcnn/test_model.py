"""The sum is exact, each filter has one place or none, and without mask and loss it is a plain network."""

import pytest
import torch
from cam_networks import small_network as cam_network
from interpcnn_networks import explainer_of, fixed_network, small_network
from plugin_cases import assert_near, uniform

import explainkit as ek
from explainkit.explanations.spatial import best_cells
from explainkit.networks.receptive_field import find_receptive_field
from explainkit_interpcnn.explainer import filter_places

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("settings", [{}, {"filters": 6}, {"mask": False}])
def test_logits_are_bias_and_weights_times_means_of_masked_maps(dtype, settings):
    network, images = small_network(**settings).to(dtype), uniform(4, 3, 32, 32, dtype=dtype)

    decomposition = network.decompose(images)
    raw = network.further(network.backbone(images))

    height, width = raw.shape[2:]
    for n in range(4):
        logit = network.head.bias[1].item()
        for k in range(raw.shape[1]):
            cells = raw[n, k].flatten().tolist()
            peak = cells.index(max(cells))
            total = 0.0
            for cell, value in enumerate(cells):
                distance = abs(cell // width - peak // width) + abs(cell % width - peak % width)
                kept = max(1 - 4 * distance / (height * width) ** 0.5, 0) if network.mask else 1
                total += kept * value
            logit += network.head.weight[1, k].item() * total / (height * width)
        assert logit == pytest.approx(decomposition.logits[n, 1].item(), abs=TOLERANCE[dtype] * 10)
    assert torch.equal(network(images), decomposition.logits)


def test_sums_hold_on_many_images():
    explanations = explainer_of(small_network()).explain(uniform(300, 3, 32, 32)).check_additivity()

    largest = explanations.contributions.abs().sum(1).max().item()
    assert explanations.residual.abs().max() <= 1e-5 * max(1.0, largest)


def test_a_silent_filter_adds_nothing_and_has_no_place():
    features = torch.zeros(1, 6, 4, 4)
    features[0, 3, 1, 2] = 5

    explanations = ek.explainer("interp-cnn", network=fixed_network(features), size=(16, 16)).explain(
        torch.zeros(1, 3, 16, 16)
    )

    places = filter_places(explanations)[0]
    assert places[3].tolist() == [10, 6]  # cell (1, 2) of 4 x 4 pixels
    assert places[[0, 1, 2, 4, 5]].isnan().all()
    assert explanations.contributions[0].nonzero().flatten().tolist() == [3]


def test_every_filter_has_at_most_one_place():
    explanations = explainer_of(small_network()).explain(uniform(6, 3, 32, 32))
    maps = explanations.maps
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    peaks = best_cells(maps)

    distance = (rows - peaks[..., None, None] // 8).abs() + (columns - peaks[..., None, None] % 8).abs()

    assert not maps[distance >= 2].any()  # n / beta = 8 / 4


def test_no_image_changes_what_is_said_of_another():
    explainer, images = explainer_of(small_network()), uniform(6, 3, 32, 32)

    whole = explainer.explain(images)

    for n in range(6):
        one = explainer.explain(images[[n, 5 - n]])
        assert_near(one.contributions[0], whole.contributions[n])
        assert torch.equal(filter_places(one)[0].nan_to_num(-1), filter_places(whole)[n].nan_to_num(-1))


@pytest.mark.parametrize("filters", [None, 6])
def test_without_the_mask_it_is_the_plain_network_bit_for_bit(filters):
    network, plain = small_network(mask=False, filters=filters), cam_network(3, filters=filters)
    images = uniform(3, 3, 32, 32)

    for module in (network, plain):
        module.train()
    assert torch.equal(network(images), plain(images))
    for module in (network, plain):
        module.eval()
    assert torch.equal(network(images), plain(images))
    assert torch.equal(network.decompose(images).maps, plain.decompose(images).maps)


def test_an_object_moved_by_the_stride_moves_places_by_a_cell():
    network = small_network(backbone="local").double()
    images = torch.full((1, 3, 64, 64), 0.5, dtype=torch.float64)
    images[..., 28:34, 28:34] = uniform(3, 6, 6, dtype=torch.float64)
    with torch.no_grad():  # what no object is seen of is 0, so that the background has no place
        ground = network.backbone(torch.full_like(images, 0.5)).amax((0, 2, 3))
        network.backbone.blocks[-1].rectify = Above(ground)
    before = explainer_of(network).explain(images)
    after = explainer_of(network).explain(images.roll(4, 3))

    moved = filter_places(after) - filter_places(before)

    seen = ~moved[0, :, 0].isnan()
    assert seen.sum() > 10
    torch.testing.assert_close(moved[0, seen], torch.tensor([4.0, 0.0]).expand(int(seen.sum()), 2).to(moved))


class Above(torch.nn.Module):
    """What lies above a number for each channel."""

    def __init__(self, floor):
        super().__init__()
        self.register_buffer("floor", floor)

    def forward(self, values):
        return (values - self.floor[:, None, None] - 1e-9).clamp(min=0)


def test_covering_the_surroundings_of_a_place_changes_what_the_filter_finds_there():
    network, images = small_network(), uniform(8, 3, 32, 32)
    explanations = explainer_of(network).explain(images)
    unit = int((explanations.scores > 0).all(0).nonzero()[0, 0])
    x, y = filter_places(explanations)[:, unit].unbind(1)
    rows, columns = torch.arange(32) + 0.5, torch.arange(32) + 0.5

    near = (rows[:, None] - y[:, None, None]).abs() + (columns - x[:, None, None]).abs() <= 8
    covered = images.masked_fill(near[:, None], 0.5)

    peaks = best_cells(explanations.maps)[:, unit]
    before, after = (
        network.raw_maps(each)[:, unit].flatten(1).gather(1, peaks[:, None]) for each in (images, covered)
    )
    assert ((before - after).abs() > 1e-3).all()


def test_a_receptive_field_is_claimed_without_the_mask_alone():
    assert small_network(backbone="local").receptive_field is None
    open_network = small_network(backbone="local", mask=False)
    assert open_network.receptive_field == open_network.backbone.field
    further = small_network(backbone="local", mask=False, filters=5)
    gray = torch.full((1, 3, 64, 64), 0.5)
    assert further.receptive_field == further.backbone.field.after(kernel=3)
    assert find_receptive_field(lambda images: further.decompose(images).maps, gray) is not None


def test_cells_that_do_not_see_a_pixel_depend_on_it_through_the_strongest_cell():
    """Why no receptive field is claimed: where the strongest cell was covered, others far away are kept."""
    network, images = small_network(backbone="local"), uniform(1, 3, 64, 64)
    maps = network.decompose(images).maps[0]
    field = network.backbone.field
    changed = 0.0
    for unit in maps.flatten(1).amax(1).topk(8).indices.tolist():
        x0, y0, x1, y1 = field.box(divmod(int(maps[unit].argmax()), 16), (64, 64))
        covered = images.clone()
        covered[..., y0:y1, x0:x1] = 0.5
        is_blind = ~field.seen((16, 16), (64, 64))[..., y0:y1, x0:x1].flatten(2).any(2)
        difference = (network.decompose(covered).maps[0, unit] - maps[unit]).abs()
        raw = (network.raw_maps(covered)[0, unit] - network.raw_maps(images)[0, unit]).abs()
        assert raw[is_blind].max() < 1e-5
        changed = max(changed, difference[is_blind].max().item())

    assert changed > 0.01


def test_heads_stay_in_full_precision_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        explanations = explainer_of(small_network()).explain(uniform(4, 3, 32, 32))

    assert explanations.logits.dtype is torch.float32 and explanations.maps.dtype is torch.float32
    explanations.check_additivity()


def test_a_filter_that_is_off_is_no_part_of_the_sum():
    explainer, images = explainer_of(small_network(filters=6)), uniform(3, 3, 32, 32)
    network, kept = explainer.network, [0, 2, 3, 5]
    scores = network.outputs(images).scores[:, kept]
    expected = scores @ network.head.weight[:, kept].T + network.head.bias

    explainer.disable_units([1, 4])

    assert_near(network(images), expected)


def test_first_weights_of_the_head_are_scaled():
    assert torch.equal(small_network(head_scale=4.0).head.weight, 4 * small_network().head.weight)
