"""Swapped regions: what is in the pixels, what the network says of them, and that each is needed."""

from functools import cache

import pytest
import torch
from attrs import evolve
from toys import Cells, balanced, batch_of, data_of, labelled, noise, toy, wine

from explainkit.data.images import ArraySplit, Batch
from explainkit.errors import InputError
from explainkit.questions.exchange import EXEMPLARS, GRID, MOST, SHIFT
from explainkit.testing import specimen, tiny_data

NAMES = ("cells", "varying", "cam", "protopnet", "senn", "ccnn", "ra-cnn")
SPLITS = ("train", "validation", "test")
every = pytest.mark.parametrize("name", NAMES)


@cache
def asked(name):
    """An explainer, its bank, and what would change images for a class that is not theirs."""
    explainer = balanced(name)
    bank, images = labelled(explainer, noise(60)), noise(10, seed=1)
    return explainer, bank, images, explainer.counterfactual(images, bank=bank)


def laid_over(image, shift, mirrored):
    """`image` (3, H, W) in its mirror and moved by `shift` cells, its edges repeated."""
    height, width = image.shape[1:]
    down, right = (round(shift[axis] * (height, width)[axis] / GRID[axis]) for axis in range(2))
    image = image.flip(2) if mirrored else image
    rows = [min(max(y - down, 0), height - 1) for y in range(height)]
    columns = [min(max(x - right, 0), width - 1) for x in range(width)]
    return image[:, rows][:, :, columns]


def mixed(image, source, cells):
    """`image` with the cells (h, w) of `source`, cell by cell."""
    h, w = cells.shape
    side_y, side_x = image.shape[1] // h, image.shape[2] // w
    made = image.clone()
    for y, x in cells.nonzero().tolist():
        rows, columns = slice(y * side_y, (y + 1) * side_y), slice(x * side_x, (x + 1) * side_x)
        made[:, rows, columns] = source[:, rows, columns]
    return made


# pixels


@every
def test_the_source_is_the_image_of_the_bank_shifted_and_mirrored(name):
    _, bank, _, told = asked(name)
    swapped = told.realised

    for n in swapped.success.nonzero()[:, 0].tolist():
        of = int(swapped.exemplars[n])
        assert torch.equal(
            swapped.sources[n], laid_over(bank.images[of], swapped.shifts[n].tolist(), swapped.mirrored[n])
        )
        assert bank.labels[of] == told.targets[n] and swapped.shifts[n].abs().max() <= SHIFT


@every
def test_pixels_are_the_sources_inside_and_untouched_outside(name):
    _, _, images, told = asked(name)
    swapped = told.realised

    for n in range(len(images)):
        expected = mixed(images[n], swapped.sources[n], swapped.regions[n])
        assert torch.equal(swapped.images[n], expected)


def test_cells_that_do_not_divide_an_image_are_laid_the_same():
    explainer = toy(Cells(side=5))
    bank, images = labelled(explainer, noise(40, size=35)), noise(6, size=35, seed=3)
    told = explainer.counterfactual(images, bank=bank).realised
    inside = torch.nn.functional.interpolate(told.regions[:, None].float(), size=(35, 35))[:, 0] > 0

    changed = (told.images != images).any(1)
    assert not (changed & ~inside).any() and torch.equal(
        told.images, torch.where(inside[:, None], told.sources, images)
    )


# what the network says


@every
def test_success_is_what_the_network_says(name):
    explainer, _, _, told = asked(name)

    logits = explainer.predict(told.realised.images)
    assert torch.equal(logits.argmax(1) == told.targets, told.success)
    assert torch.allclose(logits, told.realised.logits, rtol=1e-4, atol=1e-5)
    assert told.success.any()


@every
def test_no_cell_is_swapped_that_is_not_needed(name):
    explainer, _, images, told = asked(name)
    swapped = told.realised

    for n in swapped.success.nonzero()[:, 0].tolist():
        without = []
        for y, x in swapped.regions[n].nonzero().tolist():
            cells = swapped.regions[n].clone()
            cells[y, x] = False
            without.append(mixed(images[n], swapped.sources[n], cells))
        assert (explainer.predict(torch.stack(without)).argmax(1) != told.targets[n]).all()


@every
def test_at_most_half_of_the_cells_are_swapped(name):
    *_, told = asked(name)

    assert (told.realised.size <= MOST * 64).all() and (told.realised.size > 0)[told.success].all()


@every
def test_what_fails_is_left_as_it_was_and_says_so(name):
    *_, images, told = asked(name)
    swapped = told.realised

    for n in (~swapped.success).nonzero()[:, 0].tolist():
        assert torch.equal(swapped.images[n], images[n])
        assert swapped.exemplars[n] == -1 and swapped.size[n] == 0 and not swapped.mirrored[n]
        assert told[n].facts()["success"] is False


def test_where_no_swap_does_all_are_reported_as_failures():
    network = Cells()
    with torch.no_grad():
        network.head.bias[0] = 100.0  # always an ant
    explainer = toy(network)
    images = noise(5)
    bank = batch_of(noise(12), torch.arange(12) % 3)
    told = explainer.counterfactual(images, "bee", bank=bank)

    assert not told.success.any() and torch.equal(told.realised.images, images)
    assert (told.realised.exemplars == -1).all() and (told.realised.logits.argmax(1) == 0).all()


@every
def test_an_image_of_the_target_is_left_alone(name):
    explainer, bank, images, _ = asked(name)
    told = explainer.counterfactual(images, explainer.predict(images).argmax(1), bank=bank)

    assert told.success.all() and torch.equal(told.realised.images, images)
    assert not told.realised.regions.any() and (told.realised.exemplars == -1).all()
    assert not told.edit.size.any() and all("already" in item.sentence() for item in told)


# cells that know nothing of each other


def brute_force(explainer, image, source, target, predicted, valid):
    """How few cells of `source` do, in any choice of them: each cell's margin is asked for in pixels."""
    cells = valid.nonzero().tolist()
    one = torch.zeros(len(cells), *GRID, dtype=torch.bool)
    for place, (y, x) in enumerate(cells):
        one[place, y, x] = True
    with torch.no_grad():
        logits = explainer.network(torch.stack([mixed(image, source, some) for some in one]).double())
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
def test_where_cells_are_independent_the_promise_is_the_least_that_brute_force_finds(reference):
    network = Cells(classes=2)
    explainer = toy(network, classes=("ant", "bee"), reference=reference)
    with torch.no_grad():
        network.head.bias -= explainer.predict(noise(60)).mean(0)
    images, pool = noise(4, seed=1), noise(8)
    bank = labelled(explainer, pool)
    told = explainer.counterfactual(images, bank=bank)
    network.double()
    index = torch.arange(8)

    for n in range(4):
        target, predicted = int(told.targets[n]), int(told.predictions[n])
        best = {}
        for of in (bank.labels == target).nonzero()[:, 0].tolist():
            for mirrored in (False, True):
                for down in range(-SHIFT, SHIFT + 1):
                    for right in range(-SHIFT, SHIFT + 1):
                        source = laid_over(pool[of], (down, right), mirrored)
                        inside = ((index >= down) & (index < 8 + down))[:, None]
                        inside = inside & ((index >= right) & (index < 8 + right))
                        key = (of, mirrored, down, right)
                        best[key] = brute_force(explainer, images[n], source, target, predicted, inside)
        chosen = (int(told.realised.exemplars[n]), bool(told.realised.mirrored[n]),
                  *told.realised.shifts[n].tolist())  # fmt: skip
        assert told.success[n]
        assert best[chosen] == told.realised.promised[n] == told.realised.size[n] == min(best.values())


def test_where_cells_are_independent_pixels_agree_at_once():
    network = Cells(classes=2)
    explainer = toy(network, classes=("ant", "bee"))
    with torch.no_grad():
        network.head.bias -= explainer.predict(noise(60)).mean(0)
    told = explainer.counterfactual(noise(12, seed=4), bank=labelled(explainer, noise(40))).realised

    assert told.success.all() and torch.equal(told.promised, told.size)
    # each of four candidates once, then each of its cells once, twice where any was undone, then the result
    assert told.passes <= 12 * (4 + 4 * 2 * int(told.promised.max() + 2) + 1)


# banks


@every
def test_a_bank_that_has_no_known_image_of_the_target_is_a_failure_that_is_reported(name):
    explainer, bank, images, _ = asked(name)
    predicted = explainer.predict(images).argmax(1)
    keep = (bank.labels == 0).nonzero()[:, 0]
    others = Batch(images=bank.images[keep], labels=bank.labels[keep], ids=torch.arange(len(keep)))
    wrong = Batch(images=others.images, labels=torch.ones_like(others.labels), ids=others.ids)

    for some in (others, wrong):
        told = explainer.counterfactual(images, 1, bank=some)
        assert torch.equal(told.success, predicted == 1)
        assert torch.equal(told.realised.images, images) and (told.realised.exemplars == -1).all()
        assert all(item.sentence() and item.facts() and item.figure() for item in told)


def test_a_bank_of_images_of_another_size_is_refused_in_words():
    explainer, _, images, _ = asked("cells")

    with pytest.raises(InputError, match=r"\(3, 32, 32\).*\(3, 64, 64\)"):
        explainer.counterfactual(images, bank=labelled(explainer, noise(6, size=64)))
    with pytest.raises(InputError, match="wine"):
        explainer.counterfactual(images, bank=wine()[1])


def test_no_bank_is_refused_in_words():
    explainer, _, images, _ = asked("cells")

    with pytest.raises(InputError, match="bank=data"):
        explainer.counterfactual(images)


def test_a_bank_of_other_classes_is_refused_in_words():
    explainer, bank, images, _ = asked("cells")

    with pytest.raises(InputError, match="dog"):
        explainer.counterfactual(
            images, bank=data_of(bank.images, bank.labels, classes=("dog", "emu", "fox"))
        )


def test_a_bank_as_data_and_as_a_batch_say_the_same():
    explainer, bank, images, _ = asked("cells")
    data = data_of(bank.images, bank.labels)
    whole = data.train.batch(torch.arange(60))
    one, other = explainer.counterfactual(images, bank=data), explainer.counterfactual(images, bank=whole)

    assert torch.equal(one.realised.images, other.realised.images)
    assert torch.equal(one.realised.exemplars, other.realised.exemplars)
    assert torch.equal(one.edit.after, other.edit.after)


def test_only_some_images_of_each_class_are_fetched():
    fetched = []

    class Watched(ArraySplit):
        def batch(self, ids):
            fetched.append(len(ids))
            return super().batch(ids)

    explainer = toy()
    explainer.units = evolve(explainer.describe(explainer.network), range=torch.rand(2, 3, 6).sort(0).values)
    split = Watched(images=(noise(300) * 255).byte(), labels=torch.arange(300) % 3)
    bank = evolve(data_of(noise(3), torch.arange(3)), splits=dict.fromkeys(SPLITS, split))
    explainer.counterfactual(noise(20, seed=2), torch.arange(20) % 3, bank=bank)

    assert fetched == [3 * 2 * EXEMPLARS]


# the rest of the world


@every
def test_asking_again_says_the_same_and_leaves_all_as_it_was(name):
    explainer, bank, images, first = asked(name)
    network = explainer.network
    network.train()
    marked = next(network.parameters())
    marked.grad = torch.ones_like(marked)
    state = [value.clone() for value in network.state_dict().values()]
    modes, kept = [module.training for module in network.modules()], images.clone()
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    again = explainer.counterfactual(images, bank=bank)

    assert torch.equal(torch.rand(2), expected)
    assert [module.training for module in network.modules()] == modes and (marked.grad == 1).all()
    assert sum(parameter.grad is not None for parameter in network.parameters()) == 1
    assert all(map(torch.equal, state, network.state_dict().values())) and torch.equal(images, kept)
    marked.grad = None
    network.eval()
    for field in ("images", "regions", "success", "logits", "exemplars", "shifts", "mirrored", "promised"):
        assert torch.equal(getattr(again.realised, field), getattr(first.realised, field)), field
    assert torch.equal(again.edit.after, first.edit.after)


@pytest.mark.parametrize("name", ["cells", "senn", "ra-cnn"])
def test_asking_in_inference_mode_leaks_no_inference_tensor(name):
    explainer, bank, images, first = asked(name)
    with torch.inference_mode():
        told = explainer.counterfactual(images + 0, bank=bank)

    for value in (told.realised.images, told.realised.logits, told.edit.after, told.edit.logits):
        assert not value.is_inference() and not value.requires_grad
    assert torch.equal(told.success, first.success)


@pytest.mark.parametrize("name", ["cells", "cam", "ra-cnn"])
def test_many_images_are_answered_as_each_alone(name):
    explainer, bank, _, _ = asked(name)
    images = noise(19, seed=6)
    together = explainer.counterfactual(images, bank=bank)
    rest = explainer.counterfactual(images[15:], together.targets[15:], bank=bank, max_batch=2)

    assert torch.equal(together.success[15:], rest.success)
    assert torch.equal(together.realised.size[15:], rest.realised.size)
    assert torch.equal(together.realised.exemplars[15:], rest.realised.exemplars)


# tables


def test_columns_of_a_table_are_swapped():
    explainer, data = wine()
    rows = data.test.batch(torch.arange(12))
    told = explainer.counterfactual(rows, bank=data)
    swapped = told.realised

    assert swapped.success.any() and swapped.regions.shape == (12, 1, 13)
    for n in range(12):
        if not swapped.success[n]:
            assert torch.equal(swapped.images[n], rows.images[n])
            continue
        of = data.train.batch(swapped.exemplars[n][None])
        columns = swapped.regions[n, 0]
        assert of.labels[0] == told.targets[n] and torch.equal(swapped.sources[n], of.images[0])
        assert torch.equal(swapped.images[n], torch.where(columns, of.images[0], rows.images[n]))
        assert columns.sum() <= 6 and not swapped.mirrored[n] and not swapped.shifts[n].any()
        for column in columns.nonzero()[:, 0].tolist():
            without = columns.clone()
            without[column] = False
            row = torch.where(without, of.images[0], rows.images[n])
            assert explainer.predict(row[None]).argmax() != told.targets[n]
        assert "column" in told[n].sentence() and "row" in told[n].sentence()
    told[0].figure().canvas.draw()


def test_specimens_know_their_own_training_images():
    images = tiny_data().test.batch(torch.arange(6))
    told = specimen("protopnet").counterfactual(images)

    assert told.success.any()
    for n in told.success.nonzero()[:, 0].tolist():
        assert tiny_data().train.labels[told.realised.exemplars[n]] == told.targets[n]
