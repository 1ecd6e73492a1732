"""Nested boxes, scales of their own, and the sum."""

from itertools import pairwise

import pytest
import torch
from attrs import evolve
from plugin_cases import FLOAT32, assert_near, uniform, whole_split
from racnn_networks import fitted_network, small_network
from torch.nn import functional as F

from explainkit.data.types import ArraySplit
from explainkit.testing import tiny_dataset, tiny_images
from explainkit_racnn.callbacks import begin_alike, fuse
from explainkit_racnn.zoom import crop, pixel_boxes


@pytest.mark.parametrize("size", [(32, 32), (20, 44)])
def test_a_network_looks_into_nested_boxes_inside_the_image(size):
    network, images = small_network(), uniform(4, 3, *size)

    outputs, decomposition = network.outputs(images), network.decompose(images)

    boxes, tolerance = decomposition.boxes, FLOAT32 * max(size)
    assert boxes.shape == (4, 3, 4)
    assert torch.equal(boxes[:, 0], torch.tensor([0.0, 0, size[1], size[0]]).expand(4, 4))
    for outer, inner in pairwise(boxes.unbind(1)):
        assert (inner[:, :2] >= outer[:, :2] - tolerance).all()
        assert (inner[:, 2:] <= outer[:, 2:] + tolerance).all()
    for squares, corners in zip(outputs.squares[1:], boxes[:, 1:].unbind(1), strict=True):
        for (x, y, half), box in zip(squares.tolist(), corners.tolist(), strict=True):
            wide, high = size[1], size[0]
            expected = [(x - half) * wide, (y - half) * high, (x + half) * wide, (y + half) * high]
            assert box == pytest.approx(expected, abs=tolerance)
    assert boxes[:, 1].std(0).min() > 0  # they follow the image
    half_sides = 2 * outputs.squares[1][:, 2] * outputs.proposed[1][:, 2]
    assert_near(outputs.squares[2][:, 2], half_sides)


def test_each_scale_sees_its_own_box_of_the_image():
    network, images = small_network(), uniform(3, 3, 32, 32)

    outputs, decomposition = network.outputs(images), network.decompose(images)

    for scale, square in enumerate(outputs.squares):
        crops = F.avg_pool2d(images, 2) if not scale else crop(images, square, 16, 0.5 * 0.9**scale)
        assert_near(network.backbones[scale](crops), outputs.features[scale])
    assert torch.equal(pixel_boxes(outputs.squares[1], (32, 32)), decomposition.boxes[:, 1])


def test_scales_share_nothing():
    network = small_network()
    begin_alike(network, tiny_dataset())

    owned = [{value.data_ptr() for value in part.state_dict().values()} for part in network.backbones]
    owned += [{value.data_ptr() for value in part.state_dict().values()} for part in network.heads]

    assert len(set.union(*owned)) == sum(map(len, owned))
    for scale in (1, 2):
        for parts in (network.backbones, network.heads):
            state, first = parts[scale].state_dict(), parts[0].state_dict()
            assert all(torch.equal(state[name], value) for name, value in first.items())
    with torch.no_grad():
        network.heads[1].bias += 1
    assert not torch.equal(network.heads[1].bias, network.heads[0].bias)


def pooled(features):
    """(N, D), a filter at a time."""
    return torch.stack([torch.stack([plane.mean() for plane in image]) for image in features])


def test_before_fusion_the_logits_are_the_mean_of_all_heads():
    network, images = small_network(), uniform(4, 3, 32, 32)

    outputs, decomposition = network.outputs(images), network.decompose(images)

    for scale in range(3):
        head = network.heads[scale]
        expected = pooled(outputs.features[scale]) @ head.weight.T + head.bias
        assert_near(outputs.by_scale[scale], expected)
    assert_near(decomposition.logits, outputs.by_scale.mean(0))
    assert_near(decomposition.scores @ decomposition.weights.T + decomposition.bias, decomposition.logits)


def test_after_fusion_they_are_one_heads_of_descriptors_of_length_one():
    network, images = small_network(), uniform(4, 3, 32, 32)
    network.fused.fill_(True)

    outputs, decomposition = network.outputs(images), network.decompose(images)

    descriptors = [pooled(features) for features in outputs.features]
    scores = torch.cat([descriptor / descriptor.norm(dim=1, keepdim=True) for descriptor in descriptors], 1)
    assert_near(decomposition.scores.view(4, 3, -1).norm(dim=2), torch.ones(4, 3))
    assert_near(decomposition.scores, scores)
    assert_near(decomposition.logits, scores @ network.fusion.weight.T + network.fusion.bias)


def test_the_one_head_begins_as_the_mean_of_all_heads():
    dataset, network = tiny_dataset(), small_network()
    first = ArraySplit(images=dataset.train.images[:1], labels=dataset.train.labels[:1])
    alone = evolve(dataset, splits={**dataset.splits, "train": first})
    images, other = whole_split(alone).images, small_network()
    before = network(images)

    with torch.no_grad():
        fuse(network, alone)
        fuse(other, dataset, images=7, chunk=3)

    assert_near(network(images), before)  # its lengths are the mean lengths
    images = dataset.train.batch(torch.arange(7)).images
    for scale, features in enumerate(other.outputs(images).features):
        weight = other.fusion.weight[:, 32 * scale : 32 * (scale + 1)]
        length = sum(row.norm().item() for row in pooled(features)) / 7
        assert_near(weight, other.heads[scale].weight * length / 3)
    assert_near(other.fusion.bias, sum(head.bias for head in other.heads) / 3)
    assert other.fused


def test_fewer_looks_are_what_the_first_looks_of_all_are():
    network, images = small_network(), uniform(2, 3, 32, 32)

    for fused in (False, True):
        network.fused.fill_(fused)
        whole, first = network.decompose(images), network.decompose(images, 1)
        assert_near(first.extras["logits_by_scale"][:, 0], whole.extras["logits_by_scale"][:, 0])
        count = first.scores.shape[1]
        assert_near(first.scores, whole.scores[:, :count])
        assert first.boxes.shape == (2, 1, 4) and first.weights.shape == (3, count)


def test_heads_sum_in_float32_under_autocast():
    network, images = fitted_network(), tiny_images()

    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        decomposition = network.decompose(images)

    for values in (decomposition.logits, decomposition.scores, decomposition.boxes):
        assert values.dtype == torch.float32
    assert_near(decomposition.scores @ decomposition.weights.T + decomposition.bias, decomposition.logits)


def test_a_unit_that_is_off_leaves_the_lengths_and_the_other_scales_alone():
    network, images = small_network(), uniform(2, 3, 32, 32)

    for fused in (False, True):
        network.fused.fill_(fused)
        network.unit_mask.fill_(True)
        before = network.decompose(images)
        network.unit_mask[32 + 5] = False  # filter 5 of the second scale
        after = network.decompose(images)

        expected = before.scores.clone()
        expected[:, 37] = 0
        assert torch.equal(after.scores, expected) and torch.equal(after.boxes, before.boxes)
        assert_near(after.logits, expected @ before.weights.T + before.bias)
        assert torch.equal(network(images), after.logits)
        by_scale, other = (item.extras["logits_by_scale"] for item in (after, before))
        assert torch.equal(by_scale[:, [0, 2]], other[:, [0, 2]])
        filter_5 = network.outputs(images).features[1][:, 5].mean((1, 2))
        own = network.heads[1].weight[:, 5]
        assert_near(by_scale[:, 1], other[:, 1] - filter_5[:, None] * own, scale=other)
