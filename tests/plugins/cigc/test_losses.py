"""The distance between maps, its gradient, and what of it is the same in any number of processes."""

from functools import partial

import pytest
import torch
from attrs import evolve
from cigc_networks import KINDS, color_batch, color_network, small_network
from plugin_cases import alone, assert_near, uniform
from torch.nn.functional import l1_loss

import explainkit as ek
from explainkit.data.types import ArraySplit
from explainkit.testing import tiny_dataset
from explainkit.training.steps import Step
from explainkit_cigc.grids import draw_grids, placed, tile
from explainkit_cigc.losses import (
    consistency_loss,
    consistency_metrics,
    grid_distance,
    inside_mass,
    truth_of,
)
from explainkit_cigc.model import grad_cam, normalized

QUADRANTS = torch.tensor([1, 3, 0])


def batch(count=8, dtype=torch.float32):
    return ek.Batch(
        images=uniform(count, 3, 16, 16, dtype=dtype), labels=torch.arange(count) % 3, ids=torch.arange(count)
    )


def literal_loss(network, given, fraction, index=0):
    """One composite and one cell after the other, in eval mode."""
    truth = truth_of(given.labels, network.head.out_features)
    grids = draw_grids(truth, given.ids, fraction, int(network.draw_seed), index)
    total = 0.0
    for m in range(len(grids)):
        rows, quadrant = grids.rows[m].tolist(), int(grids.quadrants[m])
        above = torch.cat([given.images[rows[0]], given.images[rows[1]]], 2)
        below = torch.cat([given.images[rows[2]], given.images[rows[3]]], 2)
        target = grids.targets[m : m + 1]
        maps = network.outputs(given.images[rows[quadrant]][None]).maps
        single = grad_cam(network, maps, target)[0]
        composite = grad_cam(network, network.outputs(torch.cat([above, below], 1)[None]).maps, target)[0]
        top, left = single.shape[0] * (quadrant // 2), single.shape[1] * (quadrant % 2)
        for i in range(composite.shape[0]):
            for j in range(composite.shape[1]):
                row, column = i - top, j - left
                is_inside = 0 <= row < single.shape[0] and 0 <= column < single.shape[1]
                wanted = (single[row, column] / (single.sum() + 1e-8)).item() if is_inside else 0.0
                total += abs((composite[i, j] / (composite.sum() + 1e-8)).item() - wanted)
    return total / len(grids)


@pytest.mark.parametrize(("pooling", "hidden_width"), KINDS)
def test_the_loss_is_the_mean_sum_of_differences_cell_by_cell(pooling, hidden_width):
    network, given = small_network(pooling, hidden_width).double(), batch(dtype=torch.float64)

    terms = consistency_loss(network, given, alone(given), consistency=0.7, composite_fraction=0.5)

    literal = literal_loss(network, given, 0.5)
    assert 0 <= literal <= 2
    assert terms["consistency"].item() == pytest.approx(0.7 * literal, rel=1e-10)


def test_a_map_that_stays_has_distance_0_and_one_that_leaves_altogether_2():
    single, elsewhere = normalized(uniform(3, 4, 4)), normalized(uniform(3, 4, 4, seed=1))

    assert grid_distance(single, placed(single, QUADRANTS), QUADRANTS).eq(0).all()
    assert_near(
        grid_distance(single, placed(elsewhere, (QUADRANTS + 1) % 4), QUADRANTS), torch.full((3,), 2.0)
    )


def test_the_distance_is_at_least_twice_the_mass_outside():
    single, composite = normalized(uniform(3, 4, 4)), normalized(uniform(3, 8, 8, seed=1) ** 4)

    distance = grid_distance(single, composite, QUADRANTS)
    inside = inside_mass(composite, QUADRANTS)

    literal = []
    for m, quadrant in enumerate(QUADRANTS.tolist()):
        row, column = 4 * (quadrant // 2), 4 * (quadrant % 2)
        literal.append(composite[m, row : row + 4, column : column + 4].sum())
    assert_near(inside, torch.stack(literal))
    assert (distance <= 2 + 1e-6).all() and (distance >= 2 * (1 - inside) - 1e-6).all()


def test_the_published_mean_over_cells_is_the_distance_over_their_number():
    single, composite = normalized(uniform(3, 4, 4)), normalized(uniform(3, 8, 8, seed=1))

    published = l1_loss(composite, placed(single, QUADRANTS))

    assert_near(published * 64, grid_distance(single, composite, QUADRANTS).mean())


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_network_whose_cells_see_one_quadrant_loses_nothing(pooling):
    network, given = color_network(pooling), color_batch()

    terms = consistency_loss(network, given, alone(given), consistency=1.0, composite_fraction=1.0)

    assert terms["consistency"].item() < 1e-5


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_only_the_weights_of_looked_at_classes_are_moved_and_no_bias(pooling):
    network, given = small_network(pooling, classes=5), batch()
    given = evolve(given, labels=torch.tensor([0, 2] * 4))
    terms = consistency_loss(network, given, alone(given), consistency=1.0, composite_fraction=1.0)

    terms["consistency"].backward()

    rows = network.head.weight.grad.abs().sum(1)
    assert (rows[[0, 2]] > 0).all() and rows[[1, 3, 4]].eq(0).all()
    assert network.head.bias.grad is None or network.head.bias.grad.eq(0).all()


@pytest.mark.parametrize(("pooling", "hidden_width"), KINDS)
def test_the_gradient_goes_through_both_maps(pooling, hidden_width):
    network, given = small_network(pooling, hidden_width).double(), batch(dtype=torch.float64)
    grids = draw_grids(truth_of(given.labels, 4), given.ids, 1.0, 0, 0)
    single = network.outputs(given.images[grids.anchors]).maps
    composite = network.outputs(tile(given.images[grids.rows])).maps
    for maps in (single, composite):
        maps.retain_grad()

    shares = [normalized(grad_cam(network, maps, grids.targets)) for maps in (single, composite)]
    grid_distance(*shares, grids.quadrants).sum().backward()

    assert single.grad.abs().max() > 0 and composite.grad.abs().max() > 0
    assert network.backbone.stem[0].weight.grad.abs().max() > 0


def test_a_second_backward_pass_has_the_gradient_that_differences_have():
    network, given = small_network("mean", 5).double(), batch(dtype=torch.float64)
    loss = partial(consistency_loss, network, given, alone(given), consistency=1.0, composite_fraction=1.0)
    loss()["consistency"].backward()

    for parameter in (network.hidden.weight, network.head.weight):
        at = divmod(int(parameter.grad.abs().argmax()), parameter.shape[1])
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[at] += sign * 1e-6
                values.append(loss()["consistency"].item())
                parameter[at] -= sign * 1e-6
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(parameter.grad[at].item(), rel=1e-4)


def test_the_loss_is_blind_to_the_order_of_the_batch():
    network, given = small_network().double(), batch(dtype=torch.float64)
    order = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    shuffled = ek.Batch(images=given.images[order], labels=given.labels[order], ids=given.ids[order])

    one, other = (consistency_loss(network, each, alone(each)) for each in (given, shuffled))

    assert one["consistency"].item() == pytest.approx(other["consistency"].item(), rel=1e-12)


class Shared(Step):
    """A step of one of several processes, that knows what the others would send."""

    def gather(self, values):
        return next(whole for whole in WHOLE if torch.equal(whole[self.rank :: self.processes], values))


WHOLE = []


@pytest.mark.parametrize(("pooling", "hidden_width"), KINDS)
def test_the_mean_over_processes_is_the_loss_and_the_gradient_of_one(pooling, hidden_width):
    network, given = small_network(pooling, hidden_width).double(), batch(7, torch.float64)
    expected = consistency_loss(network, given, alone(given), composite_fraction=0.4)["consistency"]
    wanted = torch.autograd.grad(expected, [*network.parameters()], allow_unused=True)
    WHOLE[:] = given.images, given.labels, given.ids

    total, processes = 0.0, 3
    for rank in range(processes):
        local = ek.Batch(
            **{name: getattr(given, name)[rank::processes] for name in ("images", "labels", "ids")}
        )
        step = Shared(batch_size=7, rank=rank, processes=processes)
        terms = consistency_loss(network, local, step, composite_fraction=0.4)
        total = total + terms["consistency"] * len(local) / 7  # as the trainer weighs them

    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
    gradients = torch.autograd.grad(total, [*network.parameters()], allow_unused=True)
    for gradient, value in zip(gradients, wanted, strict=True):
        if value is not None:
            torch.testing.assert_close(gradient, value, rtol=1e-9, atol=1e-12)


def test_composites_come_in_after_the_warm_epochs():
    network, given = small_network(), batch()

    def named(epoch, **settings):
        step = Step(batch_size=len(given), epoch=epoch, epochs=4)
        return list(consistency_loss(network, given, step, warm_epochs=2, **settings))

    assert named(2) == ["cross_entropy"] and named(3) == ["cross_entropy", "consistency"]
    assert named(3, consistency=0.0) == ["cross_entropy"]


def test_a_batch_of_one_class_learns_by_cross_entropy():
    network, given = small_network(), evolve(batch(), labels=torch.ones(8, dtype=torch.long))

    terms = consistency_loss(network, given, alone(given), composite_fraction=1.0)

    assert terms["consistency"].item() == 0 and terms["consistency"].requires_grad


def test_both_images_and_composites_move_the_running_statistics():
    network, given = small_network().train(), batch()
    norm = network.backbone.stem[1]
    steps = []
    norm.register_forward_hook(lambda *_: steps.append(norm.num_batches_tracked.item()))

    consistency_loss(network, given, alone(given))

    assert len(steps) == 2 and steps[1] == steps[0] + 1


def test_steps_on_one_batch_lessen_the_distance():
    given = tiny_dataset().train.batch(torch.arange(24))
    torch.manual_seed(0)
    network = small_network(classes=3).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    distances = []
    for _ in range(12):
        terms = consistency_loss(network, given, alone(given), consistency=1.0, composite_fraction=1.0)
        distances.append(terms["consistency"].item())
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()

    assert distances[-1] < 0.7 * distances[0] and torch.tensor(distances).isfinite().all()


def test_a_validation_split_that_is_sorted_by_class_is_measured():
    labels = torch.arange(3).repeat_interleave(80)
    images = torch.zeros(240, 3, 8, 8, dtype=torch.uint8)
    images[torch.arange(240), labels] = torch.randint(1, 256, (240, 8, 8)).byte()
    split = ArraySplit(images=images, labels=labels)
    dataset = ek.ImageDataset(
        name="sorted", classes=["red", "green", "blue"], size=(8, 8),
        splits=dict.fromkeys(("train", "validation", "test"), split),
    )  # fmt: skip

    facts = consistency_metrics(color_network(), dataset)

    assert facts["dead_maps"] == 0 and facts["map_overlap"] == pytest.approx(1, abs=1e-4)
    assert facts == consistency_metrics(color_network(), dataset)


def test_dead_maps_are_counted_and_left_out_of_the_means():
    network = color_network()
    with torch.no_grad():
        network.head.weight[1] = -1
        facts = consistency_metrics(network, tiny_dataset())

    labels = tiny_dataset().validation.labels
    assert facts["dead_maps"] == pytest.approx((labels == 1).double().mean().item())
    assert 0 <= facts["map_overlap"] <= facts["inside_mass"] + 1e-5 <= 1 + 1e-4
