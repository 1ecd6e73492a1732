"""Prototypes become patches of training images."""

import copy
import math

import pytest
import torch
from attrs import evolve
from plugin_cases import FLOAT32, assert_near, uniform, whole_split
from protopnet_networks import EPSILON, doubled, fitted_network, patches_of, small_network
from torch.nn import functional as F

from explainkit.data.types import ArraySplit
from explainkit.errors import TrainingError
from explainkit.testing import tiny_dataset
from explainkit_protopnet.model import similarity
from explainkit_protopnet.projection import activation_boxes, project


def literally_nearest(network, dataset, label, prototype):
    """(squared distance, image, cell) by looping over every patch of the class."""
    best = (math.inf, -1, -1)
    for index in (dataset.train.labels == label).nonzero()[:, 0].tolist():
        images = dataset.train.batch(torch.tensor([index])).images
        patches = patches_of(network, images)[0]
        for cell in range(len(patches)):
            distance = (patches[cell] - prototype).square().sum().item()
            if distance < best[0]:
                best = (distance, index, cell)
    return best


@pytest.mark.parametrize("batch_size", [1, 7, 96])
def test_projection_finds_what_a_loop_over_all_patches_finds(batch_size):
    network, dataset = small_network().double(), doubled(tiny_dataset())
    before = network.prototypes.detach().clone()

    with torch.no_grad():
        project(network, dataset, batch_size=batch_size)

    for p in range(0, 6, 2):
        distance, image, cell = literally_nearest(network, dataset, network.owner[p].item(), before[p])
        row, column = network.sources.cell[p].tolist()
        assert (network.sources.image[p].item(), row * 8 + column) == (image, cell)
        assert network.sources.moved[p].item() == pytest.approx(distance, rel=1e-5)


def test_each_prototype_is_its_source_patch_and_scores_the_ceiling_on_it():
    network, dataset = fitted_network(), tiny_dataset()

    for p in range(len(network.owner)):
        batch = dataset.train.batch(network.sources.image[p : p + 1])
        row, column = network.sources.cell[p].tolist()
        with torch.no_grad():
            patch = network.latent(batch.images)[0, :, row, column]
            score = network.decompose(batch.images).scores[0, p]
        assert_near(patch, network.prototypes[p])
        assert batch.labels[0] == network.owner[p]
        assert score.item() == pytest.approx(math.log(1 / EPSILON), abs=1e-2)  # rounding beside EPSILON
        assert torch.equal(network.sources.picture[p], dataset.train.images[network.sources.image[p]])


def test_a_second_projection_moves_nothing():
    network, dataset = fitted_network(), tiny_dataset()
    image, cell = network.sources.image.clone(), network.sources.cell.clone()

    with torch.no_grad():
        project(network, dataset, batch_size=13)

    assert network.sources.moved.max() < FLOAT32**2  # squared distances
    assert torch.equal(network.sources.image, image) and torch.equal(network.sources.cell, cell)


def test_of_equal_patches_the_first_image_is_taken():
    dataset = tiny_dataset()
    twice = ArraySplit(
        images=dataset.train.images[:48].repeat(2, 1, 1, 1), labels=dataset.train.labels[:48].repeat(2)
    )
    dataset = evolve(dataset, splits={**dataset.splits, "train": twice})

    for batch_size in (48, 96):
        network = small_network()
        with torch.no_grad():
            project(network, dataset, batch_size=batch_size)
        assert network.sources.image.max() < 48


def test_distinct_sources_cost_the_least_that_they_can():
    network, dataset = small_network(prototypes_per_class=3), tiny_dataset()
    with torch.no_grad():
        network.prototypes.copy_(network.prototypes[0] + 0.01 * uniform(9, 16))  # all want the same patch
        before = network.prototypes.clone()
        plain, distinct = copy.deepcopy(network), network
        project(plain, dataset)
        project(distinct, dataset, distinct=True)

    assert len(plain.sources.image.unique()) < 9 and len(distinct.sources.image.unique()) == 9
    patches = patches_of(network, whole_split(dataset).images)  # (N, h w, D)
    for label in range(3):
        own = (network.owner == label).nonzero()[:, 0]
        gaps = patches[dataset.train.labels == label][:, :, None] - before[own]
        cost = gaps.square().sum(3).amin(1)  # (n, 3)
        rows = range(len(cost))
        least = min(
            (cost[a, 0] + cost[b, 1] + cost[c, 2]).item()
            for a in rows for b in rows for c in rows if len({a, b, c}) == 3
        )  # fmt: skip
        assert distinct.sources.moved[own].sum().item() == pytest.approx(least, rel=1e-4)


def test_a_class_without_enough_images_is_named():
    dataset = tiny_dataset()
    lacking = ArraySplit(images=dataset.train.images[1::3], labels=dataset.train.labels[1::3])
    dataset = evolve(dataset, splits={**dataset.splits, "train": lacking})

    with pytest.raises(TrainingError, match="square 0"), torch.no_grad():
        project(small_network(), dataset)


def test_projection_changes_logits_by_no_more_than_the_theorem_allows():
    """Theorem 2.1: M log((1 + delta)(2 - delta)), where prototypes move little beside their distance."""
    generator, per_class = torch.Generator().manual_seed(0), 5
    for delta in (0.1, 0.3, 0.7):
        own_share = math.sqrt(1 + delta) - 1
        share = min(own_share, 1 - 1 / math.sqrt(2 - delta))
        bound = per_class * math.log((1 + delta) * (2 - delta))
        for _ in range(200):
            patch = torch.rand(8, generator=generator, dtype=torch.float64)
            shift = torch.randn(2, per_class, 8, generator=generator, dtype=torch.float64)
            turn = torch.randn(2, per_class, 8, generator=generator, dtype=torch.float64)
            reach = torch.rand(2, per_class, 1, generator=generator, dtype=torch.float64)
            reach[0] *= math.sqrt(1 - delta)
            reach[1] = 0.2 + reach[1]
            before = patch + shift / shift.norm(dim=2, keepdim=True) * reach
            far = torch.stack([own_share * reach[0], share * reach[1] - math.sqrt(EPSILON)]).clamp(min=0)
            after = before + turn / turn.norm(dim=2, keepdim=True) * far
            scores = [similarity((p - patch).square().sum(2), EPSILON).sum(1) for p in (before, after)]
            own, others = scores[1] - scores[0]
            assert own >= -bound and others <= bound


def test_boxes_are_those_of_a_loop():
    maps = uniform(200, 8, 8, seed=3, dtype=torch.float64)  # so that no rounding moves a pixel over the level

    boxes = activation_boxes(maps, (40, 48))

    upsampled = F.interpolate(maps[:, None], size=(40, 48), mode="bicubic", align_corners=False)[:, 0].clamp(
        min=0
    )
    for index in range(200):
        values = sorted(upsampled[index].flatten().tolist())
        level = values[int(0.95 * (len(values) - 1))]
        inside = [(x, y) for y in range(40) for x in range(48) if upsampled[index, y, x] > level]
        xs, ys = [x for x, _ in inside], [y for _, y in inside]
        assert boxes[index].tolist() == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
        assert len(inside) / (40 * 48) == pytest.approx(0.05, abs=0.005)


def test_the_box_of_the_peak_holds_the_peak_and_no_other_piece():
    maps = torch.zeros(1, 8, 8)
    maps[0, 1, 1], maps[0, 6, 6] = 2.0, 1.9

    whole, peak = activation_boxes(maps, (64, 64)), activation_boxes(maps, (64, 64), "peak")

    x0, y0, x1, y1 = peak[0].tolist()
    assert x0 <= 12 < x1 <= 24 and y0 <= 12 < y1 <= 24
    assert whole[0, 2] > 48 and whole[0, 0] == x0


def test_a_flat_map_has_the_whole_image_as_its_box():
    assert activation_boxes(torch.ones(2, 8, 8), (32, 40)).tolist() == [[0, 0, 40, 32]] * 2
    assert activation_boxes(torch.zeros(1, 8, 8), (32, 40), "peak").tolist() == [[0, 0, 40, 32]]
