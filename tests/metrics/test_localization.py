import pytest
import torch

from explainkit.metrics import ExplainerOutput
from explainkit.metrics.baselines import area
from explainkit.metrics.localization import (
    TOLERANCE,
    box_masks,
    content_heatmap,
    mass_within,
    near_boxes,
    object_mass,
    pointing,
    pointing_game,
    stochastic_pointing,
)


def test_the_strongest_pixel_is_inside_or_not() -> None:
    maps = torch.zeros(2, 4, 4)
    maps[0, 1, 1] = maps[1, 3, 3] = 1
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[:, 1, 1] = True

    assert pointing_game(maps, mask).tolist() == [1, 0]


def test_a_constant_map_points_as_well_as_chance() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, :2] = True

    assert pointing_game(torch.zeros(1, 4, 4), mask).item() == 0.5


def test_only_evidence_for_the_target_has_mass() -> None:
    maps = torch.tensor([[[3.0, 1.0], [-7.0, 0.0]], [[-1.0, -1.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, False], [True, False]]).expand(2, -1, -1)

    assert mass_within(maps, mask).tolist() == [0.75, 0]


def test_a_mask_that_explains_nothing_is_perfect(small) -> None:
    row = area(small.context())

    assert pointing(row).mean == 1 and object_mass(row).mean == pytest.approx(1)


def test_the_bird_has_a_body_beside_its_parts(small) -> None:
    context = small.context()

    assert (
        context.object_mask >= context.masks.any(1)
    ).all() and context.object_mask.sum() > context.masks.any(1).sum()


def test_a_box_holds_the_pixels_whose_centers_are_in_it() -> None:
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]])

    masks = box_masks(boxes, torch.zeros(2, 4, 5))

    literal = torch.zeros(2, 4, 5, dtype=torch.bool)
    literal[0, 2:4, 1:3] = True
    assert torch.equal(masks, literal)


@pytest.mark.parametrize("radius", [0, 1, 1.5, 3])
def test_what_is_near_a_box_is_it_dilated_by_a_disk_from_center_to_center(radius) -> None:
    """By each pixel of a box; of boxes of whole pixels and of fractions, at the edge, beyond it and empty."""
    boxes = torch.tensor(
        [[1, 2, 3, 4], [0, 0, 9, 7], [4, 3, 5, 4], [6, 5, 12, 9], [1.2, 2.6, 3.5, 4.7], [2, 2, 2, 5],
         [9, 1, 12, 3], [-3, -2, 0, 0], [3.6, 1, 4.4, 3], [-1.5, 2, 2, 9]]
    )  # fmt: skip
    maps = torch.zeros(len(boxes), 7, 9)

    literal = torch.zeros_like(maps, dtype=torch.bool)
    for n, row, column in box_masks(boxes, maps).nonzero().tolist():
        for i in range(7):
            for j in range(9):
                literal[n, i, j] |= (i - row) ** 2 + (j - column) ** 2 <= radius**2

    assert torch.equal(near_boxes(boxes, radius, maps), literal)
    assert not literal[[5, 6, 7]].any() and literal[:5].flatten(1).any(1).all()


def test_the_stochastic_pointing_game_is_what_many_draws_hit(small) -> None:
    """By 20,000 pixels drawn from each map, and the distance of each from the box."""
    context = small.context()
    saliency = torch.rand(6, 32, 32, generator=torch.Generator().manual_seed(0)) ** 8 - 0.1
    row = ExplainerOutput(context=context, name="made", saliency_map=saliency)
    values = stochastic_pointing(row).values

    generator = torch.Generator().manual_seed(1)
    drawn = saliency.clamp(min=0).flatten(1).multinomial(20_000, replacement=True, generator=generator)
    rows, columns = drawn // 32 + 0.5, drawn % 32 + 0.5
    x0, y0, x1, y1 = context.boxes[:, :, None].unbind(1)
    beside = torch.maximum(x0 + 0.5 - columns, columns - (x1 - 0.5)).clamp(min=0)
    above = torch.maximum(y0 + 0.5 - rows, rows - (y1 - 0.5)).clamp(min=0)
    hits = (beside**2 + above**2 <= (TOLERANCE * 32) ** 2).double().mean(1)

    assert (values - hits).abs().max() < 0.01


def test_the_content_heatmap_is_the_share_in_the_box_and_zero_maps_are_counted_apart(small) -> None:
    context = small.context()
    saliency = torch.rand(6, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    saliency[2] = -1
    row = ExplainerOutput(context=context, name="made", saliency_map=saliency)

    score, pointed = content_heatmap(row), stochastic_pointing(row)

    for n, (x0, y0, x1, y1) in enumerate(context.boxes.int().tolist()):
        positive = saliency[n].clamp(min=0)
        inside = positive[y0:y1, x0:x1].sum() / positive.sum()
        assert n == 2 or score.values[n].item() == pytest.approx(inside.item(), rel=1e-5)
    assert score.values[2].isnan() and score.undefined == pointed.undefined == 1
    assert (pointed.values >= score.values)[score.values.isfinite()].all()


def test_data_without_masks_give_the_reason(small, plain) -> None:
    from attrs import evolve

    context = evolve(small.context(2), dataset=plain, split="test")
    row = ExplainerOutput(context=context, name="made", saliency_map=torch.rand(2, 32, 32))

    assert pointing(row).reason == "tiny has no part masks."
    assert object_mass(row).reason == "tiny has no mask of the whole object."
    assert content_heatmap(row).reason == stochastic_pointing(row).reason == "tiny has no boxes of objects."
