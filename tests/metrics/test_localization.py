import pytest
import torch

from explainkit.metrics import ExplainerOutput
from explainkit.metrics.baselines import area
from explainkit.metrics.localization import mass_within, object_mass, pointing, pointing_game


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


def test_data_without_masks_give_the_reason(small, plain) -> None:
    from attrs import evolve

    context = evolve(small.context(2), dataset=plain, split="test")
    row = ExplainerOutput(context=context, name="made", saliency_map=torch.rand(2, 32, 32))

    assert pointing(row).reason == "tiny has no part masks."
    assert object_mass(row).reason == "tiny has no mask of the whole object."
