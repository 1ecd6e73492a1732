"""Leak is what the formulas say, and is found where a network looks elsewhere, and not where it does not."""

import math

import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from leak_cases import example, noise_dataset, patch_cam, slow_cell_pixels

import explainkit as ek
from explainkit.errors import InputError
from explainkit.explanations.leak import Leak
from explainkit.explanations.spatial import paint, touched_pixels
from explainkit.questions.leak import cell_leak, leak_of, region_leak
from explainkit.questions.replacements import donors
from explainkit.testing import tiny_dataset


def literal_region_leak(explainer, explained, other, unit):
    """Region leak of one unit in the one image of `explained`, once the outside is that of image `other`."""
    units, size = explained.units, explained.images.shape[2:]
    reference = 0.0 if units.reference is None else units.reference[unit].item()

    def facts(explanations):
        group = 0 if units.group is None else int(units.group[unit])
        box = (
            [0, 0, size[1], size[0]] if explanations.boxes is None else explanations.boxes[0, group].tolist()
        )
        unit_map = explanations.maps[torch.tensor([0]), torch.tensor([unit])][0].double()
        return explanations.scores[0, unit].item() - reference, unit_map, box

    score, unit_map, box = facts(explained)
    pixels_of = slow_cell_pixels(box, unit_map.shape, size)
    share = 0.85 if units.pooling_of(unit) == "max" else 0.5
    region = {
        pixel
        for cell, pixels in pixels_of.items()
        if unit_map[cell] >= unit_map.max() * share
        for pixel in pixels
    }
    mixed = other.clone()
    for y, x in region:
        mixed[:, y, x] = explained.images[0, :, y, x]
    after = explainer.explain(mixed[None], explained.targets)
    new_score, new_map, new_box = facts(after)
    if units.pooling_of(unit) == "max":
        return max(0.0, score - new_score) / abs(score)

    def outside(score, unit_map, box):
        total, mass = unit_map.sum().item(), 0.0
        for cell, pixels in slow_cell_pixels(box, unit_map.shape, size).items():
            share = unit_map[cell].item() / total if total else 0.0
            mass += share * sum(part for pixel, part in pixels.items() if pixel not in region)
        return score * mass

    change = (new_score - score) - (outside(new_score, new_map, new_box) - outside(score, unit_map, box))
    return abs(change) / abs(score)


@pytest.mark.parametrize("name", ["cam", "protopnet", "ra-cnn"])
def test_region_leak_is_the_formula_pixel_by_pixel(name) -> None:
    explainer = example(name)
    images = tiny_dataset().test.batch(torch.arange(4)).images
    explained, others = explainer.explain(images[:2]), images[2:]
    unit = explained.contributions.abs().topk(2).indices

    leak = region_leak(
        lambda mixed, rows: explainer.explain(mixed, explained.targets[rows]), explained, others[None], unit
    )

    for image in range(2):
        for index, number in enumerate(unit[image].tolist()):
            expected = literal_region_leak(explainer, explained[[image]], others[image], number)
            assert leak[0, image, index].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_scores_count_from_their_references() -> None:
    explainer = patch_cam(share=1.0, reference=torch.full((8,), 0.1))
    images = noise_dataset().test.batch(torch.arange(4)).images
    explained = explainer.explain(images[:1])
    unit = explained.contributions.abs().topk(2).indices

    leak = region_leak(lambda mixed, rows: explainer.explain(mixed), explained, images[None, 1:2], unit)

    expected = [literal_region_leak(explainer, explained, images[1], number) for number in unit[0].tolist()]
    assert leak[0, 0].tolist() == pytest.approx(expected, rel=1e-4)


def test_cell_leak_is_the_formula_cell_by_cell() -> None:
    explainer = patch_cam(share=0.5)
    images = noise_dataset().test.batch(torch.arange(4)).images
    explained, cells = explainer.explain(images[:2]), torch.tensor([[[0, 1], [3, 2]], [[2, 2], [1, 0]]])

    leak = cell_leak(lambda mixed, rows: explainer.explain(mixed), explained, images[None, 2:], cells)

    for image in range(2):
        for index, (row, column) in enumerate(cells[image].tolist()):
            mixed = images[2 + image].clone()
            inside = slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4)
            mixed[:, inside[0], inside[1]] = images[image][:, inside[0], inside[1]]
            before = explained.maps[image, :, row, column]
            after = explainer.explain(mixed[None]).maps[0, :, row, column]
            expected = sum(abs(a - b) for a, b in zip(before.tolist(), after.tolist(), strict=True))
            assert leak[0, image, index].item() == pytest.approx(expected / before.sum().item(), rel=1e-4)


def test_a_network_of_patches_does_not_leak() -> None:
    leak = ek.measure_leak(patch_cam(), noise_dataset())

    assert leak.region.nan_to_num(0).max() < 1e-5 and leak.cell.nan_to_num(0).max() < 1e-5


def test_a_network_that_takes_the_mean_of_the_image_off_leaks() -> None:
    leak = ek.measure_leak(patch_cam(share=1.0), noise_dataset())

    assert leak.region_leak.nanmean() > 0.01 and leak.cell_leak.nanmean() > 0.001


def test_the_outside_as_it_was_is_no_leak() -> None:
    explainer = example("cam")
    images = tiny_dataset().test.batch(torch.arange(3)).images
    explained = explainer.explain(images)
    unit = explained.contributions.abs().topk(3).indices

    leak = region_leak(
        lambda mixed, rows: explainer.explain(mixed, explained.targets[rows]), explained, images[None], unit
    )

    assert leak.abs().max() < 1e-5


def test_what_is_measured_of_an_image_does_not_depend_on_the_others() -> None:
    explainer, dataset = example("cam"), tiny_dataset()

    few, many = (leak_of(explainer, dataset, "test", torch.arange(count)) for count in (3, 24))

    assert torch.equal(few.unit, many.unit[:3]) and torch.equal(few.cells, many.cells[:3])
    torch.testing.assert_close(few.region, many.region[:, :3], rtol=1e-3, atol=1e-6, equal_nan=True)


def test_a_unit_without_a_place_and_an_image_without_another_of_its_class_are_not_measured() -> None:
    dataset = noise_dataset(3)  # two of the first class, one of the second

    leak = leak_of(patch_cam(dead=7), dataset, "test", torch.arange(3), units=2)

    assert leak.region[0, 1].isnan().all() and not leak.region[1, 1, 0].isnan()
    assert leak.region[..., 1].isnan().all()
    assert leak.counts.sum() == 2 and leak.by_unit.isnan().sum() == 7


def test_what_was_measured_is_kept_with_the_units_and_saved(tmp_path) -> None:
    model, dataset = example("cam"), tiny_dataset()

    leak = ek.measure_leak(model, dataset, images=4)
    loaded = ek.load(ek.save(model, tmp_path / "model"))

    assert torch.equal(model.units.leak.isnan(), leak.counts == 0)
    torch.testing.assert_close(loaded.units.leak, leak.by_unit.float(), equal_nan=True)
    assert "0.000" in leak.table() and Leak.from_json(leak.to_json()).table() == leak.table()


def test_measuring_for_a_metric_leaves_the_units_as_they_are() -> None:
    model = example("cam")
    before = model.units

    leak_of(model, tiny_dataset(), "test", torch.arange(2))

    assert model.units is before


@pytest.mark.parametrize(
    ("name", "region", "cell"),
    [
        ("captum/saliency", "after it was made", "after it was made"),
        ("senn", "no places", "no places"),
        ("ra-cnn", None, "boxes"),
    ],
)
def test_what_cannot_be_measured_has_a_reason(name, region, cell) -> None:
    leak = ek.measure_leak(example(name), tiny_dataset(), images=2)

    assert cell in leak.cell_reason
    assert leak.region_reason is None if region is None else region in leak.region_reason


def test_without_a_claim_there_is_no_cell_leak() -> None:
    leak = ek.measure_leak(patch_cam(share=1.0, claim=False), noise_dataset(), images=2)

    assert leak.cell is None and "claims no receptive field" in leak.cell_reason


def test_the_network_runs_as_often_as_is_said() -> None:
    from explainkit.metrics.cost import counting

    model, ids = example("cam"), torch.arange(5)
    images = tiny_dataset().test.batch(ids).images
    with counting(model.network, images[:1]) as counter:
        leak = leak_of(model, tiny_dataset(), "test", ids)

    assert counter.passes.forward == leak.passes * len(ids) + 1  # one to see what there is


def test_wrong_arguments_are_refused_in_words() -> None:
    model, dataset = patch_cam(), noise_dataset()
    for settings_ in ({"images": 0}, {"units": 0}, {"images": 2.5}):
        with pytest.raises(InputError, match="whole number"):
            ek.measure_leak(model, dataset, **settings_)
    with pytest.raises(InputError, match="classes"):
        ek.measure_leak(model, tiny_dataset())
    few_maps = model.explain(dataset.test.batch(torch.arange(2)), maps=1)
    with pytest.raises(InputError, match="all maps"):
        leak_of(model, dataset, "test", torch.arange(2), explanations=few_maps)
    leak = ek.measure_leak(model, dataset, images=2)
    with pytest.raises(InputError, match="units that were measured"):
        leak.apply(example("protopnet").units)
    with pytest.raises(InputError, match="both or neither"):
        evolve(leak, region_reason="none")
    with pytest.raises(InputError, match="Expected region"):
        evolve(leak, region=leak.region[:1])


@settings(max_examples=30, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    seed=st.integers(0, 99),
    same_class=st.booleans(),
)
def test_donors_are_other_images_of_the_class_that_is_asked_for(labels, seed, same_class) -> None:
    classes, ids = torch.tensor(labels), torch.arange(len(labels))

    chosen = donors(classes, ids, same_class=same_class, seed=seed)

    for image, donor in enumerate(chosen.tolist()):
        wanted = [
            other
            for other in range(len(labels))
            if other != image and (labels[other] == labels[image]) == same_class
        ]
        assert donor in wanted if wanted else donor == -1
    reversed_ = donors(classes, ids.flip(0), same_class=same_class, seed=seed)
    assert torch.equal(reversed_.flip(0), chosen)


def test_every_image_that_can_be_a_donor_becomes_one_in_time() -> None:
    labels, ids = torch.tensor([0, 1, 0, 1, 0]), torch.arange(5)

    chosen = torch.stack([donors(labels, ids, same_class=True, seed=seed) for seed in range(60)])

    assert set(chosen[:, 0].tolist()) == {2, 4} and set(chosen[:, 1].tolist()) == {3}


@settings(max_examples=30, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    corner=st.tuples(st.floats(0, 4), st.floats(0, 4)),
    sides=st.tuples(st.floats(1, 5), st.floats(1, 5)),
    seed=st.integers(0, 99),
)
def test_paint_keeps_sums_and_touches_what_it_paints(grid, corner, sides, seed) -> None:
    maps = torch.rand(1, *grid, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    box = torch.tensor([[*corner, corner[0] + sides[0], corner[1] + sides[1]]], dtype=torch.float64)

    painted = paint(maps, box, (10, 9))[0]
    touched = touched_pixels(maps >= maps.amax() / 2, box, (10, 9))[0]

    expected, region = torch.zeros_like(painted), torch.zeros_like(touched)
    for cell, pixels in slow_cell_pixels(box[0].tolist(), grid, (10, 9)).items():
        for pixel, share in pixels.items():
            expected[pixel] += maps[0][cell] * share
            region[pixel] |= bool(maps[0][cell] >= maps.max() / 2)
    assert math.isclose(painted.sum().item(), maps.sum().item(), rel_tol=1e-9)
    torch.testing.assert_close(painted, expected, rtol=0, atol=1e-4)
    assert torch.equal(touched, region)
