"""Swapped regions: what is in the pixels, what the network says of them, and that each is needed."""

import pytest
import torch
from counterfactual_cases import counterfactual_case, each_explainer
from toys import Cells, batch_of, labeled, noise, toy, wine

from explainkit.questions.region_swap import MOST
from explainkit.questions.swap_cells import GRID, SHIFT
from explainkit.testing import fitted_example, tiny_dataset


def shift_and_mirror(image, shift, mirrored):
    """`image` (3, H, W) in its mirror and moved by `shift` cells, its edges repeated."""
    height, width = image.shape[1:]
    down, right = (round(shift[axis] * (height, width)[axis] / GRID[axis]) for axis in range(2))
    image = image.flip(2) if mirrored else image
    rows = [min(max(y - down, 0), height - 1) for y in range(height)]
    columns = [min(max(x - right, 0), width - 1) for x in range(width)]
    return image[:, rows][:, :, columns]


def swap_cells(image, source, cells):
    """`image` with the cells (h, w) of `source`, cell by cell."""
    h, w = cells.shape
    side_y, side_x = image.shape[1] // h, image.shape[2] // w
    swapped = image.clone()
    for y, x in cells.nonzero().tolist():
        rows, columns = slice(y * side_y, (y + 1) * side_y), slice(x * side_x, (x + 1) * side_x)
        swapped[:, rows, columns] = source[:, rows, columns]
    return swapped


# pixels


@each_explainer
def test_the_source_is_the_image_of_the_distractors_shifted_and_mirrored(name):
    _, distractors, _, counterfactuals = counterfactual_case(name)
    swaps = counterfactuals.edits["region-swap"]

    for n in swaps.success.nonzero()[:, 0].tolist():
        exemplar = int(swaps.exemplars[n])
        assert torch.equal(
            swaps.sources[n],
            shift_and_mirror(distractors.images[exemplar], swaps.shifts[n].tolist(), swaps.mirrored[n]),
        )
        assert (
            distractors.labels[exemplar] == counterfactuals.targets[n]
            and swaps.shifts[n].abs().max() <= SHIFT
        )


@each_explainer
def test_pixels_are_the_sources_inside_and_untouched_outside(name):
    _, _, images, counterfactuals = counterfactual_case(name)
    swaps = counterfactuals.edits["region-swap"]

    for n in range(len(images)):
        expected = swap_cells(images[n], swaps.sources[n], swaps.regions[n])
        assert torch.equal(swaps.images[n], expected)


def test_cells_that_do_not_divide_an_image_are_laid_the_same():
    explainer = toy(Cells(side=5))
    distractors, images = labeled(explainer, noise(40, size=35)), noise(6, size=35, seed=3)
    swaps = explainer.counterfactual(images, distractors=distractors).edits["region-swap"]
    inside = torch.nn.functional.interpolate(swaps.regions[:, None].float(), size=(35, 35))[:, 0] > 0

    changed = (swaps.images != images).any(1)
    assert not (changed & ~inside).any() and torch.equal(
        swaps.images, torch.where(inside[:, None], swaps.sources, images)
    )


# what the network says


@each_explainer
def test_success_is_what_the_network_says(name):
    explainer, _, _, counterfactuals = counterfactual_case(name)
    swaps = counterfactuals.edits["region-swap"]

    logits = explainer.predict(swaps.images)
    assert torch.equal(logits.argmax(1) == counterfactuals.targets, counterfactuals.success)
    assert torch.allclose(logits, swaps.logits, rtol=1e-4, atol=1e-5)
    assert counterfactuals.success.any()


@each_explainer
def test_no_cell_is_swapped_that_is_not_needed(name):
    explainer, _, images, counterfactuals = counterfactual_case(name)
    swaps = counterfactuals.edits["region-swap"]

    for n in swaps.success.nonzero()[:, 0].tolist():
        without = []
        for y, x in swaps.regions[n].nonzero().tolist():
            cells = swaps.regions[n].clone()
            cells[y, x] = False
            without.append(swap_cells(images[n], swaps.sources[n], cells))
        assert (explainer.predict(torch.stack(without)).argmax(1) != counterfactuals.targets[n]).all()


@each_explainer
def test_at_most_half_of_the_cells_are_swapped(name):
    *_, counterfactuals = counterfactual_case(name)
    swaps = counterfactuals.edits["region-swap"]

    assert (swaps.size <= MOST * 64).all() and (swaps.size > 0)[swaps.success].all()


@each_explainer
def test_what_fails_is_left_as_it_was_and_says_so(name):
    *_, images, counterfactuals = counterfactual_case(name)
    swaps = counterfactuals.edits["region-swap"]

    for n in (~swaps.success).nonzero()[:, 0].tolist():
        assert torch.equal(swaps.images[n], images[n])
        assert swaps.exemplars[n] == -1 and swaps.size[n] == 0 and not swaps.mirrored[n]
        assert counterfactuals[n].facts()["success"] is False


def test_where_no_swap_does_all_are_reported_as_failures():
    network = Cells()
    with torch.no_grad():
        network.head.bias[0] = 100.0  # always an ant
    explainer = toy(network)
    images = noise(5)
    distractors = batch_of(noise(12), torch.arange(12) % 3)
    counterfactuals = explainer.counterfactual(images, "bee", distractors=distractors)
    swaps = counterfactuals.edits["region-swap"]

    assert not counterfactuals.success.any() and torch.equal(swaps.images, images)
    assert (swaps.exemplars == -1).all() and (swaps.logits.argmax(1) == 0).all()


@each_explainer
def test_an_image_of_the_target_is_left_alone(name):
    explainer, distractors, images, _ = counterfactual_case(name)
    predictions = explainer.predict(images).argmax(1)
    counterfactuals = explainer.counterfactual(images, predictions, distractors=distractors)
    swaps = counterfactuals.edits["region-swap"]

    assert counterfactuals.success.all() and torch.equal(swaps.images, images)
    assert not swaps.regions.any() and (swaps.exemplars == -1).all()
    assert not counterfactuals.edits["score-edit"].size.any()
    assert all("already" in counterfactual.sentence() for counterfactual in counterfactuals)


# cells that know nothing of each other


def fewest_by_brute_force(explainer, image, source, target, predicted, valid):
    """How few cells of `source` do, in any choice of them: each cell's margin is computed from pixels."""
    cells = valid.nonzero().tolist()
    single = torch.zeros(len(cells), *GRID, dtype=torch.bool)
    for index, (y, x) in enumerate(cells):
        single[index, y, x] = True
    with torch.no_grad():
        logits = explainer.network(torch.stack([swap_cells(image, source, cell) for cell in single]).double())
        before = explainer.network(image[None].double())[0]
    gap = (before[predicted] - before[target]).item()
    gains = (logits[:, target] - logits[:, predicted] + gap).tolist()
    total = 0.0
    for count, gain in enumerate(sorted((gain for gain in gains if gain > 0), reverse=True), 1):
        total += gain
        if total > gap:
            return count
    return len(cells) + 1


@pytest.mark.parametrize("reference", [0.0, 0.2])
def test_where_cells_are_independent_the_predicted_size_is_the_least_that_brute_force_finds(reference):
    network = Cells(classes=2)
    explainer = toy(network, classes=("ant", "bee"), reference=reference)
    with torch.no_grad():
        network.head.bias -= explainer.predict(noise(60)).mean(0)
    images, pool = noise(4, seed=1), noise(8)
    distractors = labeled(explainer, pool)
    counterfactuals = explainer.counterfactual(images, distractors=distractors)
    swaps = counterfactuals.edits["region-swap"]
    network.double()
    index = torch.arange(8)

    for n in range(4):
        target, predicted = int(counterfactuals.targets[n]), int(counterfactuals.predictions[n])
        best = {}
        for exemplar in (distractors.labels == target).nonzero()[:, 0].tolist():
            for mirrored in (False, True):
                for down in range(-SHIFT, SHIFT + 1):
                    for right in range(-SHIFT, SHIFT + 1):
                        source = shift_and_mirror(pool[exemplar], (down, right), mirrored)
                        inside = ((index >= down) & (index < 8 + down))[:, None]
                        inside = inside & ((index >= right) & (index < 8 + right))
                        key = (exemplar, mirrored, down, right)
                        best[key] = fewest_by_brute_force(
                            explainer, images[n], source, target, predicted, inside
                        )
        chosen = (int(swaps.exemplars[n]), bool(swaps.mirrored[n]), *swaps.shifts[n].tolist())
        assert counterfactuals.success[n]
        assert best[chosen] == swaps.predicted_size[n] == swaps.size[n] == min(best.values())


def test_where_cells_are_independent_pixels_agree_at_once():
    network = Cells(classes=2)
    explainer = toy(network, classes=("ant", "bee"))
    with torch.no_grad():
        network.head.bias -= explainer.predict(noise(60)).mean(0)
    distractors = labeled(explainer, noise(40))
    swaps = explainer.counterfactual(noise(12, seed=4), distractors=distractors).edits["region-swap"]

    assert swaps.success.all() and torch.equal(swaps.predicted_size, swaps.size)
    # each of four candidates once, then each of its cells once, twice where any was undone, then the result
    assert swaps.num_forwards <= 12 * (4 + 4 * 2 * int(swaps.predicted_size.max() + 2) + 1)


# tables


def test_columns_of_a_table_are_swapped():
    explainer, dataset = wine()
    rows = dataset.test.batch(torch.arange(12))
    counterfactuals = explainer.counterfactual(rows, distractors=dataset)
    swaps = counterfactuals.edits["region-swap"]

    assert swaps.success.any() and swaps.regions.shape == (12, 1, 13)
    for n in range(12):
        if not swaps.success[n]:
            assert torch.equal(swaps.images[n], rows.images[n])
            continue
        exemplar = dataset.train.batch(swaps.exemplars[n][None])
        columns = swaps.regions[n, 0]
        assert exemplar.labels[0] == counterfactuals.targets[n] and torch.equal(
            swaps.sources[n], exemplar.images[0]
        )
        assert torch.equal(swaps.images[n], torch.where(columns, exemplar.images[0], rows.images[n]))
        assert columns.sum() <= 6 and not swaps.mirrored[n] and not swaps.shifts[n].any()
        for column in columns.nonzero()[:, 0].tolist():
            without = columns.clone()
            without[column] = False
            row = torch.where(without, exemplar.images[0], rows.images[n])
            assert explainer.predict(row[None]).argmax() != counterfactuals.targets[n]
        assert "column" in counterfactuals[n].sentence() and "row" in counterfactuals[n].sentence()
    counterfactuals[0].figure().canvas.draw()


def test_fitted_examples_swap_in_their_own_training_images():
    images = tiny_dataset().test.batch(torch.arange(6))
    counterfactuals = fitted_example("protopnet").counterfactual(images)

    assert counterfactuals.success.any()
    for n in counterfactuals.success.nonzero()[:, 0].tolist():
        assert (
            tiny_dataset().train.labels[counterfactuals.edits["region-swap"].exemplars[n]]
            == counterfactuals.targets[n]
        )
